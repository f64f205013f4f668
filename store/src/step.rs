//! The build cache: what a step made last time, and small things worth remembering.

use image::{Descriptor, Digest};
use layers::LayerInfo;
use rusqlite::{OptionalExtension, params};
use serde::{Deserialize, Serialize};

use crate::blob::pin_blob;
use crate::catalog::{DigestKey, number};
use crate::snapshot::pin_snapshot;
use crate::{Result, SnapshotId, Store};

/// What a step made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StepRecord {
    /// The tree after the step.
    pub snapshot: Option<SnapshotId>,
    /// The layer it adds, once that is made.
    pub layer: Option<LayerInfo>,
    /// What else is known of it.
    pub note: StepNote,
}

/// What is remembered of a step besides what it made. Everything is optional: a field that this
/// version does not know is left out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StepNote {
    /// The key of the step that made the same: its record is the one that counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same: Option<Digest>,
    /// When it was executed, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<i64>,
    /// What the user calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
}

impl StepNote {
    /// Reads what the catalog holds; what is not understood says nothing.
    pub(crate) fn read(text: &str) -> StepNote {
        serde_json::from_str::<Option<StepNote>>(text).ok().flatten().unwrap_or_default()
    }
}

/// A layer as the catalog writes it down.
#[derive(Serialize, Deserialize)]
pub(crate) struct Info {
    pub(crate) descriptor: Descriptor,
    diff_id: Digest,
    uncompressed: u64,
}

impl From<&LayerInfo> for Info {
    fn from(layer: &LayerInfo) -> Info {
        Info {
            descriptor: layer.descriptor.clone(),
            diff_id: layer.diff_id,
            uncompressed: layer.uncompressed,
        }
    }
}

impl From<Info> for LayerInfo {
    fn from(info: Info) -> LayerInfo {
        LayerInfo {
            descriptor: info.descriptor,
            diff_id: info.diff_id,
            uncompressed: info.uncompressed,
        }
    }
}

/// Last use is noted no more often than this, in seconds: a warm build writes less.
const USE_GRAIN: i64 = 3600;

impl Store {
    /// What the step with this key made, if all of it is still here; it is pinned.
    ///
    /// # Errors
    /// [`crate::Error::Catalog`].
    pub fn step(&self, key: Digest) -> Result<Option<StepRecord>> {
        let known: bool = self.shared().catalog.read("looking up a step", |db| {
            Ok(db
                .prepare_cached("SELECT EXISTS(SELECT 1 FROM steps WHERE key = ?)")?
                .query_row([DigestKey(key)], |row| row.get(0))?)
        })?;
        if !known {
            return Ok(None);
        }
        let now = self.shared().now();
        self.slot.write("looking up a step", |db, pins| {
            let mut query =
                db.prepare_cached("SELECT snapshot, info, note, used FROM steps WHERE key = ?")?;
            let row = query.query_row([DigestKey(key)], |row| {
                let snapshot: Option<DigestKey> = row.get(0)?;
                let (info, note): (Option<String>, String) = (row.get(1)?, row.get(2)?);
                Ok((snapshot, info, note, row.get::<_, i64>(3)?))
            });
            let Some((snapshot, info, note, used)) = row.optional()? else { return Ok(None) };
            let info: Option<Info> = info.and_then(|info| serde_json::from_str(&info).ok());
            let snapshot = snapshot.map(|id| SnapshotId(id.0));
            let whole = match snapshot {
                Some(id) => pin_snapshot(db, pins, id)?.is_some(),
                None => true,
            } && match &info {
                Some(info) => pin_blob(db, pins, info.descriptor.digest)?.is_some(),
                None => true,
            };
            if !whole {
                db.prepare_cached("DELETE FROM steps WHERE key = ?")?.execute([DigestKey(key)])?;
                return Ok(None);
            }
            if now - used > USE_GRAIN || now < used {
                db.prepare_cached("UPDATE steps SET used = ? WHERE key = ?")?
                    .execute(params![now, DigestKey(key)])?;
            }
            let layer = info.map(LayerInfo::from);
            let note = StepNote::read(&note);
            Ok(Some(StepRecord { snapshot, layer, note }))
        })
    }

    /// Remembers what a step made; a later record under the same key replaces it.
    ///
    /// # Errors
    /// [`crate::Error::Catalog`].
    pub fn record_step(&self, key: Digest, record: &StepRecord) -> Result<()> {
        let info = record.layer.as_ref().map(Info::from);
        let row = params![
            DigestKey(key),
            record.snapshot.map(|id| DigestKey(id.0)),
            info.as_ref().map(|info| DigestKey(info.descriptor.digest)),
            info.as_ref().map(crate::name::to_json),
            crate::name::to_json(&record.note),
            self.shared().now(),
        ];
        self.shared().catalog.write("recording a step", |db| {
            db.prepare_cached(
                "INSERT OR REPLACE INTO steps(key, snapshot, layer, info, note, used) \
                 VALUES(?, ?, ?, ?, ?, ?)",
            )?
            .execute(row)?;
            Ok(())
        })
    }

    /// A value remembered under a key.
    ///
    /// # Errors
    /// [`crate::Error::Catalog`].
    pub fn memo(&self, space: &str, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.memos(space, &[key])?.pop().flatten())
    }

    /// Many remembered values at once, in the order of the keys.
    ///
    /// # Errors
    /// [`crate::Error::Catalog`].
    pub fn memos<K: AsRef<[u8]>>(&self, space: &str, keys: &[K]) -> Result<Vec<Option<Vec<u8>>>> {
        self.shared().catalog.read("recalling", |db| {
            let mut query =
                db.prepare_cached("SELECT value FROM memos WHERE space = ? AND key = ?")?;
            let values = keys.iter().map(|key| {
                query.query_row(params![space, key.as_ref()], |row| row.get(0)).optional()
            });
            Ok(values.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Remembers a value under a key. It may be forgotten at any collection.
    ///
    /// # Errors
    /// [`crate::Error::Catalog`].
    pub fn set_memo(&self, space: &str, key: &[u8], value: &[u8]) -> Result<()> {
        self.set_memos(space, &[(key, value)])
    }

    /// Remembers many values, in one transaction.
    ///
    /// # Errors
    /// [`crate::Error::Catalog`].
    pub fn set_memos<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        space: &str,
        entries: &[(K, V)],
    ) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let now = self.shared().now();
        self.shared().catalog.write("remembering", |db| {
            let mut insert = db.prepare_cached(
                "INSERT OR REPLACE INTO memos(space, key, value, used) VALUES(?, ?, ?, ?)",
            )?;
            for (key, value) in entries {
                insert.execute(params![space, key.as_ref(), value.as_ref(), now])?;
            }
            Ok(())
        })
    }

    /// How many steps are remembered.
    ///
    /// # Errors
    /// [`crate::Error::Catalog`].
    pub fn step_count(&self) -> Result<u64> {
        self.shared().catalog.read("counting steps", |db| {
            let count: i64 = db.query_row("SELECT count(*) FROM steps", [], |row| row.get(0))?;
            Ok(number(count.unsigned_abs()).unsigned_abs())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_of_earlier_versions_are_read() {
        let same = Digest::of(b"key");
        for (text, note) in [
            ("null".to_owned(), StepNote::default()),
            ("{}".to_owned(), StepNote::default()),
            ("not JSON".to_owned(), StepNote::default()),
            (
                format!(r#"{{"same":"{same}"}}"#),
                StepNote { same: Some(same), ..StepNote::default() },
            ),
            (
                r#"{"created":7,"step":"RUN x","later":1}"#.to_owned(),
                StepNote { created: Some(7), step: Some("RUN x".to_owned()), same: None },
            ),
        ] {
            assert_eq!(StepNote::read(&text), note, "{text}");
        }
    }
}
