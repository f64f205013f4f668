//! A signature with all that is needed to verify it, in one file (sigstore bundle v0.3).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::{Descriptor, Digest};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::dsse::{self, Envelope, EnvelopeSignature};
use crate::error::Result;
use crate::key::PrivateKey;

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
    message_signature: Option<Value>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Material {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    public_key: Option<KeyHint>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    x509_certificate_chain: Option<Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tlog_entries: Vec<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timestamp_verification_data: Option<Value>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyHint {
    #[serde(default)]
    hint: String,
}

/// Why a bundle cannot be verified by a key. The words follow "the bundle".
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unfit {
    Malformed(String),
    MediaType(String),
    Keyless,
    Material(&'static str),
    Content(&'static str),
    Signatures(usize),
}

/// A bundle taken apart; nothing of it is verified yet.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) hint: String,
    pub(crate) payload_type: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) signature: Vec<u8>,
    /// Log entries and timestamps, which are not looked at when a key verifies.
    pub(crate) unchecked: usize,
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
        let signature = EnvelopeSignature { sig: STANDARD.encode(signature), keyid: String::new() };
        Bundle {
            media_type: MEDIA_TYPE.to_owned(),
            verification_material: Material {
                public_key: Some(KeyHint { hint: key.public().id().hint() }),
                ..Material::default()
            },
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

    /// Reads a bundle and takes it apart; steps 2 to 5 of [`crate::verify`].
    pub(crate) fn open(json: &[u8]) -> Result<Parts, Unfit> {
        let bundle: Bundle =
            serde_json::from_slice(json).map_err(|error| Unfit::Malformed(error.to_string()))?;
        if bundle.media_type != MEDIA_TYPE && bundle.media_type != EARLY_MEDIA_TYPE {
            return Err(Unfit::MediaType(bundle.media_type.chars().take(100).collect()));
        }
        let material = bundle.verification_material;
        let certified = material.certificate.is_some() || material.x509_certificate_chain.is_some();
        let hint = match material.public_key {
            Some(_) if certified => {
                return Err(Unfit::Material("has both a key and a certificate"));
            }
            None if certified => return Err(Unfit::Keyless),
            None => return Err(Unfit::Material("names neither a key nor a certificate")),
            Some(key) => key.hint,
        };
        let envelope = match (bundle.dsse_envelope, bundle.message_signature) {
            (Some(envelope), None) => envelope,
            (None, Some(_)) => return Err(Unfit::Content("signs a bare message, not a statement")),
            (Some(_), Some(_)) => return Err(Unfit::Content("has two contents")),
            (None, None) => return Err(Unfit::Content("has no content")),
        };
        let unchecked = material.tlog_entries.len()
            + usize::from(material.timestamp_verification_data.is_some());
        Ok(Parts { hint, unchecked, ..take_apart(envelope)? })
    }
}

/// Reads an envelope that lies in no bundle.
///
/// # Errors
/// It is malformed.
pub(crate) fn open_envelope(json: &[u8]) -> Result<Parts, Unfit> {
    let envelope = serde_json::from_slice(json);
    take_apart(envelope.map_err(|error| Unfit::Malformed(error.to_string()))?)
}

fn take_apart(envelope: Envelope) -> Result<Parts, Unfit> {
    let [signature] = envelope.signatures.as_slice() else {
        return Err(Unfit::Signatures(envelope.signatures.len()));
    };
    let bytes = |what: &str, text: &str| {
        let bytes = STANDARD.decode(text);
        bytes.map_err(|error| Unfit::Malformed(format!("{what} is no base64: {error}")))
    };
    Ok(Parts {
        hint: String::new(),
        payload: bytes("payload", &envelope.payload)?,
        signature: bytes("sig", &signature.sig)?,
        payload_type: envelope.payload_type,
        unchecked: 0,
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
