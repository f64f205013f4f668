//! After a crash of the machine: content that may not have reached the disk is checked.

use std::collections::BTreeSet;

use image::Digest;
use rusqlite::{Connection, params};

use crate::catalog::{Attempt, DigestKey, Kind};
use crate::store::StoreInner;
use crate::{Result, file};

/// A mark of something made before the machine stopped.
struct StaleMark {
    seq: i64,
    kind: Kind,
    digest: Digest,
}

/// Checks everything that bears a mark of another boot and drops what is broken. What a name
/// points at bears no marks: publishing clears them after the disk has everything.
pub(crate) fn drop_torn(shared: &StoreInner) -> Result<()> {
    let boot = &shared.options.boot_id;
    let stale = shared.catalog.read("looking for torn content", |db| {
        let mut query = db.prepare_cached(
            "SELECT seq, kind, digest FROM unsynced WHERE boot <> ? ORDER BY seq",
        )?;
        let rows = query.query_map([boot], |row| {
            Ok(StaleMark {
                seq: row.get(0)?,
                kind: row.get(1)?,
                digest: row.get::<_, DigestKey>(2)?.0,
            })
        })?;
        Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?)
    })?;
    if stale.is_empty() {
        return Ok(());
    }
    let torn: BTreeSet<Digest> = stale
        .iter()
        .filter(|mark| mark.kind == Kind::Blob && !is_whole(shared, mark.digest))
        .map(|mark| mark.digest)
        .collect();
    shared.catalog.write("dropping torn content", |db| {
        for mark in &stale {
            let still: bool = db
                .prepare_cached("SELECT EXISTS(SELECT 1 FROM unsynced WHERE seq = ?)")?
                .query_row([mark.seq], |row| row.get(0))?;
            if !still {
                // Another process has dealt with it.
                continue;
            }
            db.execute("DELETE FROM unsynced WHERE seq = ?", [mark.seq])?;
            match mark.kind {
                Kind::Blob if torn.contains(&mark.digest) => drop_blob(db, shared, mark.digest)?,
                Kind::Blob => {}
                // Nothing says what was in it: a layer is unpacked again, a step runs again.
                Kind::Snapshot => drop_snapshot(db, shared, mark.digest)?,
            }
        }
        Ok(())
    })
}

fn is_whole(shared: &StoreInner, digest: Digest) -> bool {
    let path = file::blob_path(&shared.root.join("blobs"), digest);
    let Ok(Some(file)) = file::open(&path) else { return false };
    file::hash(digest.algorithm(), file).is_ok_and(|(found, _)| found == digest)
}

/// Takes a blob out of the store, inside a write transaction.
pub(crate) fn drop_blob(db: &Connection, shared: &StoreInner, digest: Digest) -> Attempt<()> {
    db.execute("DELETE FROM blobs WHERE digest = ?", [DigestKey(digest)])?;
    db.execute("DELETE FROM nodes WHERE digest = ?", [DigestKey(digest)])?;
    db.execute("DELETE FROM edges WHERE parent = ?", [DigestKey(digest)])?;
    db.execute("DELETE FROM referrers WHERE referrer = ?", [DigestKey(digest)])?;
    db.execute(
        "DELETE FROM pins WHERE kind = ? AND digest = ?",
        params![Kind::Blob, DigestKey(digest)],
    )?;
    shared.discard(&file::blob_path(&shared.root.join("blobs"), digest))?;
    Ok(())
}

/// Takes a snapshot and all that lie on it out of the store, inside a write transaction.
pub(crate) fn drop_snapshot(db: &Connection, shared: &StoreInner, digest: Digest) -> Attempt<()> {
    let mut query = db.prepare_cached(
        "WITH RECURSIVE above(id) AS (SELECT ?1 UNION SELECT s.id FROM snapshots s JOIN above \
         ON s.parent = above.id) SELECT id FROM above",
    )?;
    let above = query.query_map([DigestKey(digest)], |row| row.get::<_, DigestKey>(0))?;
    for id in above.collect::<rusqlite::Result<Vec<_>>>()? {
        db.execute("DELETE FROM snapshots WHERE id = ?", [id])?;
        db.execute("DELETE FROM aliases WHERE id = ?", [id])?;
        db.execute("DELETE FROM blobs WHERE snapshot = ?", [id])?;
        db.execute("DELETE FROM pins WHERE kind = ? AND digest = ?", params![Kind::Snapshot, id])?;
        shared.discard(&shared.snapshot_path(id.0))?;
    }
    Ok(())
}
