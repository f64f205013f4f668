//! Files of a tree copied on several threads, while one thread walks the tree.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::Stat;

use super::place::{CopySource, Placer, TargetDirectory};
use crate::{Error, Result};

/// As many batches wait; each may hold its directory open on both sides.
const QUEUE: usize = 16;
/// As many files of one directory are a batch. Two threads in one directory wait for each other.
pub(super) const BATCH: usize = 1024;

/// Files of one directory.
pub(super) struct Batch {
    pub(super) dir: Arc<TargetDirectory>,
    pub(super) files: Vec<RegularFile>,
}

/// A plain file with one name.
pub(super) struct RegularFile {
    pub(super) name: OsString,
    pub(super) stat: Stat,
}

pub(super) struct Pool<'p> {
    batches: SyncSender<Batch>,
    /// Why the first file that failed did.
    failure: &'p Mutex<Option<Error>>,
}

impl Pool<'_> {
    /// Runs `body`, which adds files, and waits until all of them are copied.
    pub(super) fn during<T>(
        placer: &Placer<'_>,
        threads: usize,
        body: impl FnOnce(&Pool<'_>) -> Result<T>,
    ) -> Result<T> {
        let failure = Mutex::default();
        let (batches, queue) = sync_channel(QUEUE);
        // Dropped by the last thread that ends: then adding fails.
        let queue = Arc::new(Mutex::new(queue));
        let done = std::thread::scope(|scope| {
            for _ in 0..threads {
                let (queue, failure) = (Arc::clone(&queue), &failure);
                scope.spawn(move || work(placer, &queue, failure));
            }
            drop(queue);
            let pool = Pool { batches, failure: &failure };
            body(&pool)
        });
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => done,
        }
    }

    /// Adds files. Once one has failed nothing more is copied.
    pub(super) fn add(&self, batch: Batch) -> Result<()> {
        // The failure itself is reported in the end.
        let failed = self.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if failed { Err(died()) } else { self.batches.send(batch).map_err(|_| died()) }
    }
}

/// Threads end early only because of a failure, which is reported instead of this.
fn died() -> Error {
    Error::write(std::io::Error::other("a thread that copies died"))
}

fn work(placer: &Placer<'_>, queue: &Mutex<Receiver<Batch>>, failure: &Mutex<Option<Error>>) {
    loop {
        let batch = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Batch { dir, files }) = batch else { return };
        let copied = files.iter().try_for_each(|file| {
            if failure.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
                return Ok(());
            }
            let source = CopySource::Name(dir.from.as_fd(), &file.name);
            let target = dir.target.join(&file.name);
            placer.file(source, &file.stat, dir.to.as_fd(), &file.name, &target)
        });
        if let Err(error) = copied.and_then(|()| placer.release(dir)) {
            failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            return;
        }
    }
}
