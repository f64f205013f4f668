//! `rbuild buildx imagetools`: images on registries, as docker buildx shows them and puts them
//! together.

use std::path::PathBuf;

use app::place::{Access, copy_between};
use app::{App, Runnable, format, observed};
use clap::{Args, Subcommand};
use image::{Descriptor, MediaType, Platform};
use options::Failure;
use options::ends::OneEnd;
use options::place::location;
use options::progress::Progress;
use task::Kind;
use transport::{CopyOptions, Location, Select};

use crate::index::Assembly;

/// Show and make images on registries
#[derive(Debug, Subcommand)]
#[expect(missing_docs, reason = "the help of each command says it")]
pub enum Imagetools {
    Create(Create),
    Inspect(Inspect),
}

impl Runnable for Imagetools {
    fn run(self, app: &App) -> Result<u8, Failure> {
        run_each! { self, app, Imagetools { Create, Inspect, } }
    }
}

/// Make one image of several, each for a platform of its own
#[derive(Debug, Args)]
pub struct Create {
    /// The images: names, or digests in the repository of the first tag
    #[arg(value_name = "SOURCE")]
    sources: Vec<String>,
    /// The name of the new image; repeatable
    #[arg(short, long, value_name = "NAME", required_unless_present = "dry_run")]
    tag: Vec<String>,
    /// Read a descriptor of a source from this file; repeatable
    #[arg(short, long, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// Add to the image that has the name
    #[arg(long, requires = "tag")]
    append: bool,
    /// Print the manifest that would be written
    #[arg(long)]
    dry_run: bool,
    /// Annotate the index, or its entries with manifest-descriptor: in front; repeatable
    #[arg(long, value_name = "[TYPE:]KEY=VALUE")]
    annotation: Vec<String>,
    /// Take the images of these platforms only; repeatable
    #[arg(long, value_name = "OS/ARCH,…", value_delimiter = ',')]
    platform: Vec<Platform>,
    /// Make an index of one image, too; with false it is copied as it is
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    prefer_index: bool,
    #[command(flatten)]
    end: OneEnd,
}

impl Runnable for Create {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let to = self.tag.iter().map(|tag| location(tag, "docker://"));
        let to = to.collect::<Result<Vec<_>, _>>()?;
        let images = self.images(to.first())?;
        let base = to.first().filter(|_| self.append);
        if images.is_empty() && base.is_none() {
            return Err(
                Failure::usage("there is no source").hint("name the images to put together")
            );
        }
        let made = observed("imagetools create", Progress::Auto, |task| {
            let base = (base, MediaType::OCI_INDEX);
            let mut assembly = Assembly::read(app, &self.end, base, &images, task, true)?;
            self.change(&mut assembly)?;
            if self.dry_run {
                app::out::bytes(assembly.document().bytes());
                return Ok(Vec::new());
            }
            let publish = |to: &Location| match self.unchanged(&assembly) {
                true => {
                    let options = CopyOptions { select: Select::All, ..CopyOptions::default() };
                    let end = |at| Ok::<_, Failure>(Access::new(app, self.end.reach_at(at)?));
                    let (from, sink, gate) = (end(&images[0])?, end(to)?, app.gate()?);
                    copy_between(&from, &images[0], &sink, to, &*gate, &options, task)
                }
                false => assembly.publish(app, &self.end, to, task),
            };
            to.iter().map(|to| Ok((to, publish(to)?))).collect::<Result<Vec<_>, Failure>>()
        })?;
        for (to, root) in made {
            outln!("{}", options::place::told(to, &root));
        }
        Ok(0)
    }
}

impl Create {
    /// Whether the one source is copied as it is.
    fn unchanged(&self, assembly: &Assembly) -> bool {
        let changes = !self.annotation.is_empty() || !self.platform.is_empty() || self.append;
        let whole = |root: &Descriptor| root.media_type.is_index() || !self.prefer_index;
        !changes && matches!(assembly.roots.as_slice(), [root] if whole(root))
    }

    /// The sources; what has no repository is in the first tag's.
    fn images(&self, to: Option<&Location>) -> Result<Vec<Location>, Failure> {
        let mut texts = self.sources.clone();
        for file in &self.file {
            let text = std::fs::read_to_string(file);
            texts.push(
                text.map_err(|error| Failure::io(format!("reading {}", file.display()), &error))?,
            );
        }
        let one = |text: &String| {
            let digest = match text.trim_start().starts_with('{') {
                true => serde_json::from_str::<Descriptor>(text)
                    .map(|descriptor| Some(descriptor.digest))
                    .map_err(|error| {
                        Failure::usage(format!("{text:?} is no descriptor: {error}"))
                    })?,
                false => text.parse().ok(),
            };
            let Some(digest) = digest else { return location(text, "docker://") };
            to.and_then(|to| to.pinned(digest)).ok_or_else(|| {
                Failure::usage(format!("{digest} is in no repository"))
                    .hint("name the new image: --tag NAME; the digest is looked up beside it")
            })
        };
        texts.iter().map(one).collect()
    }

    fn change(&self, assembly: &mut Assembly) -> Result<(), Failure> {
        let index = &mut assembly.index;
        if !self.platform.is_empty() {
            let wanted = |platform: &Platform| self.platform.contains(platform);
            index.manifests.retain(|entry| entry.platform.as_ref().is_some_and(wanted));
            if index.manifests.is_empty() {
                return Err(Failure::new(Kind::NotFound, "no source has one of these platforms"));
            }
        }
        for text in &self.annotation {
            let (key, value) = text
                .split_once('=')
                .ok_or_else(|| Failure::usage(format!("annotation {text:?} is not KEY=VALUE")))?;
            let (key, value) = (key.to_owned(), value.to_owned());
            match key.split_once(':') {
                None => drop(index.annotations.insert(key, value)),
                Some(("index", key)) => drop(index.annotations.insert(key.to_owned(), value)),
                Some(("manifest-descriptor", key)) => {
                    for entry in &mut index.manifests {
                        entry.annotations.insert(key.to_owned(), value.clone());
                    }
                }
                Some((kind, _)) => {
                    let what = format!("annotations of {kind:?} are not written here");
                    return Err(Failure::usage(what)
                        .hint("annotate index: or manifest-descriptor:; an image has its annotations from its build"));
                }
            }
        }
        Ok(())
    }
}

/// Show an image on a registry, without its content
#[derive(Debug, Args)]
pub struct Inspect {
    /// The image
    image: String,
    /// Print the manifest unchanged
    #[arg(long, conflicts_with = "format")]
    raw: bool,
    /// Format the output with a Go template: .Name, .Manifest, .Image, .Provenance, .SBOM
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    #[command(flatten)]
    end: OneEnd,
}

impl Runnable for Inspect {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let location = location(&self.image, "docker://")?;
        let source = Access::new(app, self.end.reach_at(&location)?).source(&location)?;
        let (root, node) = app.wait(async {
            let root = source.resolve().await.map_err(Failure::of)?;
            let node = transport::node(&*source, &root).await?;
            Ok::<_, Failure>((root, node))
        })??;
        if self.raw {
            app::out::bytes(node.bytes());
            return Ok(0);
        }
        let name = match &location {
            Location::Registry(reference) => reference.to_string(),
            other => other.to_string(),
        };
        match &self.format {
            None => out!("{}", builder::remote_text(&name, &root, &node)),
            Some(template) => {
                // Only what the template names is fetched.
                let named = |field: &str| template == "json" || template.contains(field);
                let document = builder::remote_document(&*source, (&name, &root, &node), named);
                let document = app.wait(document)??;
                outln!("{}", format::template(template, &document)?);
            }
        }
        Ok(0)
    }
}
