//! What every place must do.

use std::sync::Arc;

use futures::stream;
use image::{Descriptor, MediaType};
use task::{Cause, Kind, Task};

use crate::at::Memory;
use crate::samples::{all, read_all, samples};
use crate::*;

/// A fresh name in some place, as a sink and a source.
pub(crate) struct TestPlace {
    pub(crate) sink: Box<dyn Sink>,
    /// Opens what the sink wrote.
    pub(crate) source: Box<dyn Fn() -> Box<dyn Source>>,
}

/// What every sink and the source of the same place must do. `fresh` makes an empty place;
/// `indexes` tells whether it can hold an index.
pub(crate) async fn check_place(fresh: &dyn Fn() -> TestPlace, indexes: bool) {
    let memory = samples();
    there_and_back(&memory, "one", fresh()).await;
    if indexes {
        there_and_back(&memory, "many", fresh()).await;
    }
    refuses_corruption(&memory, &fresh()).await;
    lacks_what_it_lacks(&fresh()).await;
}

async fn there_and_back(memory: &Memory, name: &str, ends: TestPlace) {
    let root = memory.named(name).unwrap();
    let from = memory.image(name);
    let task = Task::silent();
    let copied = copy(&from, &*ends.sink, &Open, &all(), &task).await.unwrap();
    assert_eq!(copied.digest, root.digest);
    let source = (ends.source)();
    let resolved = source.resolve().await.unwrap();
    assert_eq!((resolved.digest, resolved.size), (root.digest, root.size));
    assert_eq!(resolved.media_type, root.media_type);
    assert_eq!(read_all(&*source, &resolved).await, read_all(&from, &root).await);
    let back = Memory::new();
    copy(&*source, &back.image("x"), &Open, &all(), &task).await.unwrap();
    assert_eq!(back.named("x").unwrap().digest, root.digest);
}

async fn refuses_corruption(memory: &Memory, ends: &TestPlace) {
    let root = memory.named("one").unwrap();
    let whole = memory.get(root.digest).unwrap();
    let image::Node::Manifest(manifest) = image::Node::read(root, whole).unwrap() else {
        panic!("a manifest")
    };
    let victim = manifest.layers[0].clone();
    let good = memory.get(victim.digest).unwrap();
    let mut flipped = good.to_vec();
    flipped[1000] ^= 1;
    let mut long = good.to_vec();
    long.push(0);
    for bad in [flipped, good[..good.len() - 1].to_vec(), long, Vec::new()] {
        let chunks: Vec<Result<bytes::Bytes, Cause>> =
            bad.chunks(100_000).map(|chunk| Ok(bytes::Bytes::copy_from_slice(chunk))).collect();
        let blob = Unverified::new(stream::iter(chunks)).verify(&victim);
        let put = ends.sink.put(&victim, blob).await;
        assert!(put.is_err());
        assert!(!ends.sink.contains(&victim).await.unwrap());
    }
    let broken = stream::iter([Ok(good.slice(..5000)), Err(Error::Cancelled.into())]);
    let put = ends.sink.put(&victim, Unverified::new(broken).verify(&victim)).await;
    assert!(put.is_err());
    assert!(!ends.sink.contains(&victim).await.unwrap());
    let blob = Unverified::whole(good).verify(&victim);
    ends.sink.put(&victim, blob).await.unwrap();
    assert!(ends.sink.contains(&victim).await.unwrap());
}

async fn lacks_what_it_lacks(ends: &TestPlace) {
    let source = (ends.source)();
    let resolved = source.resolve().await;
    assert_eq!(resolved.unwrap_err().kind(), Kind::NotFound);
    let unknown = Descriptor::of(MediaType::OCI_LAYER, b"unknown");
    assert!(!ends.sink.contains(&unknown).await.unwrap());
    assert!(!ends.sink.link(&unknown, &Origin::Elsewhere).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_a_place() {
    let fresh = || {
        let image = Memory::new().image("x");
        let again = image.clone();
        TestPlace { sink: Box::new(image), source: Box::new(move || Box::new(again.clone())) }
    };
    check_place(&fresh, true).await;
}

fn place_in(
    make: impl Fn(&std::path::Path) -> (Box<dyn Sink>, Box<dyn Fn() -> Box<dyn Source>>),
) -> (tempfile::TempDir, impl Fn() -> TestPlace) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_owned();
    let count = std::cell::Cell::new(0);
    let fresh = move || {
        count.set(count.get() + 1);
        let (sink, source) = make(&root.join(count.get().to_string()));
        TestPlace { sink, source }
    };
    (dir, fresh)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oci_layout_is_a_place() {
    for named in [ImageSelector::Only, ImageSelector::Name("v1".to_owned())] {
        let (_dir, fresh) = place_in(|path| {
            let image = at::LayoutImage::new(path, named.clone());
            let again = image.clone();
            (Box::new(image), Box::new(move || Box::new(again.clone())))
        });
        // A directory that is not there at all is no layout, which resolve says.
        check_place(&fresh, true).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_a_place() {
    let (_dir, fresh) = place_in(|path| {
        let image = at::Directory::new(path);
        let again = image.clone();
        (Box::new(image), Box::new(move || Box::new(again.clone())))
    });
    check_place(&fresh, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_are_places() {
    let cases = [
        (at::Form::Oci, ImageSelector::Only),
        (at::Form::Oci, ImageSelector::Name("v1".to_owned())),
        (at::Form::Docker, ImageSelector::Only),
        (at::Form::Docker, ImageSelector::Name("registry.example/app:v1".to_owned())),
    ];
    for (form, named) in cases {
        let (_dir, fresh) = place_in(|path| {
            let archive = at::Archive::create(path, form).unwrap();
            let (path, named) = (path.to_owned(), named.clone());
            let source = {
                let named = named.clone();
                move || -> Box<dyn Source> {
                    Box::new(at::ArchiveSource::new(&path, form, named.clone()))
                }
            };
            (Box::new(archive.only_image(named)), Box::new(source))
        });
        check_place(&fresh, form == at::Form::Oci).await;
    }
}

pub(crate) fn store_at(path: &std::path::Path) -> store::Store {
    let options = store::Options {
        user_xattr: true,
        boot_id: "test".to_owned(),
        clock: || std::time::UNIX_EPOCH,
        task: Arc::new(Task::silent()),
    };
    store::Store::open(path, options).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_is_a_place() {
    let (_dir, fresh) = place_in(|path| {
        let image = at::StoreImage::new(&store_at(path), Some("localhost/x:latest"));
        let again = image.clone();
        (Box::new(image), Box::new(move || Box::new(again.clone())))
    });
    check_place(&fresh, true).await;
}
