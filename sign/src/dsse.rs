//! The signed envelope (DSSE v1) and the in-toto statement inside it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::strict::Unique;

/// What an envelope's payload is: an in-toto statement.
pub const IN_TOTO: &str = "application/vnd.in-toto+json";
/// The version of statements that is written.
pub const STATEMENT_V1: &str = "https://in-toto.io/Statement/v1";
/// The version before it, which cosign writes into attestations; its fields are the same.
pub const STATEMENT_V0: &str = "https://in-toto.io/Statement/v0.1";
/// The predicate that makes a statement an image's signature.
pub const SIGN_V1: &str = "https://sigstore.dev/cosign/sign/v1";

/// What is signed in an envelope: its type and its payload, each with its length (DSSE
/// protocol.md, "PAE").
pub fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes =
        format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

/// An envelope as it lies in a bundle; the bytes are in base64.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Envelope {
    pub(crate) payload: String,
    pub(crate) payload_type: String,
    pub(crate) signatures: Vec<EnvelopeSignature>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EnvelopeSignature {
    pub(crate) sig: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) keyid: String,
}

/// An in-toto statement, read: what a verifier needs of it. Fields it does not know are passed
/// over, as the specification asks (in-toto attestation spec, "Parsing rules").
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Statement {
    #[serde(rename = "_type")]
    pub(crate) kind: String,
    pub(crate) subject: Vec<Subject>,
    pub(crate) predicate_type: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Subject {
    #[serde(default)]
    pub(crate) name: Option<String>,
    pub(crate) digest: Unique<String>,
    #[serde(default)]
    pub(crate) annotations: Option<Unique<serde_json::Value>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StatementDocument<'a> {
    #[serde(rename = "_type")]
    kind: &'a str,
    subject: [StatementSubject<'a>; 1],
    predicate_type: &'a str,
    predicate: BTreeMap<(), ()>,
}

#[derive(Serialize)]
struct StatementSubject<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    digest: BTreeMap<&'a str, String>,
    annotations: &'a BTreeMap<String, String>,
}

/// The statement that an image is signed, as cosign 3 writes it; the name of the image is the
/// one thing more, so that a verifier can tell for which name it was signed.
pub(crate) fn statement(
    image: &image::Digest,
    name: Option<&str>,
    annotations: &BTreeMap<String, String>,
) -> Result<Vec<u8>, serde_json::Error> {
    let digest = BTreeMap::from([(image.algorithm().as_str(), image.hex())]);
    serde_json::to_vec(&StatementDocument {
        kind: STATEMENT_V1,
        subject: [StatementSubject { name, digest, annotations }],
        predicate_type: SIGN_V1,
        predicate: BTreeMap::new(),
    })
}
/// What an envelope holds, unverified; nothing where it is malformed.
pub fn payload(envelope: &serde_json::Value) -> Vec<u8> {
    use base64::Engine as _;
    let text = envelope["payload"].as_str().unwrap_or_default();
    base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default()
}
