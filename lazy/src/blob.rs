//! The compressed bytes of a layer, as far as they are here.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use image::Descriptor;

use crate::{At, Error, Fetch, PartOf, Result, rewound};

/// Bytes that are fetched at least: neighbours in a layer are often read together, and a request
/// costs more time than this.
const PIECE: u64 = 512 << 10;
/// Pieces that one request fetches at most.
const RUN: u64 = 64;

/// A piece that is not missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BlobPiece {
    /// Somebody fetches it.
    Coming,
    Here,
}

/// The bytes of a layer in an unnamed file.
pub(crate) struct Blob {
    descriptor: Descriptor,
    file: File,
    /// By number. A layer says itself how large it is, so what is missing takes no memory.
    pieces: Mutex<HashMap<u64, BlobPiece>>,
    changed: Condvar,
    fetch: Arc<dyn Fetch>,
}

impl Blob {
    pub(crate) fn new(descriptor: Descriptor, file: File, fetch: Arc<dyn Fetch>) -> Blob {
        Blob { descriptor, file, pieces: Mutex::default(), changed: Condvar::new(), fetch }
    }

    pub(crate) fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    pub(crate) fn is_whole(&self) -> bool {
        let here = self.pieces().values().filter(|piece| **piece == BlobPiece::Here).count();
        here as u64 == self.descriptor.size.div_ceil(PIECE)
    }

    /// The file, read from its start.
    pub(crate) fn reopened(&self) -> Result<File> {
        let failed = Error::file("reading", "an unnamed file");
        self.file.try_clone().and_then(rewound).map_err(failed)
    }

    /// Reads bytes that are here.
    pub(crate) fn part(&self, part: Range<u64>) -> PartOf<'_> {
        PartOf { file: &self.file, left: part }
    }

    /// Fetches what is missing of these bytes, and waits for what others are fetching.
    pub(crate) fn need(&self, part: Range<u64>) -> Result<()> {
        let end = part.end.min(self.descriptor.size);
        if part.start >= end {
            return Ok(());
        }
        let mut next = part.start / PIECE;
        let over = (end - 1) / PIECE + 1;
        while next < over {
            let mut pieces = self.pieces();
            match pieces.get(&next) {
                Some(BlobPiece::Here) => next += 1,
                Some(BlobPiece::Coming) => {
                    drop(self.changed.wait(pieces).unwrap_or_else(PoisonError::into_inner));
                }
                None => {
                    let missing = |at: &u64| !pieces.contains_key(at);
                    let last = (next..over.min(next + RUN)).take_while(missing).last();
                    let run = next..last.unwrap_or(next) + 1;
                    pieces.extend(run.clone().map(|at| (at, BlobPiece::Coming)));
                    drop(pieces);
                    let done = self.fetch(&run);
                    self.settle(run, done.is_ok());
                    done?;
                }
            }
        }
        Ok(())
    }

    /// Notes how fetching pieces ended.
    fn settle(&self, run: Range<u64>, here: bool) {
        let mut pieces = self.pieces();
        for at in run {
            match here {
                true => drop(pieces.insert(at, BlobPiece::Here)),
                false => drop(pieces.remove(&at)),
            }
        }
        drop(pieces);
        self.changed.notify_all();
    }

    fn fetch(&self, run: &Range<u64>) -> Result<()> {
        let start = run.start * PIECE;
        let end = run.end.saturating_mul(PIECE).min(self.descriptor.size);
        let mut out = At { file: &self.file, at: start };
        let mut part =
            self.fetch.fetch(&self.descriptor, start..end).map_err(Error::fetch)?.take(end - start);
        io::copy(&mut part, &mut out).map_err(Error::fetch)?;
        match out.at == end {
            true => Ok(()),
            false => Err(Error::fetch(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    fn pieces(&self) -> MutexGuard<'_, HashMap<u64, BlobPiece>> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who reads goes before what is only fetched in advance.
#[derive(Debug, Default)]
pub(crate) struct Priority {
    readers: Mutex<usize>,
    none: Condvar,
}

/// Somebody who waits for a read.
pub(crate) struct Reader<'a>(&'a Priority);

impl Priority {
    pub(crate) fn reading(&self) -> Reader<'_> {
        *self.readers.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Reader(self)
    }

    /// Waits until nobody waits for a read.
    pub(crate) fn yield_to_readers(&self) {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        while *readers > 0 {
            readers = self.none.wait(readers).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let mut readers = self.0.readers.lock().unwrap_or_else(PoisonError::into_inner);
        *readers -= 1;
        if *readers == 0 {
            self.0.none.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use image::MediaType;

    /// Layers in memory, and what was asked of them. A second request of a part fails.
    struct Once {
        bytes: Vec<u8>,
        asked: Mutex<Vec<Range<u64>>>,
    }

    impl Fetch for Once {
        fn fetch(&self, _layer: &Descriptor, part: Range<u64>) -> io::Result<Box<dyn Read + '_>> {
            let mut asked = self.asked.lock().unwrap();
            assert!(!asked.iter().any(|one| one.start < part.end && part.start < one.end));
            asked.push(part.clone());
            drop(asked);
            let part = part.start as usize..part.end as usize;
            Ok(Box::new(&self.bytes[part]))
        }
    }

    fn blob(size: usize) -> (Blob, Arc<Once>) {
        let bytes: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        let descriptor = Descriptor::of(MediaType::OCI_LAYER_ZSTD, &bytes);
        let once = Arc::new(Once { bytes, asked: Mutex::default() });
        let file = tempfile::tempfile().unwrap();
        (Blob::new(descriptor, file, Arc::clone(&once) as Arc<dyn Fetch>), once)
    }

    fn is_right(blob: &Blob, once: &Once, part: Range<u64>) {
        let mut bytes = Vec::new();
        blob.part(part.clone()).read_to_end(&mut bytes).unwrap();
        assert!(bytes == once.bytes[part.start as usize..part.end as usize]);
    }

    #[test]
    fn many_readers_fetch_every_byte_once() {
        let size = 10 * PIECE + 17;
        let (blob, once) = blob(size as usize);
        std::thread::scope(|scope| {
            for number in 0..8_u64 {
                let (blob, once) = (&blob, &once);
                scope.spawn(move || {
                    for step in 0..20 {
                        let start = (number * 7919 + step * 104_729) * 31 % size;
                        let part = start..(start + PIECE).min(size);
                        blob.need(part.clone()).unwrap();
                        is_right(blob, once, part);
                    }
                });
            }
        });
        blob.need(0..u64::MAX).unwrap();
        assert!(blob.is_whole());
        is_right(&blob, &once, 0..size);
    }

    #[test]
    fn a_layer_that_says_it_is_huge_takes_no_memory() {
        let mut descriptor = Descriptor::of(MediaType::OCI_LAYER_ZSTD, b"x");
        descriptor.size = u64::MAX;
        let failing = Arc::new(Failing(Mutex::new(false)));
        let blob = Blob::new(descriptor, tempfile::tempfile().unwrap(), failing);
        let at = 1_u64 << 40;
        blob.need(at..at + 1).unwrap();
        assert!(!blob.is_whole());
        assert_eq!(blob.pieces().len(), 1);
        // Beyond what a file can be.
        assert!(blob.need(u64::MAX - 1..u64::MAX).is_err());
    }

    struct Failing(Mutex<bool>);

    impl Fetch for Failing {
        fn fetch(&self, _layer: &Descriptor, part: Range<u64>) -> io::Result<Box<dyn Read + '_>> {
            if std::mem::take(&mut *self.0.lock().unwrap()) {
                // Too short.
                return Ok(Box::new(&b"x"[..]));
            }
            Ok(Box::new(io::repeat(0).take(part.end - part.start)))
        }
    }

    #[test]
    fn what_failed_is_fetched_again() {
        let descriptor = Descriptor::of(MediaType::OCI_LAYER_ZSTD, &[0; 100]);
        let failing = Arc::new(Failing(Mutex::new(true)));
        let blob = Blob::new(descriptor, tempfile::tempfile().unwrap(), failing);
        assert!(blob.need(0..10).is_err());
        assert!(!blob.is_whole());
        blob.need(0..10).unwrap();
        assert!(blob.is_whole());
    }
}
