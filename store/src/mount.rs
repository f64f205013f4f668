//! Cache mounts: directories that outlive a build, each with a lock.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use image::Digest;
use rusqlite::{OptionalExtension, params};
use task::Task;

use crate::{Active, Result, Store, file};

/// Who may use a cache mount at the same time (`RUN --mount=type=cache,sharing=…`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheSharing {
    /// Everybody.
    #[default]
    Shared,
    /// Each user gets one of their own; an unused one is reused.
    Private,
    /// One after the other.
    Locked,
}

/// A cache mount in use; dropping it unlocks it.
#[derive(Debug)]
pub struct CacheMount {
    path: PathBuf,
    fresh: bool,
    _lock: File,
}

impl CacheMount {
    /// The directory to mount.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the directory was made just now and is empty.
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }
}

/// How long to sleep between two looks at a lock, at most.
const LONGEST_NAP: Duration = Duration::from_millis(100);

impl Store {
    /// The cache mount with this id (any text), made if there is none. Waits where the sharing
    /// asks for it, until the task is cancelled.
    ///
    /// # Errors
    /// [`crate::Error::Cancelled`], [`crate::Error::File`], [`crate::Error::Catalog`].
    pub fn cache_mount(&self, id: &str, sharing: CacheSharing, task: &Task) -> Result<CacheMount> {
        let base = Digest::of(id.as_bytes()).hex();
        let mut nap = Duration::from_millis(1);
        for attempt in 0u32.. {
            task.check()?;
            let directory = match (sharing, attempt) {
                (CacheSharing::Private, 1..) => format!("{base}.{attempt}"),
                _ => base.clone(),
            };
            let exclusive = sharing != CacheSharing::Shared;
            if let Some(mount) = self.try_mount(id, &directory, exclusive)? {
                return Ok(mount);
            }
            if sharing != CacheSharing::Private {
                std::thread::sleep(nap);
                nap = (nap * 2).min(LONGEST_NAP);
            }
        }
        unreachable!("four thousand million attempts")
    }

    fn try_mount(&self, id: &str, name: &str, exclusive: bool) -> Result<Option<CacheMount>> {
        let shared = self.shared();
        let directory = shared.root.join("mounts").join(name);
        file::make_dir(&directory, 0o700)?;
        let lock = match file::try_lock(&directory.join("lock"), exclusive, true) {
            Ok(Some(lock)) => lock,
            Ok(None) => return Ok(None),
            // The collector took the directory away between the two calls.
            Err(_) if !directory.exists() => return Ok(None),
            Err(error) => return Err(error),
        };
        let now = shared.now();
        shared.catalog.write("noting a cache mount", |db| {
            db.prepare_cached(
                "INSERT OR REPLACE INTO mounts(directory, id, used) VALUES(?, ?, ?)",
            )?
            .execute(params![name, id, now])?;
            Ok(())
        })?;
        let path = directory.join("data");
        let fresh = !path.exists();
        file::make_dir(&path, 0o755)?;
        Ok(Some(CacheMount { path, fresh, _lock: lock }))
    }

    /// When a cache mount was used last, seconds since 1970; `None` if there is none.
    ///
    /// # Errors
    /// [`crate::Error::Catalog`].
    pub fn cache_mount_used(&self, id: &str) -> Result<Option<i64>> {
        let name = Digest::of(id.as_bytes()).hex();
        let used = self.shared().catalog.read("looking up a cache mount", |db| {
            let mut query = db.prepare_cached("SELECT used FROM mounts WHERE directory = ?")?;
            Ok(query.query_row([&name], |row| row.get(0)).optional()?)
        })?;
        let data = self.shared().root.join("mounts").join(&name).join("data");
        Ok(used.filter(|_| data.exists()))
    }

    /// The directory of a cache mount, kept in place while it is read: its lock is shared. `None`
    /// if there is none, or it is locked exclusively.
    ///
    /// # Errors
    /// [`crate::Error::File`].
    pub fn peek_cache_mount(&self, id: &str) -> Result<Option<CacheMount>> {
        let name = Digest::of(id.as_bytes()).hex();
        let directory = self.shared().root.join("mounts").join(name);
        let path = directory.join("data");
        if !path.exists() {
            return Ok(None);
        }
        let lock = file::try_lock(&directory.join("lock"), false, false)?;
        Ok(lock.map(|lock| CacheMount { path, fresh: false, _lock: lock }))
    }

    /// Puts a directory that was made elsewhere in the place of a cache mount that is not there
    /// or was used before `used`. `false` if it is newer, or in use.
    ///
    /// # Errors
    /// [`crate::Error::File`], [`crate::Error::Catalog`].
    pub fn adopt_cache_mount(&self, id: &str, used: i64, content: &Active) -> Result<bool> {
        let shared = self.shared();
        let name = Digest::of(id.as_bytes()).hex();
        let directory = shared.root.join("mounts").join(&name);
        file::make_dir(&directory, 0o700)?;
        let Some(_lock) = file::try_lock(&directory.join("lock"), true, true)? else {
            return Ok(false);
        };
        if self.cache_mount_used(id)?.is_some_and(|own| own >= used) {
            return Ok(false);
        }
        let path = directory.join("data");
        shared.catalog.write("taking over a cache mount", |db| {
            shared.discard(&path)?;
            file::rename(&content.dir().join("fs"), &path)?;
            db.prepare_cached(
                "INSERT OR REPLACE INTO mounts(directory, id, used) VALUES(?, ?, ?)",
            )?
            .execute(params![name, id, used])?;
            Ok(())
        })?;
        Ok(true)
    }
}
