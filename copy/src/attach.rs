use std::collections::BTreeMap;

use bytes::Bytes;
use image::{Descriptor, Document, Manifest, MediaType};
use task::Task;

use crate::{Blob, Error, Result, Side, Sink};

/// Something to publish that is not an image: a signature, an SBOM, provenance.
#[derive(Debug, Clone, Default)]
pub struct Artifact {
    /// What it is; becomes the manifest's `artifactType`.
    pub artifact_type: String,
    /// The config, if the artifact has one; else the empty descriptor is used.
    pub config: Option<(MediaType, Bytes)>,
    /// The parts: type, bytes and annotations of each.
    pub blobs: Vec<(MediaType, Bytes, BTreeMap<String, String>)>,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
}

/// Publishes an artifact that refers to `subject` and gives back its descriptor, as a referrers
/// list shows it.
///
/// In a registry it is found through the referrers API, or through the fallback tag where the
/// registry lacks it.
///
/// # Errors
/// [`Error::Place`] when the destination fails.
pub async fn attach(
    sink: &dyn Sink,
    subject: &Descriptor,
    artifact: &Artifact,
    task: &Task,
) -> Result<Descriptor> {
    let document = put_parts(sink, Some(subject), artifact, task).await?;
    let referrer = document.descriptor();
    let refer = sink.refer(&subject.bare(), referrer, document.bytes().clone(), task).await;
    refer.map_err(Error::at(format!("attaching {}", referrer.digest), Side::Destination))?;
    Ok(referrer.clone())
}

/// Publishes an artifact under the sink's own name.
///
/// # Errors
/// [`Error::Place`] when the destination fails.
pub async fn publish(
    sink: &dyn Sink,
    subject: Option<&Descriptor>,
    artifact: &Artifact,
    task: &Task,
) -> Result<Descriptor> {
    let document = put_parts(sink, subject, artifact, task).await?;
    let root = document.descriptor();
    let publish = sink.publish(root, document.bytes().clone(), task).await;
    publish.map_err(Error::at(format!("writing manifest {}", root.digest), Side::Destination))?;
    Ok(root.clone())
}

/// Publishes a manifest that is ready, with blobs that are at hand, under the sink's own name.
///
/// # Errors
/// [`Error::Place`] when the destination fails.
pub async fn publish_document(
    sink: &dyn Sink,
    manifest: &Document<Manifest>,
    blobs: &[(Descriptor, Bytes)],
    task: &Task,
) -> Result<()> {
    for (descriptor, bytes) in blobs {
        put(sink, descriptor.media_type.clone(), bytes, task).await?;
    }
    task.check()?;
    let root = manifest.descriptor();
    let publish = sink.publish(root, manifest.bytes().clone(), task).await;
    publish.map_err(Error::at(format!("writing manifest {}", root.digest), Side::Destination))
}

async fn put_parts(
    sink: &dyn Sink,
    subject: Option<&Descriptor>,
    artifact: &Artifact,
    task: &Task,
) -> Result<Document<Manifest>> {
    let (config_type, config) = match &artifact.config {
        Some((media_type, bytes)) => (media_type.clone(), bytes.clone()),
        None => (MediaType::OCI_EMPTY, Bytes::from_static(b"{}")),
    };
    let config = put(sink, config_type, &config, task).await?;
    let mut layers = Vec::with_capacity(artifact.blobs.len());
    for (media_type, bytes, annotations) in &artifact.blobs {
        let mut layer = put(sink, media_type.clone(), bytes, task).await?;
        layer.annotations = annotations.clone();
        layers.push(layer);
    }
    if layers.is_empty() {
        layers.push(put(sink, MediaType::OCI_EMPTY, &Bytes::from_static(b"{}"), task).await?);
    }
    let mut manifest = Manifest::new(MediaType::OCI_MANIFEST, config, layers);
    manifest.artifact_type = Some(artifact.artifact_type.clone()).filter(|text| !text.is_empty());
    manifest.subject = subject.map(Descriptor::bare);
    manifest.annotations = artifact.annotations.clone();
    let document = Document::write(MediaType::OCI_MANIFEST, manifest);
    let mut descriptor = document.descriptor().clone();
    descriptor.artifact_type = document.artifact_type.clone();
    descriptor.annotations = document.annotations.clone();
    Ok(document.described(descriptor))
}

async fn put(
    sink: &dyn Sink,
    media_type: MediaType,
    bytes: &Bytes,
    task: &Task,
) -> Result<Descriptor> {
    task.check()?;
    let descriptor = Descriptor::of(media_type, bytes);
    let at = || Error::at(format!("writing blob {}", descriptor.digest), Side::Destination);
    if !sink.contains(&descriptor).await.map_err(at())? {
        let blob = Blob::trusted(descriptor.digest, bytes.clone());
        sink.put(&descriptor, blob).await.map_err(at())?;
    }
    Ok(descriptor)
}
