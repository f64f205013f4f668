//! Indexes of gzip layers, by which single files are fetched: made on the way, promised by the
//! manifest's annotations, attached to the image as a referrer; or made here and kept.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use image::{Descriptor, Digest, Document, Encoding, Manifest, MediaType};
use layers::{GZIP_INDEX, LayerTable, TablePlace};
use task::{Cause, Kind, Task};

use crate::bridge::blocking;
use crate::convert::like;
use crate::edit::{of_layer, read_layer};
use crate::recompress::warn_of_referrers;
use crate::rewrite::{ChangedLayer, LayerChange, RewrittenImage, rewrite};
use crate::{
    Artifact, CopyOptions, Error, Format, LayerFile, Result, Select, Side, Sink, Source, attach,
};

/// Where indexes of layers are kept that were made here. They are as good as the layers: making
/// one reads and checks the whole layer.
pub trait Indexes: Send + Sync {
    /// The index of a layer, if there is one.
    fn index(&self, layer: Digest) -> Option<Vec<u8>>;
    /// Keeps an index of a layer. It may be forgotten at any time.
    fn keep(&self, layer: Digest, index: &[u8]);
}

/// Whether a layer can have an index and has no table of contents.
pub(crate) fn is_plain_gzip(layer: &Descriptor) -> bool {
    layer.media_type.layer_encoding() == Some(Encoding::Gzip)
        && !layer.media_type.is_foreign()
        && TablePlace::of(layer).is_none()
}

/// The table of a gzip layer from an index that was made here or that its descriptor promises. An
/// index that is not there, or is not what it should be, is as none.
///
/// # Errors
/// [`Error::Place`] when the source fails.
pub(crate) async fn table(
    source: &dyn Source,
    layer: &Descriptor,
    indexes: &dyn Indexes,
) -> Result<Option<LayerTable>> {
    if !is_plain_gzip(layer) {
        return Ok(None);
    }
    let read = |bytes: &[u8]| LayerTable::of_gzip(bytes, layer).ok();
    let kept = indexes.index(layer.digest);
    let promised = layers::promised_index(layer);
    if kept.is_none() && promised.is_none() || !gives_parts(source, layer).await? {
        return Ok(None);
    }
    if let Some(table) = kept.and_then(|bytes| read(&bytes)) {
        return Ok(Some(table));
    }
    let Some(promised) = promised else { return Ok(None) };
    let fetched = async { source.fetch(&promised).await?.verify(&promised).read().await };
    match fetched.await {
        Ok(bytes) => Ok(read(&bytes)),
        Err(cause) if matches!(cause.kind(), Kind::NotFound | Kind::Invalid) => Ok(None),
        Err(cause) => {
            let what = format!("reading the index of layer {}", layer.digest);
            Err(Error::at(what, Side::Source)(cause))
        }
    }
}

/// Whether a place gives parts of a layer; a byte of it is asked for.
async fn gives_parts(source: &dyn Source, layer: &Descriptor) -> Result<bool> {
    let part = source.fetch_part(layer, 0..1).await;
    let failed = Error::at(format!("reading layer {}", layer.digest), Side::Source);
    Ok(part.map_err(failed)?.is_some())
}

/// Makes the index of a gzip layer that was fetched whole, keeps it, and reads it; `None` for what
/// cannot have one, and where the place gives no parts, so that it would be of no use.
///
/// # Errors
/// [`Error::Layer`] where the layer is broken, or not what the config names.
pub(crate) async fn make(
    source: &dyn Source,
    layer: &LayerFile,
    indexes: &dyn Indexes,
) -> Result<Option<LayerTable>> {
    let LayerFile { descriptor, diff_id, .. } = layer;
    if !is_plain_gzip(descriptor) || !gives_parts(source, descriptor).await? {
        return Ok(None);
    }
    let (file, of) = (layer.open()?, descriptor.clone());
    let failed = of_layer(&of.digest.to_string());
    let made = blocking(move || layers::index_gzip(file, &of).map_err(failed)).await?;
    let Some(index) = made else { return Ok(None) };
    check(descriptor, *diff_id, index.diff_id)?;
    indexes.keep(descriptor.digest, &index.bytes);
    Ok(LayerTable::of_gzip(&index.bytes, descriptor).ok())
}

/// What a copy is of whose gzip layers get indexes.
pub(crate) struct IndexedImage<'a> {
    pub(crate) image: RewrittenImage<'a>,
    pub(crate) options: CopyOptions,
    /// The indexes by their digests.
    made: BTreeMap<Digest, Bytes>,
}

/// Makes indexes of the gzip layers that have none, for a copy.
///
/// # Errors
/// [`Error::WouldChange`] where digests must stay; as [`rewrite`].
pub(crate) async fn for_copy<'a>(
    source: &'a dyn Source,
    sink: &dyn Sink,
    options: &CopyOptions,
    task: &Task,
) -> Result<IndexedImage<'a>> {
    let referrers = sink.capabilities().referrers;
    if !referrers || options.format == Some(Format::Docker) {
        let reason = match referrers {
            false => "the destination holds no referrers, so no indexes of layers".to_owned(),
            true => "Docker's documents cannot name indexes of layers".to_owned(),
        };
        let digest = source.resolve().await.map_err(Error::resolve)?.digest;
        return Err(Error::Convert { digest, reason });
    }
    let making =
        GzipIndexJob { source, task, made: Mutex::default(), docker: AtomicBool::new(false) };
    let how = (&making as &dyn LayerChange, options.attempts);
    let image = rewrite(source, &options.select, how, task).await?;
    if making.docker.into_inner() {
        task.warn(
            "layers in Docker's documents get no index: convert the image to OCI documents first"
                .to_owned(),
        );
    }
    let made = making.made.into_inner().unwrap_or_else(PoisonError::into_inner);
    if image.overlay.changes() && options.preserve_digests {
        let reason = "its manifest is to name the indexes of its layers".to_owned();
        return Err(Error::WouldChange { reason });
    }
    let before = source.resolve().await.map_err(Error::resolve)?;
    warn_of_referrers(source, (&before, image.overlay.root()), options, task).await?;
    let mut format = options.format;
    if !image.manifests.is_empty() {
        format = Some(Format::Oci);
    }
    let select = match options.select {
        Select::IndexOnly => Select::IndexOnly,
        _ => Select::All,
    };
    let options = CopyOptions { select, format, gzip_index: false, ..options.clone() };
    Ok(IndexedImage { image, options, made })
}

impl IndexedImage<'_> {
    /// Attaches the indexes to the images that name them.
    ///
    /// # Errors
    /// [`Error::Place`] when the destination fails.
    pub(crate) async fn attach(&self, sink: &dyn Sink, task: &Task) -> Result<()> {
        for manifest in &self.image.manifests {
            attach(sink, manifest.descriptor(), &self.artifact(manifest), task).await?;
        }
        Ok(())
    }

    fn artifact(&self, manifest: &Document<Manifest>) -> Artifact {
        let promised = manifest.layers.iter().filter_map(layers::promised_index);
        let made = promised.filter_map(|index| self.made.get(&index.digest));
        let blobs = made.map(|bytes| (MediaType::from(GZIP_INDEX), bytes.clone(), BTreeMap::new()));
        let blobs = blobs.collect();
        Artifact { artifact_type: GZIP_INDEX.to_owned(), blobs, ..Artifact::default() }
    }
}

struct GzipIndexJob<'w> {
    source: &'w dyn Source,
    task: &'w Task,
    made: Mutex<BTreeMap<Digest, Bytes>>,
    /// Whether there were layers in Docker's documents, which have no annotations.
    docker: AtomicBool,
}

#[async_trait]
impl LayerChange for GzipIndexJob<'_> {
    fn wants(&self, layer: &Descriptor) -> bool {
        let lacks = is_plain_gzip(layer) && layers::promised_index(layer).is_none();
        let docker = layer.media_type.is_docker();
        self.docker.fetch_or(lacks && docker, Ordering::Relaxed);
        lacks && !docker
    }

    fn describe(&self, layer: &Descriptor, changed: &Descriptor) -> Descriptor {
        let mut described = like(layer, layer);
        described.annotations.extend(changed.annotations.clone());
        described
    }

    async fn change(&self, layer: &Descriptor, diff_id: Digest) -> Result<Option<ChangedLayer>> {
        let of = layer.clone();
        let made = read_layer(self.source, layer, self.task, move |reader| {
            layers::index_gzip(reader, &of).map_err(of_layer(&of.digest.to_string()))
        });
        let Some(index) = made.await? else { return Ok(None) };
        check(layer, diff_id, index.diff_id)?;
        let mut descriptor = layer.bare();
        layers::promise_index(&mut descriptor, &index.bytes);
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.insert(Digest::of(&index.bytes), index.bytes.into());
        Ok(Some(ChangedLayer { descriptor, file: None }))
    }
}

/// Compares the digest of an uncompressed layer with what the config says.
///
/// # Errors
/// [`Error::Layer`].
pub(crate) fn check(layer: &Descriptor, expected: Digest, found: Digest) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    let source = Cause::new(image::Error::DigestMismatch { expected, found });
    Err(Error::Layer { name: layer.digest.to_string(), source })
}
