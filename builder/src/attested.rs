//! Finding the statements about an image.

use bytes::Bytes;
use image::{Descriptor, Node};
use transport::Source;

use crate::attestation::{ABOUT, IN_TOTO, PREDICATE_TYPE};
use crate::error::During;
use crate::{Error, Result};

/// The most manifests that are read.
const MOST: usize = 256;

/// The statements of one kind about an image: those that refer to it, and those in the index that
/// `named` is. Their bytes are what their digests say; who wrote them is another question.
///
/// # Errors
/// The source fails; a manifest is malformed.
pub async fn attestations(
    source: &dyn Source,
    named: &Descriptor,
    image: &Descriptor,
    predicate_type: &str,
) -> Result<Vec<Bytes>> {
    let doing = format!("listing the statements about {}", image.digest);
    let mut candidates: Vec<Descriptor> =
        source.referrers(image).await.map_err(Error::part(doing.clone()))?;
    candidates.retain(|referrer| match referrer.annotations.get(PREDICATE_TYPE) {
        Some(kind) => kind == predicate_type,
        None => referrer.artifact_type.as_deref() == Some(IN_TOTO),
    });
    if named.media_type.is_index() {
        let about = image.digest.to_string();
        let children = transport::node(source, named).await.during(doing.clone())?.children();
        let ours =
            children.into_iter().filter(|child| child.annotations.get(ABOUT) == Some(&about));
        candidates.extend(ours);
    }
    let mut found = Vec::new();
    for candidate in candidates.iter().take(MOST).filter(|c| c.media_type.is_manifest()) {
        let Node::Manifest(manifest) =
            transport::node(source, candidate).await.during(doing.clone())?
        else {
            continue;
        };
        for layer in &manifest.layers {
            let kind = layer.annotations.get(PREDICATE_TYPE);
            let ours =
                layer.media_type.as_str() == IN_TOTO && kind.is_none_or(|k| k == predicate_type);
            if !ours {
                continue;
            }
            let doing = || format!("reading the statement {}", layer.digest);
            let unverified = source.fetch(layer).await.map_err(Error::part(doing()))?;
            found.push(unverified.verify(layer).read().await.map_err(Error::part(doing()))?);
        }
    }
    Ok(found)
}
