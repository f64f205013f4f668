//! Caches from elsewhere: opened when the cache of this machine has no answer, asked by keys
//! computed here, and fetched from only what is needed in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::Arc;

use futures::future::join_all;
use image::{Algorithm, Descriptor, Digest, Digester, Node, Platform};
use layers::LayerInfo;
use store::{PendingLayer, Store};
use task::{Cause, Kind, Task};
use transport::{Origin, Source, bridge};

use super::record::{
    ARTIFACT, CONFIG, FACTS, Listing, MOST_MOUNTS, MountRecord, Remote, inline, steps,
};
use super::{CacheFrom, CachePlace, buildkit};
use crate::error::ErrorContext;
use crate::plan::key::Key;
use crate::why::{Facts, Trace};
use crate::{Env, Error, Result};

/// No more bytes of facts than this are read, uncompressed.
const MOST_FACTS: u64 = 64 << 20;

/// The caches of a build that are elsewhere.
#[derive(Default)]
pub(crate) struct Imports {
    caches: Vec<Import>,
    steps: BTreeMap<Digest, Remote>,
}

/// One of them.
struct Import {
    name: String,
    source: Arc<dyn Source>,
    facts: Option<Descriptor>,
    /// Of cache mounts: record and descriptor of the blob that lists the pieces.
    mounts: Vec<(MountRecord, Descriptor)>,
    /// The keys of its steps.
    keys: BTreeSet<Digest>,
    /// Everything the manifest lists.
    blobs: BTreeMap<Digest, Descriptor>,
}

/// A cache import that was opened.
struct OpenedImport {
    import: Import,
    steps: BTreeMap<Digest, Remote>,
}

impl Imports {
    /// Opens the caches that can be had; says which cannot and why.
    pub(crate) async fn open(
        wanted: &[CacheFrom],
        platforms: &[Platform],
        env: &Env,
        task: &Task,
    ) -> Imports {
        let places = wanted.iter().flat_map(|from| {
            from.places.iter().map(move |place| (from.name.as_str(), place, from.places.len() > 1))
        });
        let places: Vec<_> = places.collect();
        let opening = places.iter().enumerate().map(|(number, (name, place, _))| async move {
            let task = task.child(format!("reading the cache {name}"));
            let opened = open(place, name, number, platforms, env, &task).await;
            if let Ok(opened) = &opened {
                task.note(format!("{} steps", opened.steps.len()));
            }
            task.done();
            opened
        });
        let mut imports = Imports::default();
        for (opened, (name, place, guessed)) in join_all(opening).await.into_iter().zip(&places) {
            match opened {
                Ok(opened) => {
                    let number = imports.caches.len();
                    let mut import = opened.import;
                    import.keys = opened.steps.keys().copied().collect();
                    for (key, remote) in opened.steps {
                        let remote = Remote { cache: number, ..remote };
                        imports.steps.entry(key).or_insert(remote);
                    }
                    imports.caches.push(import);
                }
                Err(cause) if cause.kind() == Kind::NotFound => {
                    if !guessed {
                        task.note(format!("there is no cache {name} yet"));
                    }
                }
                Err(cause) => {
                    let why = task::chain(&cause).join(": ");
                    task.warn(format!("the cache {place} is not used: {why}"));
                }
            }
        }
        imports
    }

    /// The record of a cache for this step key.
    pub(crate) fn step(&self, origin: Key) -> Option<&Remote> {
        self.steps.get(&origin.0)
    }

    /// What the user calls the cache that has a result.
    pub(crate) fn name(&self, remote: &Remote) -> &str {
        &self.caches[remote.cache].name
    }

    /// Where a cache's blobs are.
    pub(super) fn source(&self, cache: usize) -> Arc<dyn Source> {
        Arc::clone(&self.caches[cache].source)
    }

    /// The registry that one of the caches is in, if any is.
    pub(super) fn origin(&self) -> Option<Origin> {
        let mut origins = self.caches.iter().map(|cache| cache.source.origin());
        origins.find(|origin| matches!(origin, Origin::Registry(_)))
    }

    /// What the user calls a cache.
    pub(super) fn called(&self, cache: usize) -> &str {
        &self.caches[cache].name
    }

    /// Whether a cache has the result of a step with one of these keys.
    pub(super) fn has_any(&self, cache: usize, keys: &BTreeSet<Digest>) -> bool {
        keys.iter().any(|key| self.caches[cache].keys.contains(key))
    }

    /// The newest copy of a cache mount among the caches that `fits` says yes to: where it is,
    /// its record, and the blob that lists its pieces.
    pub(super) fn mount(
        &self,
        id: &str,
        fits: impl Fn(usize, &MountRecord) -> bool,
    ) -> Option<(usize, &MountRecord, &Descriptor)> {
        let all = self.caches.iter().enumerate().flat_map(|(number, cache)| {
            cache.mounts.iter().map(move |(record, index)| (number, record, index))
        });
        all.filter(|(cache, record, _)| record.id == id && fits(*cache, record))
            .max_by_key(|(_, record, _)| record.used)
    }

    /// Something that a cache's manifest lists.
    pub(super) fn blob(&self, cache: usize, digest: Digest) -> Option<&Descriptor> {
        self.caches[cache].blobs.get(&digest)
    }

    /// What decided the steps of all these caches.
    pub(crate) async fn facts(&self, store: &Store, task: &Task) -> Vec<(Trace, Facts)> {
        let mut all = Vec::new();
        for cache in &self.caches {
            let Some(descriptor) = &cache.facts else { continue };
            match read_facts(cache, store, descriptor, task).await {
                Ok(facts) => all.extend(facts),
                Err(error) => task.note(format!(
                    "cannot explain why steps are not in the cache {}: {}",
                    cache.name,
                    task::chain(&error).join(": ")
                )),
            }
        }
        all
    }

    /// Brings a layer into the store without unpacking it, and checks what it unpacks to.
    pub(crate) async fn fetch(&self, store: &Store, remote: &Remote, task: &Task) -> Result<()> {
        let descriptor = &remote.layer.descriptor;
        let source = self.source(remote.cache);
        fetch(store, &*source, descriptor, task).await?;
        let (store, layer) = (store.clone(), remote.layer.clone());
        bridge::blocking(move || checked(&store, &layer)).await
    }

    /// Brings a layer into the store and unpacks it.
    pub(crate) async fn unpack(
        &self,
        store: &Store,
        remote: &Remote,
        task: &Arc<Task>,
    ) -> Result<PendingLayer> {
        let descriptor = remote.layer.descriptor.clone();
        let action = format!("fetching the layer {} from the cache", descriptor.digest.short());
        let (own, known) = (store.clone(), descriptor.digest);
        let there = bridge::blocking(move || own.contains(known)).await.during(action.clone())?;
        let (store, task) = (store.clone(), Arc::clone(task));
        let pending = if there {
            let work = move || store.unpack_layer(&descriptor, &task);
            bridge::blocking(work).await.during(action.clone())?
        } else {
            let fetched = self.caches[remote.cache].source.fetch(&descriptor).await;
            let blob = fetched.map_err(Error::part(action.clone()))?.verify(&descriptor);
            let reader = bridge::reader(blob);
            let work = move || store.put_layer(&descriptor, reader, &task);
            bridge::blocking(work).await.during(action.clone())?
        };
        if pending.diff_id() == remote.layer.diff_id {
            return Ok(pending);
        }
        let (expected, found) = (remote.layer.diff_id, pending.diff_id());
        let layer = remote.layer.descriptor.digest;
        Err(Error::DiffId { layer, found, expected, witness: "the cache" })
    }
}

async fn open(
    place: &CachePlace,
    name: &str,
    number: usize,
    platforms: &[Platform],
    env: &Env,
    task: &Task,
) -> Result<OpenedImport, Cause> {
    let source: Arc<dyn Source> = Arc::from(place.source(&*env.places)?);
    let named = source.resolve().await?;
    env.gate.check(&*source, &named, task).await?;
    let mut import = Import {
        name: name.to_owned(),
        source: Arc::clone(&source),
        facts: None,
        mounts: Vec::new(),
        keys: BTreeSet::new(),
        blobs: BTreeMap::new(),
    };
    if buildkit::is_list(&named) {
        return Err(buildkit::refuse(&*source, &named).await);
    }
    let node = transport::node(&*source, &named).await?;
    if let Some(list) = buildkit::list_of(&node) {
        return Err(buildkit::refuse(&*source, list).await);
    }
    if let Some((config, layers)) = listed(&node) {
        let listing = listing(&*source, config).await?;
        import.blobs = layers.iter().map(|layer| (layer.digest, layer.bare())).collect();
        let facts = listing.facts.and_then(|digest| import.blobs.get(&digest)).cloned();
        import.facts = facts.filter(|facts| facts.media_type.as_str() == FACTS);
        for record in listing.mounts.iter().take(MOST_MOUNTS) {
            if let Some(index) = import.blobs.get(&record.index) {
                import.mounts.push((record.clone(), index.clone()));
            }
        }
        return Ok(OpenedImport { steps: steps(&listing, &layers, number), import });
    }
    let mut found = BTreeMap::new();
    let mut failure = None;
    for platform in platforms {
        match transport::open(&*source, platform).await {
            Ok((_, image)) => found.extend(inline(image.config(), image.manifest(), number)),
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) if found.is_empty() => Err(error.into()),
        _ if found.is_empty() => {
            let reason = "it is an image without a cache".to_owned();
            Err(Error::malformed("the cache", reason).into())
        }
        _ => Ok(OpenedImport { steps: found, import }),
    }
}

/// The list of steps of a cache, and everything else that it lists; `None` if it is not a cache.
fn listed(node: &Node) -> Option<(&Descriptor, Vec<&Descriptor>)> {
    match node {
        Node::Manifest(manifest) => {
            let own = manifest.artifact_type.as_deref() == Some(ARTIFACT);
            own.then(|| (&manifest.config, manifest.layers.iter().collect()))
        }
        Node::Index(index) => {
            let is_config = |entry: &&Descriptor| entry.media_type.as_str() == CONFIG;
            let config = index.manifests.iter().find(is_config)?;
            Some((config, index.manifests.iter().filter(|entry| !is_config(entry)).collect()))
        }
    }
}

async fn listing(source: &dyn Source, config: &Descriptor) -> Result<Listing, Cause> {
    let bytes = source.fetch(config).await?.verify(config).read().await?;
    serde_json::from_slice(&bytes).map_err(|source| {
        Error::Document { action: "reading its list of steps".to_owned(), source }.into()
    })
}

async fn read_facts(
    cache: &Import,
    store: &Store,
    descriptor: &Descriptor,
    task: &Task,
) -> Result<Vec<(Trace, Facts)>> {
    fetch(store, &*cache.source, descriptor, task).await?;
    let (store, digest) = (store.clone(), descriptor.digest);
    bridge::blocking(move || {
        let file = store.open_blob(digest).during("reading facts")?;
        let reader = layers::decompress(file).during("reading facts")?.take(MOST_FACTS);
        serde_json::from_reader(std::io::BufReader::new(reader))
            .map_err(|source| Error::Document { action: "reading facts".to_owned(), source })
    })
    .await
}

/// Brings a blob into the store if it is not there.
pub(super) async fn fetch(
    store: &Store,
    source: &dyn Source,
    descriptor: &Descriptor,
    task: &Task,
) -> Result<()> {
    let action = format!("fetching {} from the cache", descriptor.digest.short());
    let (own, digest) = (store.clone(), descriptor.digest);
    if bridge::blocking(move || own.contains(digest)).await.during(action.clone())? {
        return Ok(());
    }
    let child = task.sized(format!("cache {}", descriptor.digest.short()), descriptor.size);
    let fetched = source.fetch(descriptor).await.map_err(Error::part(action.clone()))?;
    let mut reader = bridge::reader(fetched.verify(descriptor));
    let (store, expected) = (store.clone(), descriptor.clone());
    let work = move || -> Result<(), Cause> {
        let mut writer = store.writer_for(expected.digest.algorithm())?;
        let copied = std::io::copy(&mut child.reading(&mut reader), &mut writer);
        copied.map_err(|error| Error::file("fetching", "the cache")(error))?;
        writer.commit(Some(&expected))?;
        child.done();
        Ok(())
    };
    bridge::blocking(work).await.map_err(Error::part(action))
}

/// Whether a layer of the store unpacks to what was promised.
fn checked(store: &Store, layer: &LayerInfo) -> Result<()> {
    let action = "checking a layer of the cache";
    let file = store.open_blob(layer.descriptor.digest).during(action)?;
    let mut stream = layers::decompress(file).during(action)?;
    let mut digester = Digester::new(Algorithm::Sha256);
    std::io::copy(&mut stream, &mut digester)
        .map_err(|error| Error::file(action, layer.descriptor.digest.to_string())(error))?;
    let found = digester.finish();
    if found == layer.diff_id {
        return Ok(());
    }
    let expected = layer.diff_id;
    let layer = layer.descriptor.digest;
    Err(Error::DiffId { layer, found, expected, witness: "the cache" })
}
