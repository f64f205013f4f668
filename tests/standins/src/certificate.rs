//! A certificate authority.

use std::str::FromStr as _;
use std::time::Duration;

use x509_cert::certificate::Version;
use x509_cert::der::asn1::{BitString, Ia5String, ObjectIdentifier, OctetString, UtcTime};
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectAltName,
};
use x509_cert::name::{Name, RdnSequence};
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::time::{Time, Validity};
use x509_cert::{Certificate as X509, TbsCertificate};

use crate::{P256, sha256};

const ECDSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
pub(crate) const CODE_SIGNING: &str = "1.3.6.1.5.5.7.3.3";
pub(crate) const TIME_STAMPING: &str = "1.3.6.1.5.5.7.3.8";
const SCTS: &str = "1.3.6.1.4.1.11129.2.4.2";

/// The identity in a certificate.
#[derive(Debug, Clone)]
pub enum San {
    /// A mail address.
    Email(String),
    /// A URI.
    Uri(String),
    /// A host.
    Host(String),
}

/// A certificate to be issued.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The public key: SubjectPublicKeyInfo.
    pub key: Vec<u8>,
    /// Its identity.
    pub names: Vec<San>,
    /// The OpenID provider.
    pub issuer: Option<String>,
    /// What else the provider says: number below 1.3.6.1.4.1.57264.1, and text.
    pub claims: Vec<(u8, String)>,
    /// From when to when, in seconds since 1970.
    pub valid: (u64, u64),
    /// What it is for: an identifier of an extended key usage.
    pub usage: String,
    /// Whether it is itself an authority.
    pub authority: bool,
    /// When the log promised to list it, if it did.
    pub promised: Option<u64>,
}

impl Certificate {
    /// A signer's, valid for ten minutes.
    pub fn new(key: &P256, name: San, issuer: &str, from: u64) -> Certificate {
        Certificate {
            key: key.spki(),
            names: vec![name],
            issuer: Some(issuer.to_owned()),
            claims: Vec::new(),
            valid: (from, from + 600),
            usage: CODE_SIGNING.to_owned(),
            authority: false,
            promised: Some(from),
        }
    }
}

/// A root and an intermediate that issues.
pub struct Authority {
    /// The root's key.
    pub root: P256,
    /// The root's certificate.
    pub root_certificate: Vec<u8>,
    /// The key that issues.
    pub issuing: P256,
    /// Its certificate.
    pub issuing_certificate: Vec<u8>,
    name: String,
}

fn time(seconds: u64) -> Time {
    Time::UtcTime(UtcTime::from_unix_duration(Duration::from_secs(seconds)).unwrap())
}

fn algorithm() -> AlgorithmIdentifierOwned {
    AlgorithmIdentifierOwned { oid: ECDSA_SHA256, parameters: None }
}

fn extension(id: &str, critical: bool, value: Vec<u8>) -> Extension {
    Extension {
        extn_id: ObjectIdentifier::new_unwrap(id),
        critical,
        extn_value: OctetString::new(value).unwrap(),
    }
}

/// `CN=…`.
pub(crate) fn name(text: &str) -> Name {
    RdnSequence::from_str(&format!("CN={text}")).unwrap()
}

struct Tbs<'a> {
    issuer: Name,
    subject: Name,
    key: &'a [u8],
    valid: (u64, u64),
    extensions: Vec<Extension>,
}

impl Tbs<'_> {
    fn make(self) -> TbsCertificate {
        let serial = sha256(&[self.key, &self.valid.0.to_be_bytes()].concat());
        TbsCertificate {
            version: Version::V3,
            serial_number: SerialNumber::new(&[&[1], &serial[..15]].concat()).unwrap(),
            signature: algorithm(),
            issuer: self.issuer,
            validity: Validity { not_before: time(self.valid.0), not_after: time(self.valid.1) },
            subject: self.subject,
            subject_public_key_info: SubjectPublicKeyInfoOwned::from_der(self.key).unwrap(),
            issuer_unique_id: None,
            subject_unique_id: None,
            extensions: Some(self.extensions),
        }
    }
}

fn signed(tbs: TbsCertificate, by: &P256) -> Vec<u8> {
    let signature = by.sign(&tbs.to_der().unwrap());
    let signature = BitString::from_bytes(&signature).unwrap();
    X509 { tbs_certificate: tbs, signature_algorithm: algorithm(), signature }.to_der().unwrap()
}

/// A name of a key: 20 bytes of its digest.
fn key_id(spki: &[u8]) -> Vec<u8> {
    sha256(spki)[..20].to_vec()
}

/// Which key issued a certificate (RFC 5280, section 4.2.1.1).
fn issued_by(key: &P256) -> Extension {
    let id = [&[0x30, 22, 0x80, 20][..], &key_id(&key.spki())].concat();
    extension("2.5.29.35", false, id)
}

fn authority(path: Option<u8>, key: &[u8]) -> Vec<Extension> {
    let constraints = BasicConstraints { ca: true, path_len_constraint: path };
    let usage = KeyUsage(KeyUsages::KeyCertSign | KeyUsages::CRLSign);
    vec![
        extension("2.5.29.15", true, usage.to_der().unwrap()),
        extension("2.5.29.19", true, constraints.to_der().unwrap()),
        extension("2.5.29.14", false, [&[0x04, 20][..], &key_id(key)].concat()),
    ]
}

impl Authority {
    /// An authority whose keys follow from its name and a number.
    pub fn new(text: &str, seed: u8, valid: (u64, u64)) -> Authority {
        Authority::with_intermediate(text, seed, valid, valid)
    }

    /// The same with another validity of what lies between root and leaves.
    pub fn with_intermediate(
        text: &str,
        seed: u8,
        valid: (u64, u64),
        between: (u64, u64),
    ) -> Authority {
        let root = P256::new(&[text.as_bytes(), &[seed, 0]].concat());
        let issuing = P256::new(&[text.as_bytes(), &[seed, 1]].concat());
        let (root_name, issuing_name) = (format!("{text}-root"), format!("{text}-issuing"));
        let key = root.spki();
        let tbs = Tbs {
            issuer: name(&root_name),
            subject: name(&root_name),
            key: &key,
            valid,
            extensions: authority(None, &key),
        };
        let root_certificate = signed(tbs.make(), &root);
        let key = issuing.spki();
        let tbs = Tbs {
            issuer: name(&root_name),
            subject: name(&issuing_name),
            key: &key,
            valid: between,
            extensions: [authority(Some(0), &key), vec![issued_by(&root)]].concat(),
        };
        let issuing_certificate = signed(tbs.make(), &root);
        Authority { root, root_certificate, issuing, issuing_certificate, name: issuing_name }
    }

    /// The chain above what it issues, the root last.
    pub fn chain(&self) -> Vec<Vec<u8>> {
        vec![self.issuing_certificate.clone(), self.root_certificate.clone()]
    }

    /// Issues a certificate, listed in a log if it says so.
    pub fn issue(&self, wanted: &Certificate, log: &P256) -> Vec<u8> {
        let usage = ExtendedKeyUsage(vec![ObjectIdentifier::new_unwrap(&wanted.usage)]);
        let critical = wanted.usage == TIME_STAMPING;
        let signature = KeyUsage(KeyUsages::DigitalSignature.into()).to_der().unwrap();
        let mut extensions = vec![
            extension("2.5.29.15", true, signature),
            extension("2.5.29.37", critical, usage.to_der().unwrap()),
            issued_by(&self.issuing),
        ];
        if wanted.authority {
            let constraints = BasicConstraints { ca: true, path_len_constraint: None };
            extensions.push(extension("2.5.29.19", true, constraints.to_der().unwrap()));
        }
        let names = wanted.names.iter().map(|name| match name {
            San::Email(text) => GeneralName::Rfc822Name(Ia5String::new(text).unwrap()),
            San::Uri(text) => GeneralName::UniformResourceIdentifier(Ia5String::new(text).unwrap()),
            San::Host(text) => GeneralName::DnsName(Ia5String::new(text).unwrap()),
        });
        let names: Vec<_> = names.collect();
        let subject = if names.is_empty() { name("nobody") } else { RdnSequence::default() };
        if !names.is_empty() {
            let names = SubjectAltName(names).to_der().unwrap();
            extensions.push(extension("2.5.29.17", true, names));
        }
        if let Some(issuer) = &wanted.issuer {
            let id = "1.3.6.1.4.1.57264.1";
            extensions.push(extension(&format!("{id}.1"), false, issuer.as_bytes().to_vec()));
            extensions.push(extension(&format!("{id}.8"), false, issuer.to_der().unwrap()));
            for (number, text) in &wanted.claims {
                let id = format!("{id}.{number}");
                extensions.push(extension(&id, false, text.as_bytes().to_vec()));
            }
        }
        let mut tbs = Tbs {
            issuer: name(&self.name),
            subject,
            key: &wanted.key,
            valid: wanted.valid,
            extensions,
        }
        .make();
        if let Some(time) = wanted.promised {
            let list = self.promise(&tbs, log, time);
            let list = OctetString::new(list).unwrap().to_der().unwrap();
            tbs.extensions.as_mut().unwrap().push(extension(SCTS, false, list));
        }
        signed(tbs, &self.issuing)
    }

    /// A list of one signed certificate timestamp (RFC 6962, section 3.2).
    fn promise(&self, tbs: &TbsCertificate, log: &P256, time: u64) -> Vec<u8> {
        let tbs = tbs.to_der().unwrap();
        let time = (time * 1000).to_be_bytes();
        let length = u32::try_from(tbs.len()).unwrap().to_be_bytes();
        let issuer = sha256(&self.issuing.spki());
        let entry = [&[0, 0][..], &time, &[0, 1], &issuer, &length[1..], &tbs, &[0, 0]].concat();
        let signature = log.sign(&entry);
        let counted =
            |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
        let sct =
            [&[0][..], &sha256(&log.spki()), &time, &[0, 0, 4, 3], &counted(&signature)].concat();
        counted(&counted(&sct))
    }
}

/// The issuer and serial number of a certificate, as CMS names it.
pub(crate) fn issuer_and_serial(der: &[u8]) -> (Name, SerialNumber) {
    let tbs = X509::from_der(der).unwrap().tbs_certificate;
    (tbs.issuer, tbs.serial_number)
}
