use std::fs;
use std::io::{self, Read};
use std::path::Path;

use image::{Descriptor, MediaType};
use task::{Cause, Fault, Kind, Task};

use super::{Sample, digest, fresh, is_root, listing, problems};
use crate::{Error, PendingLayer, Result, Store};

/// A tar archive of directories (names that end in a slash) and files.
pub(crate) fn archive(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in entries {
        let mut header = tar::Header::new_ustar();
        let directory = name.ends_with('/');
        header.set_entry_type(if directory {
            tar::EntryType::Directory
        } else {
            tar::EntryType::Regular
        });
        header.set_mode(if directory { 0o750 } else { 0o640 });
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        // Written by hand, so that a hostile name stays as it is.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn put(store: &Store, descriptor: &Descriptor, stream: impl Read) -> Result<PendingLayer> {
    store.put_layer(descriptor, stream, &Task::silent())
}

fn put_documents(store: &Store, sample: &Sample) {
    store.insert(sample.config.bytes()).unwrap();
    store.insert(sample.manifest.bytes()).unwrap();
}

fn nothing_is_left(store: &Store) {
    for place in ["active", "ingest", "blobs"] {
        assert_eq!(listing(store, place), Vec::<String>::new(), "{place}");
    }
    assert_eq!(problems(store), Vec::<String>::new());
}

fn sample() -> Sample {
    Sample::new(
        "layered",
        &[
            archive(&[("usr/", ""), ("usr/lib/", ""), ("usr/lib/a", "old"), ("gone", "x")]),
            // Parents that this layer does not mention, and a file taken away.
            archive(&[("usr/lib/a", "new"), (".wh.gone", "")]),
            archive(&[("usr/lib/b", "b")]),
        ],
    )
}

fn read(root: &Path, name: &str) -> String {
    fs::read_to_string(root.join(name)).unwrap()
}

#[test]
fn layers_that_arrive_in_any_order_become_the_image() {
    if !is_root() {
        return;
    }
    let (_directory, store) = fresh();
    let sample = sample();
    let mut pending = Vec::new();
    for (descriptor, bytes) in sample.layers.iter().rev() {
        pending.push(put(&store, descriptor, bytes.as_slice()).unwrap());
        assert!(store.contains(descriptor.digest).unwrap());
    }
    put_documents(&store, &sample);
    let image = store.image(sample.root(), &"linux/amd64".parse().unwrap()).unwrap();
    let task = Task::silent();
    let top = store.commit_image(&image, pending, &task).unwrap().unwrap();
    store.publish("localhost/layered:1", sample.root()).unwrap();
    assert_eq!(top, sample.chain().into());
    assert!(listing(&store, "active").is_empty());

    let stack = store.stack(top).unwrap();
    assert_eq!(stack.lower.len(), 3);
    assert_eq!(read(&stack.lower[0], "usr/lib/b"), "b");
    // The unmentioned directory looks as it does below.
    for layer in [0, 1] {
        let metadata = fs::metadata(stack.lower[layer].join("usr/lib")).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::mode(&metadata) & 0o7777, 0o750);
    }
    let root = stack.mount().unwrap();
    assert_eq!(root.read(Path::new("usr/lib/a"), 10).unwrap(), b"new");
    assert_eq!(root.read(Path::new("usr/lib/b"), 10).unwrap(), b"b");
    assert!(root.metadata(Path::new("gone")).is_err());
    assert_eq!(problems(&store), Vec::<String>::new());
    // Once more is nothing to do.
    assert_eq!(store.unpack(&image, &task).unwrap(), Some(top));
}

#[test]
fn blobs_are_unpacked_when_they_are_needed_and_only_what_is_missing() {
    if !is_root() {
        return;
    }
    let (_directory, store) = fresh();
    let sample = sample();
    sample.publish(&store, "x");
    let platform = "linux/amd64".parse().unwrap();
    let image = store.image(sample.root(), &platform).unwrap();
    let task = Task::silent();
    let top = store.unpack(&image, &task).unwrap().unwrap();
    let root = store.stack(top).unwrap().mount().unwrap();
    assert_eq!(root.read(Path::new("usr/lib/a"), 10).unwrap(), b"new");

    let mut layers: Vec<Vec<u8>> = sample.layers.iter().map(|(_, bytes)| bytes.clone()).collect();
    layers.push(archive(&[("more", "more")]));
    let more = Sample::new("more", &layers);
    let (descriptor, bytes) = &more.layers[3];
    // One layer at hand, the others are snapshots.
    let pending = put(&store, descriptor, bytes.as_slice()).unwrap();
    put_documents(&store, &more);
    let image = store.image(more.root(), &platform).unwrap();
    let above = store.commit_image(&image, vec![pending], &task).unwrap().unwrap();
    let stack = store.stack(above).unwrap();
    assert_eq!(stack.lower[1..], store.stack(top).unwrap().lower[..]);
    assert_eq!(read(&stack.lower[0], "more"), "more");
}

#[test]
fn the_same_layer_twice_in_an_image_is_two_snapshots() {
    if !is_root() {
        return;
    }
    let (_directory, store) = fresh();
    let layer = archive(&[("file", "x")]);
    let sample = Sample::new("twice", &[layer.clone(), layer.clone()]);
    let pending = put(&store, &sample.layers[0].0, layer.as_slice()).unwrap();
    put_documents(&store, &sample);
    let image = store.image(sample.root(), &"linux/amd64".parse().unwrap()).unwrap();
    let top = store.commit_image(&image, vec![pending], &Task::silent()).unwrap().unwrap();
    assert_eq!(store.stack(top).unwrap().lower.len(), 2);
}

#[test]
fn an_image_without_layers_has_no_snapshot() {
    let (_directory, store) = fresh();
    let sample = Sample::new("empty", &[]);
    sample.publish(&store, "empty");
    let image = store.image(sample.root(), &"linux/amd64".parse().unwrap()).unwrap();
    assert_eq!(store.unpack(&image, &Task::silent()).unwrap(), None);
}

#[test]
fn other_bytes_than_the_layer_leave_nothing() {
    let (_directory, store) = fresh();
    let layer = archive(&[("file", "content")]);
    let right = Descriptor::of(MediaType::OCI_LAYER, &layer);
    let mut flipped = layer.clone();
    flipped[600] ^= 1;
    type Fits = fn(&Error) -> bool;
    let cases: [(&str, Descriptor, Vec<u8>, Fits); 4] = [
        ("flipped", right.clone(), flipped, |e| matches!(e, Error::Digest { .. })),
        ("cut", right.clone(), layer[..700].to_vec(), |e| matches!(e, Error::Size { .. })),
        ("longer", right.clone(), [layer.clone(), vec![0; 512]].concat(), |e| {
            matches!(e, Error::Size { .. })
        }),
        ("nothing", right, Vec::new(), |e| matches!(e, Error::Size { .. })),
    ];
    for (label, descriptor, bytes, expected) in cases {
        let error = put(&store, &descriptor, bytes.as_slice()).unwrap_err();
        assert!(expected(&error), "{label}: {error}");
        nothing_is_left(&store);
    }
}

#[test]
fn a_layer_that_is_no_layer_leaves_nothing() {
    let (directory, store) = fresh();
    let outside = directory.path().join("outside");
    for bytes in [
        b"not a tar archive at all".to_vec(),
        vec![0xff; 5000],
        archive(&[("file", "content")])[..600].to_vec(),
        vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1, 2, 3],
    ] {
        let descriptor = Descriptor::of(MediaType::OCI_LAYER, &bytes);
        let error = put(&store, &descriptor, bytes.as_slice()).unwrap_err();
        assert!(matches!(error, Error::Layer { .. }), "{error}");
        nothing_is_left(&store);
    }
    // A hostile one is refused or confined; in no case is there a file outside.
    let name = format!("../../../../../../../..{}", outside.display());
    if name.len() < 100 {
        let bytes = archive(&[(&name, "escaped")]);
        let descriptor = Descriptor::of(MediaType::OCI_LAYER, &bytes);
        drop(put(&store, &descriptor, bytes.as_slice()));
        assert!(!outside.exists());
        assert!(listing(&store, "active").is_empty());
    }
}

/// A stream that fails after some bytes.
struct Failing<'a>(&'a [u8], Option<io::Error>);

impl Read for Failing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(self.1.take().unwrap_or_else(|| io::ErrorKind::Other.into())),
            n => Ok(n),
        }
    }
}

#[test]
fn a_stream_that_fails_says_why_in_its_own_words() {
    #[derive(Debug, thiserror::Error)]
    #[error("the registry went away")]
    struct Gone;
    impl Fault for Gone {
        fn kind(&self) -> Kind {
            Kind::Unavailable
        }
    }
    let (_directory, store) = fresh();
    let layer = archive(&[("file", "content")]);
    let descriptor = Descriptor::of(MediaType::OCI_LAYER, &layer);
    let gone = io::Error::other(Cause::new(Gone));
    let error = put(&store, &descriptor, Failing(&layer[..700], Some(gone))).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(task::chain(&error).join(": ").contains("the registry went away"), "{error:?}");
    nothing_is_left(&store);

    let task = Task::silent();
    task.canceller().cancel();
    let error = store.put_layer(&descriptor, layer.as_slice(), &task).unwrap_err();
    assert_eq!(error.kind(), Kind::Cancelled);
    nothing_is_left(&store);
}

#[test]
fn a_layer_that_unpacks_to_something_else_is_refused() {
    let (_directory, store) = fresh();
    let layer = archive(&[("file", "content")]);
    let mut sample = Sample::new("liar", &[layer]);
    let mut config = sample.config.clone().into_value();
    config.rootfs.diff_ids[0] = digest("something else");
    let config = image::Document::write(MediaType::OCI_CONFIG, config);
    let mut manifest = sample.manifest.clone().into_value();
    manifest.config = config.descriptor().clone();
    sample.config = config;
    sample.manifest = image::Document::write(MediaType::OCI_MANIFEST, manifest);
    sample.publish(&store, "liar");
    let image = store.image(sample.root(), &"linux/amd64".parse().unwrap()).unwrap();
    let error = store.unpack(&image, &Task::silent()).unwrap_err();
    assert!(matches!(error, Error::DiffId { .. }), "{error}");
    assert!(listing(&store, "active").is_empty());
    assert!(!store.has_snapshot(sample.chain().into()).unwrap());
}
