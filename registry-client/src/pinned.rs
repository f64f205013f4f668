//! TLS with certificate authorities of the user's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::ClientConfig;
use rustls::DigitallySignedStruct;
use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{InconsistentKeys, SignatureScheme};
use rustls_platform_verifier::Verifier;

use crate::hosts::HostRule;

/// TLS that trusts a rule's authorities beside the system's and shows the rule's certificate.
///
/// `asked` becomes true when a server asks for a certificate and there is none.
pub(crate) fn config(rule: &HostRule, asked: &Arc<AtomicBool>) -> Result<ClientConfig, String> {
    let provider = Arc::new(rule.parameters.provider()?);
    let mut pinned = Vec::new();
    for pem in &rule.authorities {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        pinned.extend(certificates.map_err(|error| format!("an authority is not PEM: {error}"))?);
    }
    let system = Verifier::new_with_extra_roots(pinned.clone(), Arc::clone(&provider))
        .map_err(|error| error.to_string())?;
    showing(rule, &provider, Arc::new(PinnedVerifier { system, pinned }), asked)
}

/// TLS that trusts whatever the server shows, and shows the rule's certificate.
pub(crate) fn unverified(rule: &HostRule, asked: &Arc<AtomicBool>) -> Result<ClientConfig, String> {
    let provider = Arc::new(rule.parameters.provider()?);
    let anything = Arc::new(InsecureVerifier(Arc::clone(&provider)));
    showing(rule, &provider, anything, asked)
}

fn showing(
    rule: &HostRule,
    provider: &Arc<CryptoProvider>,
    verifier: Arc<dyn ServerCertVerifier>,
    asked: &Arc<AtomicBool>,
) -> Result<ClientConfig, String> {
    let unusable = |error: &dyn std::error::Error| error.to_string();
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&rule.parameters.versions()?)
        .map_err(|error| unusable(&error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match &rule.identity {
        None => builder.with_client_cert_resolver(Arc::new(NoCertificate(Arc::clone(asked)))),
        Some(identity) => {
            let chain: Result<Vec<_>, _> =
                CertificateDer::pem_slice_iter(&identity.certificate).collect();
            let chain =
                chain.map_err(|error| format!("the client certificate is not PEM: {error}"))?;
            let key = PrivateKeyDer::from_pem_slice(&identity.key)
                .map_err(|error| format!("the client key is not PEM: {error}"))?;
            let key = provider.key_provider.load_private_key(key).map_err(|e| unusable(&e))?;
            let shown = CertifiedKey::new(chain, key);
            // Of certificates of version 1 it is not known whose key they have; servers that want
            // one take it all the same.
            if let Err(error @ rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) =
                shown.keys_match()
            {
                return Err(format!("the client key is not that of its certificate: {error}"));
            }
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(shown)))
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Shows no certificate, and notes that one was asked for.
#[derive(Debug)]
struct NoCertificate(Arc<AtomicBool>);

impl ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.store(true, Ordering::Relaxed);
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// The system's verifier with more roots, and with one exception: a certificate that signed
/// itself and calls itself an authority, as `openssl req -x509` makes them, serves as the
/// server's own if it is itself among the authorities, the rule's or the system's.
#[derive(Debug)]
struct PinnedVerifier {
    system: Verifier,
    pinned: Vec<CertificateDer<'static>>,
}

impl PinnedVerifier {
    /// Whether a certificate is among those that are trusted.
    fn has(&self, certificate: &CertificateDer<'_>) -> bool {
        self.pinned.contains(certificate)
            || rustls_native_certs::load_native_certs().certs.contains(certificate)
    }
}

fn used_as_its_own_authority(error: &rustls::Error) -> bool {
    let rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) = error else {
        return false;
    };
    // Found by the verifier after it checked that the certificate is valid at this time.
    matches!(other.0.downcast_ref::<webpki::Error>(), Some(webpki::Error::CaUsedAsEndEntity))
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.system.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match verified {
            Err(error) if used_as_its_own_authority(&error) && self.has(end_entity) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.system.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.system.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.system.supported_verify_schemes()
    }
}

/// A verifier that trusts every certificate whose key the server has.
#[derive(Debug)]
struct InsecureVerifier(Arc<CryptoProvider>);

impl ServerCertVerifier for InsecureVerifier {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
