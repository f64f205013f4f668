use std::fs;
use std::io::{Read, Write};
use std::sync::Arc;

use image::{Config, Descriptor, Digest, Document, Index, Manifest, MediaType, Node, RootFs};
use layers::LayerInfo;
use task::{Fault, Kind, Task};

use super::{broken, digest, fresh, listing, open, options, problems};
use crate::{Budget, Error, SnapshotId, StepRecord, Store};

const NAME: &str = "localhost/app:latest";

fn id(label: &str) -> SnapshotId {
    SnapshotId(digest(label))
}

/// A snapshot with one file, and its layer.
fn derived(store: &Store, label: &str) -> LayerInfo {
    let active = store.begin().unwrap();
    fs::write(active.dir().join("fs/file"), label.repeat(1000)).unwrap();
    active.commit(id(label), None).unwrap();
    store.derive(id(label), Some(1000), &Task::silent()).unwrap()
}

/// An image of one layer, with a name.
fn publish(store: &Store, layer: &LayerInfo) -> Descriptor {
    let diff_ids = vec![layer.diff_id];
    let config = Config {
        architecture: "amd64".to_owned(),
        os: "linux".to_owned(),
        rootfs: RootFs { diff_ids, ..RootFs::default() },
        ..Config::default()
    };
    let config = Document::write(MediaType::OCI_CONFIG, config);
    let (described, layers) = (config.descriptor().clone(), vec![layer.descriptor.clone()]);
    let manifest = Manifest::new(MediaType::OCI_MANIFEST, described, layers);
    let manifest = Document::write(MediaType::OCI_MANIFEST, manifest);
    store.insert(config.bytes()).unwrap();
    store.insert(manifest.bytes()).unwrap();
    store.publish(NAME, manifest.descriptor()).unwrap();
    manifest.descriptor().clone()
}

fn read(store: &Store, digest: Digest) -> Vec<u8> {
    let mut bytes = Vec::new();
    store.open_blob(digest).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

fn layers_of(store: &Store, root: &Descriptor) -> Vec<Descriptor> {
    match Node::read(root.clone(), store.read(root).unwrap()).unwrap() {
        Node::Manifest(manifest) => manifest.layers.clone(),
        Node::Index(_) => panic!("an index"),
    }
}

fn collect(store: &Store) {
    store.collect(&Budget { all: true, ..Budget::default() }, &Task::silent()).unwrap();
}

#[test]
fn a_derived_layer_is_content_without_a_file() {
    let (_directory, store) = fresh();
    let layer = derived(&store, "a");
    let digest = layer.descriptor.digest;
    assert_eq!((digest, layer.descriptor.size), (layer.diff_id, layer.uncompressed));
    assert!(store.contains(digest).unwrap());
    assert_eq!(store.blob_size(digest).unwrap(), Some(layer.descriptor.size));
    assert!(!store.blob_path(digest).exists());
    for _ in 0..2 {
        let bytes = read(&store, digest);
        assert_eq!((Digest::of(&bytes), bytes.len() as u64), (digest, layer.descriptor.size));
        let mut archive = tar::Archive::new(bytes.as_slice());
        let times: Vec<u64> =
            archive.entries().unwrap().map(|e| e.unwrap().header().mtime().unwrap()).collect();
        assert!(!times.is_empty() && times.iter().all(|time| *time <= 1000), "{times:?}");
    }
    assert!(listing(&store, "ingest").is_empty(), "nothing stays of reading it");
    let usage = store.usage(&Task::silent()).unwrap();
    assert_eq!((usage.blobs.bytes, usage.snapshots.count), (layer.descriptor.size, 0));
    assert_eq!(problems(&store), Vec::<String>::new());
    // The same layer that comes from elsewhere is stored from then on.
    store.insert(&read(&open(store.path()), digest)).unwrap();
    let mut writer = open(store.path()).writer().unwrap();
    std::io::Write::write_all(&mut writer, &read(&store, digest)).unwrap();
    writer.commit(None).unwrap();
    assert!(store.blob_path(digest).exists());
    assert_eq!(problems(&store), Vec::<String>::new());
}

#[test]
fn an_image_keeps_the_snapshots_its_layers_are_made_of() {
    let (_directory, store) = fresh();
    let path = store.path().to_owned();
    publish(&store, &derived(&store, "a"));
    derived(&store, "b");
    drop(store);
    let store = open(&path);
    collect(&store);
    assert!(store.has_snapshot(id("a")).unwrap());
    assert!(!store.has_snapshot(id("b")).unwrap());
    assert_eq!(problems(&store), Vec::<String>::new());
    drop(store);
    let store = open(&path);
    store.unname(NAME).unwrap();
    collect(&store);
    assert!(!store.has_snapshot(id("a")).unwrap());
    assert!(listing(&store, "blobs").is_empty());
    assert_eq!(problems(&store), Vec::<String>::new());
}

#[test]
fn a_step_keeps_its_layer_and_what_it_is_compressed() {
    let (_directory, store) = fresh();
    let path = store.path().to_owned();
    let layer = derived(&store, "a");
    let record = StepRecord { layer: Some(layer.clone()), ..StepRecord::default() };
    store.record_step(digest("key"), &record).unwrap();
    let packed = store.pack(layer.diff_id, &Task::silent()).unwrap().unwrap();
    drop(store);
    let store = open(&path);
    store.collect(&Budget::default(), &Task::silent()).unwrap();
    assert_eq!(store.step(digest("key")).unwrap().unwrap().layer, Some(layer.clone()));
    assert_eq!(store.packed(layer.diff_id).unwrap(), Some(packed.clone()));
    drop(store);
    let store = open(&path);
    collect(&store);
    assert_eq!(store.step(digest("key")).unwrap(), None);
    assert!(!store.contains(packed.descriptor.digest).unwrap());
    assert!(!store.contains(layer.diff_id).unwrap());
    assert_eq!(problems(&store), Vec::<String>::new());
}

#[test]
fn a_sealed_image_takes_over_the_names() {
    let (_directory, store) = fresh();
    let task = Task::silent();
    let layer = derived(&store, "a");
    let plain = publish(&store, &layer);
    store.publish("localhost/app:other", &plain).unwrap();
    let sealed = store.seal(&plain, &task).unwrap();
    assert_ne!(sealed.digest, plain.digest);
    let [gzip] = &layers_of(&store, &sealed)[..] else { panic!("one layer") };
    assert_eq!(gzip.media_type, MediaType::OCI_LAYER_GZIP);
    let mut tar = Vec::new();
    let packed = read(&store, gzip.digest);
    layers::decompress(packed.as_slice()).unwrap().read_to_end(&mut tar).unwrap();
    assert_eq!(Digest::of(&tar), layer.diff_id);
    for name in [NAME, "localhost/app:other"] {
        assert_eq!(store.resolve(name).unwrap().as_ref(), Some(&sealed));
    }
    // By the digest it had, it is found as long as it is here.
    assert_eq!(store.find(&plain.digest.to_string()).unwrap().as_ref(), Some(&sealed));
    assert_eq!(store.published().unwrap().len(), 1);
    assert_eq!(store.seal(&sealed, &task).unwrap(), sealed);
    // The same image built again is sealed to the same, with what was compressed before.
    store.publish(NAME, &plain).unwrap();
    assert_eq!(store.seal(&plain, &task).unwrap(), sealed);
    assert_eq!(problems(&store), Vec::<String>::new());
}

#[test]
fn an_index_is_sealed_with_what_is_in_it() {
    let (_directory, store) = fresh();
    let plain = publish(&store, &derived(&store, "a"));
    let entry = Descriptor { platform: Some("linux/amd64".parse().unwrap()), ..plain.clone() };
    let index = Document::write(MediaType::OCI_INDEX, Index::new(vec![entry]));
    store.insert(index.bytes()).unwrap();
    store.publish("localhost/many:1", index.descriptor()).unwrap();
    let sealed = store.seal(index.descriptor(), &Task::silent()).unwrap();
    let Node::Index(index) = Node::read(sealed.clone(), store.read(&sealed).unwrap()).unwrap()
    else {
        panic!("a manifest");
    };
    let [entry] = &index.manifests[..] else { panic!("one manifest") };
    assert_eq!(entry.platform, Some("linux/amd64".parse().unwrap()));
    let [layer] = &layers_of(&store, entry)[..] else { panic!("one layer") };
    assert_eq!(layer.media_type, MediaType::OCI_LAYER_GZIP);
    assert_eq!(store.resolve("localhost/many:1").unwrap(), Some(sealed));
    assert_eq!(problems(&store), Vec::<String>::new());
}

#[test]
fn changed_files_are_noticed_and_named() {
    let (_directory, store) = fresh();
    let layer = derived(&store, "a");
    let root = publish(&store, &layer);
    let file = store.path().join("snapshots").join(digest("a").hex()).join("fs/file");
    fs::write(file, "changed").unwrap();
    let is_changed = |error: &Error| matches!(error, Error::Changed { .. });
    assert!(store.open_blob(layer.diff_id).is_err_and(|error| is_changed(&error)));
    assert!(store.seal(&root, &Task::silent()).is_err_and(|error| is_changed(&error)));
    assert_eq!(store.resolve(NAME).unwrap(), Some(root));
    assert!(listing(&store, "ingest").is_empty());
    let found = broken(&store);
    assert!(
        found.len() == 1 && found[0].contains("something other than this program"),
        "{found:?}"
    );
}

#[test]
fn after_a_loss_of_power_only_what_was_named_is_there() {
    let (_directory, store) = fresh();
    let path = store.path().to_owned();
    let named = derived(&store, "a");
    publish(&store, &named);
    let unnamed = derived(&store, "b");
    drop(store);
    let store = Store::open(&path, options("next boot")).unwrap();
    assert!(store.contains(named.diff_id).unwrap());
    assert!(!store.contains(unnamed.diff_id).unwrap());
    assert_eq!(problems(&store), Vec::<String>::new());
}

#[test]
fn what_blobs_bring_with_them_stops_with_the_task_of_the_store() {
    let (_directory, store) = fresh();
    let layer = derived(&store, "a").diff_id;
    let options = options("boot");
    let task = Arc::clone(&options.task);
    let store = Store::open(store.path(), options).unwrap();
    assert!(store.open_blob(layer).is_ok());
    store.set_limit(Some(1 << 30));
    store.writer().unwrap().write_all(b"content").unwrap();
    task.canceller().cancel();
    assert_eq!(store.open_blob(layer).unwrap_err().kind(), Kind::Cancelled);
    let error = store.writer().unwrap().write_all(b"content").unwrap_err();
    assert_eq!(Kind::of_io(&error), Kind::Cancelled);
}
