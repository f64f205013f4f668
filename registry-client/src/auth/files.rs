use std::path::PathBuf;
use std::time::Duration;

use image::Repository;

use crate::{Credential, Keychain, Result};

/// Credentials in files as Docker (`config.json`) and podman (`auth.json`) keep them, with the
/// credential helpers those files name.
#[derive(Debug, Clone)]
pub struct Files {
    /// The files, first hit wins; missing files are as empty ones.
    pub paths: Vec<PathBuf>,
    /// The directories helper programs (`docker-credential-…`) are looked for in.
    pub helper_dirs: Vec<PathBuf>,
    /// The environment helpers run in, complete.
    pub helper_env: Vec<(String, String)>,
    /// How long a helper may take.
    pub helper_timeout: Duration,
}

impl Files {
    /// A keychain over these files.
    pub fn new(paths: Vec<PathBuf>) -> Files {
        Files {
            paths,
            helper_dirs: Vec::new(),
            helper_env: Vec::new(),
            helper_timeout: Duration::from_secs(30),
        }
    }

    /// Stores a credential for `key` (`registry.example`, `registry.example/team`) in the first
    /// file, or in the helper the file names for it.
    ///
    /// # Errors
    /// Of the file or the helper.
    pub fn store(&self, key: &str, credential: &Credential) -> Result<()> {
        let _ = (key, credential);
        Err(crate::unfinished())
    }

    /// Removes the credential of `key` from every file and helper; whether there was one.
    ///
    /// # Errors
    /// Of the file or the helper.
    pub fn erase(&self, key: &str) -> Result<bool> {
        let _ = key;
        Err(crate::unfinished())
    }

    /// The keys that have a credential, and the user names.
    ///
    /// # Errors
    /// Of the files.
    pub fn list(&self) -> Result<Vec<(String, String)>> {
        Err(crate::unfinished())
    }
}

impl Keychain for Files {
    fn credential(&self, repository: &Repository) -> Result<Credential> {
        let _ = repository;
        Err(crate::unfinished())
    }
}
