//! Keyless signing: a certificate for a short-lived key (Fulcio), a timestamp (RFC 3161), an entry
//! in a log (Rekor v1 and v2).

mod browser;
mod fulcio;
mod http;
mod rekor;
mod services;
pub mod token;
mod tsa;

use task::Task;

pub use self::browser::browser;
pub use self::http::Http;
pub use self::services::{RekorVersion, Services};
pub use self::token::IdentityToken;
use crate::bundle::{Bundle, Evidence};
use crate::dsse;
use crate::error::{Error, Result};
use crate::key::PrivateKey;

/// A signer by identity: a key that lives as long as this value, and its certificate.
pub struct IdentitySigner {
    key: PrivateKey,
    certificate: Vec<u8>,
    subject: String,
    services: Services,
    http: Http,
}

impl std::fmt::Debug for IdentitySigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IdentitySigner({})", self.subject)
    }
}

impl IdentitySigner {
    /// Gets a certificate for a new key with a token that says who signs.
    ///
    /// # Errors
    /// [`Error::Service`]: the authority refuses the token, or cannot be reached.
    pub async fn new(
        token: &IdentityToken,
        services: Services,
        http: Http,
        task: &Task,
    ) -> Result<IdentitySigner> {
        task.check()?;
        let key = PrivateKey::generate()?;
        let certificate = fulcio::certificate(&http, &services.fulcio, token, &key).await?;
        let subject = token.subject().to_owned();
        Ok(IdentitySigner { key, certificate, subject, services, http })
    }

    /// The identity in the certificate.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Signs a statement.
    ///
    /// # Errors
    /// [`Error::Service`]: a service refuses, or cannot be reached.
    pub async fn seal(&self, payload: &[u8], task: &Task) -> Result<Bundle> {
        let signed = dsse::pre_authentication_encoding(dsse::IN_TOTO, payload);
        let signature = self.key.sign(&signed);
        let evidence =
            self.evidence(&signature, &rekor::SignedContent::Envelope(payload), task).await?;
        Ok(Bundle::certified(payload, &signature, evidence))
    }

    /// Signs bytes.
    ///
    /// # Errors
    /// As [`IdentitySigner::seal`].
    pub async fn sign(&self, message: &[u8], task: &Task) -> Result<Bundle> {
        let signature = self.key.sign(message);
        let evidence =
            self.evidence(&signature, &rekor::SignedContent::Message(message), task).await?;
        Ok(Bundle::of_message(message, &signature, crate::bundle::MadeBy::Certificate(evidence)))
    }

    async fn evidence(
        &self,
        signature: &[u8],
        content: &rekor::SignedContent<'_>,
        task: &Task,
    ) -> Result<Evidence> {
        let mut evidence =
            Evidence { certificate: self.certificate.clone(), ..Evidence::default() };
        task.check()?;
        if let Some(url) = &self.services.timestamps {
            evidence.timestamps.push(tsa::stamp(&self.http, url, signature).await?);
        }
        task.check()?;
        match (&self.services.rekor, evidence.timestamps.is_empty()) {
            (Some((_, RekorVersion::V2)), true) => {
                let reason = "this log states no time, so a timestamp authority is needed";
                return Err(Error::Service { what: "the signature log", reason: reason.into() });
            }
            (Some((url, version)), _) => {
                let entry =
                    rekor::add(&self.http, url, *version, content, signature, &self.certificate);
                evidence.entries.push(entry.await?);
            }
            (None, _) => {}
        }
        Ok(evidence)
    }
}
