//! Who is trusted to sign, and finding out who of them did.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::Digest;
use serde::Serialize;

use crate::bundle::{Parts, VerificationMaterial};
use crate::dsse;
use crate::key::PublicKey;
use crate::key_id::KeyId;
use crate::keyless::{
    self, Content, Identity, IdentityRule, Log, LogEntry, LoggedSignature, Material, Refusal,
    TrustedRoot,
};
use crate::mismatch::Mismatch;
use crate::simple_signing::{
    BUNDLE_ANNOTATION, CERTIFICATE_ANNOTATION, CHAIN_ANNOTATION, TIMESTAMP_ANNOTATION,
};

/// Who is trusted: the holders of these keys, or these identities.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signers {
    /// The keys.
    pub keys: Vec<PublicKey>,
    /// The identities.
    pub identities: Vec<IdentityRule>,
    /// Whose certificates, logs and timestamps are trusted; without it certificates are not.
    pub root: Option<Arc<TrustedRoot>>,
    /// The logs, one of which must contain a signature made with a key; `None` if no log is
    /// required.
    pub(crate) logs: Option<Vec<Log>>,
}

/// Who made a signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Signer {
    /// The holder of this key.
    Key(KeyId),
    /// The identity in a certificate.
    Certificate(Identity),
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Signer::Key(key) => write!(f, "key {}", key.hint()),
            Signer::Certificate(identity) => write!(f, "{identity}"),
        }
    }
}

impl Signers {
    /// Trusts keys alone.
    pub fn keys(keys: Vec<PublicKey>) -> Signers {
        Signers { keys, ..Signers::default() }
    }

    /// Trusts identities in certificates.
    pub fn certificates(identities: Vec<IdentityRule>, root: TrustedRoot) -> Signers {
        Signers { identities, root: Some(Arc::new(root)), ..Signers::default() }
    }

    /// The names of the keys.
    pub fn key_ids(&self) -> Vec<KeyId> {
        self.keys.iter().map(PublicKey::id).collect()
    }

    /// Who signed an envelope.
    ///
    /// # Errors
    /// No signer is trusted.
    pub(crate) fn of_envelope(&self, parts: &Parts) -> Result<Signer, Mismatch> {
        let signed = dsse::pre_authentication_encoding(&parts.payload_type, &parts.payload);
        let payload = Some(parts.payload.as_slice());
        self.of_content(parts, &Content { signed: &signed, payload, signature: &parts.signature })
    }

    /// Who signed a message without an envelope.
    ///
    /// # Errors
    /// No signer is trusted.
    pub(crate) fn of_message(&self, parts: &Parts, message: &[u8]) -> Result<Signer, Mismatch> {
        let signature = &parts.signature;
        self.of_content(parts, &Content { signed: message, payload: None, signature })
    }

    fn of_content(&self, parts: &Parts, content: &Content<'_>) -> Result<Signer, Mismatch> {
        match &parts.material {
            VerificationMaterial::Key(hint) => {
                let entries = || Material::entries(parts.entries.clone());
                self.by_key(content, hint, &entries)
            }
            VerificationMaterial::Certificate(certificates) => {
                let root = self.trusted()?;
                let (entries, timestamps) = (parts.entries.clone(), parts.timestamps.clone());
                let material = Material::of_bundle(certificates.clone(), entries, timestamps)?;
                let identity = keyless::verify(&material, content, root, &self.identities)?;
                Ok(Signer::Certificate(identity))
            }
        }
    }

    /// Who signed a payload of the older form.
    ///
    /// # Errors
    /// No signer is trusted.
    pub(crate) fn of_payload(
        &self,
        payload: &[u8],
        signature: &[u8],
        annotations: &BTreeMap<String, String>,
    ) -> Result<Signer, Mismatch> {
        let annotation = |name: &str| annotations.get(name).map(String::as_str);
        let content = Content { signed: payload, payload: None, signature };
        let entry = annotation(BUNDLE_ANNOTATION);
        let by_key = self.by_key(&content, "", &|| Material::entry(entry));
        let Some(certificate) = annotation(CERTIFICATE_ANNOTATION) else { return by_key };
        match (&by_key, &self.root) {
            (Ok(_) | Err(Mismatch::NoKeys | Mismatch::Refused(_)), None) => by_key,
            (Ok(_), Some(_)) => by_key,
            (Err(_), None) => Err(Mismatch::Keyless),
            (Err(_), Some(root)) => {
                let material = Material::of_annotations(
                    certificate,
                    annotation(CHAIN_ANNOTATION),
                    entry,
                    annotation(TIMESTAMP_ANNOTATION),
                )?;
                let identity = keyless::verify(&material, &content, root, &self.identities)?;
                Ok(Signer::Certificate(identity))
            }
        }
    }

    fn trusted(&self) -> Result<&TrustedRoot, Mismatch> {
        self.root.as_deref().ok_or(match self.keys.is_empty() {
            true => Mismatch::NoKeys,
            false => Mismatch::Keyless,
        })
    }

    /// Which trusted key made the signature. A key's name is only a hint: it makes the message
    /// better, never the verdict.
    fn by_key(
        &self,
        content: &Content<'_>,
        hint: &str,
        entries: &dyn Fn() -> Result<Vec<LogEntry>, Refusal>,
    ) -> Result<Signer, Mismatch> {
        let (signed, signature) = (content.signed, content.signature);
        if self.keys.is_empty() {
            return Err(match self.root.is_some() {
                true => Mismatch::Keyed,
                false => Mismatch::NoKeys,
            });
        }
        if let Some(key) = self.keys.iter().find(|key| key.verifies(signed, signature)) {
            if let Some(logs) = &self.logs {
                let (payload, verifier) = (content.payload, key.der());
                let of = LoggedSignature { signed, payload, signature, verifier };
                keyless::in_log(&entries()?, logs, &of)?;
            }
            return Ok(Signer::Key(key.id()));
        }
        let trusted = self.key_ids();
        Err(match hint.is_empty() || trusted.iter().any(|key| key.hint() == hint) {
            true => Mismatch::Signature { trusted },
            false => Mismatch::Key { signer: name_of_hint(hint), trusted },
        })
    }
}

/// A hint in the form in which we write keys, where it is one of ours.
fn name_of_hint(hint: &str) -> String {
    match STANDARD.decode(hint).map(<[u8; 32]>::try_from) {
        Ok(Ok(digest)) => Digest::Sha256(digest).to_string(),
        _ => format!("{:?}", hint.chars().take(100).collect::<String>()),
    }
}
