//! Signed statements about images: attestations, in the bundles that cosign 3 makes of them.

use std::collections::BTreeMap;

use bytes::Bytes;
use copy::{Artifact, Sink, Source, attach};
use image::{Descriptor, Digest, MediaType, Node, Tag};
use task::{Kind, Task};

use crate::bundle::{self, Bundle};
use crate::dsse;
use crate::error::{Error, RejectedSignature, Result};
use crate::find::{self, CREATED_ANNOTATION, KEY_ANNOTATION, MAX_SIGNATURES};
use crate::key::PublicKey;
use crate::mismatch::Mismatch;
use crate::printable::printable;
use crate::sealer::Sealer;
use crate::signers::{Signer, Signers};

/// No larger bundle with an attestation is written or read (4 MiB, as for any document).
pub const MAX_ATTESTATION: u64 = image::MAX_DOCUMENT;
/// More bytes of attestations of one image than this are not read (64 MiB).
const MAX_TOTAL: u64 = 64 << 20;
/// What an envelope under a `.att` tag is (cosign's ATTESTATION_SPEC.md).
const ENVELOPE: &str = "application/vnd.dsse.envelope.v1+json";
/// On an envelope's descriptor there: the type of its predicate.
const TAGGED_PREDICATE: &str = "predicateType";

/// A statement that a trusted key has signed. Only [`verify_statement`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attestation {
    signer: Signer,
    predicate_type: String,
    statement: Bytes,
    origin: String,
}

impl Attestation {
    /// Who signed it.
    pub fn signer(&self) -> &Signer {
        &self.signer
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
/// carries it. Signing the same statement again with the same key changes nothing.
///
/// # Errors
/// [`Error::Sign`] if it is not a statement about this image, or too large; [`Error::Transport`].
pub async fn attest_image<'a>(
    image: &Descriptor,
    statement: &[u8],
    sealer: impl Into<Sealer<'a>>,
    created: Option<String>,
    (source, sink): (&dyn Source, &dyn Sink),
    task: &Task,
) -> Result<Descriptor> {
    let sealer = sealer.into();
    let refuse = |reason: String| Error::Sign { image: image.digest, reason };
    let read: dsse::Statement = serde_json::from_slice(statement)
        .map_err(|error| refuse(format!("this is not an in-toto statement: {error}")))?;
    check(&read, &image.digest).map_err(|mismatch| refuse(mismatch.to_string()))?;
    if let Some(key) = sealer.public()
        && let Some(there) = attested_already(image, &read, statement, key, source, task).await?
    {
        return Ok(there);
    }
    let bundle = sealer.seal(statement, task).await?.to_json();
    if bundle.len() as u64 > MAX_ATTESTATION {
        let size = bundle.len();
        return Err(refuse(format!("it has {size} bytes, more than {MAX_ATTESTATION}")));
    }
    let mut annotations = BTreeMap::from([
        (bundle::CONTENT_ANNOTATION.to_owned(), "dsse-envelope".to_owned()),
        (bundle::PREDICATE_ANNOTATION.to_owned(), read.predicate_type),
    ]);
    if let Some(key) = sealer.key_id() {
        annotations.insert(KEY_ANNOTATION.to_owned(), key.to_string());
    }
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

/// What carries this very statement by this key already, if anything does.
async fn attested_already(
    image: &Descriptor,
    read: &dsse::Statement,
    statement: &[u8],
    key: PublicKey,
    source: &dyn Source,
    task: &Task,
) -> Result<Option<Descriptor>> {
    let mut referrers = match source.referrers(image).await {
        Ok(referrers) => referrers,
        // Who may only push learns here that reading is denied, and pushes.
        Err(cause) if matches!(cause.kind(), Kind::Denied | Kind::NotFound) => return Ok(None),
        Err(cause) => return Err(cause.into()),
    };
    referrers.retain(|referrer| may_be(referrer, Some(&read.predicate_type)));
    find::first_ones(&mut referrers, &[key.id()]);
    let (signers, mut budget) = (Signers::keys(vec![key]), MAX_TOTAL);
    for referrer in referrers {
        task.check()?;
        // What cannot be read is not this one.
        let Ok(Ok(bytes)) = carried(source, &referrer, &mut budget).await else { continue };
        let verified = verify_statement(&image.digest, &bytes, "", None, &signers);
        if verified.is_ok_and(|one| one.statement()[..] == *statement) {
            return Ok(Some(referrer));
        }
    }
    Ok(None)
}

/// Finds the attestations of one type, or of any, that a trusted key has signed; at least one.
/// They lie in bundles that refer to the image, or, as cosign 1 and 2 wrote them, in envelopes
/// under the tag `sha256-<hex>.att`.
///
/// # Errors
/// [`Error::Unattested`], [`Error::Unverified`], [`Error::TooMany`], [`Error::Transport`].
pub async fn verify_attestations(
    image: &Descriptor,
    predicate_type: Option<&str>,
    signers: &Signers,
    source: &dyn Source,
    task: &Task,
) -> Result<Vec<Attestation>> {
    let mut budget = MAX_TOTAL;
    let (mut good, mut rejected) = (Vec::new(), Vec::new());
    let mut keep = |origin: String, verified: Result<Attestation, Mismatch>| match verified {
        Ok(verified) => good.push(verified),
        Err(mismatch) => rejected.push(RejectedSignature { origin, mismatch }),
    };
    let mut referrers = find::present(source.referrers(image).await)?.unwrap_or_default();
    referrers.retain(|referrer| may_be(referrer, predicate_type));
    let mut unread = find::first_ones(&mut referrers, &signers.key_ids());
    for referrer in &referrers {
        task.check()?;
        let origin = format!("bundle {}", referrer.digest);
        let verified = match carried(source, referrer, &mut budget).await? {
            Ok(bytes) => verify_statement(&image.digest, &bytes, &origin, predicate_type, signers),
            Err(mismatch) => Err(mismatch),
        };
        keep(origin, verified);
    }
    let (tagged, more) = tagged(image, predicate_type, source, &mut budget, task).await?;
    unread += more;
    for (origin, bytes) in tagged {
        let verified = bytes.and_then(|bytes| {
            verify_envelope(&image.digest, &bytes, &origin, predicate_type, signers)
        });
        keep(origin, verified);
    }
    match (good.is_empty(), rejected.is_empty()) {
        (false, _) => Ok(good),
        (true, true) => Err(Error::Unattested {
            image: image.digest,
            kind: predicate_type.map_or_else(|| "any type".to_owned(), str::to_owned),
        }),
        (true, false) => {
            find::told(image, unread, Err(Error::Unverified { image: image.digest, rejected }))
        }
    }
}

/// The attestations of one type, or of any, as they are: where each was found, and its bundle or
/// envelope. Nothing of them is verified.
///
/// # Errors
/// [`Error::Transport`], [`Error::Cancelled`].
pub async fn attestations(
    image: &Descriptor,
    predicate_type: Option<&str>,
    source: &dyn Source,
    task: &Task,
) -> Result<Vec<(String, Bytes)>> {
    let mut budget = MAX_TOTAL;
    let mut referrers = find::present(source.referrers(image).await)?.unwrap_or_default();
    referrers.retain(|referrer| may_be(referrer, predicate_type));
    find::first_ones(&mut referrers, &[]);
    let mut found = Vec::new();
    for referrer in &referrers {
        task.check()?;
        if let Ok(bytes) = carried(source, referrer, &mut budget).await? {
            found.push((format!("bundle {}", referrer.digest), bytes));
        }
    }
    let (tagged, _) = tagged(image, predicate_type, source, &mut budget, task).await?;
    found.extend(tagged.into_iter().filter_map(|(origin, bytes)| Some((origin, bytes.ok()?))));
    Ok(found)
}

/// Whether a referrer says that it carries a signature of the image, as opposed to an attestation;
/// `None` where it carries no bundle.
pub fn is_signature(referrer: &Descriptor) -> Option<bool> {
    let predicate = referrer.annotations.get(bundle::PREDICATE_ANNOTATION).map(String::as_str);
    bundle::is_carrier(referrer).then(|| predicate.is_none_or(|kind| kind == dsse::SIGN_V1))
}

/// The one part of what a referrer carries.
async fn carried(
    source: &dyn Source,
    referrer: &Descriptor,
    budget: &mut u64,
) -> Result<Result<Bytes, Mismatch>> {
    let bytes = match find::read(source, referrer, MAX_ATTESTATION, budget).await? {
        Ok(bytes) => bytes,
        Err(mismatch) => return Ok(Err(mismatch)),
    };
    let unreadable = |reason: String| Ok(Err(Mismatch::Unreadable(printable(&reason))));
    match Node::read(referrer.clone(), bytes) {
        Ok(Node::Manifest(manifest)) => match &manifest.layers[..] {
            [layer] => find::read(source, layer, MAX_ATTESTATION, budget).await,
            layers => {
                unreadable(format!("its manifest has {} layers, a bundle's has one", layers.len()))
            }
        },
        Ok(Node::Index(_)) => unreadable("it is an index, not a manifest".to_owned()),
        Err(error) => unreadable(error.to_string()),
    }
}

/// The envelopes under the image's `.att` tag, the newest first, and how many were not read.
async fn tagged(
    image: &Descriptor,
    predicate_type: Option<&str>,
    source: &dyn Source,
    budget: &mut u64,
    task: &Task,
) -> Result<(Vec<(String, Result<Bytes, Mismatch>)>, usize)> {
    let none = (Vec::new(), 0);
    let text = format!("{}-{}.att", image.digest.algorithm().as_str(), image.digest.hex());
    // A sha512 digest is too long for a tag.
    let Ok(tag) = text.parse::<Tag>() else { return Ok(none) };
    let Some(source) = source.sibling(&tag) else { return Ok(none) };
    let Some(manifest) = find::signatures(&*source).await? else { return Ok(none) };
    let wanted = |layer: &Descriptor| {
        let kind = layer.annotations.get(TAGGED_PREDICATE).map(String::as_str);
        layer.media_type.as_str() == ENVELOPE
            && (predicate_type.is_none() || kind.is_none() || kind == predicate_type)
    };
    let mut layers: Vec<_> = manifest.layers.iter().filter(|layer| wanted(layer)).collect();
    layers.reverse();
    let unread = layers.len().saturating_sub(MAX_SIGNATURES);
    let mut found = Vec::new();
    for (index, layer) in layers.into_iter().take(MAX_SIGNATURES).enumerate() {
        task.check()?;
        let bytes = find::read(&*source, layer, MAX_ATTESTATION, budget).await?;
        found.push((format!("envelope {} of {tag}, the newest first", index + 1), bytes));
    }
    Ok((found, unread))
}

/// Whether a referrer may be an attestation of this type; lists may leave annotations out.
fn may_be(referrer: &Descriptor, predicate_type: Option<&str>) -> bool {
    let typed = bundle::is_carrier(referrer);
    let predicate = referrer.annotations.get(bundle::PREDICATE_ANNOTATION).map(String::as_str);
    typed
        && match (predicate, predicate_type) {
            (Some(found), Some(wanted)) => found == wanted,
            (Some(found), None) => found != dsse::SIGN_V1,
            (None, _) => true,
        }
}

/// Checks one bundle: that a trusted key signed it, and that it is a statement of this type about
/// this image. Its content is not used before the signature is verified.
///
/// # Errors
/// What it lacks.
pub fn verify_statement(
    image: &Digest,
    json: &[u8],
    origin: &str,
    predicate_type: Option<&str>,
    signers: &Signers,
) -> Result<Attestation, Mismatch> {
    if json.len() as u64 > MAX_ATTESTATION {
        return Err(Mismatch::TooLarge { size: json.len() as u64, limit: MAX_ATTESTATION });
    }
    verify_parts(image, Bundle::open(json)?, origin, predicate_type, signers)
}

/// As [`verify_statement`], of an envelope without a bundle around it, as cosign 1 and 2 stored it.
///
/// # Errors
/// What it lacks.
pub fn verify_envelope(
    image: &Digest,
    json: &[u8],
    origin: &str,
    predicate_type: Option<&str>,
    signers: &Signers,
) -> Result<Attestation, Mismatch> {
    verify_parts(image, bundle::open_envelope(json)?, origin, predicate_type, signers)
}

fn verify_parts(
    image: &Digest,
    parts: bundle::Parts,
    origin: &str,
    predicate_type: Option<&str>,
    signers: &Signers,
) -> Result<Attestation, Mismatch> {
    if parts.payload_type != dsse::IN_TOTO {
        return Err(Mismatch::PayloadType(parts.payload_type.chars().take(100).collect()));
    }
    let signer = signers.of_envelope(&parts)?;
    let statement: dsse::Statement = serde_json::from_slice(&parts.payload)
        .map_err(|error| Mismatch::Malformed(printable(&format!("its statement: {error}"))))?;
    check(&statement, image)?;
    if predicate_type.is_some_and(|wanted| wanted != statement.predicate_type) {
        return Err(Mismatch::Type(printable(&statement.predicate_type)));
    }
    Ok(Attestation {
        signer,
        predicate_type: printable(&statement.predicate_type),
        statement: parts.payload.into(),
        origin: origin.to_owned(),
    })
}

/// Whether it is a statement about this image, and more than its signature.
fn check(statement: &dsse::Statement, image: &Digest) -> Result<(), Mismatch> {
    if ![dsse::STATEMENT_V1, dsse::STATEMENT_V0].contains(&statement.kind.as_str()) {
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
            let signers = Signers::keys(vec![key(number).public()]);
            verify_statement(image, json, "here", kind, &signers)
        };
        let good = verify(&image, &bundle, Some(KIND), 1).unwrap();
        assert_eq!(&good.statement()[..], statement(&image, KIND));
        assert_eq!(good.predicate_type(), KIND);
        assert_eq!(*good.signer(), Signer::Key(key(1).public().id()));
        assert!(verify(&image, &bundle, None, 1).is_ok());

        let wrong_key = verify(&image, &bundle, None, 2);
        assert!(matches!(wrong_key, Err(Mismatch::Key { .. })), "{wrong_key:?}");
        let other = verify(&Digest::of(b"other"), &bundle, None, 1);
        assert!(matches!(other, Err(Mismatch::Digest { .. })), "{other:?}");
        let kind = verify(&image, &bundle, Some("https://spdx.dev/Document"), 1);
        assert!(matches!(kind, Err(Mismatch::Type(_))), "{kind:?}");
        let none = verify_statement(&image, &bundle, "here", None, &Signers::default());
        assert!(matches!(none, Err(Mismatch::NoKeys)), "{none:?}");
        // An image's signature is no attestation, or a stolen one would be taken for it.
        let signature = Bundle::sign(&image, None, &BTreeMap::new(), &key(1)).unwrap().to_json();
        assert!(matches!(verify(&image, &signature, None, 1), Err(Mismatch::Type(_))));
    }

    #[test]
    fn statements_of_both_versions_and_bare_envelopes_are_read() {
        let image = Digest::of(b"image");
        let signers = Signers::keys(vec![key(1).public()]);
        let older = String::from_utf8(statement(&image, KIND)).unwrap();
        let older = older.replace(dsse::STATEMENT_V1, "https://in-toto.io/Statement/v0.1");
        let bundle = Bundle::seal(older.as_bytes(), &key(1)).to_json();
        verify_statement(&image, &bundle, "", Some(KIND), &signers).unwrap();
        let bundle: serde_json::Value = serde_json::from_slice(&bundle).unwrap();
        let mut envelope = bundle["dsseEnvelope"].clone();
        // cosign writes an empty name of the key.
        envelope["signatures"][0]["keyid"] = "".into();
        let verify = |envelope: &serde_json::Value| {
            verify_envelope(&image, envelope.to_string().as_bytes(), "", Some(KIND), &signers)
        };
        verify(&envelope).unwrap();
        envelope["signatures"].as_array_mut().unwrap().clear();
        assert!(matches!(verify(&envelope), Err(Mismatch::Signatures(0))));
        let unknown = older.replace("v0.1", "v0.2");
        let bundle = Bundle::seal(unknown.as_bytes(), &key(1)).to_json();
        let refused = verify_statement(&image, &bundle, "", None, &signers);
        assert!(matches!(refused, Err(Mismatch::Type(_))), "{refused:?}");
    }

    #[test]
    fn a_changed_byte_is_never_believed() {
        let image = Digest::of(b"image");
        let bundle = Bundle::seal(&statement(&image, KIND), &key(1)).to_json();
        for at in (0..bundle.len()).step_by(7) {
            let mut changed = bundle.clone();
            changed[at] ^= 1;
            let signers = Signers::keys(vec![key(1).public()]);
            if let Ok(good) = verify_statement(&image, &changed, "", None, &signers) {
                assert_eq!(&good.statement()[..], statement(&image, KIND), "byte {at}");
            }
        }
    }
}
