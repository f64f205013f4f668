//! Cloud KMS of Google.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::request::{SigningRequest, WHAT, refuse, text};
use crate::error::Result;
use crate::key::PublicKey;
use crate::online::Http;
use crate::spki::Scheme;

/// How Google is reached.
#[derive(Clone)]
pub struct GoogleAccess {
    /// `GOOGLE_OAUTH_ACCESS_TOKEN`.
    pub token: String,
    /// Where the service is: `https://cloudkms.googleapis.com`.
    pub endpoint: String,
}

pub(super) struct GoogleKey {
    access: GoogleAccess,
    name: String,
}

impl GoogleKey {
    pub(super) async fn open(
        name: &str,
        access: GoogleAccess,
        http: &Http,
    ) -> Result<(GoogleKey, PublicKey)> {
        let name = name.replace("/versions/", "/cryptoKeyVersions/");
        if !name.contains("/cryptoKeyVersions/") {
            return Err(refuse(format!("gcpkms://{name} names no version: add /versions/NUMBER")));
        }
        let key = GoogleKey { access, name };
        let bearer = key.bearer();
        let header = Some(("Authorization", bearer.as_str()));
        let answer = http.get(WHAT, &key.url("/publicKey"), header).await?;
        let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
        let public = PublicKey::read(text(&answer, "/pem")?.as_bytes())?;
        Ok((key, public))
    }

    fn url(&self, end: &str) -> String {
        format!("{}/v1/{}{end}", self.access.endpoint.trim_end_matches('/'), self.name)
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.access.token)
    }

    pub(super) async fn sign(&self, asked: &SigningRequest<'_>, http: &Http) -> Result<Vec<u8>> {
        let request = match asked.scheme {
            Scheme::Ed25519 => json!({ "data": STANDARD.encode(asked.message) }),
            Scheme::P384 => json!({ "digest": { "sha384": STANDARD.encode(&asked.hash) } }),
            Scheme::P521 => json!({ "digest": { "sha512": STANDARD.encode(&asked.hash) } }),
            Scheme::P256 | Scheme::Rsa => {
                json!({ "digest": { "sha256": STANDARD.encode(&asked.hash) } })
            }
        };
        let bearer = self.bearer();
        let headers = [("Authorization", bearer.as_str())];
        let answer = http.post_with(WHAT, &self.url(":asymmetricSign"), &request, &headers).await?;
        let signature = text(&answer, "/signature")?;
        STANDARD.decode(signature).map_err(|error| refuse(error.to_string()))
    }
}
