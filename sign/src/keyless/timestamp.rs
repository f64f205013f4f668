//! Signed timestamps (RFC 3161) in CMS envelopes (RFC 5652).

use cms::cert::CertificateChoices;
use cms::content_info::ContentInfo;
use cms::signed_data::{SignedData, SignerInfo};
use ring::digest;
use x509_cert::der::asn1::{AnyRef, ObjectIdentifier, OctetStringRef};
use x509_cert::der::{Decode as _, Encode as _, Reader as _, SliceReader, Tag, Tagged as _};

use super::certificate::{Leaf, TIME_STAMPING};
use super::roots::{Authority, Seconds};
use crate::spki::Hash;

const fn oid(text: &str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(text)
}

const SIGNED_DATA: ObjectIdentifier = oid("1.2.840.113549.1.7.2");
const TST_INFO: ObjectIdentifier = oid("1.2.840.113549.1.9.16.1.4");
const CONTENT_TYPE: ObjectIdentifier = oid("1.2.840.113549.1.9.3");
const MESSAGE_DIGEST: ObjectIdentifier = oid("1.2.840.113549.1.9.4");
const SIGNING_CERTIFICATE: ObjectIdentifier = oid("1.2.840.113549.1.9.16.2.12");
const SIGNING_CERTIFICATE_V2: ObjectIdentifier = oid("1.2.840.113549.1.9.16.2.47");
const SHA256: ObjectIdentifier = oid("2.16.840.1.101.3.4.2.1");
const SHA384: ObjectIdentifier = oid("2.16.840.1.101.3.4.2.2");
const SHA512: ObjectIdentifier = oid("2.16.840.1.101.3.4.2.3");

/// No larger timestamp is read.
const MAX_TIMESTAMP: usize = 64 << 10;

/// Hashes with a named function.
fn hashed(function: &ObjectIdentifier, bytes: &[u8]) -> Result<(Hash, Vec<u8>), String> {
    let (hash, algorithm) = match *function {
        SHA256 => (Hash::Sha256, &digest::SHA256),
        SHA384 => (Hash::Sha384, &digest::SHA384),
        SHA512 => (Hash::Sha512, &digest::SHA512),
        other => return Err(format!("it is made with the hash {other}, which is not supported")),
    };
    Ok((hash, digest::digest(algorithm, bytes).as_ref().to_vec()))
}

/// The time at which an authority saw these bytes.
///
/// # Errors
/// No trusted authority did, or not these bytes.
pub(crate) fn verify(
    response: &[u8],
    stamped: &[u8],
    authorities: &[Authority],
) -> Result<Seconds, String> {
    if response.len() > MAX_TIMESTAMP {
        return Err(format!("it has more than {MAX_TIMESTAMP} bytes"));
    }
    let token = token(response)?;
    let content = ContentInfo::from_der(token).map_err(malformed)?;
    if content.content_type != SIGNED_DATA {
        return Err("it is not signed".to_owned());
    }
    let signed: SignedData = content.content.decode_as().map_err(malformed)?;
    if signed.encap_content_info.econtent_type != TST_INFO {
        return Err("what is signed is not a timestamp".to_owned());
    }
    let info = signed.encap_content_info.econtent.as_ref().ok_or("it has no content")?;
    let info = info.decode_as::<OctetStringRef<'_>>().map_err(malformed)?.as_bytes();
    let (time, imprint) = read(info)?;
    if hashed(&imprint.0, stamped)?.1 != imprint.1 {
        return Err("it is a timestamp of something else".to_owned());
    }
    let [signer] = signed.signer_infos.0.as_slice() else {
        return Err("it has not exactly one signature".to_owned());
    };
    let mut why = "no timestamp authority is trusted".to_owned();
    for authority in authorities {
        for certificate in certificates(&signed, authority) {
            match stands(&certificate, authority, signer, info, time) {
                Ok(()) => return Ok(time),
                Err(reason) => why = reason,
            }
        }
    }
    Err(why)
}

fn malformed(error: x509_cert::der::Error) -> String {
    format!("it is malformed: {error}")
}

/// The token in a response, which must be one that grants it; a token alone is taken as well.
fn token(response: &[u8]) -> Result<&[u8], String> {
    let outer = AnyRef::from_der(response).map_err(malformed)?;
    let mut reader = SliceReader::new(outer.value()).map_err(malformed)?;
    let first = reader.tlv_bytes().map_err(malformed)?;
    if first.first() == Some(&0x06) {
        return Ok(response);
    }
    let status = AnyRef::from_der(first).map_err(malformed)?;
    let mut inner = SliceReader::new(status.value()).map_err(malformed)?;
    let status: u8 = inner.decode().map_err(malformed)?;
    if status > 1 {
        return Err(format!("the authority refused it with status {status}"));
    }
    if reader.is_finished() {
        return Err("it has no token".to_owned());
    }
    let token = reader.tlv_bytes().map_err(malformed)?;
    if !reader.is_finished() {
        return Err("something follows its token".to_owned());
    }
    Ok(token)
}

/// The time and what it is about: a hash function and a hash.
fn read(info: &[u8]) -> Result<(Seconds, (ObjectIdentifier, Vec<u8>)), String> {
    let outer = AnyRef::from_der(info).map_err(malformed)?;
    if outer.tag() != Tag::Sequence {
        return Err("it is malformed: it is not a sequence".to_owned());
    }
    let mut reader = SliceReader::new(outer.value()).map_err(malformed)?;
    let version: u8 = reader.decode().map_err(malformed)?;
    if version != 1 {
        return Err(format!("it is of version {version}, not 1"));
    }
    let _policy: ObjectIdentifier = reader.decode().map_err(malformed)?;
    let imprint: AnyRef<'_> = reader.decode().map_err(malformed)?;
    let mut parts = SliceReader::new(imprint.value()).map_err(malformed)?;
    let function: AnyRef<'_> = parts.decode().map_err(malformed)?;
    let hash: OctetStringRef<'_> = parts.decode().map_err(malformed)?;
    let mut function = SliceReader::new(function.value()).map_err(malformed)?;
    let function: ObjectIdentifier = function.decode().map_err(malformed)?;
    let _serial: AnyRef<'_> = reader.decode().map_err(malformed)?;
    let time: AnyRef<'_> = reader.decode().map_err(malformed)?;
    if time.tag() != Tag::GeneralizedTime {
        return Err("it has no time".to_owned());
    }
    Ok((moment(time.value())?, (function, hash.as_bytes().to_vec())))
}

/// `YYYYMMDDhhmmss[.f…]Z`.
fn moment(text: &[u8]) -> Result<Seconds, String> {
    let wrong = || "its time is malformed".to_owned();
    let text = std::str::from_utf8(text).map_err(|_| wrong())?;
    let whole = text.strip_suffix('Z').ok_or_else(wrong)?;
    let whole = whole.split_once('.').map_or(whole, |(whole, _)| whole);
    if whole.len() != 14 || !whole.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let at = |from: usize, to: usize| &whole[from..to];
    let written = format!(
        "{}-{}-{}T{}:{}:{}Z",
        at(0, 4),
        at(4, 6),
        at(6, 8),
        at(8, 10),
        at(10, 12),
        at(12, 14)
    );
    super::roots::seconds(&written).ok_or_else(wrong)
}

/// The certificates that may have signed: the authority's own, and what came along.
fn certificates(signed: &SignedData, authority: &Authority) -> Vec<Leaf> {
    let own = authority.chain.first().into_iter().filter_map(|der| Leaf::read(der).ok());
    let sent = signed.certificates.iter().flat_map(|set| set.0.iter());
    let sent = sent.filter_map(|choice| match choice {
        CertificateChoices::Certificate(certificate) => {
            Leaf::read(&certificate.to_der().ok()?).ok()
        }
        CertificateChoices::Other(_) => None,
    });
    own.chain(sent.take(8)).filter(|leaf| leaf.may_sign().is_ok()).collect()
}

/// Whether this certificate of the authority signed the content.
fn stands(
    certificate: &Leaf,
    authority: &Authority,
    signer: &SignerInfo,
    content: &[u8],
    time: Seconds,
) -> Result<(), String> {
    let chain = match authority.chain.first() == Some(&certificate.der) {
        true => Authority { chain: authority.chain[1..].to_vec(), ..authority.clone() },
        false => authority.clone(),
    };
    match chain.chain.is_empty() {
        // The certificate itself is what is trusted.
        true if authority.window.contains(time) && certificate.window().contains(time) => {}
        true => return Err("the authority is not trusted for that time".to_owned()),
        false => {
            certificate.chains_to(&chain, &[], TIME_STAMPING, time)?;
        }
    }
    let attributes = signer.signed_attrs.as_ref().ok_or("it signs no attributes")?;
    let value = |id: ObjectIdentifier| -> Result<Option<Vec<u8>>, String> {
        let mut found = attributes.iter().filter(|attribute| attribute.oid == id);
        let Some(attribute) = found.next() else { return Ok(None) };
        match (attribute.values.as_slice(), found.next()) {
            ([value], None) => Ok(Some(value.to_der().map_err(malformed)?)),
            _ => Err(format!("it has the attribute {id} more than once")),
        }
    };
    let kind = value(CONTENT_TYPE)?.ok_or("it does not sign what it is")?;
    if ObjectIdentifier::from_der(&kind).map_err(malformed)? != TST_INFO {
        return Err("what is signed is not a timestamp".to_owned());
    }
    let (hash, expected) = hashed(&signer.digest_alg.oid, content)?;
    let found = value(MESSAGE_DIGEST)?.ok_or("it does not sign its content")?;
    if OctetStringRef::from_der(&found).map_err(malformed)?.as_bytes() != expected {
        return Err("its content was changed".to_owned());
    }
    let (v2, v1) = (value(SIGNING_CERTIFICATE_V2)?, value(SIGNING_CERTIFICATE)?);
    names_certificate(certificate, v2.as_deref(), v1.as_deref())?;
    let bytes = attributes.to_der().map_err(malformed)?;
    match certificate.key.verifies_with(hash, &bytes, signer.signature.as_bytes()) {
        true => Ok(()),
        false => Err("a trusted authority did not sign it".to_owned()),
    }
}

/// Whether the signed attributes name this certificate (RFC 5816).
fn names_certificate(
    certificate: &Leaf,
    v2: Option<&[u8]>,
    v1: Option<&[u8]>,
) -> Result<(), String> {
    let (attribute, second) = match (v2, v1) {
        (Some(attribute), _) => (attribute, true),
        (None, Some(attribute)) => (attribute, false),
        (None, None) => return Err("it does not sign by which certificate".to_owned()),
    };
    // SigningCertificate(V2) ::= SEQUENCE { certs SEQUENCE OF ESSCertID(v2), … }
    fn inner(bytes: &[u8]) -> Result<AnyRef<'_>, String> {
        SliceReader::new(bytes).and_then(|mut reader| reader.decode()).map_err(malformed)
    }
    let certs = inner(inner(attribute)?.value())?;
    let first = inner(certs.value())?;
    let mut parts = SliceReader::new(first.value()).map_err(malformed)?;
    let mut part: AnyRef<'_> = parts.decode().map_err(malformed)?;
    let mut function = SHA256;
    if second && part.tag() == Tag::Sequence {
        function = inner(part.value())?.decode_as().map_err(malformed)?;
        part = parts.decode().map_err(malformed)?;
    }
    let expected = match second {
        true => hashed(&function, &certificate.der)?.1,
        false => {
            let legacy = &digest::SHA1_FOR_LEGACY_USE_ONLY;
            digest::digest(legacy, &certificate.der).as_ref().to_vec()
        }
    };
    match part.value() == expected {
        true => Ok(()),
        false => Err("it was signed by another certificate than it says".to_owned()),
    }
}
