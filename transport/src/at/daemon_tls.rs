//! TLS with a Docker daemon, by the files that Docker's own client has.

use std::path::{Path, PathBuf};

use registry_client::{ClientIdentity, HostRule, Secure, Tls};
use task::Cause;

use super::files;
use crate::Error;

/// The most that is read of a certificate or key.
const LARGEST: u64 = 1 << 20;

/// How TLS is spoken with a Docker daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DaemonTls {
    /// Whether `tcp://` means TLS; `https://` does in any case.
    pub tcp: bool,
    /// Where `ca.pem`, `cert.pem` and `key.pem` are, as far as there are any.
    pub certificates: Option<PathBuf>,
    /// Whether the daemon may show any certificate.
    pub unverified: bool,
    /// What TLS may use.
    pub parameters: registry_client::TlsParameters,
}

impl DaemonTls {
    /// Reads the files.
    ///
    /// # Errors
    /// A directory without any of them, a certificate without its key, files that are not PEM.
    pub(crate) fn open(&self, host: &str) -> Result<Secure, Cause> {
        let tls = if self.unverified { Tls::SkipVerify } else { Tls::Verify };
        let (prefix, parameters) = (host.to_owned(), self.parameters.clone());
        let mut rule = HostRule { prefix, tls: Some(tls), parameters, ..HostRule::default() };
        if let Some(directory) = &self.certificates {
            add(&mut rule, directory)?;
        }
        Ok(Secure::new(&rule)?)
    }
}

fn add(rule: &mut HostRule, directory: &Path) -> Result<(), Cause> {
    let read = |name: &str| files::read(&directory.join(name), LARGEST);
    let refuse = |reason: &str| Error::Malformed {
        place: format!("the certificate directory {} of the Docker daemon", directory.display()),
        reason: reason.to_owned(),
    };
    let (authority, certificate, key) = (read("ca.pem")?, read("cert.pem")?, read("key.pem")?);
    if authority.is_none() && certificate.is_none() {
        return Err(refuse("it has neither ca.pem nor cert.pem").into());
    }
    rule.authorities.extend(authority);
    rule.identity = match (certificate, key) {
        (Some(certificate), Some(key)) => Some(ClientIdentity { certificate, key }),
        (None, None) => None,
        (Some(_), None) => return Err(refuse("it has cert.pem, but no key.pem").into()),
        (None, Some(_)) => return Err(refuse("it has key.pem, but no cert.pem").into()),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_come_whole_or_are_refused() {
        let home = tempfile::tempdir().unwrap();
        let tls = DaemonTls { certificates: Some(home.path().into()), ..DaemonTls::default() };
        let refused = || tls.open("daemon.example").unwrap_err().to_string();
        assert!(refused().contains("neither ca.pem nor cert.pem"), "{}", refused());
        std::fs::write(home.path().join("cert.pem"), "none").unwrap();
        assert!(refused().contains("no key.pem"), "{}", refused());
        std::fs::write(home.path().join("key.pem"), "none").unwrap();
        assert!(refused().contains("daemon.example"), "{}", refused());
        assert!(DaemonTls::default().open("daemon.example").is_ok());
    }
}
