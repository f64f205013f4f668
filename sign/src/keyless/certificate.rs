//! Certificates of code signing: their identity, and whether a trusted authority issued them.

use std::collections::BTreeMap;

use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_cert::der::asn1::{ObjectIdentifier, OctetStringRef, Utf8StringRef};
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    BasicConstraints, ExtendedKeyUsage, KeyUsage as Usage, KeyUsages, SubjectAltName,
};
use x509_cert::{Certificate, TbsCertificate};

use super::roots::{Authority, Seconds, Window, since_epoch};
use crate::spki::Spki;

/// What certificates are issued for (RFC 5280, section 4.2.1.12), as DER writes the identifiers.
pub(crate) const CODE_SIGNING: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 3];
pub(crate) const TIME_STAMPING: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 8];

const fn oid(text: &str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(text)
}

const SUBJECT_ALT_NAME: ObjectIdentifier = oid("2.5.29.17");
const KEY_USAGE: ObjectIdentifier = oid("2.5.29.15");
const BASIC_CONSTRAINTS: ObjectIdentifier = oid("2.5.29.19");
const EXTENDED_KEY_USAGE: ObjectIdentifier = oid("2.5.29.37");
/// Signed certificate timestamps (RFC 6962, section 3.3).
pub(crate) const SCTS: ObjectIdentifier = oid("1.3.6.1.4.1.11129.2.4.2");
/// A name that is neither mail address nor URI (Fulcio, docs/oid-info.md).
const USERNAME: ObjectIdentifier = oid("1.3.6.1.4.1.57264.1.7");

/// What Fulcio writes into certificates (Fulcio, docs/oid-info.md): the number below
/// 1.3.6.1.4.1.57264.1 and our name of it.
const CLAIMS: &[(ObjectIdentifier, &str)] = &[
    (oid("1.3.6.1.4.1.57264.1.2"), "githubWorkflowTrigger"),
    (oid("1.3.6.1.4.1.57264.1.3"), "githubWorkflowSha"),
    (oid("1.3.6.1.4.1.57264.1.4"), "githubWorkflowName"),
    (oid("1.3.6.1.4.1.57264.1.5"), "githubWorkflowRepository"),
    (oid("1.3.6.1.4.1.57264.1.6"), "githubWorkflowRef"),
];
const ISSUER_RAW: ObjectIdentifier = oid("1.3.6.1.4.1.57264.1.1");
const ISSUER: ObjectIdentifier = oid("1.3.6.1.4.1.57264.1.8");

/// A certificate that signed something; nothing in it is trusted before its chain is.
#[derive(Debug, Clone)]
pub(crate) struct Leaf {
    pub(crate) der: Vec<u8>,
    parsed: Certificate,
    pub(crate) key: Spki,
}

/// What a certificate says about who holds it.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// The mail address, URI or name in it.
    pub subject: String,
    /// Who said so: the URL of the OpenID provider; empty where the certificate does not say.
    pub issuer: String,
    /// What else the provider said, by name, such as `githubWorkflowRef`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub claims: BTreeMap<String, String>,
    /// All names, by their kinds.
    #[serde(skip)]
    pub(crate) names: Vec<Name>,
}

/// A name in a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Name {
    Email(String),
    Host(String),
    /// A URI, or a name that is none of these.
    Other(String),
}

fn name(name: &GeneralName) -> Result<Name, String> {
    match name {
        GeneralName::Rfc822Name(mail) => Ok(Name::Email(mail.to_string())),
        GeneralName::DnsName(host) => Ok(Name::Host(host.to_string())),
        GeneralName::UniformResourceIdentifier(uri) => Ok(Name::Other(uri.to_string())),
        GeneralName::OtherName(other) if other.type_id == USERNAME => {
            let text = other.value.decode_as::<Utf8StringRef<'_>>();
            let text = text.map_err(|_| "its certificate's name is not text")?;
            Ok(Name::Other(text.as_str().to_owned()))
        }
        _ => Err("its certificate's name is of a kind that is not known".to_owned()),
    }
}

impl Leaf {
    /// Reads a certificate.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub(crate) fn read(der: &[u8]) -> Result<Leaf, String> {
        let parsed = Certificate::from_der(der)
            .map_err(|error| format!("its certificate is malformed: {error}"))?;
        let spki = parsed.tbs_certificate.subject_public_key_info.to_der();
        let spki = spki.map_err(|error| format!("its certificate's key is malformed: {error}"))?;
        let key = Spki::read(&spki).map_err(|why| format!("its certificate's key: {why}"))?;
        Ok(Leaf { der: der.to_vec(), parsed, key })
    }

    pub(crate) fn tbs(&self) -> &TbsCertificate {
        &self.parsed.tbs_certificate
    }

    /// The value of an extension, at most one.
    pub(crate) fn extension(&self, id: ObjectIdentifier) -> Result<Option<&[u8]>, String> {
        let all = self.tbs().extensions.iter().flatten();
        let mut found = all.filter(|extension| extension.extn_id == id);
        let first = found.next();
        match found.next() {
            Some(_) => Err(format!("its certificate has the extension {id} twice")),
            None => Ok(first.map(|extension| extension.extn_value.as_bytes())),
        }
    }

    /// In which time it is valid.
    pub(crate) fn window(&self) -> Window {
        let validity = &self.tbs().validity;
        let seconds = |time: &x509_cert::time::Time| Some(time.to_unix_duration().as_secs());
        Window { start: seconds(&validity.not_before), end: seconds(&validity.not_after) }
    }

    /// Its identity; only one, unless `several` are allowed.
    ///
    /// # Errors
    /// It has no identity, or too many, or is malformed.
    pub(crate) fn identity(&self, several: bool) -> Result<Identity, String> {
        let names = self.extension(SUBJECT_ALT_NAME)?.ok_or("its certificate names no identity")?;
        let names = SubjectAltName::from_der(names)
            .map_err(|error| format!("its certificate's name is malformed: {error}"))?;
        let names = names.0.iter().map(name).collect::<Result<Vec<_>, _>>()?;
        let subject = match &names[..] {
            [Name::Email(text) | Name::Host(text) | Name::Other(text)] => text.clone(),
            [Name::Email(text) | Name::Host(text) | Name::Other(text), ..] if several => {
                text.clone()
            }
            names => return Err(format!("its certificate has {} names, not one", names.len())),
        };
        let mut claims = BTreeMap::new();
        for (id, name) in CLAIMS {
            if let Some(value) = self.extension(*id)? {
                claims.insert((*name).to_owned(), text(value)?);
            }
        }
        Ok(Identity { subject, issuer: self.issuer()?, claims, names })
    }

    fn issuer(&self) -> Result<String, String> {
        match (self.extension(ISSUER)?, self.extension(ISSUER_RAW)?) {
            (Some(der), older) => {
                let issuer = Utf8StringRef::from_der(der);
                let issuer =
                    issuer.map_err(|_| "its certificate's issuer is not text")?.to_string();
                match older {
                    Some(older) if older != issuer.as_bytes() => {
                        Err("its certificate names two issuers".to_owned())
                    }
                    _ => Ok(issuer),
                }
            }
            (None, Some(raw)) => text(raw),
            (None, None) => Ok(String::new()),
        }
    }

    /// Whether it may sign.
    ///
    /// # Errors
    /// It is for something else.
    pub(crate) fn may_sign(&self) -> Result<(), String> {
        let malformed = |error| format!("its certificate is malformed: {error}");
        if let Some(constraints) = self.extension(BASIC_CONSTRAINTS)?
            && BasicConstraints::from_der(constraints).map_err(malformed)?.ca
        {
            return Err("its certificate is an authority's, not a signer's".to_owned());
        }
        if let Some(usage) = self.extension(KEY_USAGE)? {
            let usage = Usage::from_der(usage).map_err(malformed)?;
            if !usage.0.contains(KeyUsages::DigitalSignature) {
                return Err("its certificate is not for signatures".to_owned());
            }
        }
        Ok(())
    }

    /// Whether it says that it is for this use.
    fn is_for(&self, usage: &[u8]) -> Result<(), String> {
        let usages = self.extension(EXTENDED_KEY_USAGE)?.unwrap_or_default();
        let named = ExtendedKeyUsage::from_der(usages)
            .is_ok_and(|usages| usages.0.iter().any(|id| id.as_bytes() == usage));
        if named { Ok(()) } else { Err("its certificate is for another use".to_owned()) }
    }

    /// Whether this authority issued it for this use: every signature of the chain, and that each
    /// of its certificates is valid at this time, the authority's own anchor included. Gives back
    /// the certificate that issued it.
    ///
    /// # Errors
    /// Says what does not fit.
    pub(crate) fn chains_to(
        &self,
        authority: &Authority,
        others: &[Vec<u8>],
        usage: &'static [u8],
        time: Seconds,
    ) -> Result<Leaf, String> {
        if !authority.window.contains(time) {
            return Err("the authority is not trusted for that time".to_owned());
        }
        let chain = authority.chain.iter().map(|der| Leaf::read(der));
        let chain = chain.collect::<Result<Vec<_>, _>>()?;
        let Some(anchor) = authority.chain.last() else {
            return Err("the authority has no certificate".to_owned());
        };
        // The library takes an anchor's validity for granted.
        if chain.last().is_some_and(|anchor| !anchor.window().contains(time)) {
            return Err("the authority's certificate was not valid at that time".to_owned());
        }
        if !self.window().contains(time) {
            return Err("its certificate was not valid at that time".to_owned());
        }
        // Authorities may be for anything; what they issue must say what it is for.
        self.is_for(usage)?;
        let anchor = CertificateDer::from(anchor.as_slice());
        let anchor = anchor_from_trusted_cert(&anchor).map_err(|error| chain_fault(&error))?;
        let between: Vec<_> = authority.chain[..authority.chain.len() - 1]
            .iter()
            .chain(others)
            .map(|der| CertificateDer::from(der.as_slice()))
            .collect();
        let own = CertificateDer::from(self.der.as_slice());
        let own = EndEntityCert::try_from(&own).map_err(|error| chain_fault(&error))?;
        let anchors = [anchor];
        own.verify_for_usage(
            ALGORITHMS,
            &anchors,
            &between,
            UnixTime::since_unix_epoch(since_epoch(time)),
            KeyUsage::required_if_present(usage),
            None,
            None,
        )
        .map_err(|error| chain_fault(&error))?;
        let issuer = &self.tbs().issuer;
        let issued =
            |candidate: &&Leaf| candidate.tbs().subject == *issuer && candidate.signed(self);
        let others = others.iter().filter_map(|der| Leaf::read(der).ok());
        let all: Vec<_> = chain.into_iter().chain(others).collect();
        let found = all.iter().find(issued).cloned();
        found.ok_or_else(|| "no certificate of the authority issued it".to_owned())
    }

    /// Whether the key of this certificate signed another one.
    fn signed(&self, other: &Leaf) -> bool {
        let (Ok(tbs), Some(signature)) = (other.tbs().to_der(), other.parsed.signature.as_bytes())
        else {
            return false;
        };
        use crate::spki::Hash::{Sha256, Sha384, Sha512};
        [Sha256, Sha384, Sha512]
            .into_iter()
            .any(|hash| self.key.verifies_with(hash, &tbs, signature))
    }
}

/// What is wrong with a chain, in words.
fn chain_fault(error: &webpki::Error) -> String {
    use webpki::Error;
    let words = match error {
        Error::CertExpired { .. } => "a certificate of its chain had expired at that time",
        Error::CertNotValidYet { .. } => {
            "a certificate of its chain was not valid yet at that time"
        }
        Error::UnknownIssuer => "no trusted authority issued its certificate",
        Error::EndEntityUsedAsCa => "a certificate that is no authority's issued its certificate",
        Error::InvalidSignatureForPublicKey => "a certificate of its chain has a wrong signature",
        other => return format!("its certificate chain is not valid: {other}"),
    };
    words.to_owned()
}

/// The text of one of Fulcio's older extensions, which is not wrapped in DER.
fn text(value: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(value);
    text.map(str::to_owned).map_err(|_| "a claim of its certificate is not text".to_owned())
}

/// The bytes inside an OCTET STRING.
pub(crate) fn octets(der: &[u8]) -> Result<&[u8], String> {
    let octets = OctetStringRef::from_der(der);
    octets.map(|octets| octets.as_bytes()).map_err(|error| error.to_string())
}

const ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    webpki::ring::ECDSA_P256_SHA256,
    webpki::ring::ECDSA_P256_SHA384,
    webpki::ring::ECDSA_P384_SHA256,
    webpki::ring::ECDSA_P384_SHA384,
    webpki::ring::ED25519,
    webpki::ring::RSA_PKCS1_2048_8192_SHA256,
    webpki::ring::RSA_PKCS1_2048_8192_SHA384,
    webpki::ring::RSA_PKCS1_2048_8192_SHA512,
];
