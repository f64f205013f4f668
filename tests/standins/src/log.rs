//! A log of signatures: its tree, its promises and its checkpoints.

use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::{Ed25519, P256, sha256};

/// Which API the log speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Rekor v1: promises, integrated times.
    V1,
    /// Rekor v2: tiles; checkpoints alone.
    V2,
}

enum Key {
    P256(P256),
    Ed25519(Ed25519),
}

/// A log of signatures.
pub struct Log {
    /// Which API it speaks.
    pub version: Version,
    key: Key,
    entries: Mutex<Vec<Vec<u8>>>,
}

/// The number of the tree of Rekor v1.
const TREE: u64 = 1_234_567_890_123;

type Hash = [u8; 32];

fn node(left: &Hash, right: &Hash) -> Hash {
    sha256(&[&[1], &left[..], &right[..]].concat())
}

fn tree(entries: &[Vec<u8>]) -> Hash {
    match entries {
        [] => sha256(&[]),
        [one] => sha256(&[&[0], &one[..]].concat()),
        many => {
            let (left, right) = many.split_at(many.len().next_power_of_two() / 2);
            node(&tree(left), &tree(right))
        }
    }
}

fn path(index: usize, entries: &[Vec<u8>]) -> Vec<Hash> {
    if entries.len() < 2 {
        return Vec::new();
    }
    let (left, right) = entries.split_at(entries.len().next_power_of_two() / 2);
    let (mut path, other) = match index < left.len() {
        true => (path(index, left), tree(right)),
        false => (path(index - left.len(), right), tree(left)),
    };
    path.push(other);
    path
}

impl Log {
    /// A log whose key follows from a seed, with a few entries of others in it.
    pub fn new(version: Version, seed: &[u8]) -> Log {
        let key = match version {
            Version::V1 => Key::P256(P256::new(seed)),
            Version::V2 => Key::Ed25519(Ed25519::new(seed)),
        };
        let others = (0..5_u8).map(|other| vec![other; 9]).collect();
        Log { version, key, entries: Mutex::new(others) }
    }

    /// The host that it is called by; it signs checkpoints by this name.
    pub fn host(&self) -> &'static str {
        match self.version {
            Version::V1 => "rekor.standin.example",
            Version::V2 => "log2026.standin.example",
        }
    }

    /// The first line of its checkpoints. Rekor v1 puts the number of its tree behind the name, and
    /// verifiers know by this which API the log speaks.
    pub fn origin(&self) -> String {
        match self.version {
            Version::V1 => format!("{} - {}", self.host(), TREE),
            Version::V2 => self.host().to_owned(),
        }
    }

    /// What Rekor v1 calls an entry: its tree, and its leaf in that.
    pub(crate) fn entry_id(body: &[u8]) -> String {
        format!("{TREE:016x}{}", hex(&sha256(&[&[0], body].concat())))
    }

    /// The public key: SubjectPublicKeyInfo.
    pub fn spki(&self) -> Vec<u8> {
        match &self.key {
            Key::P256(key) => key.spki(),
            Key::Ed25519(key) => key.spki(),
        }
    }

    /// What entries call it.
    pub fn id(&self) -> Vec<u8> {
        match &self.key {
            Key::P256(key) => sha256(&key.spki()).to_vec(),
            // As C2SP's signed notes name keys.
            Key::Ed25519(key) => {
                sha256(&[self.host().as_bytes(), b"\n\x01", &key.raw()].concat()).to_vec()
            }
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.key {
            Key::P256(key) => key.sign(message),
            Key::Ed25519(key) => key.sign(message),
        }
    }

    /// The checkpoint of a tree.
    pub fn checkpoint(&self, size: usize, root: &[u8]) -> String {
        let text = format!("{}\n{size}\n{}\n", self.origin(), STANDARD.encode(root));
        let signature = [&self.id()[..4], &self.sign(text.as_bytes())].concat();
        format!("{text}\n\u{2014} {} {}\n", self.host(), STANDARD.encode(signature))
    }

    /// Takes an entry; gives it back as a bundle has it.
    pub fn add(&self, body: &Value, time: u64) -> Value {
        let body_bytes = body.to_string().into_bytes();
        let mut entries = self.entries.lock().unwrap();
        let index = entries.len();
        entries.push(body_bytes.clone());
        // Another one, so that the proof is not of the last.
        entries.push(vec![7; 7]);
        let (root, hashes) = (tree(&entries), path(index, &entries));
        let mut entry = json!({
            "logIndex": index.to_string(),
            "logId": { "keyId": STANDARD.encode(self.id()) },
            "kindVersion": { "kind": body["kind"], "version": body["apiVersion"] },
            "inclusionProof": {
                "logIndex": index.to_string(),
                "rootHash": STANDARD.encode(root),
                "treeSize": entries.len().to_string(),
                "hashes": hashes.iter().map(|hash| STANDARD.encode(hash)).collect::<Vec<_>>(),
                "checkpoint": { "envelope": self.checkpoint(entries.len(), &root) },
            },
            "canonicalizedBody": STANDARD.encode(&body_bytes),
        });
        if self.version == Version::V1 {
            let promise = self.promise(&body_bytes, time, index);
            entry["integratedTime"] = time.to_string().into();
            entry["inclusionPromise"] = json!({ "signedEntryTimestamp": STANDARD.encode(promise) });
        }
        entry
    }

    /// The signed promise of an entry.
    pub fn promise(&self, body: &[u8], time: u64, index: usize) -> Vec<u8> {
        let id: String = self.id().iter().map(|byte| format!("{byte:02x}")).collect();
        let body = STANDARD.encode(body);
        let signed = format!(
            r#"{{"body":"{body}","integratedTime":{time},"logID":"{id}","logIndex":{index}}}"#
        );
        self.sign(signed.as_bytes())
    }

    /// The body of an entry about an envelope; `signer` is a certificate in DER.
    pub fn envelope_body(&self, payload: &[u8], signature: &[u8], signer: &[u8]) -> Value {
        match self.version {
            Version::V1 => json!({
                "apiVersion": "0.0.1", "kind": "dsse", "spec": {
                    "envelopeHash": { "algorithm": "sha256", "value": hex(&sha256(b"unused")) },
                    "payloadHash": { "algorithm": "sha256", "value": hex(&sha256(payload)) },
                    "signatures": [{
                        "signature": STANDARD.encode(signature),
                        "verifier": STANDARD.encode(crate::pem("CERTIFICATE", signer)),
                    }],
                },
            }),
            Version::V2 => json!({
                "apiVersion": "0.0.2", "kind": "dsse", "spec": { "dsseV002": {
                    "payloadHash": {
                        "algorithm": "SHA2_256", "digest": STANDARD.encode(sha256(payload)),
                    },
                    "signatures": [raw_signature(signature, signer, "CERTIFICATE")],
                } },
            }),
        }
    }

    /// The body of an entry about a signature of bytes; `signer` is a certificate in DER, or a key
    /// where `label` says so.
    pub fn message_body(&self, hash: &[u8], signature: &[u8], signer: &[u8], label: &str) -> Value {
        match self.version {
            Version::V1 => json!({
                "apiVersion": "0.0.1", "kind": "hashedrekord", "spec": {
                    "data": { "hash": { "algorithm": "sha256", "value": hex(hash) } },
                    "signature": {
                        "content": STANDARD.encode(signature),
                        "publicKey": { "content": STANDARD.encode(crate::pem(label, signer)) },
                    },
                },
            }),
            Version::V2 => json!({
                "apiVersion": "0.0.2", "kind": "hashedrekord", "spec": { "hashedRekordV002": {
                    "data": { "algorithm": "SHA2_256", "digest": STANDARD.encode(hash) },
                    "signature": raw_signature(signature, signer, label),
                } },
            }),
        }
    }
}

fn raw_signature(signature: &[u8], signer: &[u8], label: &str) -> Value {
    let kind = if label == "CERTIFICATE" { "x509Certificate" } else { "publicKey" };
    json!({
        "content": STANDARD.encode(signature),
        "verifier": {
            "keyDetails": "PKIX_ECDSA_P256_SHA_256", kind: { "rawBytes": STANDARD.encode(signer) },
        },
    })
}

/// Bytes in hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
