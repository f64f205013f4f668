//! Giving the cache away: the steps of a build as one manifest.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use image::{Descriptor, Digest, Document, Index, Manifest, MediaType};
use layers::LayerWriter;
use store::Store;
use task::{Cause, Task};
use transport::{Open, Origin, Select, Source, Unverified, bridge};

use super::import::Imports;
use super::record::{ARTIFACT, CONFIG, FACTS, Listing, Record};
use super::{CacheForm, CachePlace, CacheTo, Mode};
use crate::error::ErrorContext;
use crate::images::carry;
use crate::job::Build;
use crate::layer::{self, LayerForm};
use crate::plan::{Op, StepId};
use crate::why::{self, Facts, Trace};
use crate::{Error, Result};

/// Writes the steps of a finished build to a place. What was there stays until all is written.
pub(crate) async fn export(
    build: &Arc<Build>,
    to: &CacheTo,
    place: &CachePlace,
    task: &Arc<Task>,
) -> Result<()> {
    let imports = build.imports(task).await;
    let mut contents = Contents::new(&build.env.store);
    let mut listing = Listing::default();
    let steps = steps(build, to.mode);
    for id in &steps {
        task.check()?;
        listing.steps.push(step(build, to, *id, imports, &mut contents, task).await?);
    }
    // The order in which steps were solved is not the same every time.
    listing.steps.sort_by_key(|record| record.key);
    if let Some(facts) = facts(build, &steps, task).await? {
        listing.facts = Some(facts.digest);
        contents.add([facts]);
    }
    if to.mounts {
        super::mounts::export(build, imports, &mut listing, &mut contents, task).await?;
    }
    let listing = serde_json::to_vec(&listing).unwrap_or_default();
    let config = contents.document(CONFIG.into(), listing);
    if config.size > image::MAX_DOCUMENT {
        return Err(Error::Exceeds { what: "the list of its steps".to_owned(), limit: "4 MiB" });
    }
    if contents.layers.is_empty() {
        let empty = contents.document(MediaType::OCI_EMPTY, b"{}".to_vec());
        contents.add([empty]);
    }
    let (root, bytes) = listed(to.form, config, contents.layers.clone());
    if root.size > image::MAX_DOCUMENT {
        return Err(Error::TooLarge);
    }
    contents.documents.insert(root.digest, bytes);
    contents.root = Some(root);
    contents.origin = imports.origin().unwrap_or(contents.origin);
    let sink = place.sink(&*build.env.places).map_err(Error::part("opening the place"))?;
    let options =
        transport::CopyOptions { select: Select::All, ..transport::CopyOptions::default() };
    let child = task.child(format!("writing {} steps", steps.len()));
    carry(Box::new(contents), sink, Arc::new(Open), options, child)
        .await
        .map_err(Error::part("writing"))
}

/// The document that lists everything.
fn listed(form: CacheForm, config: Descriptor, mut layers: Vec<Descriptor>) -> (Descriptor, Bytes) {
    let media_type = match form {
        CacheForm::Manifest => {
            let mut manifest = Manifest::new(MediaType::OCI_MANIFEST, config, layers);
            manifest.artifact_type = Some(ARTIFACT.to_owned());
            let manifest = Document::write(MediaType::OCI_MANIFEST, manifest);
            return (manifest.descriptor().clone(), manifest.bytes().clone());
        }
        CacheForm::Index => MediaType::OCI_INDEX,
        CacheForm::DockerList => {
            for layer in &mut layers {
                if let Some(encoding) = layer.media_type.layer_encoding() {
                    layer.media_type = MediaType::layer(encoding, true);
                }
            }
            MediaType::DOCKER_INDEX
        }
    };
    layers.push(config);
    let mut index = Index::new(layers);
    index.media_type = Some(media_type.clone());
    index.artifact_type = (form == CacheForm::Index).then(|| ARTIFACT.to_owned());
    let index = Document::write(media_type, index);
    (index.descriptor().clone(), index.bytes().clone())
}

/// The steps that are given away: those with a layer in an image, or all.
fn steps(build: &Build, mode: Mode) -> Vec<StepId> {
    let solved = build.solved();
    match mode {
        Mode::Max => {
            let own = |id: &StepId| !matches!(build.plan.steps[id.0].op, Op::Image(_) | Op::Graft);
            solved.into_iter().filter(own).collect()
        }
        Mode::Min => {
            let history = build.plan.targets.iter().flat_map(|target| &target.image.history);
            let mut wanted: Vec<StepId> = history.filter_map(|item| item.layer).collect();
            wanted.sort();
            wanted.dedup();
            wanted.retain(|id| solved.contains(id));
            wanted
        }
    }
}

async fn step(
    build: &Arc<Build>,
    to: &CacheTo,
    id: StepId,
    imports: &Imports,
    contents: &mut Contents,
    task: &Arc<Task>,
) -> Result<Record> {
    let (Some(origin), Some(made)) = (build.origin_of(id), build.made(id)) else {
        return Err(Error::internal("a step that is exported was made"));
    };
    let own = LayerForm::of(&build.request);
    let wanted = to
        .compression
        .map_or(own, |compression| LayerForm { compression: Some(compression), ..own });
    let here = made.snapshot.is_some();
    let (info, form) = match &made.remote {
        // It is where it came from, and perhaps nowhere else: nothing is fetched to say so.
        Some(remote) if !here && (!to.force || remote.form == wanted.to_string()) => {
            contents.remote.insert(remote.layer.descriptor.digest, imports.source(remote.cache));
            (remote.layer.clone(), remote.form.clone())
        }
        _ => {
            let form = match to.force {
                true => wanted,
                false if layer::known(build, id, own)?.is_some() => own,
                false => wanted,
            };
            (layer::obtain(build, id, form, task).await?, form.to_string())
        }
    };
    contents.add([info.descriptor.clone()]);
    Ok(Record {
        key: origin.0,
        created: made.created,
        layer: info.descriptor.digest,
        diff_id: info.diff_id,
        uncompressed: info.uncompressed,
        form,
    })
}

/// A blob with what decided each step, as far as it is known.
async fn facts(
    build: &Arc<Build>,
    steps: &[StepId],
    task: &Arc<Task>,
) -> Result<Option<Descriptor>> {
    let elsewhere = build.remote_facts(task).await;
    let mut all: Vec<(Trace, Facts)> = Vec::new();
    for id in steps {
        let Some(origin) = build.origin_of(*id) else { continue };
        let step = &build.plan.steps[id.0];
        let own = why::facts_of(&build.env.store, origin);
        let own = own.and_then(|bytes| serde_json::from_slice::<Facts>(&bytes).ok());
        let name = origin.0.to_string();
        let known = || elsewhere.iter().find(|(_, facts)| facts.key == name);
        let facts = own.or_else(|| known().map(|(_, facts)| facts.clone()));
        all.extend(facts.map(|facts| (Trace::of(step), facts)));
    }
    if all.is_empty() {
        return Ok(None);
    }
    let (store, threads) = (build.env.store.clone(), build.env.threads);
    bridge::blocking(move || {
        let bytes = serde_json::to_vec(&all).unwrap_or_default();
        compressed(&store, &bytes, FACTS, threads).map(Some)
    })
    .await
}

/// Writes bytes to the store, compressed.
pub(super) fn compressed(
    store: &Store,
    bytes: &[u8],
    media_type: &'static str,
    threads: usize,
) -> Result<Descriptor> {
    let action = "compressing for the cache";
    let zstd = layers::Compression { encoding: image::Encoding::Zstd, level: None };
    let blob = store.writer().during(action)?;
    let mut writer = LayerWriter::new(blob, zstd, threads);
    writer.write_all(bytes).map_err(Error::file(action, "a blob"))?;
    let (blob, info) = writer.finish().during(action)?;
    blob.commit(Some(&info.descriptor)).during(action)?;
    let (digest, size) = (info.descriptor.digest, info.descriptor.size);
    Ok(Descriptor::new(media_type.into(), digest, size))
}

/// A cache about to be written: documents in memory, blobs in the store or still elsewhere.
pub(super) struct Contents {
    store: Store,
    root: Option<Descriptor>,
    documents: BTreeMap<Digest, Bytes>,
    origin: Origin,
    /// What the manifest will list.
    layers: Vec<Descriptor>,
    known: BTreeSet<Digest>,
    /// Where blobs are that may not be in the store.
    pub(super) remote: BTreeMap<Digest, Arc<dyn Source>>,
}

impl Contents {
    fn new(store: &Store) -> Contents {
        Contents {
            store: store.clone(),
            root: None,
            documents: BTreeMap::new(),
            origin: Origin::Blobs(store.path().join("blobs")),
            layers: Vec::new(),
            known: BTreeSet::new(),
            remote: BTreeMap::new(),
        }
    }

    /// Lists blobs that are not listed yet.
    pub(super) fn add(&mut self, blobs: impl IntoIterator<Item = Descriptor>) {
        for blob in blobs {
            if self.known.insert(blob.digest) {
                self.layers.push(blob);
            }
        }
    }

    fn document(&mut self, media_type: MediaType, bytes: Vec<u8>) -> Descriptor {
        let descriptor = Descriptor::of(media_type, &bytes);
        self.documents.insert(descriptor.digest, bytes.into());
        descriptor
    }
}

#[async_trait]
impl Source for Contents {
    async fn resolve(&self) -> Result<Descriptor, Cause> {
        self.root
            .clone()
            .ok_or_else(|| Error::internal("a cache is written before it is copied").into())
    }

    async fn fetch(&self, descriptor: &Descriptor) -> Result<Unverified, Cause> {
        if let Some(bytes) = self.documents.get(&descriptor.digest) {
            return Ok(Unverified::whole(bytes.clone()));
        }
        let (store, digest) = (self.store.clone(), descriptor.digest);
        let own = bridge::blocking(move || {
            if store.contains(digest)? { store.open_blob(digest).map(Some) } else { Ok(None) }
        });
        match (own.await?, self.remote.get(&digest)) {
            (Some(file), _) => Ok(bridge::stream(file)),
            (None, Some(source)) => source.fetch(descriptor).await,
            (None, None) => Err(Error::Gone { what: format!("blob {digest} of the store") }.into()),
        }
    }

    async fn referrers(&self, _subject: &Descriptor) -> Result<Vec<Descriptor>, Cause> {
        Ok(Vec::new())
    }

    fn origin(&self) -> Origin {
        self.origin.clone()
    }
}
