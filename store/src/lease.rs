//! Leases: what a process at work uses stays, and what a dead one left goes.

use std::collections::HashSet;
use std::fs::File;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use image::Digest;
use rusqlite::{Connection, params};

use crate::catalog::{Attempt, DigestKey, Kind};
use crate::store::StoreInner;
use crate::{Result, Store, file};

/// The place of a lease in a [`Store`] handle: taken when first needed, given back when the last
/// handle, writer and active directory that use it are gone.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) shared: Arc<StoreInner>,
    lease_state: Mutex<Option<LeaseState>>,
}

#[derive(Debug)]
struct LeaseState {
    id: String,
    /// Locked; the kernel unlocks it when the process dies.
    _file: File,
    pinned: HashSet<(Kind, Digest)>,
    directories: HashSet<&'static str>,
    next: u64,
}

/// Pins things for the lease of the running transaction.
#[derive(Debug)]
pub(crate) struct Pins<'a> {
    lease: &'a str,
    known: &'a HashSet<(Kind, Digest)>,
    fresh: Vec<(Kind, Digest)>,
}

impl Pins<'_> {
    /// From this transaction on the thing is not collected while the lease lives.
    pub(crate) fn add(&mut self, db: &Connection, kind: Kind, digest: Digest) -> Attempt<()> {
        if self.known.contains(&(kind, digest)) {
            return Ok(());
        }
        let mut insert =
            db.prepare_cached("INSERT OR IGNORE INTO pins(lease, kind, digest) VALUES(?, ?, ?)")?;
        insert.execute(params![self.lease, kind, DigestKey(digest)])?;
        self.fresh.push((kind, digest));
        Ok(())
    }
}

impl Slot {
    pub(crate) fn new(shared: Arc<StoreInner>) -> Arc<Slot> {
        Arc::new(Slot { shared, lease_state: Mutex::new(None) })
    }

    fn held(&self) -> MutexGuard<'_, Option<LeaseState>> {
        self.lease_state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this lease has pinned the thing: then it is there, without a look.
    pub(crate) fn has_pinned(&self, kind: Kind, digest: Digest) -> bool {
        self.held().as_ref().is_some_and(|held| held.pinned.contains(&(kind, digest)))
    }

    /// Runs a write transaction whose body can pin.
    pub(crate) fn write<T>(
        &self,
        action: &'static str,
        body: impl FnOnce(&Connection, &mut Pins<'_>) -> Attempt<T>,
    ) -> Result<T> {
        let mut slot = self.held();
        let new = slot.is_none();
        let mut held = match slot.take() {
            Some(held) => held,
            None => self.lock()?,
        };
        let now = self.shared.now();
        let written = self.shared.catalog.write(action, |db| {
            if new {
                insert(db, &held.id, now)?;
            }
            let mut pins = Pins { lease: &held.id, known: &held.pinned, fresh: Vec::new() };
            let value = body(db, &mut pins)?;
            Ok((value, pins.fresh))
        });
        match written {
            Ok((value, fresh)) => {
                held.pinned.extend(fresh);
                *slot = Some(held);
                Ok(value)
            }
            // The row of a new lease is not there.
            Err(error) if new => {
                file::remove_file(&self.shared.lease_path(&held.id))?;
                Err(error)
            }
            Err(error) => {
                *slot = Some(held);
                Err(error)
            }
        }
    }

    /// A unique path, in this lease's own directory below `place`.
    pub(crate) fn path_in(&self, place: &'static str) -> Result<PathBuf> {
        let mut slot = self.held();
        let held = self.ensure(&mut slot)?;
        let directory = self.shared.root.join(place).join(&held.id);
        if !held.directories.contains(place) {
            file::make_dir(&directory, 0o700)?;
            held.directories.insert(place);
        }
        held.next += 1;
        Ok(directory.join(held.next.to_string()))
    }

    fn ensure<'a>(&self, slot: &'a mut Option<LeaseState>) -> Result<&'a mut LeaseState> {
        if slot.is_none() {
            *slot = Some(self.take()?);
        }
        Ok(slot.as_mut().expect("it was filled just now"))
    }

    fn take(&self) -> Result<LeaseState> {
        let held = self.lock()?;
        let now = self.shared.now();
        self.shared.catalog.write("taking a lease", |db| insert(db, &held.id, now))?;
        Ok(held)
    }

    /// A lease whose file is locked, and which is not in the catalog yet.
    fn lock(&self) -> Result<LeaseState> {
        let (id, file) = loop {
            let id = file::random();
            // A collector that lists the directory may have it locked for a moment.
            if let Some(file) = file::try_lock(&self.shared.lease_path(&id), true, true)? {
                break (id, file);
            }
        };
        Ok(LeaseState {
            id,
            _file: file,
            pinned: HashSet::new(),
            directories: HashSet::new(),
            next: 0,
        })
    }
}

fn insert(db: &Connection, id: &str, now: i64) -> Attempt<()> {
    db.execute("INSERT INTO leases(id, since) VALUES(?, ?)", params![id, now])?;
    Ok(())
}

impl Drop for Slot {
    fn drop(&mut self) {
        let held = self.lease_state.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let Some(held) = held else { return };
        if let Err(error) = clear(&self.shared, &held.id, &held.directories) {
            // The next process that opens the store finds the lease dead and does the same.
            tracing::debug!(%error, lease = held.id, "the lease was not released");
        }
    }
}

/// Removes a lease and everything it had, its file last.
fn clear(shared: &StoreInner, id: &str, directories: &HashSet<&'static str>) -> Result<()> {
    for place in directories {
        let directory = shared.root.join(place).join(id);
        // Empty unless an `Active` was leaked.
        if std::fs::remove_dir(&directory).is_err() {
            shared.discard(&directory)?;
        }
    }
    shared.catalog.write("releasing a lease", |db| forget(db, id))?;
    file::remove_file(&shared.lease_path(id))
}

fn forget(db: &Connection, id: &str) -> Attempt<()> {
    db.execute("DELETE FROM pins WHERE lease = ?", [id])?;
    db.execute("DELETE FROM leases WHERE id = ?", [id])?;
    Ok(())
}

/// Puts away what dead processes left; cheap when there is nothing. Says how many were dead.
pub(crate) fn bury_dead(shared: &StoreInner) -> Result<usize> {
    let ids = shared.catalog.read("listing leases", |db| {
        let mut query = db.prepare_cached("SELECT id FROM leases")?;
        let ids = query.query_map([], |row| row.get::<_, String>(0))?;
        Ok(ids.collect::<rusqlite::Result<Vec<_>>>()?)
    })?;
    let mut dead = 0;
    for id in ids {
        let path = shared.lease_path(&id);
        let lock = file::try_lock(&path, true, false)?;
        if lock.is_none() && path.exists() {
            continue;
        }
        clear(shared, &id, &HashSet::from(["active", "ingest"]))?;
        drop(lock);
        dead += 1;
    }
    Ok(dead)
}

impl StoreInner {
    pub(crate) fn lease_path(&self, id: &str) -> PathBuf {
        self.root.join("leases").join(id)
    }

    /// Moves something to the trash; the next process that empties the trash deletes it.
    pub(crate) fn discard(&self, path: &Path) -> Result<bool> {
        file::rename(path, &self.root.join("trash").join(file::random()))
    }

    /// Deletes what was discarded.
    pub(crate) fn empty_trash(&self) -> Result<()> {
        let trash = self.root.join("trash");
        for name in file::list(&trash)? {
            file::remove_tree(&trash.join(name))?;
        }
        Ok(())
    }
}

/// A store handle with pins of its own: what is looked up or created through it is not collected
/// until it is dropped. A plain [`Store`] handle has such a lease too, for its whole life; take
/// one of these for a unit of work in a long-lived process.
#[derive(Debug)]
pub struct Lease(Store);

impl Deref for Lease {
    type Target = Store;
    fn deref(&self) -> &Store {
        &self.0
    }
}

impl Store {
    /// Takes a lease of its own, given back when the returned handle and its clones are dropped.
    ///
    /// # Errors
    /// [`crate::Error::File`], [`crate::Error::Catalog`].
    pub fn lease(&self) -> Result<Lease> {
        let slot = Slot::new(Arc::clone(&self.slot.shared));
        slot.ensure(&mut slot.held())?;
        Ok(Lease(Store { slot }))
    }

    pub(crate) fn shared(&self) -> &StoreInner {
        &self.slot.shared
    }
}
