//! Loss of power, played: marks of another boot, and files that are not what they were.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{Sample, broken, digest, fresh, options, problems};
use crate::{Error, SnapshotId, Store};

fn reboot(path: &Path) -> Store {
    Store::open(path, options("another boot")).unwrap()
}

fn damage(path: &Path, bytes: &[u8]) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn torn_content_is_dropped_and_its_name_never_existed() {
    let (_directory, store) = fresh();
    let (whole, torn) = (Sample::text("whole"), Sample::text("torn"));
    whole.publish(&store, "whole");
    torn.put(&store);
    let kept = store.insert(b"unsynced but whole").unwrap();
    let missing = store.insert(b"never reached the disk").unwrap();
    store.begin().unwrap().commit(SnapshotId(digest("tree")), None).unwrap();
    // Power is lost: the layer has no bytes, a file is not there at all.
    let layer = torn.layers[0].0.digest;
    damage(&store.blob_path(layer), b"");
    fs::remove_file(store.blob_path(missing)).unwrap();
    let path = store.path().to_owned();
    drop(store);

    let store = reboot(&path);
    assert!(!store.contains(layer).unwrap());
    assert!(!store.contains(missing).unwrap());
    assert!(store.contains(kept).unwrap());
    assert!(!store.has_snapshot(SnapshotId(digest("tree"))).unwrap());
    assert_eq!(problems(&store), Vec::<String>::new());
    assert_eq!(store.names().unwrap().len(), 1);
    assert!(matches!(store.publish("torn", torn.root()), Err(Error::MissingChild { .. })));
    torn.publish(&store, "torn");
    assert_eq!(problems(&store), Vec::<String>::new());
    // What was published is on disk, so no boot makes it doubtful.
    drop(store);
    let store = Store::open(&path, options("third boot")).unwrap();
    assert_eq!(store.names().unwrap().len(), 2);
    assert_eq!(problems(&store), Vec::<String>::new());
}

#[test]
fn a_snapshot_goes_with_what_it_lies_on() {
    let (_directory, store) = fresh();
    let id = |label: &str| SnapshotId(digest(label));
    let commit = |label: &str, parent: Option<&str>| {
        store.begin().unwrap().commit(id(label), parent.map(id)).unwrap();
    };
    commit("synced", None);
    store.sync().unwrap();
    commit("base", Some("synced"));
    commit("middle", Some("base"));
    store.alias(id("middle"), image::ChainId(digest("chain"))).unwrap();
    let path = store.path().to_owned();
    drop(store);
    let store = reboot(&path);
    let left: Vec<bool> =
        ["synced", "base", "middle", "chain"].map(|l| store.has_snapshot(id(l)).unwrap()).into();
    assert_eq!(left, [true, false, false, false]);
    assert_eq!(problems(&store), Vec::<String>::new());
}

#[test]
fn the_same_boot_trusts_its_files() {
    let (_directory, store) = fresh();
    let digest = store.insert(b"content").unwrap();
    damage(&store.blob_path(digest), b"damaged");
    let again = super::open(store.path());
    assert!(again.contains(digest).unwrap());
    assert_eq!(broken(&again).len(), 1);
}

#[test]
fn damage_is_named() {
    let (_directory, store) = fresh();
    let sample = Sample::text("a");
    sample.publish(&store, "localhost/a:1");
    let snapshot = SnapshotId(digest("tree"));
    store.begin().unwrap().commit(snapshot, None).unwrap();
    store.add_container("aabbccddeeff", "web", None, Some(snapshot)).unwrap();
    assert_eq!(problems(&store), Vec::<String>::new());

    damage(&store.blob_path(sample.config.digest()), b"other");
    fs::remove_file(store.blob_path(sample.layers[0].0.digest)).unwrap();
    fs::remove_dir_all(store.path().join("snapshots").join(digest("tree").hex())).unwrap();
    fs::remove_dir_all(store.containers_dir().join("aabbccddeeff")).unwrap();
    let found = broken(&store).join("\n");
    for expected in [
        format!("blob {}: its 5 bytes have the digest", sample.config.digest()),
        format!("blob {}: its file is missing", sample.layers[0].0.digest),
        format!("snapshot {}: its directory is missing", digest("tree")),
        "container web: its directory is missing".to_owned(),
    ] {
        assert!(found.contains(&expected), "{expected}\nin\n{found}");
    }
    let file = rusqlite::Connection::open(store.path().join("catalog.db")).unwrap();
    file.execute("DELETE FROM blobs WHERE digest = ?", [sample.root().digest.as_bytes()]).unwrap();
    file.execute("DELETE FROM snapshots", []).unwrap();
    let found = broken(&store).join("\n");
    assert!(found.contains("name localhost/a:1: its part"), "{found}");
    assert!(found.contains("container web: snapshot"), "{found}");
}

#[test]
fn a_store_half_made_is_completed() {
    let (directory, store) = fresh();
    let path = store.path().to_owned();
    drop(store);
    fs::remove_file(path.join("store.json")).unwrap();
    fs::remove_dir(path.join("trash")).unwrap();
    let store = super::open(&path);
    store.insert(b"x").unwrap();
    assert_eq!(problems(&store), Vec::<String>::new());
    // A catalog alone is an interrupted start as well; a catalog of a later version is not.
    drop(store);
    let file = rusqlite::Connection::open(path.join("catalog.db")).unwrap();
    file.pragma_update(None, "user_version", 99).unwrap();
    assert!(matches!(Store::open(&path, options("boot")), Err(Error::Format { .. })));
    drop(directory);
}

#[test]
fn a_catalog_of_the_first_version_is_brought_up() {
    let (directory, store) = fresh();
    let path = store.path().to_owned();
    let digest = store.insert(b"kept").unwrap();
    drop(store);
    let file = rusqlite::Connection::open(path.join("catalog.db")).unwrap();
    file.execute_batch(
        "DROP TABLE memos; CREATE TABLE memos(space TEXT NOT NULL, key BLOB NOT NULL, \
         value BLOB NOT NULL, used INTEGER NOT NULL, PRIMARY KEY(space, key)) WITHOUT ROWID; \
         INSERT INTO memos VALUES('s', x'01', x'02', 3); \
         ALTER TABLE blobs DROP COLUMN snapshot; ALTER TABLE blobs DROP COLUMN clamp; \
         ALTER TABLE blobs DROP COLUMN packed; PRAGMA user_version = 1;",
    )
    .unwrap();
    drop(file);
    let store = super::open(&path);
    // What was remembered may be forgotten; what is content may not.
    assert_eq!(store.memo("s", &[1]).unwrap(), None);
    store.set_memo("s", &[1], &[4]).unwrap();
    store.set_memo("s", &[1], &[5]).unwrap();
    assert_eq!(store.memo("s", &[1]).unwrap(), Some(vec![5]));
    assert!(store.open_blob(digest).is_ok());
    assert_eq!(problems(&store), Vec::<String>::new());
    drop(directory);
}
