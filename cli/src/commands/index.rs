//! `rcopy index`: lists of images for several platforms.

use clap::{Args, Subcommand};
use image::{Descriptor, Document, Index, MediaType, Node, Platform};
use options::Failure;
use options::ends::OneEnd;
use options::place::{ToFlags, location};
use options::progress::Progress;
use serde_json::json;
use task::{Cause, Task};
use transport::at::Memory;
use transport::{CopyOptions, Location, Overlay, Select, Source};

use super::place::Access;
use crate::app::{App, observed};
use crate::commands::Runnable;
use crate::format;

/// Show and make indexes
#[derive(Debug, Args)]
pub(crate) struct IndexCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(List),
    Filter(Filter),
    Append(Append),
}

impl Runnable for IndexCommand {
    fn run(self, app: &App) -> Result<u8, Failure> {
        match self.command {
            Command::List(list) => list.run(app),
            Command::Filter(filter) => filter.run(app),
            Command::Append(append) => append.run(app),
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
        let root = observed("index append", Progress::Auto, |task| {
            let open = |at: &Location| Access::new(app, self.end.reach_at(at)?).source(at);
            let media_type = match self.docker_empty_base {
                true => MediaType::DOCKER_INDEX,
                false => MediaType::OCI_INDEX,
            };
            let (mut index, mut media_type) = (Index::new(Vec::new()), media_type);
            index.media_type = Some(media_type.clone());
            if let Some(base) = &base {
                let source = open(base)?;
                let read =
                    app.wait(async { index_of(&*source, source.seal(task).await, base).await })??;
                media_type = read.descriptor().media_type.clone();
                index = read.into_value();
                self.bring(app, &*source, &to, Select::All, task)?;
            }
            for at in &images {
                let source = open(at)?;
                let root = app.wait(source.seal(task))?.map_err(Failure::of)?;
                let added = app.wait(transport::entries(&*source, &root, self.no_flatten))??;
                self.bring(app, &*source, &to, Select::All, task)?;
                for child in added {
                    index.manifests.retain(|known| known.digest != child.digest);
                    index.manifests.push(child);
                }
            }
            let document = Document::write(media_type, index);
            // What it lists is at the destination by now.
            let access = Access::new(app, self.end.reach_at(&to)?);
            let below: Box<dyn Source> = match &to {
                Location::Registry(_) | Location::Layout(..) | Location::Store(_) => match &to {
                    Location::Store(_) => {
                        Box::new(transport::at::StoreImage::new(app.store()?, None))
                    }
                    _ => access.source(&to)?,
                },
                _ => Box::new(Memory::new().image("none")),
            };
            let made = Overlay::of_index(&*below, &document);
            super::edit::publish(app, &self.end, &made, &to, task)
        })?;
        outln!("{}", options::place::told(&to, &root));
        Ok(0)
    }

    /// Copies an image to the destination without a name.
    fn bring(
        &self,
        app: &App,
        source: &dyn Source,
        to: &Location,
        select: Select,
        task: &Task,
    ) -> Result<(), Failure> {
        let root = app.wait(source.seal(task))?.map_err(Failure::of)?;
        let nameless = unnamed(to, &root)?;
        let access = Access::new(app, self.end.reach_at(to)?);
        let sink: Box<dyn transport::Sink> = match &nameless {
            None => Box::new(transport::at::StoreImage::new(app.store()?, None)),
            Some(at) => access.sink(at, task)?,
        };
        let options = CopyOptions { select, ..CopyOptions::default() };
        let gate = app.gate()?;
        app.wait(transport::copy(source, &*sink, &*gate, &options, task))??;
        Ok(())
    }
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
