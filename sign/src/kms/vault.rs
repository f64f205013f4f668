//! The transit engine of HashiCorp Vault and OpenBao.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::request::{SigningRequest, WHAT, refuse, text};
use crate::error::Result;
use crate::key::PublicKey;
use crate::online::Http;
use crate::spki::{Scheme, Spki};

/// How Vault is reached.
#[derive(Clone)]
pub struct VaultAccess {
    /// `VAULT_ADDR`.
    pub address: String,
    /// `VAULT_TOKEN`.
    pub token: String,
    /// `TRANSIT_SECRET_ENGINE_PATH`: where the engine is mounted; usually `transit`.
    pub engine: String,
}

pub(super) struct VaultKey {
    access: VaultAccess,
    name: String,
    version: u64,
}

impl VaultKey {
    pub(super) async fn open(
        name: &str,
        access: VaultAccess,
        http: &Http,
    ) -> Result<(VaultKey, PublicKey)> {
        let mut key = VaultKey { access, name: name.to_owned(), version: 0 };
        let answer = http.get(WHAT, &key.url("keys", ""), Some(key.header())).await?;
        let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
        let latest = answer["data"]["latest_version"].as_u64();
        key.version = latest.ok_or_else(|| refuse(format!("{name} has no version")))?;
        let public = text(&answer, &format!("/data/keys/{}/public_key", key.version))?;
        let public = match public.contains("BEGIN") {
            true => PublicKey::read(public.as_bytes())?,
            // Ed25519 without an envelope.
            false => {
                let raw = STANDARD.decode(public).map_err(|error| refuse(error.to_string()))?;
                let spki = Spki::read(&Spki::wrap_ed25519(&raw)).map_err(refuse)?;
                PublicKey::from(spki)
            }
        };
        Ok((key, public))
    }

    fn url(&self, what: &str, end: &str) -> String {
        let VaultAccess { address, engine, .. } = &self.access;
        let engine = engine.trim_matches('/');
        format!("{}/v1/{engine}/{what}/{}{end}", address.trim_end_matches('/'), self.name)
    }

    fn header(&self) -> (&str, &str) {
        ("X-Vault-Token", &self.access.token)
    }

    pub(super) async fn sign(&self, asked: &SigningRequest<'_>, http: &Http) -> Result<Vec<u8>> {
        let (end, input, hashed) = match asked.scheme {
            Scheme::Ed25519 => ("", asked.message, false),
            Scheme::P384 => ("/sha2-384", &asked.hash[..], true),
            Scheme::P521 => ("/sha2-512", &asked.hash[..], true),
            Scheme::P256 | Scheme::Rsa => ("/sha2-256", &asked.hash[..], true),
        };
        let request = json!({
            "input": STANDARD.encode(input), "prehashed": hashed, "key_version": self.version,
            "signature_algorithm": "pkcs1v15", "marshaling_algorithm": "asn1",
        });
        let answer =
            http.post_with(WHAT, &self.url("sign", end), &request, &[self.header()]).await?;
        let signature = text(&answer, "/data/signature")?.rsplit(':').next().unwrap_or_default();
        STANDARD.decode(signature).map_err(|error| refuse(error.to_string()))
    }
}
