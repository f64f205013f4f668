use std::fs;
use std::time::Duration;

use image::{Descriptor, Document, Manifest, MediaType};
use task::Task;

use super::{NOW, Sample, digest, fresh, listing, open, problems};
use crate::{Budget, CacheSharing, CollectionReport, ItemKind, SnapshotId, StepRecord, Store};

fn collect(store: &Store, budget: &Budget) -> CollectionReport {
    let dry = store.collect(&Budget { dry_run: true, ..budget.clone() }, &Task::silent()).unwrap();
    let real = store.collect(budget, &Task::silent()).unwrap();
    assert_eq!(dry, real, "a dry run says what a real one does");
    assert!(crate::file::list(&store.path().join("trash")).unwrap().is_empty());
    assert_eq!(problems(store), Vec::<String>::new());
    real
}

fn count(collected: &CollectionReport, kind: ItemKind) -> usize {
    collected.removed.iter().filter(|removed| removed.kind == kind).count()
}

/// Does something in a store handle of its own, so that its pins are gone afterwards.
fn elsewhere<T>(store: &Store, work: impl FnOnce(&Store) -> T) -> T {
    work(&open(store.path()))
}

fn snapshot(store: &Store, label: &str, parent: Option<&str>, bytes: usize) {
    let active = store.begin().unwrap();
    fs::write(active.dir().join("fs/file"), vec![1; bytes]).unwrap();
    let id = |label: &str| SnapshotId(digest(label));
    active.commit(id(label), parent.map(id)).unwrap();
}

fn step(store: &Store, label: &str, parent: Option<&str>, bytes: usize) {
    snapshot(store, label, parent, bytes);
    let snapshot = Some(SnapshotId(digest(label)));
    store
        .record_step(
            digest(&format!("key {label}")),
            &StepRecord { snapshot, ..StepRecord::default() },
        )
        .unwrap();
}

#[test]
fn what_has_no_name_goes_and_the_rest_stays() {
    let (_directory, store) = fresh();
    let shared = b"a layer of both".to_vec();
    let kept = Sample::new("kept", &[shared.clone(), b"kept".to_vec()]);
    let lost = Sample::new("lost", &[shared, b"lost".to_vec()]);
    elsewhere(&store, |store| {
        kept.publish(store, "localhost/kept:1");
        lost.publish(store, "localhost/lost:1");
        snapshot(store, "orphan", None, 10);
        let chain = SnapshotId::from(kept.chain());
        store.begin().unwrap().commit(chain, None).unwrap();
    });
    assert_eq!(collect(&store, &Budget::default()).removed.len(), 1);
    store.unname("localhost/lost:1").unwrap();
    let collected = collect(&store, &Budget::default());
    assert_eq!(count(&collected, ItemKind::Blob), 3);
    let bytes: u64 = 4 + lost.config.descriptor().size + lost.root().size;
    assert_eq!(collected.bytes, bytes);
    assert!(collect(&store, &Budget { all: true, ..Budget::default() }).removed.is_empty());
    assert!(store.has_snapshot(kept.chain().into()).unwrap());
    for (descriptor, _) in kept.blobs() {
        assert!(store.contains(descriptor.digest).unwrap());
    }
    assert_eq!(listing(&store, "blobs").len(), 4);
    // The name can be given again, once everything is there again.
    assert!(store.publish("localhost/lost:1", lost.root()).is_err());
    lost.publish(&store, "localhost/lost:1");
}

#[test]
fn what_somebody_uses_stays_until_they_are_done() {
    let (_directory, store) = fresh();
    let sample = Sample::text("a");
    let lease = elsewhere(&store, |other| {
        let lease = other.lease().unwrap();
        sample.put(&lease);
        snapshot(&lease, "tree", None, 10);
        lease
    });
    assert!(collect(&store, &Budget { all: true, ..Budget::default() }).removed.is_empty());
    // Looked up is pinned too: here by the digest of a manifest that names all of it.
    store.publish("x", sample.root()).unwrap();
    drop(lease);
    let pinned = store.lease().unwrap();
    pinned.resolve("x").unwrap().unwrap();
    store.unname("x").unwrap();
    let fresh_handle = open(store.path());
    drop(store);
    let collected = fresh_handle.collect(&Budget::default(), &Task::silent()).unwrap();
    assert_eq!((count(&collected, ItemKind::Snapshot), count(&collected, ItemKind::Blob)), (1, 0));
    drop(pinned);
    let collected = fresh_handle.collect(&Budget::default(), &Task::silent()).unwrap();
    assert_eq!(count(&collected, ItemKind::Blob), 3);
    assert!(crate::file::list(&fresh_handle.path().join("leases")).unwrap().is_empty());
}

#[test]
fn the_build_cache_is_kept_by_last_use_within_the_budget() {
    let (_directory, store) = fresh();
    elsewhere(&store, |store| {
        for (at, label) in ["one", "two", "three", "four"].into_iter().enumerate() {
            NOW.set(1_000_000 + at as u64);
            // `four` lies on `one`: keeping it keeps both.
            step(store, label, (at == 3).then_some("one"), 100_000);
        }
    });
    assert!(collect(&store, &Budget::default()).removed.is_empty());
    let one = crate::file::disk_usage(&store.path().join("snapshots").join(digest("one").hex()));
    let budget = |snapshots: u64| Budget { keep_bytes: Some(one * snapshots), ..Budget::default() };
    assert!(collect(&store, &budget(4)).removed.is_empty());
    let collected = collect(&store, &budget(3));
    assert_eq!((count(&collected, ItemKind::Snapshot), count(&collected, ItemKind::Step)), (1, 1));
    assert!(collected.removed.iter().any(|r| r.id == digest("two").to_string()));
    // `one` was used first of all, but costs nothing.
    let collected = collect(&store, &budget(2));
    assert!(collected.removed.iter().any(|r| r.id == digest("three").to_string()));
    assert_eq!(store.step_count().unwrap(), 2);
    let old = Budget { older_than: Some(Duration::from_secs(60)), ..Budget::default() };
    NOW.set(1_000_003 + 60);
    let collected = collect(&store, &old);
    assert_eq!((count(&collected, ItemKind::Snapshot), count(&collected, ItemKind::Step)), (0, 1));
    NOW.set(1_000_003 + 61);
    let collected = collect(&store, &old);
    assert_eq!((count(&collected, ItemKind::Snapshot), count(&collected, ItemKind::Step)), (2, 1));
}

#[test]
fn a_step_used_again_is_young_again() {
    let (_directory, store) = fresh();
    elsewhere(&store, |store| step(store, "tree", None, 10));
    NOW.set(NOW.get() + 100_000);
    elsewhere(&store, |store| store.step(digest("key tree")).unwrap().unwrap());
    let budget = Budget { older_than: Some(Duration::from_secs(50_000)), ..Budget::default() };
    assert!(collect(&store, &budget).removed.is_empty());
    let all = collect(&store, &Budget { all: true, ..Budget::default() });
    assert_eq!((count(&all, ItemKind::Snapshot), count(&all, ItemKind::Step)), (1, 1));
}

#[test]
fn cache_mounts_go_with_the_cache_but_not_from_under_a_user() {
    let (_directory, store) = fresh();
    let task = Task::silent();
    let used = store.cache_mount("used", CacheSharing::Shared, &task).unwrap();
    drop(store.cache_mount("idle", CacheSharing::Shared, &task).unwrap());
    let budget = Budget { all: true, ..Budget::default() };
    let collected = store.collect(&budget, &task).unwrap();
    assert_eq!(count(&collected, ItemKind::Mount), 1);
    assert!(used.path().exists());
    drop(used);
    assert_eq!(count(&collect(&store, &budget), ItemKind::Mount), 1);
    assert!(store.cache_mount("used", CacheSharing::Locked, &task).unwrap().is_fresh());
}

#[test]
fn containers_keep_what_they_were_made_from() {
    let (_directory, store) = fresh();
    let sample = Sample::text("a");
    let id = "aabbccddeeff";
    elsewhere(&store, |store| {
        sample.publish(store, "a");
        snapshot(store, "tree", None, 10);
        let snapshot = Some(SnapshotId(digest("tree")));
        store.add_container(id, "c", Some(sample.root()), snapshot).unwrap();
        store.unname("a").unwrap();
    });
    let all = Budget { all: true, ..Budget::default() };
    assert!(collect(&store, &all).removed.is_empty());
    store.remove_container(id).unwrap();
    assert_eq!(collect(&store, &all).removed.len(), 4);
}

#[test]
fn a_referrer_stays_as_long_as_its_subject() {
    let (_directory, store) = fresh();
    let sample = Sample::text("a");
    let empty = Descriptor::of(MediaType::OCI_EMPTY, b"{}");
    let mut artifact = Manifest::new(MediaType::OCI_MANIFEST, empty.clone(), vec![empty]);
    artifact.subject = Some(sample.root().bare());
    let artifact = Document::write(MediaType::OCI_MANIFEST, artifact);
    elsewhere(&store, |store| {
        sample.publish(store, "a");
        store.insert(b"{}").unwrap();
        store.insert(artifact.bytes()).unwrap();
        store.publish_untagged(artifact.descriptor()).unwrap();
    });
    assert!(collect(&store, &Budget::default()).removed.is_empty());
    store.unname("a").unwrap();
    assert_eq!(count(&collect(&store, &Budget::default()), ItemKind::Blob), 5);
}

#[test]
fn usage_tells_shared_from_unique() {
    let (_directory, store) = fresh();
    let base = vec![7; 1000];
    let a = Sample::new("a", &[base.clone(), vec![1; 100]]);
    let b = Sample::new("b", &[base, vec![2; 200]]);
    elsewhere(&store, |store| {
        a.publish(store, "a");
        b.publish(store, "b");
        step(store, "tree", None, 5000);
        store.insert(b"garbage").unwrap();
        store.add_container("aabbccddeeff", "c", None, None).unwrap();
    });
    let usage = store.usage(&Task::silent()).unwrap();
    let documents = |s: &Sample| s.config.descriptor().size + s.root().size;
    let images: Vec<(&str, u64, u64)> =
        usage.images.iter().map(|i| (i.names[0].as_str(), i.bytes, i.unique)).collect();
    let (own_a, own_b) = (documents(&a) + 100, documents(&b) + 200);
    let mut expected = [("a", own_a + 1000, own_a), ("b", own_b + 1000, own_b)];
    expected.sort_by_key(|(name, ..)| images.iter().position(|(n, ..)| n == name));
    assert_eq!(images, expected);
    assert_eq!((usage.blobs.count, usage.blobs.bytes), (8, own_a + own_b + 1007));
    assert_eq!((usage.snapshots.count, usage.steps.count, usage.garbage), (1, 1, 7));
    assert_eq!(usage.steps.bytes, usage.snapshots.bytes + 7);
    assert!(usage.snapshots.bytes >= 5000);
    assert_eq!(usage.containers.count, 1);
}

#[test]
fn files_without_rows_are_named_and_swept() {
    let (_directory, store) = fresh();
    let root = store.path().to_owned();
    fs::write(root.join("blobs/sha256").join(digest("x").hex()), "x").unwrap();
    fs::write(root.join("blobs/sha256/odd"), "x").unwrap();
    fs::create_dir_all(root.join("snapshots").join(digest("y").hex()).join("fs")).unwrap();
    fs::create_dir(root.join("active/dead")).unwrap();
    fs::create_dir(root.join("ingest/dead")).unwrap();
    fs::create_dir(root.join("containers/dead")).unwrap();
    fs::write(root.join("leases/dead"), "").unwrap();
    assert_eq!(problems(&store).len(), 6);
    assert!(super::broken(&store).is_empty());
    collect(&store, &Budget::default());
    assert!(crate::file::list(&root.join("leases")).unwrap().is_empty());
}

#[test]
fn what_is_made_anew_is_no_longer_condemned() {
    let (_directory, store) = fresh();
    let bytes = b"made anew".to_vec();
    let blob = elsewhere(&store, |store| store.insert(&bytes).unwrap());
    elsewhere(&store, |store| snapshot(store, "tree", None, 1));
    // A collection that is killed after it has decided: rows are gone, files are not.
    let plan = |db: &rusqlite::Connection| {
        crate::gc::condemn(db, &crate::mark::CollectionPlan::make(db, &Budget::default(), &[], 0)?)
    };
    store.shared().catalog.write_through("condemning", plan).unwrap();
    assert!(!store.contains(blob).unwrap());
    assert!(store.blob_path(blob).exists());
    assert_eq!(problems(&store), Vec::<String>::new());
    let user = store.lease().unwrap();
    assert_eq!(user.insert(&bytes).unwrap(), blob);
    snapshot(&user, "tree", None, 2);
    assert!(collect(&store, &Budget::default()).removed.is_empty());
    assert_eq!(fs::read(store.blob_path(blob)).unwrap(), bytes);
    let tree = user.stack(SnapshotId(digest("tree"))).unwrap();
    assert_eq!(fs::metadata(tree.lower[0].join("file")).unwrap().len(), 2);
}

#[test]
fn a_collection_continues_where_one_was_killed() {
    let (_directory, store) = fresh();
    elsewhere(&store, |store| {
        store.insert(b"x").unwrap();
        snapshot(store, "tree", None, 1);
    });
    let plan = |db: &rusqlite::Connection| {
        crate::gc::condemn(db, &crate::mark::CollectionPlan::make(db, &Budget::default(), &[], 0)?)
    };
    store.shared().catalog.write_through("condemning", plan).unwrap();
    assert!(collect(&store, &Budget::default()).removed.is_empty());
    assert!(listing(&store, "blobs").is_empty());
    assert!(listing(&store, "snapshots").is_empty());
}
