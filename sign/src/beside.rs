//! What lies beside an image, as it is: nothing here is verified.

use std::collections::BTreeSet;

use bytes::Bytes;
use copy::{Sink, Source, node, statements};
use image::{Descriptor, Digest, Node, Tag};
use serde_json::Value;
use task::{Kind, Task};

use crate::attest::{MAX_ATTESTATION, attest_image, attestations, is_signature};
use crate::error::{Error, Result};
use crate::find::collect;
use crate::image::members;
use crate::predicate::{SLSA_V1, SPDX};
use crate::sealer::Sealer;
use crate::verify::Evidence;
use crate::{dsse, simple_signing};

/// What can lie beside an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attachment {
    /// A signature.
    Signature,
    /// A signed statement.
    Attestation,
    /// An SBOM under a tag of its own, as cosign 1 wrote it.
    Sbom,
}

impl Attachment {
    /// The tag under which cosign 1 and 2 keep it.
    pub fn tag(self, image: &Digest) -> Option<Tag> {
        let end = match self {
            Attachment::Signature => "sig",
            Attachment::Attestation => "att",
            Attachment::Sbom => "sbom",
        };
        format!("{}-{}.{end}", image.algorithm().as_str(), image.hex()).parse().ok()
    }
}

/// The manifests beside an image that hold what is asked for.
///
/// # Errors
/// [`Error::Transport`].
pub async fn attached(
    image: &Descriptor,
    wanted: &[Attachment],
    source: &dyn Source,
) -> Result<BTreeSet<Digest>> {
    let mut found = BTreeSet::new();
    for kind in wanted {
        let Some(place) = kind.tag(&image.digest).and_then(|tag| source.sibling(&tag)) else {
            continue;
        };
        match place.resolve().await {
            Ok(root) => drop(found.insert(root.digest)),
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    for referrer in source.referrers(image).await? {
        let kind = is_signature(&referrer).map(|signature| match signature {
            true => Attachment::Signature,
            false => Attachment::Attestation,
        });
        if kind.is_some_and(|kind| wanted.contains(&kind)) {
            found.insert(referrer.digest);
        }
    }
    Ok(found)
}

/// The signatures of an image: bundles as they are, payloads as cosign prints them.
///
/// # Errors
/// [`Error::Transport`].
pub async fn signatures(
    image: &Descriptor,
    source: &dyn Source,
    task: &Task,
) -> Result<Vec<Value>> {
    let found = collect(image, &[], source, task).await?;
    let documents = found.candidates.into_iter().filter_map(|one| match one.evidence {
        Evidence::Bundle(bytes) => serde_json::from_slice(&bytes).ok(),
        Evidence::Payload(payload, annotations) => {
            Some(simple_signing::document(&payload, &annotations))
        }
        _ => None,
    });
    Ok(documents.collect())
}

/// The DSSE envelopes of the attestations of one type, or of any.
///
/// # Errors
/// [`Error::Transport`].
pub async fn envelopes(
    image: &Descriptor,
    predicate_type: Option<&str>,
    source: &dyn Source,
    task: &Task,
) -> Result<Vec<Value>> {
    let found = attestations(image, predicate_type, source, task).await?;
    let envelope = |bytes: Bytes| {
        let read: Value = serde_json::from_slice(&bytes).ok()?;
        Some(if read["dsseEnvelope"].is_object() { read["dsseEnvelope"].clone() } else { read })
    };
    Ok(found.into_iter().filter_map(|(_, bytes)| envelope(bytes)).collect())
}

/// The SBOMs of an image: what SBOM attestations say, signed or not, and what lies under the
/// `.sbom` tag.
///
/// # Errors
/// [`Error::Transport`].
pub async fn sboms(image: &Descriptor, source: &dyn Source, task: &Task) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    let mut keep = |statement: &[u8]| {
        let statement: Value = serde_json::from_slice(statement).unwrap_or_default();
        let kind = statement["predicateType"].as_str().unwrap_or_default();
        let sbom =
            kind.starts_with("https://spdx.dev/") || kind.starts_with("https://cyclonedx.org/");
        if sbom && !found.contains(&statement["predicate"]) {
            found.push(statement["predicate"].clone());
        }
    };
    for member in members(image, source, task).await? {
        for said in unsigned(image, &member, &[SPDX], source).await? {
            keep(&said);
        }
        for envelope in envelopes(&member, None, source, task).await? {
            keep(&dsse::payload(&envelope));
        }
    }
    if let Some(place) = Attachment::Sbom.tag(&image.digest).and_then(|tag| source.sibling(&tag))
        && let Ok(root) = place.resolve().await
        && let Ok(Node::Manifest(manifest)) = node(&*place, &root).await
    {
        for layer in manifest.layers.iter().filter(|layer| layer.size <= MAX_ATTESTATION) {
            let bytes = place.fetch(layer).await?.verify(layer).read().await?;
            found.extend(serde_json::from_slice::<Value>(&bytes).ok());
        }
    }
    Ok(found)
}

/// The statements of these types about a part of an image that nobody has signed.
///
/// # Errors
/// [`Error::Transport`].
pub async fn unsigned(
    image: &Descriptor,
    member: &Descriptor,
    predicate_types: &[&str],
    source: &dyn Source,
) -> Result<Vec<Bytes>> {
    let mut all = Vec::new();
    for kind in predicate_types {
        let said = statements(source, image, member, kind).await;
        all.extend(said.map_err(|error| Error::Transport(error.into()))?);
    }
    Ok(all)
}

/// Signs the statements about how a part of an image was made and what it contains that nobody has
/// signed, and attaches them.
///
/// # Errors
/// [`Error::Transport`]; those of [`crate::attest_image`].
pub async fn sign_unsigned(
    (image, member): (&Descriptor, &Descriptor),
    sealer: Sealer<'_>,
    created: Option<String>,
    (source, sink): (&dyn Source, &dyn Sink),
    task: &Task,
) -> Result<()> {
    for said in unsigned(image, member, &[SLSA_V1, SPDX], source).await? {
        attest_image(member, &said, sealer, created.clone(), (source, sink), task).await?;
    }
    Ok(())
}
