use std::collections::BTreeSet;

use image::{Descriptor, Digest};
use serde_json::{Value, json};
use task::{Cause, Kind};

use crate::Source;

/// A manifest that refers to another one (distribution-spec, referrers), and what refers to it.
#[derive(Debug)]
pub struct Referrer {
    /// The manifest.
    pub descriptor: Descriptor,
    /// Its artifact type, or else its media type.
    pub kind: String,
    /// What refers to it.
    pub referrers: Vec<Referrer>,
}

/// What refers to a manifest, down to this depth below its own referrers; each once.
///
/// # Errors
/// Those of the place.
pub async fn referrers(
    source: &dyn Source,
    subject: &Descriptor,
    depth: usize,
) -> Result<Vec<Referrer>, Cause> {
    find(source, subject, depth, &mut BTreeSet::from([subject.digest])).await
}

/// What cosign 1 and 2 keep under tags beside an image: signatures, attestations, an SBOM.
///
/// # Errors
/// Those of the place.
pub async fn tagged(source: &dyn Source, subject: &Descriptor) -> Result<Vec<Referrer>, Cause> {
    let mut found = Vec::new();
    let digest = subject.digest;
    for end in ["sig", "att", "sbom"] {
        let tag = format!("{}-{}.{end}", digest.algorithm().as_str(), digest.hex());
        let Some(place) = tag.parse().ok().and_then(|tag| source.sibling(&tag)) else { continue };
        match place.resolve().await {
            Ok(descriptor) => {
                let kind = format!("tag {tag}");
                found.push(Referrer { descriptor, kind, referrers: Vec::new() });
            }
            Err(cause) if cause.kind() == Kind::NotFound => {}
            Err(cause) => return Err(cause),
        }
    }
    Ok(found)
}

async fn find(
    source: &dyn Source,
    subject: &Descriptor,
    depth: usize,
    seen: &mut BTreeSet<Digest>,
) -> Result<Vec<Referrer>, Cause> {
    let mut found = Vec::new();
    for descriptor in source.referrers(subject).await? {
        if !seen.insert(descriptor.digest) {
            continue;
        }
        let kind = match &descriptor.artifact_type {
            Some(kind) => kind.clone(),
            None => descriptor.media_type.to_string(),
        };
        let referrers = match depth {
            0 => Vec::new(),
            depth => Box::pin(find(source, &descriptor, depth - 1, seen)).await?,
        };
        found.push(Referrer { descriptor, kind, referrers });
    }
    Ok(found)
}

impl Referrer {
    /// The referrer and all below it as JSON.
    pub fn json(&self) -> Value {
        json!({
            "digest": self.descriptor.digest, "mediaType": self.descriptor.media_type,
            "size": self.descriptor.size, "artifactType": self.kind,
            "annotations": self.descriptor.annotations,
            "referrers": self.referrers.iter().map(Referrer::json).collect::<Vec<_>>(),
        })
    }
}
