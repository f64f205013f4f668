//! BuildKit's own caches: recognised, read and refused with the reason.
//!
//! Their records are named by digests of BuildKit's definition of a step, in the encoding of one
//! version of it. A step here has a key of its own kind, which is not among them.

use image::{Descriptor, Node};
use serde::Deserialize;
use task::{Cause, Fault, Kind};
use transport::{BUILDKIT_CACHE, Source};

/// What BuildKit lists: `remotecache/v1`.
#[derive(Debug, Deserialize)]
struct List {
    #[serde(default)]
    layers: Vec<Layer>,
    #[serde(default)]
    records: Vec<Record>,
}

#[derive(Debug, Deserialize)]
struct Layer {
    #[serde(rename = "blob")]
    _blob: image::Digest,
}

#[derive(Debug, Deserialize)]
struct Record {
    #[serde(rename = "digest")]
    _digest: image::Digest,
}

/// A cache that only BuildKit can use.
#[derive(Debug, thiserror::Error)]
#[error(
    "BuildKit wrote it (layers: {layers}, records: {records}) and names its records by its own \
     definitions of steps, which rbuild does not make"
)]
struct Foreign {
    layers: usize,
    records: usize,
}

impl Fault for Foreign {
    fn kind(&self) -> Kind {
        Kind::Refused
    }
}

/// Whether a name points at such a list itself.
pub(super) fn is_list(named: &Descriptor) -> bool {
    named.media_type.as_str() == BUILDKIT_CACHE
}

/// The list of a cache that is an index or an image.
pub(super) fn list_of(node: &Node) -> Option<&Descriptor> {
    match node {
        Node::Manifest(manifest) => Some(&manifest.config).filter(|config| is_list(config)),
        Node::Index(index) => index.manifests.iter().find(|entry| is_list(entry)),
    }
}

/// Reads a list and says why it is of no use.
pub(super) async fn refuse(source: &dyn Source, list: &Descriptor) -> Cause {
    match read(source, list).await {
        Ok(list) => Foreign { layers: list.layers.len(), records: list.records.len() }.into(),
        Err(cause) => cause,
    }
}

async fn read(source: &dyn Source, list: &Descriptor) -> Result<List, Cause> {
    let bytes = source.fetch(list).await?.verify(list).read().await?;
    serde_json::from_slice(&bytes).map_err(|source| {
        crate::Error::Document { action: "reading BuildKit's list of it".to_owned(), source }.into()
    })
}
