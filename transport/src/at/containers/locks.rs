//! The lock files of containers/storage, which every program that uses the storage takes.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use image::Digester;
use rustix::fs::FlockOperation;

use super::super::files;
use crate::{Error, Result};

/// How long others may hold their locks.
const PATIENCE: Duration = Duration::from_secs(60);
/// The length of what says who wrote last.
const WRITER: usize = 64;

/// The locks belong to processes, and closing any descriptor of a file gives its lock up: within
/// this process one user at a time has them.
static USER: Mutex<()> = Mutex::new(());

/// Locks that are held until this is dropped.
pub(super) struct Locks {
    files: Vec<File>,
    _user: MutexGuard<'static, ()>,
}

impl Locks {
    fn none() -> Locks {
        Locks { files: Vec::new(), _user: USER.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    /// Holds a lock for reading; nothing where there is none.
    pub(super) fn shared(path: &Path) -> Result<Locks> {
        let mut locks = Locks::none();
        if let Some(file) = files::open(path)? {
            wait(&file, FlockOperation::NonBlockingLockShared, path)?;
            locks.files.push(file);
        }
        Ok(locks)
    }

    /// Holds locks for writing, in the given order; they are made where there are none.
    pub(super) fn exclusive(paths: &[&Path]) -> Result<Locks> {
        let mut locks = Locks::none();
        for path in paths {
            let mut options = OpenOptions::new();
            let opened = options.read(true).write(true).create(true).truncate(false).open(path);
            let file = opened.map_err(Error::file("opening", path))?;
            wait(&file, FlockOperation::NonBlockingLockExclusive, path)?;
            locks.files.push(file);
        }
        Ok(locks)
    }

    /// Says that what the lock protects was changed, so that others read it again: they compare
    /// who wrote last with what they saw.
    pub(super) fn changed(&self, at: usize, by: &str) -> Result<()> {
        let Some(file) = self.files.get(at) else { return Ok(()) };
        let failed = Error::file("writing", "the lock of the storage");
        let mut before = [0; WRITER];
        let mut write = || {
            let read = file.read_at(&mut before, 0)?;
            let mut digester = Digester::new(image::Algorithm::Sha512);
            digester.update(&before[..read]);
            digester.update(by.as_bytes());
            let writer: Vec<u8> = digester.finish().hex().into_bytes();
            file.write_all_at(&writer[..WRITER], 0)
        };
        write().map_err(failed)
    }
}

fn wait(file: &File, how: FlockOperation, path: &Path) -> Result<()> {
    let began = Instant::now();
    loop {
        match rustix::fs::fcntl_lock(file, how) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS)
                if began.elapsed() < PATIENCE =>
            {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => return Err(Error::file("locking", path)(error.into())),
        }
    }
}
