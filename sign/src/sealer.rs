//! What signs: a key, or an identity in a certificate.

use std::fmt;

use task::Task;

use crate::bundle::Bundle;
use crate::error::Result;
use crate::key::PrivateKey;
use crate::key_id::KeyId;
use crate::online::IdentitySigner;

/// What signs.
#[derive(Debug, Clone, Copy)]
pub enum Sealer<'a> {
    /// The holder of this key.
    Key(&'a PrivateKey),
    /// An identity.
    Identity(&'a IdentitySigner),
}

impl Sealer<'_> {
    /// Signs a statement.
    ///
    /// # Errors
    /// [`crate::Error::Service`].
    pub(crate) async fn seal(&self, payload: &[u8], task: &Task) -> Result<Bundle> {
        match self {
            Sealer::Key(key) => Ok(Bundle::seal(payload, key)),
            Sealer::Identity(signer) => signer.seal(payload, task).await,
        }
    }

    /// The key, where it is one that others may trust.
    pub(crate) fn key(&self) -> Option<&PrivateKey> {
        match self {
            Sealer::Key(key) => Some(key),
            Sealer::Identity(_) => None,
        }
    }

    /// The name of the key.
    pub(crate) fn key_id(&self) -> Option<KeyId> {
        self.key().map(|key| key.public().id())
    }
}

impl fmt::Display for Sealer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sealer::Key(key) => write!(f, "with key {}", key.public().id().hint()),
            Sealer::Identity(signer) => write!(f, "by {}", signer.subject()),
        }
    }
}

impl<'a> From<&'a PrivateKey> for Sealer<'a> {
    fn from(key: &'a PrivateKey) -> Sealer<'a> {
        Sealer::Key(key)
    }
}
