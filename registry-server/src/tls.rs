//! TLS of the server's side.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::{Error, Result};

/// What a server shows to its clients, and asks of them. All PEM.
#[derive(Clone)]
pub struct Tls {
    /// The certificate and what leads to its authority.
    pub certificate: Vec<u8>,
    /// The private key.
    pub key: Vec<u8>,
    /// Authorities, one of which must have issued the certificate of every client.
    pub client_authorities: Option<Vec<u8>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("asks", &self.client_authorities.is_some()).finish()
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let parsed = parsed.map_err(|error| error.to_string())?;
    if parsed.is_empty() { Err("it has no certificate".to_owned()) } else { Ok(parsed) }
}

/// Takes TLS connections.
pub(crate) fn acceptor(tls: &Tls) -> Result<TlsAcceptor> {
    let failed = |what: &'static str| move |reason: String| Error::Configuration { what, reason };
    let chain = certificates(&tls.certificate).map_err(failed("the TLS certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(&tls.key)
        .map_err(|error| failed("the TLS key")(error.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed("TLS")(error.to_string()))?;
    let builder = match &tls.client_authorities {
        None => builder.with_no_client_auth(),
        Some(authorities) => {
            let failed = failed("the authorities of clients");
            let mut roots = RootCertStore::empty();
            for authority in certificates(authorities).map_err(failed)? {
                roots.add(authority).map_err(|error| failed(error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = verifier.build().map_err(|error| failed(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| failed("the TLS certificate and key")(error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
