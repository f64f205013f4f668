//! A bound on what the store takes on disk.

use std::sync::atomic::Ordering;

use task::Task;

use crate::budget::Budget;
use crate::mark::each;
use crate::{Error, Result, Store, file, reserve};

impl Store {
    /// From now on no more than this is to be on disk; `None` for no bound. Counts for all
    /// handles of this process.
    pub fn set_limit(&self, limit: Option<u64>) {
        self.shared().limit.store(limit.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The bound, if there is one.
    pub fn limit(&self) -> Option<u64> {
        Some(self.shared().limit.load(Ordering::Relaxed)).filter(|limit| *limit != u64::MAX)
    }

    /// What is on disk now: content, snapshots, cache mounts, containers, and what is in the
    /// making.
    ///
    /// # Errors
    /// [`Error::Catalog`], [`Error::Cancelled`].
    pub fn occupied(&self, task: &Task) -> Result<u64> {
        self.measure(task)?;
        let mut bytes = 0u64;
        self.shared().catalog.read("adding up", |db| {
            let mut add = |query| {
                each(db, query, |row| {
                    bytes += row.get::<_, i64>(0)?.unsigned_abs();
                    Ok(())
                })
            };
            add("SELECT size FROM blobs WHERE snapshot IS NULL")?;
            add("SELECT coalesce(size, 0) FROM snapshots")
        })?;
        let root = &self.shared().root;
        bytes += reserve::bytes(root);
        for place in ["mounts", "containers", "active", "ingest"] {
            task.check()?;
            bytes += file::disk_usage(&root.join(place));
        }
        Ok(bytes)
    }

    /// Makes room for this many more bytes below the limit: removes unused build cache, least
    /// recently used first.
    ///
    /// # Errors
    /// [`Error::Full`] when that is not enough; [`Error::Catalog`], [`Error::Cancelled`].
    pub fn make_room(&self, wanted: u64, task: &Task) -> Result<()> {
        let Some(limit) = self.limit() else { return Ok(()) };
        let occupied = self.occupied(task)?;
        let over = occupied.saturating_add(wanted).saturating_sub(limit);
        if over == 0 {
            return Ok(());
        }
        // First what nothing needs, then of the cache as much as it takes.
        self.collect(&Budget::default(), task)?;
        let occupied = self.occupied(task)?;
        let over = occupied.saturating_add(wanted).saturating_sub(limit);
        if over == 0 {
            return Ok(());
        }
        let cache: u64 = self.cache_entries(task)?.iter().map(|entry| entry.bytes).sum();
        let keep_bytes = Some(cache.saturating_sub(over));
        self.collect(&Budget { keep_bytes, ..Budget::default() }, task)?;
        let occupied = self.occupied(task)?;
        if occupied.saturating_add(wanted) <= limit {
            return Ok(());
        }
        // Entries that share their content may have counted less than they keep.
        self.collect(&Budget { all: true, ..Budget::default() }, task)?;
        let occupied = self.occupied(task)?;
        match occupied.saturating_add(wanted) <= limit {
            true => Ok(()),
            false => Err(Error::Full { limit, occupied }),
        }
    }
}
