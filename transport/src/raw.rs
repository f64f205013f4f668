//! Single blobs and manifests of registries, for who moves no image.

use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::path::Path;

use futures::StreamExt;
use image::{Algorithm, Descriptor, Digest, Digester, MediaType, Node, Repository};
use registry_client::{Repo, Target};
use task::Cause;

use crate::{Error, Result, Side, bridge};

/// Reads a blob of unknown size and hands its pieces on; fails at its end unless its digest is
/// right. Gives back its length.
///
/// # Errors
/// [`Error::Place`] when the registry fails or the content is not what it is named,
/// [`Error::Stream`] when `pass` fails.
pub async fn read_blob(
    repo: &Repo,
    digest: Digest,
    pass: &mut (dyn FnMut(&[u8]) -> io::Result<()> + Send),
) -> Result<u64> {
    let at = || Error::at(format!("reading blob {digest}"), Side::Source);
    let mut body = repo.blob(digest, None, None).await.map_err(|error| at()(error.into()))?;
    let (mut digester, mut size) = (Digester::new(digest.algorithm()), 0);
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| at()(error.into()))?;
        digester.update(&chunk);
        size += chunk.len() as u64;
        pass(&chunk).map_err(Error::Stream)?;
    }
    match digester.finish() {
        found if found == digest => Ok(size),
        found => {
            let error = image::Error::DigestMismatch { expected: digest, found };
            Err(at()(Cause::new(error)))
        }
    }
}

/// Writes a file as a blob, unless the repository has it.
///
/// # Errors
/// [`Error::Place`] when the registry fails or the file is not what the descriptor says.
pub async fn write_blob(repo: &Repo, descriptor: &Descriptor, file: File) -> Result<()> {
    let digest = descriptor.digest;
    let at = || Error::at(format!("writing blob {digest}"), Side::Destination);
    let there = repo.has_blob(digest).await.map_err(|error| at()(error.into()))?;
    if there == Some(descriptor.size) {
        return Ok(());
    }
    let blob = bridge::stream(file).verify(descriptor);
    let body = blob.map(|chunk| chunk.map_err(registry_client::Error::source)).boxed();
    repo.upload(descriptor, body).await.map_err(|error| at()(error.into()))
}

/// Brings a blob to another repository: nothing is sent if it is there; on the same registry it is
/// mounted if the registry does that. `false` if the source does not have it.
///
/// # Errors
/// [`Error::Place`] when a registry fails.
pub async fn copy_blob(
    digest: Digest,
    (source, from): (&Repo, &Repository),
    (sink, to): (&Repo, &Repository),
) -> Result<bool> {
    let reading = || Error::at(format!("reading blob {digest}"), Side::Source);
    let writing = || Error::at(format!("writing blob {digest}"), Side::Destination);
    let there = sink.has_blob(digest).await.map_err(|error| writing()(error.into()))?.is_some();
    let mounted = !there
        && from.registry() == to.registry()
        && sink.mount(digest, from).await.map_err(|error| writing()(error.into()))?;
    if there || mounted {
        return Ok(true);
    }
    let size = source.has_blob(digest).await.map_err(|error| reading()(error.into()))?;
    let Some(size) = size else { return Ok(false) };
    let body = source.blob(digest, Some(size), None).await;
    let body = body.map_err(|error| reading()(error.into()))?;
    let blob = Descriptor::new(MediaType::default(), digest, size);
    sink.upload(&blob, body).await.map_err(|error| writing()(error.into()))?;
    Ok(true)
}

/// The descriptor of a file as a blob, and the file at its beginning.
///
/// # Errors
/// [`Error::File`].
pub fn describe_file(path: &Path, algorithm: Algorithm) -> Result<(Descriptor, File)> {
    let read = || -> io::Result<(Descriptor, File)> {
        let mut file = File::open(path)?;
        let (mut digester, mut size) = (Digester::new(algorithm), 0);
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let n = file.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            digester.update(&buffer[..n]);
            size += n as u64;
        }
        file.rewind()?;
        let media_type = MediaType::from("application/octet-stream");
        Ok((Descriptor::new(media_type, digester.finish(), size), file))
    };
    read().map_err(Error::file("reading", path))
}

/// Writes a manifest or index as it is under a tag or its digest. A registry that keeps no referrers
/// gets it into the list of its subject.
///
/// # Errors
/// [`Error::Place`] when the registry fails.
pub async fn put_manifest(repo: &Repo, target: &Target, node: &Node) -> Result<()> {
    let at = || Error::at(format!("writing manifest {}", node.digest()), Side::Destination);
    let kind = &node.descriptor().media_type;
    let known = repo.put_manifest(target, kind, node.bytes().clone()).await;
    let known = known.map_err(|error| at()(error.into()))?;
    if let (Some(subject), None) = (node.subject(), known) {
        let mut referrer = node.descriptor().clone();
        if let Node::Manifest(manifest) = node {
            referrer.artifact_type.clone_from(&manifest.artifact_type);
            referrer.annotations.clone_from(&manifest.annotations);
        }
        let added = repo.add_referrer(subject.digest, &referrer).await;
        added.map_err(|error| at()(error.into()))?;
    }
    Ok(())
}

/// The media type of a manifest or index: what it says, or what its shape shows.
pub fn kind_of_manifest(document: &[u8]) -> Option<MediaType> {
    let value: serde_json::Value = serde_json::from_slice(document).ok()?;
    if let Some(said) = value["mediaType"].as_str() {
        return Some(MediaType::from(said.to_owned()));
    }
    match (value.get("manifests"), value.get("config")) {
        (Some(_), None) => Some(MediaType::OCI_INDEX),
        (None, Some(_)) => Some(MediaType::OCI_MANIFEST),
        _ => None,
    }
}
