//! What a key is called.

use std::fmt;

use image::Digest;

/// The name of a key: the sha256 digest of its public half (DER, SubjectPublicKeyInfo).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct KeyId(pub(crate) Digest);

impl KeyId {
    /// The form in which a sigstore bundle names the key: the digest in base64.
    pub fn hint(&self) -> String {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(self.0.as_bytes())
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
