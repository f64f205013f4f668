//! Signed statements about images: attestations, in the bundles that cosign 3 makes of them.

use std::collections::BTreeMap;

use bytes::Bytes;
use image::{Descriptor, Digest, MediaType, Node};
use task::Task;
use transport::{Artifact, Sink, Source, attach};

use crate::bundle::{self, Bundle};
use crate::image::CREATED_ANNOTATION;
use crate::verify::printable;
use crate::{
    Error, KeyId, MAX_SIGNATURES, Mismatch, PrivateKey, PublicKey, Rejected, Result, dsse,
};

/// No larger bundle with an attestation is written or read (4 MiB, as for any document).
pub const MAX_ATTESTATION: u64 = image::MAX_DOCUMENT;
/// More bytes of attestations of one image than this are not read (64 MiB).
const MAX_TOTAL: u64 = 64 << 20;

/// A statement that a trusted key has signed. Only [`verify_statement`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attestation {
    key: KeyId,
    predicate_type: String,
    statement: Bytes,
    origin: String,
}

impl Attestation {
    /// The key that signed it.
    pub fn key(&self) -> KeyId {
        self.key
    }

    /// What it says: a URI.
    pub fn predicate_type(&self) -> &str {
        &self.predicate_type
    }

    /// The statement, as it was signed.
    pub fn statement(&self) -> &Bytes {
        &self.statement
    }

    /// Where it was found.
    pub fn origin(&self) -> &str {
        &self.origin
    }
}

/// Signs a statement about an image and stores it beside the image; gives back the manifest that
/// carries it.
///
/// # Errors
/// [`Error::Sign`] where it is no statement about this image, or too large;
/// [`Error::Transport`].
pub async fn attest_image(
    image: &Descriptor,
    statement: &[u8],
    key: &PrivateKey,
    created: Option<String>,
    sink: &dyn Sink,
    task: &Task,
) -> Result<Descriptor> {
    let refuse = |reason: String| Error::Sign { image: image.digest, reason };
    let read: dsse::Statement = serde_json::from_slice(statement)
        .map_err(|error| refuse(format!("this is no in-toto statement: {error}")))?;
    check(&read, &image.digest).map_err(|mismatch| refuse(mismatch.to_string()))?;
    let bundle = Bundle::seal(statement, key).to_json();
    if bundle.len() as u64 > MAX_ATTESTATION {
        let size = bundle.len();
        return Err(refuse(format!("it has {size} bytes, more than {MAX_ATTESTATION}")));
    }
    let mut annotations = BTreeMap::from([
        (bundle::CONTENT_ANNOTATION.to_owned(), "dsse-envelope".to_owned()),
        (bundle::PREDICATE_ANNOTATION.to_owned(), read.predicate_type),
    ]);
    annotations.extend(created.map(|created| (CREATED_ANNOTATION.to_owned(), created)));
    let artifact = Artifact {
        artifact_type: bundle::MEDIA_TYPE.to_owned(),
        config: None,
        blobs: vec![(MediaType::SIGSTORE_BUNDLE, Bytes::from(bundle), BTreeMap::new())],
        annotations,
    };
    let attached = attach(sink, image, &artifact, task).await;
    attached.map_err(|error| Error::Transport(error.into()))
}

/// Finds the attestations of one type, or of any, that a trusted key has signed; at least one.
///
/// # Errors
/// [`Error::Unattested`], [`Error::Unverified`], [`Error::TooMany`], [`Error::Transport`].
pub async fn verify_attestations(
    image: &Descriptor,
    predicate_type: Option<&str>,
    keys: &[PublicKey],
    source: &dyn Source,
    task: &Task,
) -> Result<Vec<Attestation>> {
    let mut candidates = source.referrers(image).await?;
    candidates.retain(|referrer| may_be(referrer, predicate_type));
    if candidates.len() > MAX_SIGNATURES {
        let (image, found, limit) = (image.digest, candidates.len(), MAX_SIGNATURES);
        return Err(Error::TooMany { image, found, limit });
    }
    let mut left = MAX_TOTAL;
    let (mut good, mut rejected) = (Vec::new(), Vec::new());
    for candidate in &candidates {
        task.check()?;
        let origin = format!("bundle {}", candidate.digest);
        let Node::Manifest(manifest) = transport::node(source, candidate)
            .await
            .map_err(|error| Error::Transport(error.into()))?
        else {
            continue;
        };
        let verified = match &manifest.layers[..] {
            [layer] if layer.size > MAX_ATTESTATION => {
                Err(Mismatch::TooLarge { size: layer.size, limit: MAX_ATTESTATION })
            }
            [layer] if layer.size > left => Err(Mismatch::TooMuch),
            [layer] => {
                left -= layer.size;
                let bytes = source.fetch(layer).await?.verify(layer).read().await?;
                verify_statement(&image.digest, &bytes, &origin, predicate_type, keys)
            }
            layers => Err(Mismatch::Unreadable(format!(
                "its manifest has {} layers, a bundle's has one",
                layers.len()
            ))),
        };
        match verified {
            Ok(verified) => good.push(verified),
            Err(mismatch) => rejected.push(Rejected { origin, mismatch }),
        }
    }
    match (good.is_empty(), rejected.is_empty()) {
        (false, _) => Ok(good),
        (true, true) => Err(Error::Unattested {
            image: image.digest,
            kind: predicate_type.map_or_else(|| "any type".to_owned(), str::to_owned),
        }),
        (true, false) => Err(Error::Unverified { image: image.digest, rejected }),
    }
}

/// Whether a referrer may be an attestation of this type; lists may leave annotations out.
fn may_be(referrer: &Descriptor, predicate_type: Option<&str>) -> bool {
    let typed = referrer.artifact_type.as_deref().is_some_and(|artifact_type| {
        artifact_type.starts_with("application/vnd.dev.sigstore.bundle")
    });
    let predicate = referrer.annotations.get(bundle::PREDICATE_ANNOTATION).map(String::as_str);
    typed
        && match (predicate, predicate_type) {
            (Some(found), Some(wanted)) => found == wanted,
            (Some(found), None) => found != dsse::SIGN_V1,
            (None, _) => true,
        }
}

/// Checks one bundle: that a trusted key signed it, and that it is a statement of this type about
/// this image. Nothing of it is believed before the signature is good.
///
/// # Errors
/// What it lacks.
pub fn verify_statement(
    image: &Digest,
    json: &[u8],
    origin: &str,
    predicate_type: Option<&str>,
    keys: &[PublicKey],
) -> Result<Attestation, Mismatch> {
    if json.len() as u64 > MAX_ATTESTATION {
        return Err(Mismatch::TooLarge { size: json.len() as u64, limit: MAX_ATTESTATION });
    }
    let parts = Bundle::open(json)?;
    if parts.payload_type != dsse::IN_TOTO {
        return Err(Mismatch::PayloadType(parts.payload_type.chars().take(100).collect()));
    }
    if keys.is_empty() {
        return Err(Mismatch::NoKeys);
    }
    let signed = dsse::pre_authentication_encoding(&parts.payload_type, &parts.payload);
    let key = keys
        .iter()
        .find(|key| key.verifies(&signed, &parts.signature))
        .ok_or_else(|| Mismatch::Signature { trusted: keys.iter().map(PublicKey::id).collect() })?;
    let statement: dsse::Statement = serde_json::from_slice(&parts.payload)
        .map_err(|error| Mismatch::Malformed(printable(&format!("its statement: {error}"))))?;
    check(&statement, image)?;
    if predicate_type.is_some_and(|wanted| wanted != statement.predicate_type) {
        return Err(Mismatch::Type(printable(&statement.predicate_type)));
    }
    Ok(Attestation {
        key: key.id(),
        predicate_type: printable(&statement.predicate_type),
        statement: parts.payload.into(),
        origin: origin.to_owned(),
    })
}

/// Whether it is a statement about this image, and more than its signature.
fn check(statement: &dsse::Statement, image: &Digest) -> Result<(), Mismatch> {
    if statement.kind != dsse::STATEMENT_V1 {
        return Err(Mismatch::Type(printable(&statement.kind)));
    }
    if statement.predicate_type == dsse::SIGN_V1 || statement.predicate_type.is_empty() {
        return Err(Mismatch::Type(printable(&statement.predicate_type)));
    }
    let (algorithm, hex) = (image.algorithm().as_str(), image.hex());
    if !statement.subject.iter().any(|subject| subject.digest.0.get(algorithm) == Some(&hex)) {
        return Err(Mismatch::Digest { signed: "something else".to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::key::tests::key;

    fn statement(image: &Digest, kind: &str) -> Vec<u8> {
        let statement = json!({
            "_type": dsse::STATEMENT_V1,
            "subject": [{ "name": "a", "digest": { "sha256": image.hex() } }],
            "predicateType": kind,
            "predicate": { "x": 1 },
        });
        serde_json::to_vec(&statement).unwrap()
    }

    const KIND: &str = "https://slsa.dev/provenance/v1";

    #[test]
    fn only_the_statement_that_a_trusted_key_signed_about_this_image_is_believed() {
        let image = Digest::of(b"image");
        let bundle = Bundle::seal(&statement(&image, KIND), &key(1)).to_json();
        let verify = |image: &Digest, json: &[u8], kind: Option<&str>, number: u8| {
            verify_statement(image, json, "here", kind, &[key(number).public()])
        };
        let good = verify(&image, &bundle, Some(KIND), 1).unwrap();
        assert_eq!(&good.statement()[..], statement(&image, KIND));
        assert_eq!((good.predicate_type(), good.key()), (KIND, key(1).public().id()));
        assert!(verify(&image, &bundle, None, 1).is_ok());

        let wrong_key = verify(&image, &bundle, None, 2);
        assert!(matches!(wrong_key, Err(Mismatch::Signature { .. })), "{wrong_key:?}");
        let other = verify(&Digest::of(b"other"), &bundle, None, 1);
        assert!(matches!(other, Err(Mismatch::Digest { .. })), "{other:?}");
        let kind = verify(&image, &bundle, Some("https://spdx.dev/Document"), 1);
        assert!(matches!(kind, Err(Mismatch::Type(_))), "{kind:?}");
        let none = verify_statement(&image, &bundle, "here", None, &[]);
        assert!(matches!(none, Err(Mismatch::NoKeys)), "{none:?}");
        // An image's signature is no attestation, or a stolen one would be taken for it.
        let signature = Bundle::sign(&image, None, &BTreeMap::new(), &key(1)).unwrap().to_json();
        assert!(matches!(verify(&image, &signature, None, 1), Err(Mismatch::Type(_))));
    }

    #[test]
    fn a_changed_byte_is_never_believed() {
        let image = Digest::of(b"image");
        let bundle = Bundle::seal(&statement(&image, KIND), &key(1)).to_json();
        for at in (0..bundle.len()).step_by(7) {
            let mut changed = bundle.clone();
            changed[at] ^= 1;
            if let Ok(good) = verify_statement(&image, &changed, "", None, &[key(1).public()]) {
                assert_eq!(&good.statement()[..], statement(&image, KIND), "byte {at}");
            }
        }
    }
}
