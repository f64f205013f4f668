//! Key Vault of Azure.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::request::{SigningRequest, WHAT, in_der, refuse, text};
use crate::error::Result;
use crate::key::PublicKey;
use crate::online::Http;
use crate::spki::{Scheme, Spki};

const VERSION: &str = "api-version=7.4";

/// How Azure is reached.
#[derive(Clone)]
pub struct AzureAccess {
    /// `AZURE_TENANT_ID`.
    pub tenant: String,
    /// `AZURE_CLIENT_ID`.
    pub client: String,
    /// `AZURE_CLIENT_SECRET`.
    pub secret: String,
    /// `AZURE_AUTHORITY_HOST`: `https://login.microsoftonline.com`.
    pub authority: String,
}

pub(super) struct AzureKey {
    token: String,
    /// The key with its version.
    url: String,
}

impl AzureKey {
    pub(super) async fn open(
        place: &str,
        access: AzureAccess,
        http: &Http,
    ) -> Result<(AzureKey, PublicKey)> {
        let (vault, name) = place
            .split_once('/')
            .ok_or_else(|| refuse(format!("azurekms://{place} is not azurekms://VAULT/NAME")))?;
        // A vault on this machine is for tests.
        let scheme = if vault.starts_with("127.0.0.1:") { "http" } else { "https" };
        let token = token(&access, http).await?;
        let bearer = format!("Bearer {token}");
        let url = format!("{scheme}://{vault}/keys/{name}?{VERSION}");
        let answer = http.get(WHAT, &url, Some(("Authorization", &bearer))).await?;
        let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
        let id = text(&answer, "/key/kid")?;
        let version = id.rsplit('/').next().unwrap_or_default();
        let name = name.split('/').next().unwrap_or_default();
        let url = format!("{scheme}://{vault}/keys/{name}/{version}");
        Ok((AzureKey { token, url }, public(&answer["key"])?))
    }

    pub(super) async fn sign(&self, asked: &SigningRequest<'_>, http: &Http) -> Result<Vec<u8>> {
        let algorithm = match asked.scheme {
            Scheme::P256 => "ES256",
            Scheme::P384 => "ES384",
            Scheme::P521 => "ES512",
            Scheme::Rsa => "RS256",
            Scheme::Ed25519 => return Err(refuse("Azure has no keys of Ed25519")),
        };
        let request = json!({ "alg": algorithm, "value": URL_SAFE_NO_PAD.encode(&asked.hash) });
        let bearer = format!("Bearer {}", self.token);
        let url = format!("{}/sign?{VERSION}", self.url);
        let headers = [("Authorization", bearer.as_str())];
        let answer = http.post_with(WHAT, &url, &request, &headers).await?;
        in_der(asked.scheme, &decoded(text(&answer, "/value")?)?)
    }
}

fn decoded(text: &str) -> Result<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|error| refuse(error.to_string()))
}

async fn token(access: &AzureAccess, http: &Http) -> Result<String> {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "client_credentials");
    form.append_pair("client_id", &access.client).append_pair("client_secret", &access.secret);
    form.append_pair("scope", "https://vault.azure.net/.default");
    let authority = access.authority.trim_end_matches('/');
    let url = format!("{authority}/{}/oauth2/v2.0/token", access.tenant);
    let kind = "application/x-www-form-urlencoded";
    let answer = http.post_bytes(WHAT, &url, kind, form.finish().into_bytes()).await?;
    let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
    Ok(text(&answer, "/access_token")?.to_owned())
}

/// A JSON web key (RFC 7517).
fn public(key: &Value) -> Result<PublicKey> {
    let part = |name: &str| decoded(text(key, name)?);
    let kind = text(key, "/kty")?.trim_end_matches("-HSM");
    let der = match (kind, key["crv"].as_str()) {
        ("EC", Some(curve)) => {
            let width = match curve {
                "P-256" => 32,
                "P-384" => 48,
                "P-521" => 66,
                other => return Err(refuse(format!("keys on {other} are not supported"))),
            };
            let pad = |mut number: Vec<u8>| {
                while number.len() < width {
                    number.insert(0, 0);
                }
                number
            };
            let point = [vec![4], pad(part("/x")?), pad(part("/y")?)].concat();
            Spki::wrap_ec(curve, &point)
        }
        ("RSA", _) => Spki::wrap_rsa_numbers(&part("/n")?, &part("/e")?),
        (other, _) => return Err(refuse(format!("keys of the kind {other} are not supported"))),
    };
    Ok(PublicKey::from(Spki::read(&der).map_err(refuse)?))
}
