//! TLS by the rules of registries for what is none: a Docker daemon.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::{Error, HostRule, Result, Tls, pinned};

/// Makes connections that speak TLS, with HTTP/1.1 inside.
#[derive(Clone)]
pub struct Secure(TlsConnector);

impl fmt::Debug for Secure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secure")
    }
}

impl Secure {
    /// Trusts the authorities of a rule beside the system's and shows its certificate; with
    /// [`Tls::SkipVerify`] the server may show any.
    ///
    /// # Errors
    /// [`Error::Configuration`] for certificates and keys that are none.
    pub fn new(rule: &HostRule) -> Result<Secure> {
        let config = match rule.tls {
            Some(Tls::SkipVerify) => pinned::unverified(rule, &Arc::default()),
            _ => pinned::config(rule, &Arc::default()),
        };
        let mut config = config.map_err(|reason| Error::Configuration {
            action: format!("setting up TLS for {}", rule.prefix),
            reason,
        })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Secure(Arc::new(config).into()))
    }

    /// Speaks TLS with the host at the other end.
    ///
    /// # Errors
    /// The host shows no certificate that is trusted, or refuses ours; the connection breaks off.
    pub async fn connect(&self, host: &str, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        self.0.connect(name, stream).await
    }
}
