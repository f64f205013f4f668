//! The older form of a signature: a payload that names image and digest, stored under a tag
//! (cosign's SIGNATURE_SPEC.md; containers-signature(5), "JSON data format").

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use image::{Descriptor, Digest, Document, Manifest, MediaType, Tag};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::key::{PrivateKey, PublicKey};
use crate::strict::{Unique, texts};

/// The media type of a payload.
pub const MEDIA_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// On a payload's descriptor: the signature, DER in base64.
pub const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";
/// On a payload's descriptor: the certificate of a keyless signature.
pub const CERTIFICATE_ANNOTATION: &str = "dev.sigstore.cosign/certificate";
/// On a payload's descriptor: who may have issued that certificate.
pub(crate) const CHAIN_ANNOTATION: &str = "dev.sigstore.cosign/chain";
/// On a payload's descriptor: a log's promise of its entry.
pub(crate) const BUNDLE_ANNOTATION: &str = "dev.sigstore.cosign/bundle";
/// On a payload's descriptor: a timestamp (RFC 3161).
pub(crate) const TIMESTAMP_ANNOTATION: &str = "dev.sigstore.cosign/rfc3161timestamp";
/// No payload larger than this is read (128 KiB; a payload has about 250 bytes).
pub const MAX_PAYLOAD: u64 = 128 << 10;
/// What a payload must say it is.
pub(crate) const TYPE: &str = "cosign container image signature";

#[derive(Serialize)]
struct PayloadDocument<'a> {
    critical: PayloadCritical<'a>,
    optional: Option<&'a BTreeMap<String, String>>,
}

#[derive(Serialize)]
struct PayloadCritical<'a> {
    identity: BTreeMap<&'a str, &'a str>,
    image: BTreeMap<&'a str, &'a Digest>,
    r#type: &'a str,
}

/// The payload that signs an image under a name.
pub(crate) fn payload(
    image: &Digest,
    name: &str,
    annotations: &BTreeMap<String, String>,
) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&PayloadDocument {
        critical: PayloadCritical {
            identity: BTreeMap::from([("docker-reference", name)]),
            image: BTreeMap::from([("docker-manifest-digest", image)]),
            r#type: TYPE,
        },
        optional: Some(annotations).filter(|annotations| !annotations.is_empty()),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    critical: Critical,
    #[serde(default)]
    optional: Option<Unique<Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Critical {
    identity: Identity,
    image: Image,
    r#type: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    #[serde(rename = "docker-reference")]
    docker_reference: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    docker_manifest_digest: String,
}

/// A payload, read. Use it only after the signature was verified.
#[derive(Debug)]
pub(crate) struct Claims {
    pub(crate) kind: String,
    pub(crate) digest: String,
    pub(crate) name: String,
    pub(crate) annotations: BTreeMap<String, String>,
}

/// Reads a payload. Unknown and doubled fields of its critical part are refused.
pub(crate) fn read(payload: &[u8]) -> Result<Claims, serde_json::Error> {
    let payload: Payload = serde_json::from_slice(payload)?;
    Ok(Claims {
        kind: payload.critical.r#type,
        digest: payload.critical.image.docker_manifest_digest,
        name: payload.critical.identity.docker_reference,
        annotations: texts(payload.optional.unwrap_or_default()),
    })
}

/// The tag under which an image's signatures lie: `sha256-<hex>.sig`.
///
/// # Errors
/// [`image::Error`] where the digest is too long to be a tag (sha512).
pub fn tag(image: &Digest) -> Result<Tag, image::Error> {
    format!("{}-{}.sig", image.algorithm().as_str(), image.hex()).parse()
}

/// What has to be stored to add one signature to an image.
#[derive(Debug)]
pub struct SignatureUpdate {
    /// The manifest that lists all signatures of the image, to be published under [`tag`].
    pub manifest: Document<Manifest>,
    /// Everything that the manifest points at and that is new, to be stored before it.
    pub blobs: Vec<(Descriptor, Bytes)>,
    /// Whether the manifest is the same as before, so that nothing has to be done.
    pub unchanged: bool,
}

/// Signs an image under a name, and adds the signature to those it has.
///
/// # Errors
/// [`Error::NotSignatures`] where `existing` is another sort of manifest.
pub fn sign(
    image: &Digest,
    name: &str,
    annotations: &BTreeMap<String, String>,
    key: &PrivateKey,
    existing: Option<&Manifest>,
) -> Result<SignatureUpdate> {
    let payload = to_sign(image, name, annotations)?;
    let signature = key.sign(&payload);
    add(image, payload, (&signature, &key.public()), existing)
}

/// What is signed of an image under a name.
///
/// # Errors
/// [`Error::Sign`].
pub(crate) fn to_sign(
    image: &Digest,
    name: &str,
    annotations: &BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    payload(image, name, annotations)
        .map_err(|error| Error::Sign { image: *image, reason: error.to_string() })
}

/// Adds a signature of a payload, and the key that made it, to those that an image has. Nothing
/// changes where the same key has signed the same.
///
/// # Errors
/// [`Error::NotSignatures`] where `existing` is another sort of manifest.
pub(crate) fn add(
    image: &Digest,
    payload: Vec<u8>,
    (signature, key): (&[u8], &PublicKey),
    existing: Option<&Manifest>,
) -> Result<SignatureUpdate> {
    let mut layer = Descriptor::of(MediaType::from(MEDIA_TYPE), &payload);
    layer.annotations.insert(SIGNATURE_ANNOTATION.to_owned(), STANDARD.encode(signature));

    let empty = Manifest::new(MediaType::OCI_MANIFEST, layer.bare(), Vec::new());
    let mut manifest = existing.cloned().unwrap_or(empty);
    if let Some(other) = manifest.layers.iter().find(|layer| !is_payload(layer)) {
        let reason = format!("it holds a layer of type {}", other.media_type);
        return Err(Error::NotSignatures { name: format!("the signatures of {image}"), reason });
    }
    let same = |known: &Descriptor| {
        let signature = known.annotations.get(SIGNATURE_ANNOTATION);
        let signature = signature.and_then(|text| STANDARD.decode(text).ok());
        known.digest == layer.digest
            && signature.is_some_and(|signature| key.verifies(&payload, &signature))
    };
    let unchanged = manifest.layers.iter().any(same);
    if !unchanged {
        manifest.layers.push(layer.clone());
    }
    let config = config(&manifest.layers);
    manifest.config = Descriptor::of(MediaType::OCI_CONFIG, &config);
    let blobs = vec![(layer.bare(), payload.into()), (manifest.config.clone(), config.into())];
    let media_type = manifest.media_type.clone().unwrap_or(MediaType::OCI_MANIFEST);
    Ok(SignatureUpdate { manifest: Document::write(media_type, manifest), blobs, unchanged })
}

/// A signature of this form as one document, as cosign prints it.
pub fn document(payload: &[u8], annotations: &BTreeMap<String, String>) -> serde_json::Value {
    json!({
        "Base64Signature": annotations.get(SIGNATURE_ANNOTATION),
        "Payload": STANDARD.encode(payload),
        "Annotations": annotations,
    })
}

/// Whether a layer of a `.sig` manifest is a payload of ours to verify.
pub(crate) fn is_payload(layer: &Descriptor) -> bool {
    layer.media_type.as_str() == MEDIA_TYPE
}

/// The configuration that makes the list of signatures a well-formed image, as cosign writes it.
fn config(layers: &[Descriptor]) -> Vec<u8> {
    const NEVER: &str = "0001-01-01T00:00:00Z";
    let digests: Vec<Digest> = layers.iter().map(|layer| layer.digest).collect();
    let history = vec![json!({ "created": NEVER }); layers.len()];
    let config = json!({
        "architecture": "", "os": "", "created": NEVER, "config": {}, "history": history,
        "rootfs": { "type": "layers", "diff_ids": digests },
    });
    config.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::tests::key;

    const NAME: &str = "r.example/a:1";

    fn signed(by: u8, existing: Option<&Manifest>) -> Result<SignatureUpdate> {
        sign(&Digest::of(b"the image"), NAME, &BTreeMap::new(), &key(by), existing)
    }

    #[test]
    fn signatures_are_added_and_never_doubled() {
        let one = signed(1, None).unwrap();
        assert!(!one.unchanged);
        assert_eq!(one.manifest.layers.len(), 1);
        let two = signed(2, Some(&one.manifest)).unwrap();
        assert_eq!(two.manifest.layers.len(), 2);
        assert_eq!(two.manifest.layers[0], one.manifest.layers[0]);
        let again = signed(1, Some(&two.manifest)).unwrap();
        assert!(again.unchanged);
        assert_eq!(again.manifest.digest(), two.manifest.digest());
    }

    #[test]
    fn the_manifest_is_a_well_formed_image_of_its_payloads() {
        let signed = signed(1, None).unwrap();
        let manifest = &signed.manifest;
        assert_eq!(manifest.media_type, Some(MediaType::OCI_MANIFEST));
        assert_eq!(manifest.layers[0].media_type, MediaType::SIMPLE_SIGNING);
        let (config, bytes) = &signed.blobs[1];
        assert_eq!(*config, manifest.config);
        let config = Document::<image::Config>::read(config.clone(), bytes.clone()).unwrap();
        assert_eq!(config.rootfs.diff_ids, [manifest.layers[0].digest]);
        let (payload, bytes) = &signed.blobs[0];
        assert_eq!(Digest::of(bytes), payload.digest);
        assert_eq!(read(bytes).unwrap().name, NAME);
        let tag = tag(&Digest::of(b"the image")).unwrap();
        assert_eq!(tag.as_str(), format!("sha256-{}.sig", Digest::of(b"the image").hex()));
    }

    #[test]
    fn another_image_under_the_tag_is_left_alone() {
        let layer = Descriptor::of(MediaType::OCI_LAYER, b"layer");
        let other = Manifest::new(MediaType::OCI_MANIFEST, layer.clone(), vec![layer]);
        let error = signed(1, Some(&other)).unwrap_err();
        assert!(matches!(error, Error::NotSignatures { .. }), "{error}");
    }
}
