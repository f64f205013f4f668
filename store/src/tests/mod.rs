//! Tests that need a whole store.

mod blobs;
mod containers;
mod crash;
mod derived;
mod gc;
mod layers;
mod layouts;
mod model;
mod names;
mod peers;
mod processes;
mod snapshots;
mod steps;

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use image::{ChainId, Config, Descriptor, Digest, Document, Manifest, MediaType, RootFs};
use task::Task;
use tempfile::TempDir;

use crate::{Options, Severity, Store};

thread_local! {
    /// What time it is for the stores of this test.
    pub(crate) static NOW: Cell<u64> = const { Cell::new(1_000_000) };
}

fn clock() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW.get())
}

/// Options of a store here: what is fit for a user namespace if the tests run in one.
pub(crate) fn options(boot_id: &str) -> Options {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    let user_xattr = map.split_whitespace().ne(["0", "0", "4294967295"]);
    let task = Arc::new(Task::silent());
    Options { user_xattr, boot_id: boot_id.to_owned(), clock, task }
}

pub(crate) fn open(path: &Path) -> Store {
    Store::open(path, options("boot")).unwrap()
}

const _: fn() = || {
    fn shareable<T: Send + Sync + 'static>() {}
    shareable::<Store>();
    shareable::<crate::Error>();
    shareable::<crate::Active>();
    shareable::<crate::PendingLayer>();
    shareable::<crate::BlobWriter>();
};

/// A directory in memory where there is such a place: on disk `syncfs` waits for whatever else
/// the machine writes.
pub(crate) fn directory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A store in a directory of its own.
pub(crate) fn fresh() -> (TempDir, Store) {
    let directory = directory();
    let store = open(&directory.path().join("store"));
    (directory, store)
}

/// An image as bytes: layers that are text, and the two documents.
pub(crate) struct Sample {
    pub(crate) layers: Vec<(Descriptor, Vec<u8>)>,
    pub(crate) config: Document<Config>,
    pub(crate) manifest: Document<Manifest>,
}

impl Sample {
    /// An image of these uncompressed layers; `label` makes it differ from others.
    pub(crate) fn new(label: &str, layers: &[Vec<u8>]) -> Sample {
        let layers: Vec<(Descriptor, Vec<u8>)> = layers
            .iter()
            .map(|bytes| (Descriptor::of(MediaType::OCI_LAYER, bytes), bytes.clone()))
            .collect();
        let diff_ids = layers.iter().map(|(descriptor, _)| descriptor.digest).collect();
        let config = Config {
            author: Some(label.to_owned()),
            architecture: "amd64".to_owned(),
            os: "linux".to_owned(),
            rootfs: RootFs { diff_ids, ..RootFs::default() },
            ..Config::default()
        };
        let config = Document::write(MediaType::OCI_CONFIG, config);
        let descriptors = layers.iter().map(|(descriptor, _)| descriptor.clone()).collect();
        let manifest =
            Manifest::new(MediaType::OCI_MANIFEST, config.descriptor().clone(), descriptors);
        let manifest = Document::write(MediaType::OCI_MANIFEST, manifest);
        Sample { layers, config, manifest }
    }

    /// An image of one layer of text.
    pub(crate) fn text(label: &str) -> Sample {
        Sample::new(label, &[format!("the layer of {label}").into_bytes()])
    }

    pub(crate) fn root(&self) -> &Descriptor {
        self.manifest.descriptor()
    }

    pub(crate) fn chain(&self) -> ChainId {
        self.config.chain_id().unwrap()
    }

    /// All blobs, children first.
    pub(crate) fn blobs(&self) -> Vec<(Descriptor, Vec<u8>)> {
        let mut blobs = self.layers.clone();
        blobs.push((self.config.descriptor().clone(), self.config.bytes().to_vec()));
        blobs.push((self.root().clone(), self.manifest.bytes().to_vec()));
        blobs
    }

    pub(crate) fn put(&self, store: &Store) {
        for (descriptor, bytes) in self.blobs() {
            assert_eq!(store.insert(&bytes).unwrap(), descriptor.digest);
        }
    }

    pub(crate) fn publish(&self, store: &Store, name: &str) {
        self.put(store);
        store.publish(name, self.root()).unwrap();
    }
}

/// A digest without content.
pub(crate) fn digest(label: &str) -> Digest {
    Digest::of(label.as_bytes())
}

/// What is broken in the store.
pub(crate) fn broken(store: &Store) -> Vec<String> {
    let problems = store.check(&Task::silent()).unwrap();
    let broken = problems.iter().filter(|problem| problem.severity == Severity::Broken);
    broken.map(ToString::to_string).collect()
}

/// Everything `check` names.
pub(crate) fn problems(store: &Store) -> Vec<String> {
    store.check(&Task::silent()).unwrap().iter().map(ToString::to_string).collect()
}

/// Names of what lies below a directory of the store, two levels deep.
pub(crate) fn listing(store: &Store, place: &str) -> Vec<String> {
    let mut found = Vec::new();
    for name in crate::file::list(&store.path().join(place)).unwrap() {
        for inner in crate::file::list(&store.path().join(place).join(name)).unwrap_or_default() {
            found.push(inner.into_string().unwrap());
        }
    }
    found
}

/// Whether tests can mount; says so where they cannot.
pub(crate) fn is_root() -> bool {
    requires::root()
}
