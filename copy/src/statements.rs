//! Finding the in-toto statements about an image, signed or not.

use bytes::Bytes;
use image::{Descriptor, Node};

use crate::select::ABOUT;
use crate::{Error, Result, Side, Source, node};

/// The media type of a statement, and the type of an artifact that holds one.
pub const IN_TOTO: &str = "application/vnd.in-toto+json";
/// On layers and artifacts: the type of the predicate.
pub const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";

/// The most manifests that are read.
const MOST: usize = 256;

/// The statements of one kind about an image: those that refer to it, and those in the index that
/// `named` is. Their bytes are what their digests say; who wrote them is another question.
///
/// # Errors
/// [`Error::Place`] when the source fails or a manifest is malformed.
pub async fn statements(
    source: &dyn Source,
    named: &Descriptor,
    image: &Descriptor,
    predicate_type: &str,
) -> Result<Vec<Bytes>> {
    let listing =
        || Error::at(format!("listing the statements about {}", image.digest), Side::Source);
    let mut candidates: Vec<Descriptor> = source.referrers(image).await.map_err(listing())?;
    candidates.retain(|referrer| match referrer.annotations.get(PREDICATE_TYPE) {
        Some(kind) => kind == predicate_type,
        None => referrer.artifact_type.as_deref() == Some(IN_TOTO),
    });
    if named.media_type.is_index() {
        let about = image.digest.to_string();
        let children = node(source, named).await?.children();
        let ours =
            children.into_iter().filter(|child| child.annotations.get(ABOUT) == Some(&about));
        candidates.extend(ours);
    }
    let mut found = Vec::new();
    for candidate in candidates.iter().take(MOST).filter(|c| c.media_type.is_manifest()) {
        let Node::Manifest(manifest) = node(source, candidate).await? else { continue };
        for layer in &manifest.layers {
            let kind = layer.annotations.get(PREDICATE_TYPE);
            let ours =
                layer.media_type.as_str() == IN_TOTO && kind.is_none_or(|k| k == predicate_type);
            if !ours {
                continue;
            }
            let reading =
                || Error::at(format!("reading the statement {}", layer.digest), Side::Source);
            let unverified = source.fetch(layer).await.map_err(reading())?;
            found.push(unverified.verify(layer).read().await.map_err(reading())?);
        }
    }
    Ok(found)
}
