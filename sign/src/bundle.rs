//! A signature with all that is needed to verify it, in one file (sigstore bundle v0.3).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::{Descriptor, Digest};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::dsse::{self, Envelope, EnvelopeSignature};
use crate::error::Result;
use crate::hash::sha256;
use crate::key::{PrivateKey, PublicKey};
use crate::mismatch::Mismatch;

/// The media type of a bundle, and the artifact type of the manifest that carries it.
pub const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// How early writers spelled the same version.
const EARLY_MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle+json;version=0.3";
/// No bundle larger than this is read (1 MiB; a signature's bundle has about one kilobyte).
pub const MAX_BUNDLE: u64 = 1 << 20;

/// On the manifest that carries a bundle: what sort of content the bundle has.
pub const CONTENT_ANNOTATION: &str = "dev.sigstore.bundle.content";
/// On the manifest that carries a bundle: the type of the statement's predicate.
pub const PREDICATE_ANNOTATION: &str = "dev.sigstore.bundle.predicateType";

/// Whether a referrer says that it carries a bundle.
pub(crate) fn is_carrier(referrer: &Descriptor) -> bool {
    let kind = referrer.artifact_type.as_deref();
    kind.is_some_and(|kind| kind.starts_with("application/vnd.dev.sigstore.bundle"))
}

/// A bundle as it is written. Unknown fields are refused: what is not understood is not verified.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bundle {
    media_type: String,
    verification_material: Material,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dsse_envelope: Option<Envelope>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message_signature: Option<MessageSignature>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Material {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    public_key: Option<KeyHint>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate: Option<Certificate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    x509_certificate_chain: Option<Chain>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tlog_entries: Vec<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timestamp_verification_data: Option<Value>,
}

/// A certificate in DER, in base64.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Certificate {
    raw_bytes: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Chain {
    certificates: Vec<Certificate>,
}

/// A signature of bytes that are not in the bundle.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MessageSignature {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message_digest: Option<MessageDigest>,
    signature: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MessageDigest {
    algorithm: String,
    digest: String,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyHint {
    #[serde(default)]
    hint: String,
}

/// Why a bundle cannot be verified. The words follow "the bundle".
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BundleError {
    Malformed(String),
    MediaType(String),
    Material(&'static str),
    Content(&'static str),
    Signatures(usize),
}

impl From<BundleError> for Mismatch {
    fn from(error: BundleError) -> Mismatch {
        match error {
            BundleError::Malformed(reason) => Mismatch::malformed("", &reason),
            BundleError::MediaType(found) => Mismatch::MediaType(found),
            BundleError::Material(what) => Mismatch::Material(what),
            BundleError::Content(what) => Mismatch::Content(what),
            BundleError::Signatures(count) => Mismatch::Signatures(count),
        }
    }
}

/// A bundle taken apart; nothing of it is verified yet.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) material: VerificationMaterial,
    pub(crate) payload_type: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) signature: Vec<u8>,
    /// What logs say of it.
    pub(crate) entries: Vec<Value>,
    /// When authorities saw it.
    pub(crate) timestamps: Option<Value>,
}

/// The key or certificate that a bundle names for its verification.
#[derive(Debug, Clone)]
pub(crate) enum VerificationMaterial {
    /// A key that may have this name.
    Key(String),
    /// A certificate, and those that may have issued it, in DER.
    Certificate(Vec<Vec<u8>>),
}

/// What a bundle has beside the signature and its content.
#[derive(Debug, Clone, Default)]
pub(crate) struct Evidence {
    /// In DER.
    pub(crate) certificate: Vec<u8>,
    pub(crate) entries: Vec<Value>,
    pub(crate) timestamps: Vec<Vec<u8>>,
}

impl Bundle {
    /// Signs an image: a statement of its digest, and of its name and annotations if given.
    ///
    /// # Errors
    /// [`crate::Error::Sign`].
    pub fn sign(
        image: &Digest,
        name: Option<&str>,
        annotations: &BTreeMap<String, String>,
        key: &PrivateKey,
    ) -> Result<Bundle> {
        let payload = dsse::statement(image, name, annotations)
            .map_err(|error| crate::Error::Sign { image: *image, reason: error.to_string() })?;
        Ok(Bundle::seal(&payload, key))
    }

    /// Signs a statement.
    pub(crate) fn seal(payload: &[u8], key: &PrivateKey) -> Bundle {
        let signature = key.sign(&dsse::pre_authentication_encoding(dsse::IN_TOTO, payload));
        Bundle::sealed(payload, &signature, &key.public())
    }

    /// Puts a statement together with its signature by a key.
    pub(crate) fn sealed(payload: &[u8], signature: &[u8], key: &PublicKey) -> Bundle {
        let signature = EnvelopeSignature { sig: STANDARD.encode(signature), keyid: String::new() };
        Bundle {
            media_type: MEDIA_TYPE.to_owned(),
            verification_material: Material::named(key),
            dsse_envelope: Some(Envelope {
                payload: STANDARD.encode(payload),
                payload_type: dsse::IN_TOTO.to_owned(),
                signatures: vec![signature],
            }),
            message_signature: None,
        }
    }

    /// The bundle as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("bundles are plain data with string keys")
    }

    /// Puts a signed envelope together with the certificate that it was signed with.
    pub(crate) fn certified(payload: &[u8], signature: &[u8], evidence: Evidence) -> Bundle {
        let signature = EnvelopeSignature { sig: STANDARD.encode(signature), keyid: String::new() };
        Bundle {
            media_type: MEDIA_TYPE.to_owned(),
            verification_material: Material::of(evidence),
            dsse_envelope: Some(Envelope {
                payload: STANDARD.encode(payload),
                payload_type: dsse::IN_TOTO.to_owned(),
                signatures: vec![signature],
            }),
            message_signature: None,
        }
    }

    /// Puts a signature of bytes, which do not lie in the bundle, together with what made it.
    pub(crate) fn of_message(message: &[u8], signature: &[u8], by: MadeBy<'_>) -> Bundle {
        let digest = MessageDigest {
            algorithm: "SHA2_256".to_owned(),
            digest: STANDARD.encode(sha256(message)),
        };
        Bundle {
            media_type: MEDIA_TYPE.to_owned(),
            verification_material: match by {
                MadeBy::Key(key) => Material::named(key),
                MadeBy::Certificate(evidence) => Material::of(evidence),
            },
            dsse_envelope: None,
            message_signature: Some(MessageSignature {
                message_digest: Some(digest),
                signature: STANDARD.encode(signature),
            }),
        }
    }

    /// Reads a bundle with an envelope and takes it apart; steps 2 to 5 of [`crate::verify`].
    pub(crate) fn open(json: &[u8]) -> Result<Parts, BundleError> {
        let (by, entries, timestamps, bundle) = Bundle::read(json)?;
        let envelope = match (bundle.dsse_envelope, bundle.message_signature) {
            (Some(envelope), None) => envelope,
            (None, Some(_)) => {
                return Err(BundleError::Content("signs a bare message, not a statement"));
            }
            (Some(_), Some(_)) => return Err(BundleError::Content("has two contents")),
            (None, None) => return Err(BundleError::Content("has no content")),
        };
        Ok(Parts { material: by, entries, timestamps, ..take_apart(envelope)? })
    }

    /// Reads a bundle that signs bytes which are not in it.
    pub(crate) fn open_message(json: &[u8], message: &[u8]) -> Result<Parts, BundleError> {
        let (by, entries, timestamps, bundle) = Bundle::read(json)?;
        let signed = match (bundle.dsse_envelope, bundle.message_signature) {
            (None, Some(signed)) => signed,
            (Some(_), None) => return Err(BundleError::Content("signs a statement, not a file")),
            (Some(_), Some(_)) => return Err(BundleError::Content("has two contents")),
            (None, None) => return Err(BundleError::Content("has no content")),
        };
        if let Some(digest) = signed.message_digest {
            let expected = STANDARD.encode(sha256(message));
            if digest.algorithm != "SHA2_256" || digest.digest != expected {
                return Err(BundleError::Content("signs another file"));
            }
        }
        let signature = decoded("signature", &signed.signature)?;
        let (payload_type, payload) = (String::new(), Vec::new());
        Ok(Parts { material: by, payload_type, payload, signature, entries, timestamps })
    }

    /// Steps 2 and 3: the bundle, what it is to be verified by, and what logs and authorities say.
    #[allow(clippy::type_complexity, reason = "taken apart at once by the two callers above")]
    fn read(
        json: &[u8],
    ) -> Result<(VerificationMaterial, Vec<Value>, Option<Value>, Bundle), BundleError> {
        let mut bundle: Bundle = serde_json::from_slice(json)
            .map_err(|error| BundleError::Malformed(error.to_string()))?;
        if bundle.media_type != MEDIA_TYPE && bundle.media_type != EARLY_MEDIA_TYPE {
            return Err(BundleError::MediaType(bundle.media_type.chars().take(100).collect()));
        }
        let material = std::mem::take(&mut bundle.verification_material);
        let certificates = match (material.certificate, material.x509_certificate_chain) {
            (Some(_), Some(_)) => return Err(BundleError::Material("has two certificates")),
            (Some(certificate), None) => vec![certificate],
            (None, Some(chain)) if chain.certificates.is_empty() => {
                return Err(BundleError::Material("has a chain of no certificates"));
            }
            (None, Some(chain)) => chain.certificates,
            (None, None) => Vec::new(),
        };
        let by = match (material.public_key, certificates.is_empty()) {
            (Some(_), false) => {
                return Err(BundleError::Material("has both a key and a certificate"));
            }
            (None, true) => {
                return Err(BundleError::Material("names neither a key nor a certificate"));
            }
            (Some(key), true) => VerificationMaterial::Key(key.hint),
            (None, false) => {
                let ders = certificates.iter().map(|one| decoded("certificate", &one.raw_bytes));
                VerificationMaterial::Certificate(ders.collect::<Result<_, _>>()?)
            }
        };
        Ok((by, material.tlog_entries, material.timestamp_verification_data, bundle))
    }
}

/// Who made a signature of bytes.
pub(crate) enum MadeBy<'a> {
    Key(&'a PublicKey),
    Certificate(Evidence),
}

impl Material {
    fn named(key: &PublicKey) -> Material {
        let hint = key.id().hint();
        Material { public_key: Some(KeyHint { hint }), ..Material::default() }
    }

    fn of(evidence: Evidence) -> Material {
        let stamp = |bytes: &Vec<u8>| json!({ "signedTimestamp": STANDARD.encode(bytes) });
        let stamps: Vec<Value> = evidence.timestamps.iter().map(stamp).collect();
        Material {
            certificate: Some(Certificate { raw_bytes: STANDARD.encode(evidence.certificate) }),
            tlog_entries: evidence.entries,
            timestamp_verification_data: Some(json!({ "rfc3161Timestamps": stamps }))
                .filter(|_| !stamps.is_empty()),
            ..Material::default()
        }
    }
}

fn decoded(what: &str, text: &str) -> Result<Vec<u8>, BundleError> {
    let bytes = STANDARD.decode(text);
    bytes.map_err(|error| BundleError::Malformed(format!("{what} is not base64: {error}")))
}

/// Reads an envelope that lies in no bundle.
///
/// # Errors
/// It is malformed.
pub(crate) fn open_envelope(json: &[u8]) -> Result<Parts, BundleError> {
    let envelope = serde_json::from_slice(json);
    take_apart(envelope.map_err(|error| BundleError::Malformed(error.to_string()))?)
}

fn take_apart(envelope: Envelope) -> Result<Parts, BundleError> {
    let [signature] = envelope.signatures.as_slice() else {
        return Err(BundleError::Signatures(envelope.signatures.len()));
    };
    Ok(Parts {
        material: VerificationMaterial::Key(String::new()),
        payload: decoded("payload", &envelope.payload)?,
        signature: decoded("sig", &signature.sig)?,
        payload_type: envelope.payload_type,
        entries: Vec::new(),
        timestamps: None,
    })
}

#[cfg(test)]
mod tests {
    use sigstore_types::{SignatureContent, Statement};

    use super::*;
    use crate::key::tests::key;

    /// Another implementation reads what we write, and finds in it what we put in.
    #[test]
    fn an_independent_reader_agrees() {
        let image = Digest::of(b"the image");
        let bundle =
            Bundle::sign(&image, Some("r.example/a:1"), &BTreeMap::new(), &key(1)).unwrap();
        let json = String::from_utf8(bundle.to_json()).unwrap();
        let theirs = sigstore_types::Bundle::from_json(&json).unwrap();
        assert_eq!(theirs.media_type().as_str(), MEDIA_TYPE);
        let SignatureContent::DsseEnvelope(envelope) = theirs.content else {
            panic!("no envelope")
        };
        let signature = envelope.signature.sig.as_bytes();
        assert!(key(1).public().verifies(&envelope.pae(), signature));
        let statement: Statement = serde_json::from_slice(envelope.payload.as_bytes()).unwrap();
        assert_eq!(statement.predicate_type, dsse::SIGN_V1);
        assert_eq!(statement.subject[0].name, "r.example/a:1");
    }

    /// The bytes are part of what signed digests rest on: the same input, the same output.
    #[test]
    fn the_statement_is_written_as_cosign_writes_it() {
        let image = Digest::of(b"");
        let statement = dsse::statement(&image, None, &BTreeMap::new()).unwrap();
        let expected = format!(
            "{{\"_type\":\"https://in-toto.io/Statement/v1\",\
             \"subject\":[{{\"digest\":{{\"sha256\":\"{}\"}},\"annotations\":{{}}}}],\
             \"predicateType\":\"https://sigstore.dev/cosign/sign/v1\",\"predicate\":{{}}}}",
            image.hex()
        );
        assert_eq!(String::from_utf8(statement).unwrap(), expected);
        let pae = dsse::pre_authentication_encoding("application/example", b"hello world");
        assert_eq!(pae, b"DSSEv1 19 application/example 11 hello world");
    }
}
