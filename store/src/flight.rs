//! The same work of several processes is done by one of them.

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use image::Digest;
use task::Task;

use crate::{Result, Store, file};

/// How long to sleep between two looks at a lock, at most.
const LONGEST_NAP: Duration = Duration::from_millis(50);

/// The right to do some work; others that want to do the same wait until this is dropped.
#[derive(Debug)]
pub struct Flight {
    path: PathBuf,
    _lock: File,
}

impl Drop for Flight {
    fn drop(&mut self) {
        // Those who wait notice that the file they have open is no longer at its path.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Store {
    /// Waits until no process does the work of this name. Then check first whether it is done. A
    /// dying process releases the right.
    ///
    /// # Errors
    /// [`crate::Error::Cancelled`], [`crate::Error::File`].
    pub fn flight(&self, name: Digest, task: &Task) -> Result<Flight> {
        let directory = self.shared().root.join("flights");
        file::make_dir(&directory, 0o700)?;
        let path = directory.join(name.hex());
        let mut nap = Duration::from_millis(1);
        loop {
            task.check()?;
            if let Some(lock) = file::try_lock(&path, true, true)? {
                return Ok(Flight { path, _lock: lock });
            }
            std::thread::sleep(nap);
            nap = (nap * 2).min(LONGEST_NAP);
        }
    }
}
