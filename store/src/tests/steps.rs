use std::fs;
use std::sync::mpsc;

use image::{Descriptor, MediaType};
use layers::LayerInfo;
use task::{Fault, Kind, Task};

use super::{digest, fresh, open};
use crate::{CacheSharing, SnapshotId, StepNote, StepRecord};

#[test]
fn a_step_is_recalled_while_all_it_made_is_here() {
    let (_directory, store) = fresh();
    let blob = store.insert(b"layer").unwrap();
    let snapshot = SnapshotId(digest("tree"));
    store.begin().unwrap().commit(snapshot, None).unwrap();
    let layer = LayerInfo {
        descriptor: Descriptor::new(MediaType::OCI_LAYER_GZIP, blob, 5),
        diff_id: digest("diff"),
        uncompressed: 10,
    };
    let record = StepRecord {
        snapshot: Some(snapshot),
        layer: Some(layer.clone()),
        note: StepNote { created: Some(7), step: Some("RUN x".to_owned()), ..StepNote::default() },
    };
    let key = digest("key");
    assert_eq!(store.step(key).unwrap(), None);
    store.record_step(key, &record).unwrap();
    assert_eq!(store.step(key).unwrap(), Some(record.clone()));
    let less = StepRecord { layer: None, ..record.clone() };
    store.record_step(key, &less).unwrap();
    assert_eq!(store.step(key).unwrap(), Some(less));
    for gone in [
        StepRecord { snapshot: Some(SnapshotId(digest("gone"))), ..StepRecord::default() },
        StepRecord {
            layer: Some(LayerInfo {
                descriptor: Descriptor::new(MediaType::OCI_LAYER, digest("gone"), 1),
                ..layer
            }),
            ..StepRecord::default()
        },
    ] {
        store.record_step(key, &gone).unwrap();
        assert_eq!(store.step_count().unwrap(), 1);
        assert_eq!(store.step(key).unwrap(), None);
        assert_eq!(store.step_count().unwrap(), 0);
    }
}

#[test]
fn memos_come_back_in_the_order_of_the_keys() {
    let (_directory, store) = fresh();
    let entries: Vec<(Vec<u8>, Vec<u8>)> =
        (0..1000u32).map(|n| (n.to_be_bytes().to_vec(), vec![1; n as usize % 50])).collect();
    store.set_memos("file", &entries).unwrap();
    store.set_memos::<&[u8], &[u8]>("file", &[]).unwrap();
    store.set_memo("other", &entries[0].0, b"other").unwrap();
    store.set_memo("file", &entries[1].0, b"newer").unwrap();
    let keys: Vec<&[u8]> = vec![&entries[2].0, b"nothing", &entries[1].0, &entries[0].0];
    let found = store.memos("file", &keys).unwrap();
    assert_eq!(found, [Some(vec![1; 2]), None, Some(b"newer".to_vec()), Some(vec![])]);
    assert_eq!(store.memo("other", &entries[0].0).unwrap(), Some(b"other".to_vec()));
    assert_eq!(store.memo("third", &entries[0].0).unwrap(), None);
}

#[test]
fn cache_mounts_keep_their_content_and_their_rules() {
    let (_directory, store) = fresh();
    let task = Task::silent();
    let mount = |id: &str, sharing| store.cache_mount(id, sharing, &task).unwrap();
    let first = mount("/root/.cache/../../x", CacheSharing::Shared);
    assert!(first.is_fresh());
    assert!(first.path().starts_with(store.path().join("mounts")));
    fs::write(first.path().join("file"), "kept").unwrap();
    let second = mount("/root/.cache/../../x", CacheSharing::Shared);
    assert!(!second.is_fresh());
    assert_eq!(first.path(), second.path());
    assert_ne!(first.path(), mount("other", CacheSharing::Shared).path());
    drop((first, second));

    // Private: each its own, and the first again when it is free. A process that another test is
    // just starting may hold a lock for a moment longer.
    let again = || {
        let tries = std::iter::repeat_with(|| mount("/root/.cache/../../x", CacheSharing::Private));
        let mut tries = tries.take(1000);
        tries.find(|mount| mount.path().join("file").exists()).expect("the mount that was kept")
    };
    let first = again();
    assert_eq!(fs::read(first.path().join("file")).unwrap(), b"kept");
    let second = mount("/root/.cache/../../x", CacheSharing::Private);
    assert_ne!(first.path(), second.path());
    assert!(!second.path().join("file").exists());
    let path = first.path().to_owned();
    drop(first);
    assert_eq!(again().path(), path);
}

#[test]
fn a_locked_mount_waits_for_the_other_and_can_be_cancelled() {
    let (_directory, store) = fresh();
    let task = Task::silent();
    let held = store.cache_mount("id", CacheSharing::Locked, &task).unwrap();
    let waiting = Task::silent();
    let canceller = waiting.canceller();
    let path = store.path().to_owned();
    let cancelled = std::thread::spawn(move || {
        let store = open(&path);
        store.cache_mount("id", CacheSharing::Locked, &waiting).unwrap_err().kind()
    });
    canceller.cancel();
    assert_eq!(cancelled.join().unwrap(), Kind::Cancelled);

    let path = store.path().to_owned();
    let (sender, receiver) = mpsc::channel();
    let patient = std::thread::spawn(move || {
        let store = open(&path);
        let mount = store.cache_mount("id", CacheSharing::Locked, &Task::silent()).unwrap();
        sender.send(fs::read(mount.path().join("file")).unwrap()).unwrap();
    });
    fs::write(held.path().join("file"), "written before unlocking").unwrap();
    assert!(receiver.try_recv().is_err());
    drop(held);
    assert_eq!(receiver.recv().unwrap(), b"written before unlocking");
    patient.join().unwrap();
}
