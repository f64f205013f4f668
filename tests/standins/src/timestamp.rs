//! A timestamp authority (RFC 3161).

use cms::cert::{CertificateChoices, IssuerAndSerialNumber};
use cms::content_info::{CmsVersion, ContentInfo};
use cms::signed_data::{
    CertificateSet, EncapsulatedContentInfo, SignedData, SignerIdentifier, SignerInfo, SignerInfos,
};
use x509_cert::Certificate as X509;
use x509_cert::attr::Attribute;
use x509_cert::der::asn1::{Any, ObjectIdentifier, OctetString, SetOfVec};
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::spki::AlgorithmIdentifierOwned;

use crate::certificate::{TIME_STAMPING, issuer_and_serial};
use crate::{Authority, Certificate, P256, San, sha256};

fn oid(text: &str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(text)
}

const TST_INFO: &str = "1.2.840.113549.1.9.16.1.4";
const SHA256: &str = "2.16.840.1.101.3.4.2.1";

/// An authority with a certificate for timestamps.
pub struct TimestampAuthority {
    /// Who issued its certificate.
    pub authority: Authority,
    /// Its key.
    pub key: P256,
    /// Its certificate.
    pub certificate: Vec<u8>,
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let head = match length {
        0..=127 => vec![tag, length as u8],
        128..=255 => vec![tag, 0x81, length as u8],
        _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
    };
    [head, content.to_vec()].concat()
}

impl TimestampAuthority {
    /// The authority that follows from a number.
    pub fn new(seed: u8, valid: (u64, u64)) -> TimestampAuthority {
        let authority = Authority::new("timestamps", seed, valid);
        let key = P256::new(&[seed, 6]);
        let wanted = Certificate {
            usage: TIME_STAMPING.to_owned(),
            names: Vec::new(),
            issuer: None,
            promised: None,
            valid,
            ..Certificate::new(&key, San::Host(String::new()), "", valid.0)
        };
        let certificate = authority.issue(&wanted, &key);
        TimestampAuthority { authority, key, certificate }
    }

    /// Its certificate and those above, the root last.
    pub fn chain(&self) -> Vec<Vec<u8>> {
        [vec![self.certificate.clone()], self.authority.chain()].concat()
    }

    /// The response that these bytes were there at a time.
    pub fn stamp(&self, bytes: &[u8], time: u64) -> Vec<u8> {
        self.stamp_hash(&sha256(bytes), time, &[])
    }

    /// The response that something with this SHA-256 was there at a time; `nonce` is an INTEGER
    /// in DER, or empty.
    pub fn stamp_hash(&self, hash: &[u8], time: u64, nonce: &[u8]) -> Vec<u8> {
        let algorithm = tlv(0x30, &oid(SHA256).to_der().unwrap());
        let imprint = tlv(0x30, &[algorithm, tlv(0x04, hash)].concat());
        let info = [
            tlv(0x02, &[1]),
            oid("1.3.6.1.4.1.57264.2").to_der().unwrap(),
            imprint,
            tlv(0x02, &[7]),
            tlv(0x18, written(time).as_bytes()),
            nonce.to_vec(),
        ];
        let info = tlv(0x30, &info.concat());
        let token = self.signed(&info).to_der().unwrap();
        let status = tlv(0x30, &tlv(0x02, &[0]));
        tlv(0x30, &[status, token].concat())
    }

    fn signed(&self, info: &[u8]) -> ContentInfo {
        let hash = AlgorithmIdentifierOwned { oid: oid(SHA256), parameters: None };
        let id = tlv(0x30, &tlv(0x30, &tlv(0x30, &tlv(0x04, &sha256(&self.certificate)))));
        let attribute = |id: &str, value: Vec<u8>| Attribute {
            oid: oid(id),
            values: SetOfVec::try_from(vec![Any::from_der(&value).unwrap()]).unwrap(),
        };
        let attributes = SetOfVec::try_from(vec![
            attribute("1.2.840.113549.1.9.3", oid(TST_INFO).to_der().unwrap()),
            attribute("1.2.840.113549.1.9.4", tlv(0x04, &sha256(info))),
            attribute("1.2.840.113549.1.9.16.2.47", id),
        ])
        .unwrap();
        let signature = self.key.sign(&attributes.to_der().unwrap());
        let (issuer, serial_number) = issuer_and_serial(&self.certificate);
        let signer = SignerInfo {
            version: CmsVersion::V1,
            sid: SignerIdentifier::IssuerAndSerialNumber(IssuerAndSerialNumber {
                issuer,
                serial_number,
            }),
            digest_alg: hash.clone(),
            signed_attrs: Some(attributes),
            signature_algorithm: AlgorithmIdentifierOwned {
                oid: oid("1.2.840.10045.4.3.2"),
                parameters: None,
            },
            signature: OctetString::new(signature).unwrap(),
            unsigned_attrs: None,
        };
        let own = CertificateChoices::Certificate(X509::from_der(&self.certificate).unwrap());
        let content = OctetString::new(info).unwrap();
        let data = SignedData {
            version: CmsVersion::V3,
            digest_algorithms: SetOfVec::try_from(vec![hash]).unwrap(),
            encap_content_info: EncapsulatedContentInfo {
                econtent_type: oid(TST_INFO),
                econtent: Some(Any::from_der(&content.to_der().unwrap()).unwrap()),
            },
            certificates: Some(CertificateSet::try_from(vec![own]).unwrap()),
            crls: None,
            signer_infos: SignerInfos::try_from(vec![signer]).unwrap(),
        };
        ContentInfo {
            content_type: oid("1.2.840.113549.1.7.2"),
            content: Any::from_der(&data.to_der().unwrap()).unwrap(),
        }
    }
}

/// `YYYYMMDDhhmmssZ`.
fn written(time: u64) -> String {
    use x509_cert::der::DateTime;
    let date = DateTime::from_unix_duration(std::time::Duration::from_secs(time)).unwrap();
    date.to_string().replace(['-', ':', 'T'], "")
}
