//! How the registries of a command are reached.

use std::path::PathBuf;

use clap::Args;
use registry_client::Credential;

use crate::Failure;
use crate::Reach;

/// How to reach registries.
#[derive(Debug, Clone, Default, Args)]
pub struct RegistryFlags {
    /// Require valid certificates; false also allows plain HTTP
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Registry")]
    tls_verify: Option<bool>,
    /// Use this user and password for the registry
    #[arg(long, value_name = "USER:PASSWORD", help_heading = "Registry")]
    creds: Option<String>,
    /// Use the certificates in this directory (*.crt, *.cert, *.key)
    #[arg(long, value_name = "DIR", help_heading = "Registry")]
    cert_dir: Option<PathBuf>,
}

impl RegistryFlags {
    /// What the flags ask for.
    ///
    /// # Errors
    /// Credentials that are not `user:password`.
    pub fn reach(&self) -> Result<Reach, Failure> {
        Ok(Reach {
            tls_verify: self.tls_verify,
            credential: self.creds.as_deref().map(credential).transpose()?,
            authfile: None,
            cert_dir: self.cert_dir.clone(),
            ..Reach::default()
        })
    }

    /// These, and what they do not say as others say it.
    pub fn or(self, other: RegistryFlags) -> RegistryFlags {
        RegistryFlags {
            tls_verify: self.tls_verify.or(other.tls_verify),
            creds: self.creds.or(other.creds),
            cert_dir: self.cert_dir.or(other.cert_dir),
        }
    }
}

/// `user:password`.
///
/// # Errors
/// There is no user name.
pub fn credential(text: &str) -> Result<Credential, Failure> {
    match text.split_once(':') {
        Some((username, password)) if !username.is_empty() => {
            Ok(Credential::Basic { username: username.to_owned(), password: password.to_owned() })
        }
        _ => Err(Failure::usage("credentials have the form USER:PASSWORD")),
    }
}

/// What credentials for a registry, or a repository on it, are stored under.
pub fn registry_key(registry: &str) -> String {
    let registry = registry.strip_prefix("https://").unwrap_or(registry);
    let registry = registry.strip_prefix("docker://").unwrap_or(registry);
    registry.trim_end_matches('/').to_owned()
}
