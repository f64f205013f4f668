//! The files of an image whose layers are not here yet.
//!
//! [`LazyImage`] knows from the layers' tables of contents (zstd:chunked, eStargz) what the image
//! holds. [`LazyImage::mount`] shows that as a read-only file system (FUSE); what is read of it is
//! fetched then. [`LazyImage::fill`] fetches the rest. Every byte is checked before it is shown:
//! by the digests in the table, whose own digest the manifest promises.
//!
//! ```
//! use std::io::{self, Read};
//! use std::ops::Range;
//! use std::sync::Arc;
//!
//! use image::Descriptor;
//! use lazy::{Fetch, LazyImage};
//!
//! /// Layers that are in memory.
//! struct Memory(Vec<u8>);
//!
//! impl Fetch for Memory {
//!     fn fetch(&self, _layer: &Descriptor, part: Range<u64>) -> io::Result<Box<dyn Read + '_>> {
//!         Ok(Box::new(&self.0[part.start as usize..part.end as usize]))
//!     }
//! }
//!
//! let archive = vec![0; 1024]; // no entries
//! let (layer, info) = layers::write_chunked(&archive[..], Vec::new(), None)?;
//! let place = layers::TablePlace::of(&info.descriptor).expect("a table");
//! let packed = place.packed();
//! let table = place.read(&layer[packed.start as usize..packed.end as usize])?;
//! let room = std::env::temp_dir();
//! let layers = vec![(info.descriptor, table)];
//! let complain = Box::new(|reason| eprintln!("{reason}"));
//! let memory: Arc<dyn Fetch> = Arc::new(Memory(layer));
//! let image = LazyImage::new(layers, &memory, &room, complain)?;
//! image.fill(&task::Task::silent())?;
//! assert!(image.is_whole());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod blob;
mod error;
mod mount;
mod serve;
mod tree;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use image::{Descriptor, Digest};
use layers::{FilePart, LayerTable};
use task::{Cause, Task};

use crate::blob::{Blob, Priority};
pub use crate::error::{Error, Result};
pub use crate::mount::LazyMount;
use crate::tree::{FileNode, MergedTree};

/// Bytes that are fetched at a time of what nobody waits for.
const STRIDE: u64 = 8 << 20;

/// Where the bytes of layers come from. It is called from several threads at once.
pub trait Fetch: Send + Sync {
    /// Opens this part of a layer, counted in bytes from its start. The bytes need not be checked.
    ///
    /// # Errors
    /// The place fails, or it gives no parts.
    fn fetch(&self, layer: &Descriptor, part: Range<u64>) -> io::Result<Box<dyn Read + '_>>;
}

/// An image of which the tables of contents are here.
pub struct LazyImage {
    tree: MergedTree,
    blobs: Vec<Blob>,
    priority: Priority,
    /// The contents of files that were read, one after the other.
    contents: File,
    /// Where each one's content is there.
    known: Mutex<KnownContents>,
    /// Takes the reasons of reads that failed.
    complaint: Complaint,
}

/// What is done with the reason of a failed read.
pub type Complaint = Box<dyn Fn(String) + Send + Sync>;

#[derive(Default)]
struct KnownContents {
    by_node: HashMap<usize, Arc<FileContent>>,
    /// Where the next one goes.
    end: u64,
}

/// The content of a file, as far as it was read.
struct FileContent {
    start: u64,
    /// Which parts are there.
    filled: Mutex<Vec<bool>>,
}

impl LazyImage {
    /// An image of these layers, the lowest first. What is fetched is kept in unnamed files in `room`.
    /// A program only sees that a read failed (`EIO`); `complaint` gets the reason.
    ///
    /// # Errors
    /// [`Error::Table`] where an entry contradicts another one, [`Error::File`].
    pub fn new(
        layers: Vec<(Descriptor, LayerTable)>,
        fetch: &Arc<dyn Fetch>,
        room: &Path,
        complaint: Complaint,
    ) -> Result<LazyImage> {
        let scratch = || tempfile::tempfile_in(room).map_err(Error::file("making a file in", room));
        let (mut tree, mut blobs) = (MergedTree::new(), Vec::new());
        for (number, (descriptor, table)) in layers.into_iter().enumerate() {
            tree.add(number, table.entries)?;
            blobs.push(Blob::new(descriptor, scratch()?, Arc::clone(fetch)));
        }
        let (contents, known) = (scratch()?, Mutex::default());
        Ok(LazyImage { tree, blobs, priority: Priority::default(), contents, known, complaint })
    }

    /// Shows the files. The mount is attached nowhere; it is gone with the last descriptor on it
    /// and the last overlay above it.
    ///
    /// # Errors
    /// [`Error::Mount`]: there is no FUSE, or the caller may not use it.
    pub fn mount(self: &Arc<LazyImage>) -> Result<LazyMount> {
        mount::mount(self)
    }

    /// Fetches what is not here yet. What is being read goes first.
    ///
    /// # Errors
    /// [`Error::Fetch`]; cancelled.
    pub fn fill(&self, task: &Task) -> Result<()> {
        for blob in &self.blobs {
            let size = blob.descriptor().size;
            let mut at = 0;
            while at < size {
                task.check().map_err(|stop| Error::fetch(io::Error::other(Cause::from(stop))))?;
                self.priority.yield_to_readers();
                let end = at.saturating_add(STRIDE).min(size);
                blob.need(at..end)?;
                at = end;
            }
        }
        Ok(())
    }

    /// Whether every byte of every layer is here.
    pub fn is_whole(&self) -> bool {
        self.blobs.iter().all(Blob::is_whole)
    }

    /// The compressed bytes of a layer, once they are all here; nothing has checked them as a whole.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn layer(&self, digest: &Digest) -> Result<Option<File>> {
        let blob = self.blobs.iter().find(|blob| blob.descriptor().digest == *digest);
        blob.filter(|blob| blob.is_whole()).map(Blob::reopened).transpose()
    }

    /// How many files there are.
    fn files(&self) -> usize {
        self.tree.len()
    }

    /// Tells why a read failed: the program only learns that it did.
    fn complain(&self, error: &Error) {
        let mut told = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(error) = source {
            told = format!("{told}: {error}");
            source = error.source();
        }
        (self.complaint)(told);
    }

    fn node(&self, number: usize) -> Option<&FileNode> {
        self.tree.node(number)
    }

    /// Reads a piece of a file's content; less than was asked for only at its end.
    fn read(&self, number: usize, offset: u64, size: usize) -> Result<Vec<u8>> {
        let Some(node) = self.node(number) else { return Ok(Vec::new()) };
        let end = node.size().min(offset.saturating_add(size as u64));
        let Some(length) = end.checked_sub(offset).filter(|length| *length > 0) else {
            return Ok(Vec::new());
        };
        let content = self.content(number, node)?;
        self.fill_content(node, &content, offset..end)?;
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        let reading = Error::file("reading", "the contents of an image");
        self.contents.read_exact_at(&mut bytes, content.start + offset).map_err(reading)?;
        Ok(bytes)
    }

    fn content(&self, number: usize, node: &FileNode) -> Result<Arc<FileContent>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(content) = known.by_node.get(&number) {
            return Ok(Arc::clone(content));
        }
        let filled = Mutex::new(vec![false; node.parts.len()]);
        let content = Arc::new(FileContent { start: known.end, filled });
        let end = known.end.checked_add(node.size()).filter(|end| *end < 1 << 62);
        known.end = end.ok_or_else(|| Error::Table {
            path: String::new(),
            reason: "its files are longer than any disk".to_owned(),
        })?;
        known.by_node.insert(number, Arc::clone(&content));
        Ok(content)
    }

    /// Makes the parts available that a piece of content lies in.
    fn fill_content(
        &self,
        node: &FileNode,
        content: &FileContent,
        wanted: Range<u64>,
    ) -> Result<()> {
        let mut filled = content.filled.lock().unwrap_or_else(PoisonError::into_inner);
        let mut at = 0;
        for (part, done) in node.parts.iter().zip(filled.iter_mut()) {
            let (start, end) = (at, at + part.size);
            at = end;
            if *done || end <= wanted.start || start >= wanted.end {
                continue;
            }
            self.fill_part(node, part, content.start + start)?;
            *done = true;
        }
        // The last piece may be a hole: the file must reach to its end.
        let end = content.start + node.size();
        let length = self.contents.metadata().map_err(Error::file("reading", "an unnamed file"))?;
        if length.len() < end {
            self.contents.set_len(end).map_err(Error::file("writing", "an unnamed file"))?;
        }
        Ok(())
    }

    fn fill_part(&self, node: &FileNode, part: &FilePart, to: u64) -> Result<()> {
        if part.is_hole() {
            return Ok(());
        }
        let blob = self.blobs.get(node.layer).ok_or(Error::Table {
            path: String::new(),
            reason: "there is no such layer".to_owned(),
        })?;
        let _reader = self.priority.reading();
        blob.need(part.range.clone())?;
        let packed = blob.part(part.range.clone());
        let mut out = At { file: &self.contents, at: to };
        part.unpack(packed, &mut out)?;
        Ok(())
    }
}

/// Writes to a place in a file.
struct At<'a> {
    file: &'a File,
    at: u64,
}

impl Write for At<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write_at(bytes, self.at)?;
        self.at += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a part of a file.
struct PartOf<'a> {
    file: &'a File,
    left: Range<u64>,
}

impl Read for PartOf<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.left.end - self.left.start).unwrap_or(usize::MAX);
        let length = left.min(buffer.len());
        let read = self.file.read_at(&mut buffer[..length], self.left.start)?;
        self.left.start += read as u64;
        Ok(read)
    }
}

/// From the start.
fn rewound(mut file: File) -> io::Result<File> {
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}
