//! What signs: a key, or an identity in a certificate.

use std::fmt;

use task::Task;

use crate::bundle::Bundle;
use crate::dsse;
use crate::error::Result;
use crate::key::{PrivateKey, PublicKey};
use crate::key_id::KeyId;
#[cfg(feature = "online")]
use crate::kms::RemoteKey;
#[cfg(feature = "online")]
use crate::online::IdentitySigner;

/// What signs.
#[derive(Debug, Clone, Copy)]
pub enum Sealer<'a> {
    /// The holder of this key.
    Key(&'a PrivateKey),
    /// The users who may use this key of a key service.
    #[cfg(feature = "online")]
    Remote(&'a RemoteKey),
    /// Somebody by who he is.
    #[cfg(feature = "online")]
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
            #[cfg(feature = "online")]
            Sealer::Remote(key) => {
                let signed = dsse::pre_authentication_encoding(dsse::IN_TOTO, payload);
                Ok(Bundle::sealed(payload, &key.sign(&signed).await?, key.public()))
            }
            #[cfg(feature = "online")]
            Sealer::Identity(signer) => signer.seal(payload, task).await,
        }
    }

    /// Signs bytes with a key that others may trust.
    ///
    /// # Errors
    /// [`crate::Error::Service`].
    pub(crate) async fn sign(&self, message: &[u8]) -> Result<Option<Vec<u8>>> {
        match self {
            Sealer::Key(key) => Ok(Some(key.sign(message))),
            #[cfg(feature = "online")]
            Sealer::Remote(key) => key.sign(message).await.map(Some),
            #[cfg(feature = "online")]
            Sealer::Identity(_) => Ok(None),
        }
    }

    /// The public half of the key, where it is one that others may trust.
    pub(crate) fn public(&self) -> Option<PublicKey> {
        match self {
            Sealer::Key(key) => Some(key.public()),
            #[cfg(feature = "online")]
            Sealer::Remote(key) => Some(key.public().clone()),
            #[cfg(feature = "online")]
            Sealer::Identity(_) => None,
        }
    }

    /// The name of the key.
    pub(crate) fn key_id(&self) -> Option<KeyId> {
        self.public().map(|key| key.id())
    }
}

impl fmt::Display for Sealer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sealer::Key(key) => write!(f, "with key {}", key.public().id().hint()),
            #[cfg(feature = "online")]
            Sealer::Remote(key) => write!(f, "with key {}", key.public().id().hint()),
            #[cfg(feature = "online")]
            Sealer::Identity(signer) => write!(f, "by {}", signer.subject()),
        }
    }
}

impl<'a> From<&'a PrivateKey> for Sealer<'a> {
    fn from(key: &'a PrivateKey) -> Sealer<'a> {
        Sealer::Key(key)
    }
}
