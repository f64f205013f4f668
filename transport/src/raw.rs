//! Single blobs of registries, for who moves no image.

use std::fs::File;
use std::io;

use futures::StreamExt;
use image::{Descriptor, Digest, Digester};
use registry_client::Repo;
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
