//! A certificate for a key (Fulcio v2, `POST /api/v2/signingCert`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::http::Http;
use super::token::IdentityToken;
use crate::error::{Error, Result};
use crate::key::PrivateKey;
use crate::pem;

const WHAT: &str = "the certificate authority";

/// Gets a certificate that says who holds the key; in DER.
///
/// # Errors
/// [`Error::Service`].
pub(super) async fn certificate(
    http: &Http,
    url: &str,
    token: &IdentityToken,
    key: &PrivateKey,
) -> Result<Vec<u8>> {
    let proof = STANDARD.encode(key.sign(token.subject().as_bytes()));
    let request = json!({
        "credentials": { "oidcIdentityToken": token.secret() },
        "publicKeyRequest": {
            "publicKey": { "algorithm": "ECDSA", "content": key.public().to_pem() },
            "proofOfPossession": proof,
        },
    });
    let url = format!("{}/api/v2/signingCert", url.trim_end_matches('/'));
    let answer = http.post(WHAT, &url, &request).await?;
    let refuse = |reason: String| Error::Service { what: WHAT, reason };
    let chain = &answer["signedCertificateEmbeddedSct"]["chain"]["certificates"];
    let Some(first) = chain[0].as_str() else {
        return Err(refuse("its answer has no certificate with a log's promise".to_owned()));
    };
    let block = pem::find(first.as_bytes(), |label| label == "CERTIFICATE");
    Ok(block.map_err(refuse)?.bytes.to_vec())
}
