//! An entry in a log of signatures (Rekor v1 and v2).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::http::Http;
use super::services::RekorVersion;
use crate::dsse;
use crate::error::{Error, Result};
use crate::hash::sha256;
use crate::pem;

const WHAT: &str = "the signature log";

/// The content that was signed.
pub(super) enum SignedContent<'a> {
    /// The payload of an envelope.
    Envelope(&'a [u8]),
    /// Bytes.
    Message(&'a [u8]),
}

fn refuse(reason: impl Into<String>) -> Error {
    Error::Service { what: WHAT, reason: reason.into() }
}

fn envelope(payload: &[u8], signature: &[u8]) -> Value {
    json!({
        "payload": STANDARD.encode(payload), "payloadType": dsse::IN_TOTO,
        "signatures": [{ "sig": STANDARD.encode(signature) }],
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Adds an entry; gives it back as it stands in a bundle.
///
/// # Errors
/// [`Error::Service`].
pub(super) async fn add(
    http: &Http,
    url: &str,
    version: RekorVersion,
    content: &SignedContent<'_>,
    signature: &[u8],
    certificate: &[u8],
) -> Result<Value> {
    let url = url.trim_end_matches('/');
    match version {
        RekorVersion::V1 => {
            let asked = v1(content, signature, certificate);
            let answer = http.post(WHAT, &format!("{url}/api/v1/log/entries"), &asked).await?;
            from_v1(&answer).ok_or_else(|| refuse("its answer is malformed"))
        }
        RekorVersion::V2 => {
            let asked = v2(content, signature, certificate);
            http.post(WHAT, &format!("{url}/api/v2/log/entries"), &asked).await
        }
    }
}

fn v1(what: &SignedContent<'_>, signature: &[u8], certificate: &[u8]) -> Value {
    let certificate = STANDARD.encode(pem::write("CERTIFICATE", certificate));
    match what {
        SignedContent::Envelope(payload) => json!({
            "apiVersion": "0.0.1", "kind": "dsse", "spec": { "proposedContent": {
                "envelope": envelope(payload, signature).to_string(),
                "verifiers": [certificate],
            } },
        }),
        SignedContent::Message(message) => json!({
            "apiVersion": "0.0.1", "kind": "hashedrekord", "spec": {
                "data": { "hash": { "algorithm": "sha256", "value": hex(&sha256(message)) } },
                "signature": {
                    "content": STANDARD.encode(signature),
                    "publicKey": { "content": certificate },
                },
            },
        }),
    }
}

/// The answer of version 1 in the words of bundles.
fn from_v1(answer: &Value) -> Option<Value> {
    let (_, entry) = answer.as_object()?.iter().next()?;
    let body = STANDARD.decode(entry["body"].as_str()?).ok()?;
    let body: Value = serde_json::from_slice(&body).ok()?;
    let proof = &entry["verification"]["inclusionProof"];
    let base64 = |text: &Value| {
        let text = text.as_str()?;
        let pairs = (0..text.len()).step_by(2);
        let bytes = pairs.map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok());
        Some(STANDARD.encode(bytes.collect::<Option<Vec<u8>>>()?))
    };
    let hashes = proof["hashes"].as_array()?.iter().map(base64).collect::<Option<Vec<_>>>()?;
    Some(json!({
        "logIndex": entry["logIndex"].as_u64()?.to_string(),
        "logId": { "keyId": base64(&entry["logID"])? },
        "kindVersion": { "kind": body["kind"], "version": body["apiVersion"] },
        "integratedTime": entry["integratedTime"].as_u64()?.to_string(),
        "inclusionPromise": {
            "signedEntryTimestamp": entry["verification"]["signedEntryTimestamp"].as_str()?,
        },
        "inclusionProof": {
            "logIndex": proof["logIndex"].as_u64()?.to_string(),
            "rootHash": base64(&proof["rootHash"])?,
            "treeSize": proof["treeSize"].as_u64()?.to_string(),
            "hashes": hashes,
            "checkpoint": { "envelope": proof["checkpoint"].as_str()? },
        },
        "canonicalizedBody": entry["body"],
    }))
}

fn v2(what: &SignedContent<'_>, signature: &[u8], certificate: &[u8]) -> Value {
    let verifier = json!({
        "x509Certificate": { "rawBytes": STANDARD.encode(certificate) },
        "keyDetails": "PKIX_ECDSA_P256_SHA_256",
    });
    // Servers of version 2 take nothing else: for an envelope it is the hash of what was signed.
    let hash = match what {
        SignedContent::Envelope(payload) => {
            sha256(&dsse::pre_authentication_encoding(dsse::IN_TOTO, payload))
        }
        SignedContent::Message(message) => sha256(message),
    };
    json!({ "hashedRekordRequestV002": {
        "digest": STANDARD.encode(hash),
        "signature": { "content": STANDARD.encode(signature), "verifier": verifier },
    } })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rekor v2 dropped its entries about envelopes; sigstore-go 1.2 verifies no others than these.
    #[test]
    fn a_log_of_version_2_gets_the_hash_of_what_an_envelope_signs() {
        let asked = v2(&SignedContent::Envelope(b"{}"), b"signature", b"certificate");
        let request = &asked["hashedRekordRequestV002"];
        let pae = dsse::pre_authentication_encoding(dsse::IN_TOTO, b"{}");
        assert_eq!(request["digest"], STANDARD.encode(sha256(&pae)));
        assert_eq!(request["signature"]["content"], STANDARD.encode(b"signature"));
        assert_eq!(asked.as_object().map(serde_json::Map::len), Some(1));
    }
}
