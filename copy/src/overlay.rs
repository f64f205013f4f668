use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use image::{Descriptor, Digest, Tag};
use rustix::fs::{Mode, OFlags};
use task::Cause;

use crate::{Error, Location, Origin, Result, Source, Unverified, bridge};

/// A source with changes laid over it: another root, documents and blobs that it does not have.
/// Everything else is read from the source itself.
pub struct Overlay<'a> {
    below: &'a dyn Source,
    root: Descriptor,
    documents: BTreeMap<Digest, Bytes>,
    blobs: BTreeMap<Digest, Arc<File>>,
    elsewhere: BTreeMap<Digest, &'a dyn Source>,
}

impl<'a> Overlay<'a> {
    /// `below` with this root; nothing is laid over it yet.
    pub fn new(below: &'a dyn Source, root: Descriptor) -> Overlay<'a> {
        Overlay {
            below,
            root,
            documents: BTreeMap::new(),
            blobs: BTreeMap::new(),
            elsewhere: BTreeMap::new(),
        }
    }

    /// What the name points at.
    pub fn root(&self) -> &Descriptor {
        &self.root
    }

    /// What the source's name points at now.
    pub fn set_root(&mut self, root: Descriptor) {
        self.root = root;
    }

    /// Adds a document or another small blob.
    pub fn add_bytes(&mut self, digest: Digest, bytes: Bytes) {
        self.documents.insert(digest, bytes);
    }

    /// Whether anything is laid over the source.
    pub fn changes(&self) -> bool {
        !self.documents.is_empty() || !self.blobs.is_empty()
    }

    /// Adds a blob that a file holds.
    pub fn add_file(&mut self, digest: Digest, file: Arc<File>) {
        self.blobs.insert(digest, file);
    }

    /// Adds everything that is laid over the same source elsewhere.
    pub(crate) fn add(&mut self, other: Overlay<'a>) {
        self.documents.extend(other.documents);
        self.blobs.extend(other.blobs);
        self.elsewhere.extend(other.elsewhere);
    }

    /// Adds content that another source has.
    pub fn add_from(&mut self, digest: Digest, source: &'a dyn Source) {
        self.elsewhere.insert(digest, source);
    }
}

impl fmt::Debug for Overlay<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Overlay({})", self.root.digest)
    }
}

/// A file without a name in `directory`, gone when it is closed.
///
/// # Errors
/// [`Error::File`] when nothing can be written there.
pub fn scratch(directory: &Path) -> Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    if let Ok(file) = rustix::fs::open(directory, flags, Mode::from_raw_mode(0o600)) {
        return Ok(file.into());
    }
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = directory.join(format!(".scratch-{}-{count}", std::process::id()));
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path);
    let file = file.map_err(Error::file("making room in", directory))?;
    std::fs::remove_file(&path).map_err(Error::file("making room in", directory))?;
    Ok(file)
}

/// Reads a file from its start, independently of other readers.
pub(crate) struct FromStart {
    file: Arc<File>,
    position: u64,
}

impl FromStart {
    pub(crate) fn new(file: Arc<File>) -> FromStart {
        FromStart { file, position: 0 }
    }
}

impl Read for FromStart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buffer, self.position)?;
        self.position += n as u64;
        Ok(n)
    }
}

#[async_trait]
impl Source for Overlay<'_> {
    async fn resolve(&self) -> Result<Descriptor, Cause> {
        Ok(self.root.clone())
    }

    async fn original(&self) -> Result<Option<Digest>, Cause> {
        self.below.original().await
    }

    async fn fetch(&self, descriptor: &Descriptor) -> Result<Unverified, Cause> {
        if let Some(bytes) = self.documents.get(&descriptor.digest) {
            return Ok(Unverified::whole(bytes.clone()));
        }
        if let Some(source) = self.elsewhere.get(&descriptor.digest) {
            return source.fetch(descriptor).await;
        }
        match self.blobs.get(&descriptor.digest) {
            Some(file) => Ok(bridge::stream(FromStart::new(Arc::clone(file)))),
            None => self.below.fetch(descriptor).await,
        }
    }

    async fn referrers(&self, subject: &Descriptor) -> Result<Vec<Descriptor>, Cause> {
        if self.documents.contains_key(&subject.digest) {
            return Ok(Vec::new());
        }
        self.below.referrers(subject).await
    }

    fn origin(&self) -> Origin {
        self.below.origin()
    }

    fn location(&self) -> Option<Location> {
        self.below.location()
    }

    fn sibling(&self, tag: &Tag) -> Option<Box<dyn Source>> {
        // What lies there is about the images below, not about what was made of them.
        if self.documents.contains_key(&self.root.digest) {
            return None;
        }
        self.below.sibling(tag)
    }
}
