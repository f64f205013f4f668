//! Containers: rows that keep their image and snapshot, and directories.

use std::path::PathBuf;

use image::Descriptor;
use layers::{Stack, Top};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::catalog::{Attempt, DigestKey};
use crate::name::{json_column, to_json};
use crate::snapshot::pin_snapshot;
use crate::{Error, Result, SnapshotId, Store, file, reserve};

/// A container as the store knows it; what it is doing is the runtime's business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerRecord {
    /// The id: hexadecimal digits.
    pub id: String,
    /// The name, unique in the store.
    pub name: String,
    /// The manifest it was made from, kept from collection.
    pub image: Option<Descriptor>,
    /// The snapshot below it, kept from collection.
    pub snapshot: Option<SnapshotId>,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// Its directory.
    pub directory: PathBuf,
}

const COLUMNS: &str = "id, name, image, snapshot, created";

impl Store {
    /// Where the directories of containers are.
    pub fn containers_dir(&self) -> PathBuf {
        self.path().join("containers")
    }

    /// Adds a container and makes its directory, with `upper` and `work` in it.
    ///
    /// # Errors
    /// [`Error::NameTaken`], [`Error::BadName`], [`Error::NoSnapshot`], [`Error::File`],
    /// [`Error::Catalog`].
    pub fn add_container(
        &self,
        id: &str,
        name: &str,
        image: Option<&Descriptor>,
        snapshot: Option<SnapshotId>,
    ) -> Result<ContainerRecord> {
        self.add_container_with(id, name, image, snapshot, &[])
    }

    /// As [`Store::add_container`], with these files in its directory from the first moment: a
    /// container without them is never seen.
    ///
    /// # Errors
    /// As [`Store::add_container`].
    pub fn add_container_with(
        &self,
        id: &str,
        name: &str,
        image: Option<&Descriptor>,
        snapshot: Option<SnapshotId>,
        files: &[(&str, &[u8])],
    ) -> Result<ContainerRecord> {
        if id.len() < 12
            || id.len() > 64
            || !id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        {
            let (name, reason) = (id.to_owned(), "an id is 12 to 64 hexadecimal digits");
            return Err(Error::BadName { name, reason });
        }
        check_name(name)?;
        let directory = self.containers_dir().join(id);
        let created = self.shared().now();
        self.slot.write("adding a container", |db, pins| {
            if let Some(by) = taken(db, id, name)? {
                return Err(Error::NameTaken { name: name.to_owned(), by }.into());
            }
            let snapshot = match snapshot {
                None => None,
                Some(id) => match pin_snapshot(db, pins, id)? {
                    None => return Err(Error::NoSnapshot { id: id.0 }.into()),
                    found => found,
                },
            };
            file::make_dir(&directory, 0o700)?;
            file::make_dir(&directory.join("upper"), 0o755)?;
            file::make_dir(&directory.join("work"), 0o700)?;
            for (file, content) in files {
                let path = directory.join(file);
                std::fs::write(&path, content)
                    .map_err(|error| Error::file("writing", &path, error))?;
            }
            db.execute(
                "INSERT INTO containers(id, name, image, snapshot, created) VALUES(?, ?, ?, ?, ?)",
                params![id, name, image.map(to_json), snapshot.map(|id| DigestKey(id.0)), created],
            )?;
            Ok(ContainerRecord {
                id: id.to_owned(),
                name: name.to_owned(),
                image: image.cloned(),
                snapshot,
                created: created.unsigned_abs(),
                directory: directory.clone(),
            })
        })
    }

    /// All containers, oldest first.
    ///
    /// # Errors
    /// [`Error::Catalog`].
    pub fn containers(&self) -> Result<Vec<ContainerRecord>> {
        self.shared().catalog.read("listing containers", |db| {
            let mut query = db.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM containers ORDER BY created, id"
            ))?;
            let rows = query.query_map([], |row| self.container_row(row))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// The container with this name, this id, or an id that alone begins so.
    ///
    /// # Errors
    /// [`Error::NoContainer`], [`Error::Ambiguous`], [`Error::Catalog`].
    pub fn container(&self, name_or_id: &str) -> Result<ContainerRecord> {
        let mut found = self.shared().catalog.read("looking up a container", |db| {
            let mut exact = db.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM containers WHERE name = ?1 OR id = ?1 ORDER BY name <> ?1"
            ))?;
            if let Some(row) =
                exact.query_row([name_or_id], |row| self.container_row(row)).optional()?
            {
                return Ok(vec![row]);
            }
            let mut prefix = db.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM containers WHERE substr(id, 1, ?2) = ?1 ORDER BY id LIMIT 5"
            ))?;
            let length = name_or_id.chars().count();
            let length = i64::try_from(length).unwrap_or(i64::MAX);
            let rows =
                prefix.query_map(params![name_or_id, length], |row| self.container_row(row))?;
            Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?)
        })?;
        match (found.len(), found.pop()) {
            (1, Some(one)) if !name_or_id.is_empty() => Ok(one),
            (0 | 1, _) => Err(Error::NoContainer { name: name_or_id.to_owned() }),
            (_, last) => Err(Error::Ambiguous {
                name: name_or_id.to_owned(),
                candidates: found
                    .into_iter()
                    .chain(last)
                    .map(|c| format!("{} ({})", c.id.get(..12).unwrap_or(&c.id), c.name))
                    .collect(),
            }),
        }
    }

    /// Gives a container another name.
    ///
    /// # Errors
    /// [`Error::NoContainer`], [`Error::NameTaken`], [`Error::BadName`], [`Error::Catalog`].
    pub fn rename_container(&self, id: &str, name: &str) -> Result<()> {
        check_name(name)?;
        self.shared().catalog.write("renaming a container", |db| {
            let by = db
                .prepare_cached("SELECT id FROM containers WHERE name = ? AND id <> ?")?
                .query_row([name, id], |row| row.get::<_, String>(0))
                .optional()?;
            if let Some(by) = by {
                return Err(Error::NameTaken { name: name.to_owned(), by }.into());
            }
            let changed = db.execute("UPDATE containers SET name = ? WHERE id = ?", [name, id])?;
            match changed {
                0 => Err(Error::NoContainer { name: id.to_owned() }.into()),
                _ => Ok(()),
            }
        })
    }

    /// The container's snapshot with its own changes on top, to be mounted.
    ///
    /// # Errors
    /// [`Error::NoSnapshot`], [`Error::Catalog`].
    pub fn container_stack(&self, container: &ContainerRecord) -> Result<Stack> {
        let mut stack = match container.snapshot {
            Some(snapshot) => self.stack(snapshot)?,
            None => self.empty_stack(),
        };
        let directory = &container.directory;
        // Its image's files with other owners.
        let own = directory.join("lower");
        if own.is_dir() {
            stack.lower = vec![own];
        }
        stack.top = Some(Top { upper: directory.join("upper"), work: directory.join("work") });
        Ok(stack)
    }

    /// Removes a container, which must not be running, and its directory. `false` if there was no
    /// container with this id.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Catalog`].
    pub fn remove_container(&self, id: &str) -> Result<bool> {
        let root = &self.shared().root;
        reserve::tend(root);
        if reserve::is_full(root) {
            // What it wrote goes first: without room the catalog cannot be written.
            let directory = self.containers_dir().join(id);
            for part in ["upper", "lower", "log", "log.1"] {
                file::remove_tree(&directory.join(part))?;
            }
        }
        // On disk before the directory goes: no power failure brings back the row alone.
        let removed = self.shared().catalog.write_through("removing a container", |db| {
            Ok(db.execute("DELETE FROM containers WHERE id = ?", [id])? > 0)
        })?;
        if removed {
            // A directory without a row is garbage, should this be the end of the process.
            file::remove_tree(&self.containers_dir().join(id))?;
        }
        Ok(removed)
    }

    fn container_row(&self, row: &Row<'_>) -> rusqlite::Result<ContainerRecord> {
        let id: String = row.get(0)?;
        let image: Option<String> = row.get(2)?;
        let snapshot: Option<DigestKey> = row.get(3)?;
        let created: i64 = row.get(4)?;
        Ok(ContainerRecord {
            name: row.get(1)?,
            image: image.map(|_| json_column(row, 2)).transpose()?,
            snapshot: snapshot.map(|key| SnapshotId(key.0)),
            created: created.unsigned_abs(),
            directory: self.containers_dir().join(&id),
            id,
        })
    }
}

fn check_name(name: &str) -> Result<()> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if first && name.bytes().all(word) && name.len() <= 255 {
        return Ok(());
    }
    Err(Error::BadName {
        name: name.chars().take(300).collect(),
        reason: "a container's name is letters, digits, '_', '.' and '-', a letter or digit first",
    })
}

fn taken(db: &Connection, id: &str, name: &str) -> Attempt<Option<String>> {
    let mut query = db.prepare_cached("SELECT id FROM containers WHERE id = ?1 OR name = ?2")?;
    Ok(query.query_row([id, name], |row| row.get(0)).optional()?)
}
