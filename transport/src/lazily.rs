//! Images that are used before they are here.

use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use copy::{Indexes, open_part, table_of};
use image::{Descriptor, Image};
use lazy::{Complaint, Fetch, LazyImage, LazyMount};
use task::{Cause, Task};
use tokio::runtime::Handle;

use crate::{
    CopyOptions, Error, Open, Origin, ResolvedSource, Result, Select, Sink, Source, Unverified,
};
use crate::{bridge, copy};

/// An image whose files are fetched when they are read.
pub struct Lazily {
    image: Arc<LazyImage>,
    source: Arc<dyn Source>,
    root: Descriptor,
    handle: Handle,
    task: Task,
}

/// Opens an image whose layers all have tables of contents; `None` where one has none, or where the
/// place gives no parts. What is fetched is kept in unnamed files in `room`; `complaint` gets the
/// reasons of reads that fail. Call it on the runtime.
///
/// # Errors
/// [`Error::Place`] when the source fails; a table is malformed.
pub async fn lazily(
    source: Box<dyn Source>,
    image: &Image,
    (room, indexes): (&Path, &dyn Indexes),
    complaint: Complaint,
    task: Task,
) -> Result<Option<Lazily>> {
    let source: Arc<dyn Source> = Arc::from(source);
    let layers = image.layers().map(|layer| layer.descriptor.clone());
    let mut tables = Vec::new();
    for layer in layers {
        let Some(table) = table_of(&*source, &layer, indexes, &task).await? else {
            return Ok(None);
        };
        tables.push((layer, table));
    }
    let handle = Handle::current();
    let remote: Arc<dyn Fetch> = Arc::new(Remote {
        source: Arc::clone(&source),
        handle: handle.clone(),
        task: task.child("files"),
    });
    let opened = LazyImage::new(tables, &remote, room, complaint);
    let opened = opened
        .map_err(|error| Error::at("opening the layers", crate::Side::Source)(error.into()))?;
    let root = image.descriptor().clone();
    Ok(Some(Lazily { image: Arc::new(opened), source, root, handle, task }))
}

impl Lazily {
    /// Shows the image's files; see [`LazyImage::mount`].
    ///
    /// # Errors
    /// [`lazy::Error::Mount`].
    pub fn mount(&self) -> lazy::Result<LazyMount> {
        self.image.mount()
    }

    /// Fetches the rest of the image, and then copies the whole to a place, as a copy from its
    /// registry would. What is read meanwhile goes first. It blocks; call it on a thread of its own.
    ///
    /// # Errors
    /// As [`copy()`]; the task was cancelled.
    pub fn keep(&self, sink: &dyn Sink) -> Result<Descriptor> {
        let filling = Error::at("fetching the rest of the image", crate::Side::Source);
        self.image.fill(&self.task).map_err(|error| filling(error.into()))?;
        let fetched =
            LazySource { image: Arc::clone(&self.image), inner: Arc::clone(&self.source) };
        let source = ResolvedSource::new(&fetched, self.root.clone());
        let options = CopyOptions { select: Select::All, ..CopyOptions::default() };
        // What let the image be run let it be kept.
        self.handle.block_on(copy(&source, sink, &Open, &options, &self.task))
    }
}

/// The registry, for who reads files.
struct Remote {
    source: Arc<dyn Source>,
    handle: Handle,
    task: Task,
}

impl Fetch for Remote {
    fn fetch(&self, layer: &Descriptor, part: Range<u64>) -> io::Result<Box<dyn Read + '_>> {
        let opened = self.handle.block_on(open_part(&*self.source, layer, part, &self.task));
        match opened.map_err(|error| io::Error::other(Cause::new(error)))? {
            Some(reader) => Ok(Box::new(reader)),
            None => Err(io::Error::other("the place gives no parts of layers any more")),
        }
    }
}

/// A source of the image with the layers that were fetched part by part.
struct LazySource {
    image: Arc<LazyImage>,
    inner: Arc<dyn Source>,
}

#[async_trait]
impl Source for LazySource {
    async fn resolve(&self) -> Result<Descriptor, Cause> {
        self.inner.resolve().await
    }

    async fn fetch(&self, descriptor: &Descriptor) -> Result<Unverified, Cause> {
        match self.image.layer(&descriptor.digest)? {
            Some(file) => Ok(bridge::stream(file)),
            None => self.inner.fetch(descriptor).await,
        }
    }

    async fn referrers(&self, subject: &Descriptor) -> Result<Vec<Descriptor>, Cause> {
        self.inner.referrers(subject).await
    }

    fn origin(&self) -> Origin {
        self.inner.origin()
    }
}
