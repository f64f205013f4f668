use std::fmt;

use image::Repository;

use crate::Result;

/// A credential for a registry.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum Credential {
    /// Nothing.
    #[default]
    Anonymous,
    /// A user's name and password.
    Basic {
        /// The name.
        username: String,
        /// The password or access token.
        password: String,
    },
    /// An OAuth 2 refresh token, exchanged for access tokens at the registry's token service.
    Identity(String),
    /// An access token, sent as it is.
    Bearer(String),
}

impl fmt::Debug for Credential {
    /// Never shows the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Credential::Anonymous => f.write_str("Anonymous"),
            Credential::Basic { username, .. } => write!(f, "Basic({username:?})"),
            Credential::Identity(_) => f.write_str("Identity"),
            Credential::Bearer(_) => f.write_str("Bearer"),
        }
    }
}

/// Where credentials come from. Called off the async threads, so it may block.
pub trait Keychain: Send + Sync {
    /// The credential for this repository.
    ///
    /// # Errors
    /// When there should be one but it cannot be had; the client then gives up rather than
    /// going on without.
    fn credential(&self, repository: &Repository) -> Result<Credential>;

    /// The credential for a place that the user did not name: a mirror, or the location in
    /// registries.conf. If credentials are stored by host, it is the same.
    ///
    /// # Errors
    /// As [`Keychain::credential`].
    fn mirror_credential(&self, repository: &Repository) -> Result<Credential> {
        self.credential(repository)
    }

    /// The credential for requests that are about no repository, such as the catalog.
    ///
    /// # Errors
    /// As [`Keychain::credential`].
    fn registry_credential(&self, registry: &str) -> Result<Credential> {
        let _ = registry;
        Ok(Credential::Anonymous)
    }
}

/// The keychain without keys.
#[derive(Debug, Clone, Copy, Default)]
pub struct Anonymous;

impl Keychain for Anonymous {
    fn credential(&self, _repository: &Repository) -> Result<Credential> {
        Ok(Credential::Anonymous)
    }
}

/// One credential for every registry that is named; for `login` and tests. Mirrors do not get it.
impl Keychain for Credential {
    fn credential(&self, _repository: &Repository) -> Result<Credential> {
        Ok(self.clone())
    }

    fn mirror_credential(&self, _repository: &Repository) -> Result<Credential> {
        Ok(Credential::Anonymous)
    }

    fn registry_credential(&self, _registry: &str) -> Result<Credential> {
        Ok(self.clone())
    }
}

/// A credential for the registries that the user names (`--creds`); other places get the
/// credentials of another keychain.
pub struct CredentialOverride<K> {
    /// For the registries that are named.
    pub credential: Credential,
    /// For mirrors.
    pub others: K,
}

impl<K: Keychain> Keychain for CredentialOverride<K> {
    fn credential(&self, _repository: &Repository) -> Result<Credential> {
        Ok(self.credential.clone())
    }

    fn mirror_credential(&self, repository: &Repository) -> Result<Credential> {
        self.others.mirror_credential(repository)
    }

    fn registry_credential(&self, _registry: &str) -> Result<Credential> {
        Ok(self.credential.clone())
    }
}
