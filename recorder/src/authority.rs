//! The authority that the commands of one build trust.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::{Error, Result};

/// The name that the certificate shows.
const NAME: &str = "rbuild recording proxy";

/// An authority made for one build. Its key never leaves the memory of this process.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The key of every host.
    key: KeyPair,
    pem: String,
    hosts: Mutex<HashMap<String, Arc<ServerConfig>>>,
}

impl Authority {
    pub(crate) fn new() -> Result<Authority> {
        let generate = || KeyPair::generate().map_err(Error::setup);
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, NAME);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let own = generate()?;
        let pem = params.self_signed(&own).map_err(Error::setup)?.pem();
        let issuer = Issuer::new(params, own);
        Ok(Authority { issuer, key: generate()?, pem, hosts: Mutex::default() })
    }

    /// Its certificate in PEM.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// How to be a server of this name or address.
    pub(crate) fn server(&self, host: &str) -> Result<Arc<ServerConfig>> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = hosts.get(host) {
            return Ok(Arc::clone(known));
        }
        let chain = vec![self.certificate(host)?];
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).map_err(Error::setup)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(Error::setup)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(Error::setup)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let config = Arc::new(config);
        hosts.insert(host.to_owned(), Arc::clone(&config));
        Ok(config)
    }

    fn certificate(&self, host: &str) -> Result<CertificateDer<'static>> {
        let mut params = CertificateParams::new(vec![host.to_owned()]).map_err(Error::setup)?;
        params.distinguished_name.push(DnType::CommonName, "recorded");
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let signed = params.signed_by(&self.key, &self.issuer).map_err(Error::setup)?;
        Ok(signed.der().clone())
    }
}
