//! `rcopy index`: lists of images for several platforms.

use app::place::Access;
use app::{App, Runnable, format, observed};
use clap::{Args, Subcommand};
use image::{Descriptor, Digest, Document, Index, MediaType, Node, Platform};
use options::Failure;
use options::ends::OneEnd;
use options::place::{ToFlags, location};
use options::progress::Progress;
use serde_json::json;
use task::{Cause, Kind, Task};
use transport::at::Memory;
use transport::{CopyOptions, Location, Overlay, Select, Source};

/// Show and make indexes
#[derive(Debug, Args)]
pub struct IndexCommand {
    #[command(subcommand)]
    command: IndexSubcommand,
}

#[derive(Debug, Subcommand)]
enum IndexSubcommand {
    List(List),
    Filter(Filter),
    Append(Append),
    Remove(Remove),
}

impl Runnable for IndexCommand {
    fn run(self, app: &App) -> Result<u8, Failure> {
        match self.command {
            IndexSubcommand::List(list) => list.run(app),
            IndexSubcommand::Filter(filter) => filter.run(app),
            IndexSubcommand::Append(append) => append.run(app),
            IndexSubcommand::Remove(remove) => remove.run(app),
        }
    }
}

/// List the entries of an index
#[derive(Debug, Args)]
struct List {
    /// The index
    image: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    end: OneEnd,
}

async fn index_of(
    source: &dyn Source,
    root: Result<Descriptor, Cause>,
    location: &Location,
) -> Result<Document<Index>, Failure> {
    let root = root.map_err(Failure::of)?;
    match transport::node(source, &root).await? {
        Node::Index(index) => Ok(index),
        Node::Manifest(_) => Err(Failure::usage(format!("{location} is one image, no index"))),
    }
}

impl List {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let location = location(&self.image, "docker://")?;
        let source = Access::new(app, self.end.reach_at(&location)?).source(&location)?;
        let index =
            app.wait(async { index_of(&*source, source.resolve().await, &location).await })??;
        if self.json {
            outln!("{:#}", json!(index.manifests));
            return Ok(0);
        }
        let row = |child: &Descriptor| {
            let platform = child.platform.as_ref().map_or("-".to_owned(), ToString::to_string);
            let kind = child.artifact_type.clone().unwrap_or_else(|| child.media_type.to_string());
            vec![platform, child.digest.to_string(), child.size.to_string(), kind]
        };
        let rows: Vec<_> = index.manifests.iter().map(row).collect();
        out!("{}", format::table(&["PLATFORM", "DIGEST", "SIZE", "TYPE"], &rows));
        Ok(0)
    }
}

/// Copy an index with some of its platforms
#[derive(Debug, Args)]
struct Filter {
    /// The index
    image: String,
    /// Keep this platform; repeatable
    #[arg(long, value_name = "OS/ARCH,…", value_delimiter = ',', required = true)]
    platform: Vec<Platform>,
    #[command(flatten)]
    to: ToFlags,
    #[command(flatten)]
    end: OneEnd,
}

impl Filter {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let from = location(&self.image, "docker://")?;
        let to = self.to.required()?;
        let root = observed(&format!("filter {from}"), Progress::Auto, |task| {
            let source = Access::new(app, self.end.reach_at(&from)?).source(&from)?;
            let sink =
                Access::unpacking(app, self.end.reach_at(&to)?, app.conf.settings.platform());
            let sink = sink.sink(&to, task)?;
            let options = CopyOptions {
                select: Select::List(self.platform.clone()),
                ..CopyOptions::default()
            };
            let gate = app.gate()?;
            Ok(app.wait(transport::copy(&*source, &*sink, &*gate, &options, task))??)
        })?;
        outln!("{}", options::place::told(&to, &root));
        Ok(0)
    }
}

/// Add images to an index, or make a new one
#[derive(Debug, Args)]
struct Append {
    /// Add to this index (default: a new one)
    base: Option<String>,
    /// Add this image or index; repeatable
    #[arg(short, long, value_name = "IMAGE", required = true)]
    manifest: Vec<String>,
    /// Add an index unchanged instead of its images
    #[arg(long)]
    no_flatten: bool,
    /// Make a Docker manifest list instead of an OCI index
    #[arg(long, conflicts_with = "base")]
    docker_empty_base: bool,
    #[command(flatten)]
    to: ToFlags,
    #[command(flatten)]
    end: OneEnd,
}

impl Append {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let to = self.to.required()?;
        let base = self.base.as_deref().map(|t| location(t, "docker://")).transpose()?;
        let images = self.manifest.iter().map(|text| location(text, "docker://"));
        let images = images.collect::<Result<Vec<_>, _>>()?;
        let media_type = match self.docker_empty_base {
            true => MediaType::DOCKER_INDEX,
            false => MediaType::OCI_INDEX,
        };
        let root = observed("index append", Progress::Auto, |task| {
            let assembly = Assembly::read(
                app,
                &self.end,
                (base.as_ref(), media_type),
                &images,
                task,
                !self.no_flatten,
            )?;
            assembly.publish(app, &self.end, &to, task)
        })?;
        outln!("{}", options::place::told(&to, &root));
        Ok(0)
    }
}

/// Copy an index without some of its entries
#[derive(Debug, Args)]
struct Remove {
    /// The index
    image: String,
    /// Leave out entries of this platform; repeatable
    #[arg(
        long,
        value_name = "OS/ARCH,…",
        value_delimiter = ',',
        required_unless_present = "digest"
    )]
    platform: Vec<Platform>,
    /// Leave out the entry of this digest; repeatable
    #[arg(long, value_name = "DIGEST")]
    digest: Vec<Digest>,
    #[command(flatten)]
    to: ToFlags,
    #[command(flatten)]
    end: OneEnd,
}

impl Remove {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let from = location(&self.image, "docker://")?;
        let to = self.to.required()?;
        let root = observed(&format!("remove from {from}"), Progress::Auto, |task| {
            let base = (Some(&from), MediaType::OCI_INDEX);
            let mut assembly = Assembly::read(app, &self.end, base, &[], task, true)?;
            let missing =
                |what: String| Failure::new(Kind::NotFound, format!("{from} has no entry {what}"));
            for platform in &self.platform {
                let is = |child: &Descriptor| child.platform.as_ref() == Some(platform);
                if !assembly.leave_out(is) {
                    return Err(missing(format!("for {platform}")));
                }
            }
            for digest in &self.digest {
                if !assembly.leave_out(|child: &Descriptor| child.digest == *digest) {
                    return Err(missing(digest.to_string()));
                }
            }
            assembly.publish(app, &self.end, &to, task)
        })?;
        outln!("{}", options::place::told(&to, &root));
        Ok(0)
    }
}

/// An index of what is elsewhere, to be written.
pub(crate) struct Assembly {
    /// The index.
    pub index: Index,
    /// What the images are that it is made of.
    pub roots: Vec<Descriptor>,
    media_type: MediaType,
    sources: Vec<Box<dyn Source>>,
}

impl Assembly {
    /// Reads what is to be in an index. Of an image that is an index itself, its entries come in,
    /// where `flatten` says so.
    ///
    /// # Errors
    /// An image is not there; the base is no index.
    pub(crate) fn read(
        app: &App,
        end: &OneEnd,
        (base, media_type): (Option<&Location>, MediaType),
        images: &[Location],
        task: &Task,
        flatten: bool,
    ) -> Result<Assembly, Failure> {
        let open = |at: &Location| Access::new(app, end.reach_at(at)?).source(at);
        let mut index = Index::new(Vec::new());
        index.media_type = Some(media_type.clone());
        let mut assembly = Assembly { index, roots: Vec::new(), media_type, sources: Vec::new() };
        if let Some(base) = base {
            let source = open(base)?;
            let read =
                app.wait(async { index_of(&*source, source.seal(task).await, base).await })??;
            assembly.media_type = read.descriptor().media_type.clone();
            assembly.index = read.into_value();
            assembly.sources.push(source);
        }
        for at in images {
            let source = open(at)?;
            let root = app.wait(source.seal(task))?.map_err(Failure::of)?;
            for child in app.wait(transport::entries(&*source, &root, !flatten))?? {
                assembly.index.manifests.retain(|known| known.digest != child.digest);
                assembly.index.manifests.push(child);
            }
            assembly.roots.push(root);
            assembly.sources.push(source);
        }
        Ok(assembly)
    }

    /// Leaves entries out, with what says that it is about them; gives back whether there were any.
    fn leave_out(&mut self, is: impl Fn(&Descriptor) -> bool) -> bool {
        let gone = self.index.manifests.extract_if(.., |child| is(child));
        let gone: Vec<String> = gone.map(|child| child.digest.to_string()).collect();
        self.index.manifests.retain(|child| {
            let about = child.annotations.get("vnd.docker.reference.digest");
            !about.is_some_and(|about| gone.contains(about))
        });
        !gone.is_empty()
    }

    /// The index as it is written.
    pub(crate) fn document(&self) -> Document<Index> {
        Document::write(self.media_type.clone(), self.index.clone())
    }

    /// Brings what is listed to the destination, then the index.
    ///
    /// # Errors
    /// The destination does not take it; the policy refuses an image.
    pub(crate) fn publish(
        &self,
        app: &App,
        end: &OneEnd,
        to: &Location,
        task: &Task,
    ) -> Result<Descriptor, Failure> {
        for source in &self.sources {
            bring(app, end, &**source, to, task)?;
        }
        // What it lists is at the destination by now.
        let below: Box<dyn Source> = match to {
            Location::Store(_) => Box::new(transport::at::StoreImage::new(app.store()?, None)),
            Location::Registry(_) | Location::Layout(..) => {
                Access::new(app, end.reach_at(to)?).source(to)?
            }
            _ => Box::new(Memory::new().image("none")),
        };
        let document = self.document();
        crate::edit::publish(app, end, &Overlay::of_index(&*below, &document), to, task)
    }
}

/// Copies an image to the destination without a name.
fn bring(
    app: &App,
    end: &OneEnd,
    source: &dyn Source,
    to: &Location,
    task: &Task,
) -> Result<(), Failure> {
    let root = app.wait(source.seal(task))?.map_err(Failure::of)?;
    let access = Access::new(app, end.reach_at(to)?);
    let sink: Box<dyn transport::Sink> = match &unnamed(to, &root)? {
        None => Box::new(transport::at::StoreImage::new(app.store()?, None)),
        Some(at) => access.sink(at, task)?,
    };
    let options = CopyOptions { select: Select::All, ..CopyOptions::default() };
    let gate = app.gate()?;
    app.wait(transport::copy(source, &*sink, &*gate, &options, task))??;
    Ok(())
}

/// The same place for content that gets no name; `None` for the store.
///
/// # Errors
/// The place holds one image only.
pub(crate) fn unnamed(to: &Location, root: &Descriptor) -> Result<Option<Location>, Failure> {
    match to {
        Location::Store(_) => Ok(None),
        place => place.pinned(root.digest).map(Some).ok_or_else(|| {
            Failure::usage(format!("{place} cannot be added to"))
                .hint("write to a registry, a layout or the store, and copy from there")
        }),
    }
}
