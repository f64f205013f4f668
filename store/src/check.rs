//! Checking: every blob is hashed again, and rows, files and names are held against each other.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use image::Digest;
use rusqlite::Connection;
use task::{Cancelled, Task};

use crate::blob::has_blob;
use crate::catalog::Attempt;
use crate::mark::{each, key};
use crate::{Error, Result, SnapshotId, Store, file, gc, snapshot};

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// What it is about: `blob sha256:…`, `name localhost/app:latest`.
    pub subject: String,
    /// What is wrong with it.
    pub reason: String,
}

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It takes room, nothing else; the next collection removes it.
    Garbage,
    /// Something is missing or not what it was.
    Broken,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.reason)
    }
}

fn broken(subject: impl Into<String>, reason: impl Into<String>) -> Problem {
    Problem { severity: Severity::Broken, subject: subject.into(), reason: reason.into() }
}

impl Store {
    /// Looks at everything in the store and names what is wrong; nothing is changed. Other
    /// processes may work meanwhile.
    ///
    /// # Errors
    /// [`Error::Catalog`], [`Error::File`], [`Error::Cancelled`].
    pub fn check(&self, task: &Task) -> Result<Vec<Problem>> {
        let mut problems = self.check_blobs(task)?;
        let shared = self.shared();
        // As the only writer, so that files and rows belong together.
        shared.catalog.write("checking", |db| {
            each(db, "PRAGMA quick_check", |row| {
                let said: String = row.get(0)?;
                if said != "ok" {
                    problems.push(broken("catalog.db", said));
                }
                Ok(())
            })?;
            check_names(db, &mut problems)?;
            self.check_snapshots(db, &mut problems)?;
            self.check_containers(db, &mut problems)?;
            for path in gc::strays(db, shared)? {
                problems.push(Problem {
                    severity: Severity::Garbage,
                    subject: path.strip_prefix(&shared.root).unwrap_or(&path).display().to_string(),
                    reason: "no row refers to it".to_owned(),
                });
            }
            Ok(())
        })?;
        problems.sort();
        Ok(problems)
    }

    fn check_blobs(&self, task: &Task) -> Result<Vec<Problem>> {
        let mut blobs = Vec::new();
        self.shared().catalog.read("listing blobs", |db| {
            each(db, "SELECT digest, size FROM blobs", |row| {
                blobs.push((key(row, 0)?, row.get::<_, i64>(1)?.unsigned_abs()));
                Ok(())
            })
        })?;
        let total = blobs.iter().map(|(_, size)| size).sum();
        let task = task.sized("checking blobs", total);
        let next = AtomicUsize::new(0);
        let found = Mutex::new(Ok(Vec::new()));
        let labour = || {
            while let Some((digest, size)) = blobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                let outcome = self.check_blob(*digest, *size, &task);
                let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                match (&mut *found, outcome) {
                    (Ok(problems), Ok(problem)) => problems.extend(problem),
                    (Ok(_), Err(error)) => *found = Err(error),
                    (Err(_), _) => return,
                }
            }
        };
        let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        std::thread::scope(|scope| {
            for _ in 0..workers.min(blobs.len()) {
                scope.spawn(labour);
            }
        });
        let problems = found.into_inner().unwrap_or_else(PoisonError::into_inner)?;
        task.done();
        Ok(problems)
    }

    fn check_blob(&self, digest: Digest, size: u64, task: &Task) -> Result<Option<Problem>> {
        let path = self.blob_path(digest);
        let reason = match file::open(&path) {
            Err(error) => error.to_string(),
            Ok(None) => match self.check_derived(digest, task)? {
                Some(reason) => reason,
                None => return Ok(None),
            },
            Ok(Some(file)) => match file::hash(digest.algorithm(), task.reading(file)) {
                Err(error) if Cancelled::is_in(&error) => return Err(Error::Cancelled(Cancelled)),
                Err(error) => error.to_string(),
                Ok((found, length)) if found != digest => {
                    format!("its {length} bytes have the digest {found}")
                }
                Ok((_, length)) if length != size => {
                    format!("it has {length} bytes, the catalog says {size}")
                }
                Ok(_) => return Ok(None),
            },
        };
        // It may have been collected since we listed it.
        let still = self.shared().catalog.read("looking up a blob", |db| has_blob(db, digest))?;
        Ok(still.map(|_| broken(format!("blob {digest}"), reason)))
    }

    fn check_snapshots(&self, db: &Connection, problems: &mut Vec<Problem>) -> Attempt<()> {
        let mut known = BTreeSet::new();
        let mut rows = Vec::new();
        each(db, "SELECT id, parent FROM snapshots ORDER BY depth", |row| {
            let parent: Option<crate::catalog::DigestKey> = row.get(1)?;
            rows.push((key(row, 0)?, parent.map(|parent| parent.0)));
            Ok(())
        })?;
        for (id, parent) in rows {
            let subject = format!("snapshot {id}");
            if !self.shared().snapshot_path(id).join("fs").is_dir() {
                problems.push(broken(&subject, "its directory is missing"));
            }
            if let Some(parent) = parent.filter(|parent| !known.contains(parent)) {
                problems.push(broken(&subject, format!("its parent {parent} is missing")));
            }
            known.insert(id);
        }
        each(db, "SELECT chain, id FROM aliases", |row| {
            let (chain, id) = (key(row, 0)?, key(row, 1)?);
            if !known.contains(&id) {
                problems
                    .push(broken(format!("alias {chain}"), format!("snapshot {id} is missing")));
            }
            Ok(())
        })
    }

    fn check_containers(&self, db: &Connection, problems: &mut Vec<Problem>) -> Attempt<()> {
        let mut rows = Vec::new();
        each(db, "SELECT id, name, snapshot FROM containers", |row| {
            let snapshot: Option<crate::catalog::DigestKey> = row.get(2)?;
            rows.push((row.get::<_, String>(0)?, row.get::<_, String>(1)?, snapshot));
            Ok(())
        })?;
        for (id, name, snapshot) in rows {
            let subject = format!("container {name}");
            if !self.containers_dir().join(id).is_dir() {
                problems.push(broken(&subject, "its directory is missing"));
            }
            if let Some(id) = snapshot.map(|key| key.0)
                && snapshot::find(db, SnapshotId(id))?.is_none()
            {
                problems.push(broken(&subject, format!("snapshot {id} is missing")));
            }
        }
        Ok(())
    }
}

/// Every name points at a manifest or index all of whose parts are there and on disk.
fn check_names(db: &Connection, problems: &mut Vec<Problem>) -> Attempt<()> {
    let mut names = Vec::new();
    each(db, "SELECT name, digest FROM names", |row| {
        names.push((row.get::<_, String>(0)?, key(row, 1)?));
        Ok(())
    })?;
    let mut parts = db.prepare(
        "WITH RECURSIVE below(digest) AS (SELECT ?1 UNION SELECT e.child FROM edges e JOIN below \
         ON e.parent = below.digest) SELECT below.digest, \
         EXISTS(SELECT 1 FROM blobs b WHERE b.digest = below.digest), \
         EXISTS(SELECT 1 FROM unsynced u WHERE u.kind = 0 AND u.digest = below.digest) \
         FROM below",
    )?;
    for (name, root) in names {
        let subject = format!("name {name}");
        let known: bool = db.query_row(
            "SELECT EXISTS(SELECT 1 FROM nodes WHERE digest = ?)",
            [crate::catalog::DigestKey(root)],
            |row| row.get(0),
        )?;
        if !known {
            problems.push(broken(&subject, format!("{root} was never published")));
        }
        let mut rows = parts.query([crate::catalog::DigestKey(root)])?;
        while let Some(row) = rows.next()? {
            let part = key(row, 0)?;
            let (there, unsynced): (bool, bool) = (row.get(1)?, row.get(2)?);
            if !there {
                problems.push(broken(&subject, format!("its part {part} is missing")));
            } else if unsynced {
                problems.push(broken(&subject, format!("its part {part} may not be on disk")));
            }
        }
    }
    Ok(())
}
