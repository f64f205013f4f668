//! Collecting: what no name, container, lease or remembered step needs is removed.
//!
//! First one transaction decides: it deletes rows and records them as condemned, and it is on disk
//! before anything else happens, so a power failure cannot restore a row whose file is gone. Then
//! their files move to the trash, a batch at a time under the write lock; content that was created
//! again meanwhile is no longer condemned and stays. The trash is emptied last, without any lock.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use image::{Algorithm, Digest};
use rusqlite::{Connection, params};
use task::Task;

use crate::budget::{Budget, CollectionReport, ItemKind, RemovalReason};
use crate::catalog::{Attempt, DigestKey, Kind, number};
use crate::mark::{CollectionPlan, EvictionCandidate};
use crate::store::StoreInner;
use crate::{Result, Store, file, lease, reserve};

/// Cached file digests and the like are deleted after this many seconds: they are cheap to compute
/// again, and keys of files that changed never come up again.
const MEMO_LIFE: i64 = 30 * 24 * 3600;

/// How many files move to the trash in one transaction.
const BATCH: i64 = 256;

impl Store {
    /// Removes what nothing needs any more, and of the build cache what the budget says. Safe
    /// while other processes work; untagged images go.
    ///
    /// # Errors
    /// [`crate::Error::File`], [`crate::Error::Catalog`], [`crate::Error::Cancelled`]; whatever
    /// happens, the next collection continues.
    pub fn collect(&self, budget: &Budget, task: &Task) -> Result<CollectionReport> {
        let shared = self.shared();
        if !budget.dry_run {
            reserve::release(&shared.root);
        }
        lease::bury_dead(shared)?;
        self.measure(task)?;
        let mounts = self.mounts(task)?;
        let now = shared.now();
        let make = |db: &Connection| -> Attempt<CollectionPlan> {
            CollectionPlan::make(db, budget, &mounts, now)
        };
        if budget.dry_run {
            return Ok(shared.catalog.read("planning a collection", make)?.report());
        }
        task.check()?;
        let plan = shared.catalog.write_through("condemning", |db| {
            let plan = make(db)?;
            condemn(db, &plan)?;
            db.execute(
                "DELETE FROM memos WHERE ?1 OR used < ?2",
                params![
                    budget.all && budget.older_than.is_none() && budget.filter.is_none(),
                    now - oldest_memo(budget)
                ],
            )?;
            Ok(plan)
        })?;
        let mut collected = plan.report();
        let kept = self.remove_mounts(&plan.mounts)?;
        collected.removed.retain(|r| r.kind != ItemKind::Mount || !kept.contains(&r.id));
        collected.bytes = collected.removed.iter().map(|removed| removed.bytes).sum();
        while shared.catalog.write("moving to the trash", |db| execute_batch(db, shared))? {
            task.check()?;
        }
        self.sweep()?;
        shared.empty_trash()?;
        Ok(collected)
    }

    /// Measures snapshots that were not measured yet.
    pub(crate) fn measure(&self, task: &Task) -> Result<()> {
        let shared = self.shared();
        let unknown = shared.catalog.read("listing snapshots", |db| {
            let mut query = db.prepare("SELECT id FROM snapshots WHERE size IS NULL")?;
            let ids = query.query_map([], |row| row.get::<_, DigestKey>(0))?;
            Ok(ids.collect::<rusqlite::Result<Vec<_>>>()?)
        })?;
        let mut sizes = Vec::with_capacity(unknown.len());
        for id in unknown {
            task.check()?;
            sizes.push((id, file::disk_usage(&shared.snapshot_path(id.0))));
        }
        if sizes.is_empty() {
            return Ok(());
        }
        shared.catalog.write("noting sizes", |db| {
            let mut update = db.prepare("UPDATE snapshots SET size = ? WHERE id = ?")?;
            for (id, size) in sizes {
                update.execute(params![number(size), id])?;
            }
            Ok(())
        })
    }

    /// The cache mounts with their sizes.
    pub(crate) fn mounts(&self, task: &Task) -> Result<Vec<EvictionCandidate<String>>> {
        let shared = self.shared();
        let rows = shared.catalog.read("listing cache mounts", |db| {
            let mut query = db.prepare("SELECT directory, used FROM mounts")?;
            let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<rusqlite::Result<Vec<(String, i64)>>>()?)
        })?;
        let mut mounts = Vec::with_capacity(rows.len());
        for (directory, used) in rows {
            task.check()?;
            let bytes = file::disk_usage(&shared.root.join("mounts").join(&directory));
            mounts.push(EvictionCandidate { id: directory, used, bytes });
        }
        Ok(mounts)
    }

    /// Removes unused cache mounts; returns those in use.
    fn remove_mounts(
        &self,
        doomed: &[(EvictionCandidate<String>, RemovalReason)],
    ) -> Result<BTreeSet<String>> {
        let shared = self.shared();
        let mut kept = BTreeSet::new();
        for (mount, _) in doomed {
            let directory = shared.root.join("mounts").join(&mount.id);
            let path = directory.join("lock");
            let lock = file::try_lock(&path, true, false)?;
            if lock.is_none() && path.exists() {
                kept.insert(mount.id.clone());
                continue;
            }
            // Who waits for this lock will find another file, or none, at its path.
            shared.catalog.write("removing a cache mount", |db| {
                db.execute("DELETE FROM mounts WHERE directory = ?", [&mount.id])?;
                shared.discard(&directory)?;
                Ok(())
            })?;
        }
        Ok(kept)
    }

    /// Moves to the trash what has no row: left by a crash between a file operation and the end
    /// of its transaction. Everything with a row gets its place inside a write transaction, so
    /// nothing can be in between while this one runs.
    fn sweep(&self) -> Result<()> {
        let shared = self.shared();
        shared.catalog.write("sweeping", |db| {
            for path in strays(db, shared)? {
                tracing::debug!(path = %path.display(), "a file without a row");
                shared.discard(&path)?;
            }
            Ok(())
        })?;
        for name in file::list(&shared.root.join("leases"))? {
            let known: bool = shared.catalog.read("looking up a lease", |db| {
                let name = name.to_string_lossy();
                let query = "SELECT EXISTS(SELECT 1 FROM leases WHERE id = ?)";
                Ok(db.query_row(query, [name], |row| row.get(0))?)
            })?;
            let path = shared.root.join("leases").join(&name);
            // A new lease locks its file before it has a row: a file we can lock has no owner.
            if let Some(_lock) = if known { None } else { file::try_lock(&path, true, false)? } {
                file::remove_file(&path)?;
            }
        }
        Ok(())
    }
}

fn oldest_memo(budget: &Budget) -> i64 {
    budget.older_than.map_or(MEMO_LIFE, |age| number(age.as_secs()).min(MEMO_LIFE))
}

/// Deletes the rows of the doomed and notes that their files are to go.
pub(crate) fn condemn(db: &Connection, plan: &CollectionPlan) -> Attempt<()> {
    let mut note = db.prepare("INSERT OR IGNORE INTO condemned(kind, digest) VALUES(?, ?)")?;
    let mut unmark = db.prepare("DELETE FROM unsynced WHERE kind = ? AND digest = ?")?;
    for (kind, digest) in plan.doomed() {
        note.execute(params![kind, DigestKey(digest)])?;
        unmark.execute(params![kind, DigestKey(digest)])?;
        let of_blob: &[&str] = &[
            "DELETE FROM blobs WHERE digest = ?",
            "DELETE FROM nodes WHERE digest = ?",
            "DELETE FROM edges WHERE parent = ?",
            "DELETE FROM referrers WHERE referrer = ?",
        ];
        let of_snapshot: &[&str] = &[
            "DELETE FROM snapshots WHERE id = ?",
            "DELETE FROM aliases WHERE id = ?",
            "DELETE FROM blobs WHERE snapshot = ?",
        ];
        let statements = match kind {
            Kind::Blob => of_blob,
            Kind::Snapshot => of_snapshot,
        };
        for statement in statements {
            db.prepare_cached(statement)?.execute([DigestKey(digest)])?;
        }
    }
    let mut forget = db.prepare("DELETE FROM steps WHERE key = ?")?;
    for key in plan.steps.keys() {
        forget.execute([DigestKey(*key)])?;
    }
    Ok(())
}

/// Moves some of the condemned to the trash; `false` if there were none.
fn execute_batch(db: &Connection, shared: &StoreInner) -> Attempt<bool> {
    let mut query = db.prepare_cached("SELECT kind, digest FROM condemned LIMIT ?")?;
    let rows = query.query_map([BATCH], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let batch = rows.collect::<rusqlite::Result<Vec<(Kind, DigestKey)>>>()?;
    let mut delete = db.prepare_cached("DELETE FROM condemned WHERE kind = ? AND digest = ?")?;
    for (kind, key) in &batch {
        shared.discard(&path_of(shared, *kind, key.0))?;
        delete.execute(params![kind, key])?;
    }
    Ok(!batch.is_empty())
}

fn path_of(shared: &StoreInner, kind: Kind, digest: Digest) -> PathBuf {
    match kind {
        Kind::Blob => file::blob_path(&shared.root.join("blobs"), digest),
        Kind::Snapshot => shared.snapshot_path(digest),
    }
}

/// Files and directories of the store that no row knows. To be called in a write transaction.
pub(crate) fn strays(db: &Connection, shared: &StoreInner) -> Attempt<Vec<PathBuf>> {
    let mut strays = Vec::new();
    let mut look = |directory: &Path, known: &BTreeSet<String>| -> Attempt<()> {
        for name in file::list(directory)? {
            if !name.to_str().is_some_and(|name| known.contains(name)) {
                strays.push(directory.join(name));
            }
        }
        Ok(())
    };
    let blobs = column::<DigestKey>(db, "SELECT digest FROM blobs")?;
    let condemned = column::<DigestKey>(db, "SELECT digest FROM condemned")?;
    let hex = |algorithm: Option<Algorithm>, keys: &[DigestKey]| -> BTreeSet<String> {
        let all = keys.iter().chain(&condemned).map(|key| key.0);
        let wanted = all.filter(|digest| algorithm.is_none_or(|a| digest.algorithm() == a));
        wanted.map(|digest| digest.hex()).collect()
    };
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let directory = shared.root.join("blobs").join(algorithm.as_str());
        look(&directory, &hex(Some(algorithm), &blobs))?;
    }
    let snapshots = column::<DigestKey>(db, "SELECT id FROM snapshots")?;
    look(&shared.root.join("snapshots"), &hex(None, &snapshots))?;
    let places: BTreeMap<&str, &str> = BTreeMap::from([
        ("containers", "SELECT id FROM containers"),
        ("active", "SELECT id FROM leases"),
        ("ingest", "SELECT id FROM leases"),
    ]);
    for (place, query) in places {
        let known = column::<String>(db, query)?.into_iter().collect();
        look(&shared.root.join(place), &known)?;
    }
    Ok(strays)
}

/// One column of a query.
pub(crate) fn column<T: rusqlite::types::FromSql>(db: &Connection, query: &str) -> Attempt<Vec<T>> {
    let mut query = db.prepare(query)?;
    let rows = query.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
