//! `rcopy artifact`: artifacts on their own or attached to images.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use app::place::Access;
use app::{App, Runnable, format, observed};
use clap::{Args, Subcommand, ValueEnum};
use image::{Descriptor, MediaType, Node};
use options::ends::OneEnd;
use options::place::location;
use options::progress::Progress;
use options::{Dialect, Failure};
use serde_json::json;
use task::{Kind, Task};
use transport::at::{Memory, StoreImage};
use transport::{
    ArtifactFiles, CopyOptions, Location, Open, Overlay, Referrer, Select, Source, TITLE,
};

/// How deep what refers to what refers is shown.
const DEPTH: usize = 8;

/// Push, pull, attach and find artifacts
#[derive(Debug, Args)]
pub struct Artifact {
    #[command(subcommand)]
    command: ArtifactSubcommand,
}

#[derive(Debug, Subcommand)]
enum ArtifactSubcommand {
    Push(Push),
    Pull(Pull),
    Attach(Attach),
    Discover(Discover),
}

impl Runnable for Artifact {
    fn run(self, app: &App) -> Result<u8, Failure> {
        run_each! { self.command, app, ArtifactSubcommand {
            Push, Pull, Attach, Discover,
        } }
    }
}

/// The content of an artifact.
#[derive(Debug, Args)]
struct ArtifactFlags {
    /// The artifact's media type, such as application/vnd.example.sbom
    #[arg(long, value_name = "TYPE", value_parser = media_type)]
    artifact_type: Option<String>,
    /// Add an annotation to the manifest
    #[arg(short, long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    /// Add a config: FILE[:TYPE]
    #[arg(long, value_name = "FILE[:TYPE]")]
    config: Option<String>,
    /// The files: FILE[:TYPE]; - is standard input, and has no name in the artifact
    #[arg(value_name = "FILE[:TYPE]")]
    files: Vec<String>,
}

fn media_type(text: &str) -> Result<String, String> {
    let good = |part: &str| {
        !part.is_empty()
            && part.len() <= 127
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b))
    };
    match text.split_once('/') {
        Some((kind, rest)) if good(kind) && good(rest) => Ok(text.to_owned()),
        _ => Err(format!("{text:?} is not a media type such as application/json")),
    }
}

/// `FILE` or `FILE:TYPE`; a colon that no type follows belongs to the file.
fn file_and_type(text: &str, usual: &str) -> (PathBuf, MediaType) {
    match text.rsplit_once(':') {
        Some((file, kind)) if media_type(kind).is_ok() => {
            (file.into(), MediaType::from(kind.to_owned()))
        }
        _ => (text.into(), MediaType::from(usual.to_owned())),
    }
}

impl ArtifactFlags {
    /// The artifact as a source, ready to be copied.
    fn source<'a>(
        &self,
        nothing: &'a dyn Source,
        subject: Option<&Descriptor>,
    ) -> Result<Overlay<'a>, Failure> {
        let pairs = self.annotation.iter().map(|text| match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(Failure::usage(format!("--annotation {text:?}: it is not KEY=VALUE"))),
        });
        let annotations = pairs.collect::<Result<BTreeMap<_, _>, _>>()?;
        if self.artifact_type.is_none() && self.config.is_none() {
            return Err(
                Failure::usage("the artifact has no type").hint("give --artifact-type TYPE")
            );
        }
        let file = |text: &String| file_and_type(text, "application/octet-stream");
        let config = "application/vnd.oci.image.config.v1+json";
        let piped = match &self.files[..] {
            [one] if one == "-" || one.starts_with("-:") => {
                Some(crate::transfer::piped("name the files, or send the content in")?)
            }
            all if all.iter().any(|one| one == "-" || one.starts_with("-:")) => {
                return Err(Failure::usage("standard input is the only file, if it is one"));
            }
            _ => None,
        };
        let mut files: Vec<_> = self.files.iter().map(file).collect();
        if let (Some(piped), Some((path, _))) = (&piped, files.first_mut()) {
            *path = piped.path().to_owned();
        }
        let parts = ArtifactFiles {
            artifact_type: self.artifact_type.clone(),
            annotations,
            config: self.config.as_ref().map(|text| file_and_type(text, config)),
            empty_config: None,
            untitled: piped.is_some(),
            files,
        };
        Ok(parts.overlay(nothing, subject)?)
    }
}

/// Push an artifact under a name of its own
#[derive(Debug, Args)]
struct Push {
    /// The destination: a name on a registry, or transport:…
    name: String,
    #[command(flatten)]
    parts: ArtifactFlags,
    #[command(flatten)]
    end: OneEnd,
}

impl Push {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let to = location(&self.name, "docker://")?;
        let nothing = Memory::new().image("none");
        let made = self.parts.source(&nothing, None)?;
        let root = observed(&format!("push {to}"), Progress::Auto, |task| {
            crate::edit::publish(app, &self.end, &made, &to, task)
        })?;
        pushed(&to, &root);
        Ok(0)
    }
}

/// Says what was pushed.
fn pushed(to: &Location, root: &Descriptor) {
    if Dialect::spoken().prints_pushes() {
        outln!("Pushed {to}\nDigest: {}", root.digest);
    } else {
        outln!("{}", options::place::told(to, root));
    }
}

/// Attach an artifact to an image or to another artifact
#[derive(Debug, Args)]
struct Attach {
    /// The subject: a name on a registry, or transport:…
    subject: String,
    #[command(flatten)]
    parts: ArtifactFlags,
    /// Attach to the image of this platform in an index, not to the index
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<image::Platform>,
    #[command(flatten)]
    end: OneEnd,
}

impl Attach {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let at = location(&self.subject, "docker://")?;
        let access = Access::new(app, self.end.reach_at(&at)?);
        let source = access.source(&at)?;
        let (subject, root) = observed(&format!("attach to {at}"), Progress::Auto, |task| {
            let subject = app.wait(async {
                let named = source.seal(task).await.map_err(Failure::of)?;
                subject(&*source, named, self.platform.as_ref()).await
            })??;
            let nothing = Memory::new().image("none");
            let made = self.parts.source(&nothing, Some(&subject))?;
            let root = made.root().clone();
            let sink: Box<dyn transport::Sink> = match crate::index::unnamed(&at, &root)? {
                None => Box::new(StoreImage::new(app.store()?, None)),
                Some(to) => access.sink(&to, task)?,
            };
            let options = CopyOptions { select: Select::All, ..CopyOptions::default() };
            let root = app.wait(transport::copy(&made, &*sink, &Open, &options, task))??;
            Ok((subject, root))
        })?;
        eprintln!("attached to {}", subject.digest);
        pushed(&at, &root);
        Ok(0)
    }
}

async fn subject(
    source: &dyn Source,
    named: Descriptor,
    platform: Option<&image::Platform>,
) -> Result<Descriptor, Failure> {
    match platform {
        Some(platform) => {
            let source = transport::ResolvedSource::new(source, named);
            let (_, image) = transport::open(&source, platform).await?;
            Ok(image.descriptor().bare())
        }
        None => Ok(named.bare()),
    }
}

/// Fetch the files of an artifact
#[derive(Debug, Args)]
struct Pull {
    /// The artifact: a name on a registry, or transport:…
    name: String,
    /// Write the files to this directory; - prints the only one
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    output: PathBuf,
    /// Overwrite existing files
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    end: OneEnd,
}

impl Pull {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let from = location(&self.name, "docker://")?;
        let source = Access::new(app, self.end.reach_at(&from)?).source(&from)?;
        let manifest = observed(&format!("resolve {from}"), Progress::Auto, |task| {
            app.wait(async {
                let root = source.resolve().await.map_err(Failure::of)?;
                let gate = app.gate()?;
                transport::permit(&*source, &*gate, &root, &root, task).await?;
                match transport::node(&*source, &root).await? {
                    Node::Manifest(manifest) => Ok(manifest),
                    Node::Index(_) => {
                        Err(Failure::usage(format!("{from} is an index, no artifact")))
                    }
                }
            })?
        })?;
        if self.output == Path::new("-") {
            return print_only(app, &*source, &manifest.layers, &from.to_string());
        }
        let files = transport::titled(&manifest)?;
        std::fs::create_dir_all(&self.output)
            .map_err(|error| Failure::io(format!("making {}", self.output.display()), &error))?;
        observed(&format!("pull {from}"), Progress::Auto, |task| {
            for (layer, title) in &files {
                self.fetch(app, &*source, layer, title, task)?;
            }
            Ok(())
        })?;
        files.iter().for_each(|(_, title)| outln!("{}", self.output.join(title).display()));
        if files.len() < manifest.layers.len() {
            let left =
                manifest.layers.iter().filter(|layer| !layer.annotations.contains_key(TITLE));
            let left = left.filter(|layer| layer.media_type != MediaType::OCI_EMPTY).count();
            if left > 0 {
                eprintln!(
                    "{left} blobs have no name and were skipped; `rcopy blob get` fetches them"
                );
            }
        }
        Ok(0)
    }

    fn fetch(
        &self,
        app: &App,
        source: &dyn Source,
        layer: &Descriptor,
        title: &str,
        task: &Task,
    ) -> Result<(), Failure> {
        let to = self.output.join(title);
        if !self.overwrite && to.symlink_metadata().is_ok() {
            return Err(Failure::new(Kind::Refused, format!("{} is there already", to.display()))
                .hint("use --overwrite, or another --output"));
        }
        Ok(app.wait(transport::fetch_file(source, layer, &to, task))??)
    }
}

/// Prints the only file of an artifact.
fn print_only(
    app: &App,
    source: &dyn Source,
    layers: &[Descriptor],
    name: &str,
) -> Result<u8, Failure> {
    let [layer] = layers else {
        let what = format!("{name} has {} files, and one can be printed", layers.len());
        return Err(Failure::usage(what).hint("name a directory: --output DIR"));
    };
    observed(&format!("pull {name}"), Progress::Quiet, |task| {
        let print = |mut reader: transport::bridge::BlobReader| {
            std::io::copy(&mut reader, &mut std::io::stdout()).map_err(transport::Error::Stream)
        };
        Ok(app.wait(transport::read_layer(source, layer, task, print))??)
    })?;
    Ok(0)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Tree,
    Table,
    Json,
}

/// Show what is attached to an image
#[derive(Debug, Args)]
pub struct Discover {
    /// The subject: a name on a registry, or transport:…
    subject: String,
    /// Show artifacts of this type only, with everything attached to them
    #[arg(long, value_name = "TYPE")]
    artifact_type: Option<String>,
    /// Print the result in this format
    #[arg(long, value_enum, default_value = "tree")]
    format: Output,
    /// Show annotations
    #[arg(short, long)]
    verbose: bool,
    /// Use the image of this platform in an index, not the index
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<image::Platform>,
    #[command(flatten)]
    end: OneEnd,
}

impl Runnable for Discover {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let at = location(&self.subject, "docker://")?;
        let source = Access::new(app, self.end.reach_at(&at)?).source(&at)?;
        let (root, mut attached) = app.wait(async {
            let named = source.resolve().await.map_err(Failure::of)?;
            let root = subject(&*source, named, self.platform.as_ref()).await?;
            let attached = transport::referrers(&*source, &root, DEPTH).await;
            let mut attached = attached.map_err(Failure::of)?;
            let tagged = transport::tagged(&*source, &root).await;
            attached.extend(tagged.map_err(Failure::of)?);
            Ok::<_, Failure>((root, attached))
        })??;
        if let Some(kind) = &self.artifact_type {
            attached.retain(|one| one.kind == *kind);
        }
        match self.format {
            Output::Json => {
                let list: Vec<_> = attached.iter().map(Referrer::json).collect();
                outln!(
                    "{:#}",
                    json!({"digest": root.digest, "mediaType": root.media_type, "size": root.size, "referrers": list})
                );
            }
            Output::Table => {
                let rows: Vec<_> = attached
                    .iter()
                    .map(|one| vec![one.descriptor.digest.to_string(), one.kind.clone()])
                    .collect();
                out!("{}", format::table(&["DIGEST", "ARTIFACT TYPE"], &rows));
            }
            Output::Tree => {
                outln!("{at}@{}", root.digest);
                self.tree(&attached, "");
            }
        }
        Ok(0)
    }
}

impl Discover {
    fn tree(&self, list: &[Referrer], indent: &str) {
        for (at, one) in list.iter().enumerate() {
            let last = at + 1 == list.len();
            let (branch, below) =
                if last { ("└── ", "    ") } else { ("├── ", "│   ") };
            outln!("{indent}{branch}{} {}", one.kind, one.descriptor.digest);
            let deeper = format!("{indent}{below}");
            if self.verbose {
                for (key, value) in &one.descriptor.annotations {
                    outln!("{deeper}  {key}={}", value.escape_debug());
                }
            }
            self.tree(&one.referrers, &deeper);
        }
    }
}
