//! Snapshots: unpacked layers and the results of steps, as directories that stack.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use image::{ChainId, Digest};
use layers::{Root, Stack, Top};
use rusqlite::{Connection, OptionalExtension, params};

use crate::blob::mark_unsynced;
use crate::catalog::{Attempt, DigestKey, Kind};
use crate::lease::Pins;
use crate::store::StoreInner;
use crate::{Error, Result, Store, file};

/// How many snapshots may lie on each other: what the kernel's overlay takes.
pub const MAX_DEPTH: u32 = 500;

/// Names a committed snapshot: a chain id, or the key of the step that made it. Where an alias
/// was given, the chain id names a step's snapshot too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId(pub Digest);

impl From<ChainId> for SnapshotId {
    fn from(chain: ChainId) -> Self {
        SnapshotId(chain.0)
    }
}

/// A directory that is being filled: owned, changing, without a parent until it is stacked or
/// committed. Dropped without a commit it is discarded.
#[derive(Debug)]
pub struct Active {
    store: Store,
    directory: PathBuf,
    committed: bool,
}

impl Active {
    /// The directory of this attempt: `fs` is what a commit keeps, `work` belongs to the overlay.
    pub fn dir(&self) -> &Path {
        &self.directory
    }

    /// The tree that a commit keeps; under a stack, only the changes.
    ///
    /// # Errors
    /// [`Error::Layer`].
    pub fn root(&self) -> Result<Root> {
        let path = self.directory.join("fs");
        Root::open(&path).map_err(|source| Error::layer("opening an unfinished snapshot", source))
    }

    /// This directory on top of a parent, to be mounted and changed.
    ///
    /// # Errors
    /// [`Error::NoSnapshot`], [`Error::Catalog`].
    pub fn stack(&self, parent: Option<SnapshotId>) -> Result<Stack> {
        let mut stack = match parent {
            Some(parent) => self.store.stack(parent)?,
            None => self.store.empty_stack(),
        };
        stack.top =
            Some(Top { upper: self.directory.join("fs"), work: self.directory.join("work") });
        Ok(stack)
    }

    /// Makes the directory the snapshot `id` on `parent`. If there is one already, this one is
    /// forgotten: two processes that did the same work end up with one result.
    ///
    /// # Errors
    /// [`Error::NoSnapshot`] when the parent is gone, [`Error::TooDeep`], [`Error::File`],
    /// [`Error::Catalog`].
    pub fn commit(mut self, id: SnapshotId, parent: Option<SnapshotId>) -> Result<()> {
        file::remove_tree(&self.directory.join("work"))?;
        let shared = self.store.shared();
        let target = shared.snapshot_path(id.0);
        self.committed = self.store.slot.write("committing a snapshot", |db, pins| {
            if pin_snapshot(db, pins, id)?.is_some() {
                return Ok(false);
            }
            let (parent, below) = match parent {
                None => (None, 0),
                Some(parent) => match pin_snapshot(db, pins, parent)? {
                    None => return Err(Error::NoSnapshot { id: parent.0 }.into()),
                    Some(found) => (Some(found), depth(db, found)?),
                },
            };
            if below >= MAX_DEPTH {
                let (depth, limit) = (below + 1, MAX_DEPTH);
                return Err(Error::TooDeep { id: id.0, depth, limit }.into());
            }
            // What lies there without a row was left by a crash, or is condemned.
            shared.discard(&target)?;
            file::rename(&self.directory, &target)?;
            db.prepare_cached(
                "INSERT INTO snapshots(id, parent, depth, size, used) VALUES(?, ?, ?, NULL, ?)",
            )?
            .execute(params![
                DigestKey(id.0),
                parent.map(|parent| DigestKey(parent.0)),
                below + 1,
                shared.now()
            ])?;
            mark_unsynced(db, &shared.options.boot_id, Kind::Snapshot, id.0)?;
            pins.add(db, Kind::Snapshot, id.0)?;
            Ok(true)
        })?;
        Ok(())
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        if self.committed {
            return;
        }
        if let Err(error) = file::remove_tree(&self.directory) {
            tracing::debug!(%error, "an unfinished snapshot stays until its lease is dead");
        }
    }
}

/// The snapshot that an id or alias names, if it is there.
pub(crate) fn find(db: &Connection, id: SnapshotId) -> Attempt<Option<SnapshotId>> {
    let mut query = db.prepare_cached(
        "SELECT id FROM snapshots WHERE id = ?1 UNION ALL \
         SELECT s.id FROM aliases a JOIN snapshots s ON s.id = a.id WHERE a.chain = ?1 LIMIT 1",
    )?;
    let found = query.query_row([DigestKey(id.0)], |row| row.get::<_, DigestKey>(0)).optional()?;
    Ok(found.map(|key| SnapshotId(key.0)))
}

/// Finds a snapshot and pins it, and with it all it lies on.
pub(crate) fn pin_snapshot(
    db: &Connection,
    pins: &mut Pins<'_>,
    id: SnapshotId,
) -> Attempt<Option<SnapshotId>> {
    let found = find(db, id)?;
    if let Some(found) = found {
        pins.add(db, Kind::Snapshot, found.0)?;
    }
    Ok(found)
}

fn depth(db: &Connection, id: SnapshotId) -> Attempt<u32> {
    let mut query = db.prepare_cached("SELECT depth FROM snapshots WHERE id = ?")?;
    Ok(query.query_row([DigestKey(id.0)], |row| row.get(0))?)
}

impl Store {
    /// Starts a new directory.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Catalog`].
    pub fn begin(&self) -> Result<Active> {
        let directory = self.slot.path_in("active")?;
        file::make_dir(&directory, 0o700)?;
        let active = Active { store: self.clone(), directory, committed: false };
        let root = active.directory.join("fs");
        file::make_dir(&root, 0o755)?;
        // The mode of a root directory is part of an image; the umask is not.
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755))
            .map_err(|error| Error::file("creating", &root, error))?;
        file::make_dir(&active.directory.join("work"), 0o700)?;
        Ok(active)
    }

    /// Whether there is such a snapshot, by id or alias; if so it is pinned and stays.
    ///
    /// # Errors
    /// [`Error::Catalog`].
    pub fn has_snapshot(&self, id: SnapshotId) -> Result<bool> {
        if self.slot.has_pinned(Kind::Snapshot, id.0) {
            return Ok(true);
        }
        let there = self.shared().catalog.read("looking up a snapshot", |db| find(db, id))?;
        if there.is_none() {
            return Ok(false);
        }
        self.slot.write("pinning a snapshot", |db, pins| Ok(pin_snapshot(db, pins, id)?.is_some()))
    }

    /// The snapshot and all it lies on, to be mounted read-only; all of it is pinned.
    ///
    /// # Errors
    /// [`Error::NoSnapshot`], [`Error::Catalog`].
    pub fn stack(&self, id: SnapshotId) -> Result<Stack> {
        let shared = self.shared();
        let now = shared.now();
        let ids = self.slot.write("stacking snapshots", |db, pins| {
            let Some(found) = pin_snapshot(db, pins, id)? else {
                return Err(Error::NoSnapshot { id: id.0 }.into());
            };
            db.prepare_cached("UPDATE snapshots SET used = ? WHERE id = ?")?
                .execute(params![now, DigestKey(found.0)])?;
            let mut query = db.prepare_cached(
                "WITH RECURSIVE below(id, parent, level) AS \
                 (SELECT id, parent, 0 FROM snapshots WHERE id = ?1 \
                  UNION ALL SELECT s.id, s.parent, level + 1 FROM snapshots s JOIN below \
                  ON s.id = below.parent WHERE level < 1000) \
                 SELECT id FROM below ORDER BY level",
            )?;
            let ids = query.query_map([DigestKey(found.0)], |row| row.get::<_, DigestKey>(0))?;
            Ok(ids.collect::<rusqlite::Result<Vec<_>>>()?)
        })?;
        let lower = ids.iter().map(|id| shared.snapshot_path(id.0).join("fs")).collect();
        Ok(Stack { lower, ..self.empty_stack() })
    }

    /// No directories, with the attributes of this store.
    pub fn empty_stack(&self) -> Stack {
        Stack { user_xattr: self.shared().options.user_xattr, ..Stack::default() }
    }

    /// Lets a chain id name the snapshot `id`, so that a layer that a step made is found as the
    /// layer of an image. What the chain id named before, if it is still there, keeps it.
    ///
    /// # Errors
    /// [`Error::NoSnapshot`], [`Error::Catalog`].
    pub fn alias(&self, id: SnapshotId, chain: ChainId) -> Result<()> {
        self.slot.write("naming a snapshot", |db, pins| {
            let Some(found) = pin_snapshot(db, pins, id)? else {
                return Err(Error::NoSnapshot { id: id.0 }.into());
            };
            if find(db, chain.into())?.is_some() {
                return Ok(());
            }
            db.prepare_cached("INSERT OR REPLACE INTO aliases(chain, id) VALUES(?, ?)")?
                .execute([DigestKey(chain.0), DigestKey(found.0)])?;
            Ok(())
        })
    }
}

impl StoreInner {
    /// The directory of a snapshot; its tree is `fs` below it.
    pub(crate) fn snapshot_path(&self, id: Digest) -> PathBuf {
        self.root.join("snapshots").join(id.hex())
    }
}
