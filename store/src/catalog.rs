//! The SQLite catalog: its schema, its connection, and the two ways to use it.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use image::Digest;
use rusqlite::config::DbConfig;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use crate::{Error, Result};

/// How long one process waits for another's transaction; they take milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// The version of the schema below, kept in SQLite's `user_version`.
pub(crate) const SCHEMA_VERSION: i64 = 3;

/// Values are up to megabytes long. Their table has row ids and its key an index: in a table without
/// row ids SQLite reads whole values to compare keys.
const MEMOS: &str = "
CREATE TABLE memos(id INTEGER PRIMARY KEY, space TEXT NOT NULL, key BLOB NOT NULL, used INTEGER NOT NULL, value BLOB NOT NULL);
CREATE UNIQUE INDEX memos_key ON memos(space, key);
";

const SCHEMA: &str = "
-- Content. A row is made in the transaction that moves the file into place.
-- One with a snapshot has no file: it is the layer of that, no file in it younger than `clamp`; `packed` is what it is
-- compressed. The snapshot is there as long as the row is.
CREATE TABLE blobs(digest BLOB PRIMARY KEY, size INTEGER NOT NULL, added INTEGER NOT NULL, snapshot BLOB, clamp INTEGER, packed TEXT) WITHOUT ROWID;
-- Manifests and indexes that were published, with all that is below them.
CREATE TABLE nodes(digest BLOB PRIMARY KEY, descriptor TEXT NOT NULL, config BLOB, chain BLOB, published INTEGER) WITHOUT ROWID;
CREATE TABLE edges(parent BLOB NOT NULL, child BLOB NOT NULL, PRIMARY KEY(parent, child)) WITHOUT ROWID;
CREATE TABLE referrers(subject BLOB NOT NULL, referrer BLOB NOT NULL, PRIMARY KEY(subject, referrer)) WITHOUT ROWID;
CREATE TABLE names(name TEXT PRIMARY KEY, digest BLOB NOT NULL, descriptor TEXT NOT NULL, updated INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX names_digest ON names(digest);
-- Unpacked layers. `size` is measured when somebody asks.
CREATE TABLE snapshots(id BLOB PRIMARY KEY, parent BLOB, depth INTEGER NOT NULL, size INTEGER, used INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX snapshots_parent ON snapshots(parent);
CREATE TABLE aliases(chain BLOB PRIMARY KEY, id BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX aliases_id ON aliases(id);
-- The build cache.
CREATE TABLE steps(key BLOB PRIMARY KEY, snapshot BLOB, layer BLOB, info TEXT, note TEXT NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE mounts(directory TEXT PRIMARY KEY, id TEXT NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE containers(id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, image TEXT, snapshot BLOB, created INTEGER NOT NULL) WITHOUT ROWID;
-- Who is at work, and what must not be collected meanwhile. Kinds: 0 blob, 1 snapshot.
CREATE TABLE leases(id TEXT PRIMARY KEY, since INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE pins(lease TEXT NOT NULL, kind INTEGER NOT NULL, digest BLOB NOT NULL, PRIMARY KEY(lease, kind, digest)) WITHOUT ROWID;
-- What may not have reached the disk yet, and what gc has decided to delete.
CREATE TABLE unsynced(seq INTEGER PRIMARY KEY AUTOINCREMENT, boot TEXT NOT NULL, kind INTEGER NOT NULL, digest BLOB NOT NULL);
CREATE INDEX unsynced_digest ON unsynced(digest);
CREATE TABLE condemned(kind INTEGER NOT NULL, digest BLOB NOT NULL, PRIMARY KEY(kind, digest)) WITHOUT ROWID;
";

/// What a pin, a mark or a condemnation is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// A file below `blobs/`.
    Blob,
    /// A directory below `snapshots/`.
    Snapshot,
}

impl ToSql for Kind {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(match self {
            Kind::Blob => 0i64,
            Kind::Snapshot => 1,
        }))
    }
}

impl FromSql for Kind {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value.as_i64()? {
            0 => Ok(Kind::Blob),
            1 => Ok(Kind::Snapshot),
            other => Err(FromSqlError::OutOfRange(other)),
        }
    }
}

/// A digest as the catalog keeps it: its raw bytes, whose number tells the algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct DigestKey(pub(crate) Digest);

impl ToSql for DigestKey {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(self.0.as_bytes()))
    }
}

impl FromSql for DigestKey {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let bytes = value.as_blob()?;
        if let Ok(bytes) = bytes.try_into() {
            return Ok(DigestKey(Digest::Sha256(bytes)));
        }
        match bytes.try_into() {
            Ok(bytes) => Ok(DigestKey(Digest::Sha512(bytes))),
            Err(_) => {
                Err(FromSqlError::InvalidBlobSize { expected_size: 32, blob_size: bytes.len() })
            }
        }
    }
}

/// A number of bytes or seconds as SQLite keeps it.
pub(crate) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Why a transaction was given up: a SQL error still without its context, or one of ours.
#[derive(Debug)]
pub(crate) enum Failure {
    Sql(rusqlite::Error),
    Ours(Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Failure::Sql(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Ours(error)
    }
}

/// What the body of a transaction returns.
pub(crate) type Attempt<T> = std::result::Result<T, Failure>;

fn settle<T>(action: &'static str, attempt: Attempt<T>) -> Result<T> {
    attempt.map_err(|failure| match failure {
        Failure::Sql(source) => Error::Catalog { action, source },
        Failure::Ours(error) => error,
    })
}

/// The last process to close the catalog leaves a log of up to this many bytes as it is. To fold
/// it into the database takes some milliseconds of waiting for the disk, which a short command
/// should not pay; to read a log of this size takes the next process a fraction of one.
const LOG_TO_LEAVE: u64 = 512 << 10;

/// The connection of this process.
#[derive(Debug)]
pub(crate) struct Catalog {
    connection: Mutex<Connection>,
    log: PathBuf,
}

impl Drop for Catalog {
    fn drop(&mut self) {
        let length = std::fs::metadata(&self.log).map_or(0, |metadata| metadata.len());
        if length <= LOG_TO_LEAVE {
            return;
        }
        let connection = self.connection();
        // Where others are at work it does not come to this, and one of them does it later.
        let folded = connection
            .busy_timeout(Duration::ZERO)
            .and_then(|()| connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())));
        if let Err(error) = folded {
            tracing::debug!(%error, "the log of the catalog stays");
        }
    }
}

impl Catalog {
    /// Opens the database of an existing store.
    pub(crate) fn open(path: &Path) -> Result<Catalog> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Catalog::connect(path, flags)
    }

    /// Makes the database, or completes one whose making was interrupted. The caller sees to it
    /// that no other process does the same.
    pub(crate) fn create(path: &Path) -> Result<Catalog> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let catalog = Catalog::connect(path, flags)?;
        let connection = catalog.connection();
        let attempt = (|| {
            connection.pragma_update(None, "journal_mode", "WAL")?;
            let version: i64 =
                connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
            if version == 0 {
                connection.execute_batch(&format!(
                    "BEGIN IMMEDIATE; {SCHEMA} {MEMOS} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
                ))?;
            }
            Ok(())
        })();
        drop(connection);
        settle("creating the tables", attempt)?;
        Ok(catalog)
    }

    fn connect(path: &Path, flags: OpenFlags) -> Result<Catalog> {
        let attempt = (|| {
            let connection = Connection::open_with_flags(path, flags)?;
            connection.busy_timeout(PATIENCE)?;
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            connection.set_prepared_statement_cache_capacity(64);
            Ok(connection)
        })();
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        let connection = Mutex::new(settle("opening the database", attempt)?);
        Ok(Catalog { connection, log: log.into() })
    }

    /// Brings a database of an earlier version up to this one. What is remembered may be forgotten at
    /// any time, so it is.
    pub(crate) fn migrate(&self) -> Result<()> {
        self.write("upgrading the catalog", |db| {
            let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
            if version == 1 {
                db.execute_batch(&format!("DROP TABLE memos; {MEMOS}"))?;
            }
            if version <= 2 {
                db.execute_batch(
                    "ALTER TABLE blobs ADD COLUMN snapshot BLOB; \
                     ALTER TABLE blobs ADD COLUMN clamp INTEGER; \
                     ALTER TABLE blobs ADD COLUMN packed TEXT; PRAGMA user_version = 3;",
                )?;
            }
            Ok(())
        })
    }

    fn connection(&self) -> std::sync::MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The version of the schema in the file.
    pub(crate) fn version(&self) -> Result<i64> {
        self.read("reading the version", |connection| {
            Ok(connection.pragma_query_value(None, "user_version", |row| row.get(0))?)
        })
    }

    /// Runs a body that sees one consistent state and changes nothing.
    pub(crate) fn read<T>(
        &self,
        action: &'static str,
        body: impl FnOnce(&Connection) -> Attempt<T>,
    ) -> Result<T> {
        let mut connection = self.connection();
        let attempt = (|| {
            let transaction = Transaction::new(&mut connection, TransactionBehavior::Deferred)?;
            let value = body(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })();
        settle(action, attempt)
    }

    /// Runs a body as the only writer of all processes; all of it happens, or nothing.
    pub(crate) fn write<T>(
        &self,
        action: &'static str,
        body: impl FnOnce(&Connection) -> Attempt<T>,
    ) -> Result<T> {
        let mut connection = self.connection();
        settle(action, immediate(&mut connection, body))
    }

    /// As [`Catalog::write`], and on the disk when it returns, with all earlier transactions.
    pub(crate) fn write_through<T>(
        &self,
        action: &'static str,
        body: impl FnOnce(&Connection) -> Attempt<T>,
    ) -> Result<T> {
        let mut connection = self.connection();
        let attempt = (|| {
            connection.pragma_update(None, "synchronous", "FULL")?;
            let value = immediate(&mut connection, body);
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            value
        })();
        settle(action, attempt)
    }
}

fn immediate<T>(
    connection: &mut Connection,
    body: impl FnOnce(&Connection) -> Attempt<T>,
) -> Attempt<T> {
    let transaction = Transaction::new(connection, TransactionBehavior::Immediate)?;
    let value = body(&transaction)?;
    transaction.commit()?;
    Ok(value)
}
