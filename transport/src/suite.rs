//! What every place must do, and images to do it with.

use std::sync::Arc;
use std::sync::Mutex;

use futures::stream;
use image::{Config, Descriptor, Digest, Document, Index, Manifest, MediaType, Platform};
use task::{Cause, Event, Kind, Observer, Outcome, Task};

use crate::at::Memory;
use crate::*;

/// A layer that is a tar stream with one file.
pub(crate) fn layer(name: &str, content: &[u8]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, content).unwrap();
    tar.into_inner().unwrap()
}

/// Adds an image of these layers (plain tar streams).
pub(crate) fn add_image(memory: &Memory, platform: &str, layers: &[Vec<u8>]) -> Descriptor {
    let platform: Platform = platform.parse().unwrap();
    let mut config = Config {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        ..Config::default()
    };
    config.rootfs.diff_ids = layers.iter().map(|layer| Digest::of(layer)).collect();
    let config = Document::write(MediaType::OCI_CONFIG, config);
    memory.insert(MediaType::OCI_CONFIG, config.bytes().clone());
    let layers =
        layers.iter().map(|layer| memory.insert(MediaType::OCI_LAYER, layer.clone())).collect();
    let manifest = Manifest::new(MediaType::OCI_MANIFEST, config.descriptor().clone(), layers);
    let manifest = Document::write(MediaType::OCI_MANIFEST, manifest);
    let mut descriptor = memory.insert(MediaType::OCI_MANIFEST, manifest.bytes().clone());
    descriptor.platform = Some(platform);
    descriptor
}

/// A memory with `one` (an image of two layers) and `many` (an index of three platforms that
/// share a layer).
pub(crate) fn samples() -> Memory {
    let memory = Memory::new();
    let base = layer("base", &vec![7; 700_000]);
    let one = add_image(&memory, "linux/amd64", &[base.clone(), layer("a", b"alpha")]);
    let arm = add_image(&memory, "linux/arm64", &[base.clone(), layer("b", b"beta")]);
    let s390x = add_image(&memory, "linux/s390x", &[base, layer("c", b"gamma")]);
    memory.name("one", &one.bare());
    let index = Document::write(MediaType::OCI_INDEX, Index::new(vec![one, arm, s390x]));
    let many = memory.insert(MediaType::OCI_INDEX, index.bytes().clone());
    memory.name("many", &many);
    memory
}

pub(crate) fn all() -> CopyOptions {
    CopyOptions { select: Select::All, ..CopyOptions::default() }
}

pub(crate) async fn read_all(source: &dyn Source, root: &Descriptor) -> Vec<Digest> {
    let mut todo = vec![root.clone()];
    let mut seen = Vec::new();
    while let Some(next) = todo.pop() {
        let bytes = source.fetch(&next).await.unwrap().verify(&next);
        if next.media_type.is_node() {
            let node = image::Node::read(next.clone(), bytes.read().await.unwrap()).unwrap();
            todo.extend(node.children());
        } else {
            let mut bytes = bytes;
            while let Some(chunk) = futures::StreamExt::next(&mut bytes).await {
                chunk.unwrap();
            }
        }
        seen.push(next.digest);
    }
    seen.sort_unstable();
    seen.dedup();
    seen
}

/// A fresh name in some place, as both ends.
pub(crate) struct Ends {
    pub(crate) sink: Box<dyn Sink>,
    /// Opens what the sink wrote.
    pub(crate) source: Box<dyn Fn() -> Box<dyn Source>>,
}

/// What every sink and the source of the same place must do. `fresh` makes an empty place;
/// `indexes` tells whether it can hold an index.
pub(crate) async fn check_place(fresh: &dyn Fn() -> Ends, indexes: bool) {
    let memory = samples();
    there_and_back(&memory, "one", fresh()).await;
    if indexes {
        there_and_back(&memory, "many", fresh()).await;
    }
    refuses_corruption(&memory, &fresh()).await;
    lacks_what_it_lacks(&fresh()).await;
}

async fn there_and_back(memory: &Memory, name: &str, ends: Ends) {
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

async fn refuses_corruption(memory: &Memory, ends: &Ends) {
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

async fn lacks_what_it_lacks(ends: &Ends) {
    let source = (ends.source)();
    let resolved = source.resolve().await;
    assert_eq!(resolved.unwrap_err().kind(), Kind::NotFound);
    let unknown = Descriptor::of(MediaType::OCI_LAYER, b"unknown");
    assert!(!ends.sink.contains(&unknown).await.unwrap());
    assert!(!ends.sink.link(&unknown, &Origin::Elsewhere).await.unwrap());
}

/// Remembers how tasks ended.
#[derive(Default)]
pub(crate) struct Ended(pub(crate) Mutex<Vec<(String, Outcome)>>, Mutex<Vec<(u64, String)>>);

impl Observer for Ended {
    fn event(&self, event: Event) {
        match event {
            Event::Started { id, name, .. } => self.1.lock().unwrap().push((id.0, name)),
            Event::Finished { id, outcome } => {
                let names = self.1.lock().unwrap();
                let name = names.iter().find(|(known, _)| *known == id.0).unwrap().1.clone();
                self.0.lock().unwrap().push((name, outcome));
            }
            _ => {}
        }
    }
}

impl Ended {
    pub(crate) fn task() -> (Task, Arc<Ended>) {
        let ended = Arc::new(Ended::default());
        (Task::root("copy", ended.clone()), ended)
    }

    pub(crate) fn count(&self, wanted: Outcome) -> usize {
        self.0.lock().unwrap().iter().filter(|(_, outcome)| *outcome == wanted).count()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_a_place() {
    let fresh = || {
        let image = Memory::new().image("x");
        let again = image.clone();
        Ends { sink: Box::new(image), source: Box::new(move || Box::new(again.clone())) }
    };
    check_place(&fresh, true).await;
}

fn place_in(
    make: impl Fn(&std::path::Path) -> (Box<dyn Sink>, Box<dyn Fn() -> Box<dyn Source>>),
) -> (tempfile::TempDir, impl Fn() -> Ends) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_owned();
    let count = std::cell::Cell::new(0);
    let fresh = move || {
        count.set(count.get() + 1);
        let (sink, source) = make(&root.join(count.get().to_string()));
        Ends { sink, source }
    };
    (dir, fresh)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oci_layout_is_a_place() {
    for named in [Named::Only, Named::Name("v1".to_owned())] {
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
        (at::Form::Oci, Named::Only),
        (at::Form::Oci, Named::Name("v1".to_owned())),
        (at::Form::Docker, Named::Only),
        (at::Form::Docker, Named::Name("registry.example/app:v1".to_owned())),
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
