//! `trusted_root.json`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::{Log, Version, World, sha256};

fn key(spki: &[u8], details: &str) -> Value {
    json!({
        "rawBytes": STANDARD.encode(spki), "keyDetails": details,
        "validFor": { "start": "2026-01-01T00:00:00Z" },
    })
}

fn log(log: &Log) -> Value {
    let details = match log.version {
        Version::V1 => "PKIX_ECDSA_P256_SHA_256",
        Version::V2 => "PKIX_ED25519",
    };
    json!({
        "baseUrl": format!("https://{}", log.host()), "hashAlgorithm": "SHA2_256",
        "publicKey": key(&log.spki(), details), "logId": { "keyId": STANDARD.encode(log.id()) },
    })
}

fn authority(name: &str, chain: &[Vec<u8>]) -> Value {
    let chain: Vec<_> =
        chain.iter().map(|der| json!({ "rawBytes": STANDARD.encode(der) })).collect();
    json!({
        "subject": { "organization": "standin", "commonName": name },
        "uri": "https://standin.example", "certChain": { "certificates": chain },
        "validFor": { "start": "2026-01-01T00:00:00Z" },
    })
}

impl World {
    /// The world's `trusted_root.json`.
    pub fn trusted_root(&self) -> Value {
        let certificate_log = self.certificate_log.spki();
        json!({
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [log(&self.rekor), log(&self.tiles)],
            "certificateAuthorities": [authority("fulcio", &self.fulcio.chain())],
            "ctlogs": [{
                "baseUrl": "https://ct.standin.example", "hashAlgorithm": "SHA2_256",
                "publicKey": key(&certificate_log, "PKIX_ECDSA_P256_SHA_256"),
                "logId": { "keyId": STANDARD.encode(sha256(&certificate_log)) },
            }],
            "timestampAuthorities": [authority("timestamps", &self.timestamps.chain())],
        })
    }
}
