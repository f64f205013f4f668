//! Public keys of any kind we verify with, and their signatures; `ring` does the arithmetic.

use p256::pkcs8::der::Decode as _;
use p256::pkcs8::spki::SubjectPublicKeyInfoRef;
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};

/// What signs: the algorithm with its curve or scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    P256,
    P384,
    P521,
    Ed25519,
    Rsa,
}

/// The hash of a signature, where the scheme leaves a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

/// A public key as it stands in certificates and key files (RFC 5280, SubjectPublicKeyInfo).
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Spki {
    der: Vec<u8>,
    scheme: Scheme,
    key: Vec<u8>,
}

impl std::fmt::Debug for Spki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Spki({:?})", self.scheme)
    }
}

pub(crate) const EC: &str = "1.2.840.10045.2.1";
pub(crate) const RSA: &str = "1.2.840.113549.1.1.1";
pub(crate) const ED25519: &str = "1.3.101.112";

impl Spki {
    /// Reads a key.
    ///
    /// # Errors
    /// Says what it is instead.
    pub(crate) fn read(der: &[u8]) -> Result<Spki, String> {
        let info = SubjectPublicKeyInfoRef::from_der(der)
            .map_err(|_| "its content is not a SubjectPublicKeyInfo".to_owned())?;
        let curve = info.algorithm.parameters_oid().map(|oid| oid.to_string());
        let scheme = match (info.algorithm.oid.to_string().as_str(), curve.as_deref()) {
            (EC, Ok("1.2.840.10045.3.1.7")) => Scheme::P256,
            (EC, Ok("1.3.132.0.34")) => Scheme::P384,
            (EC, Ok("1.3.132.0.35")) => Scheme::P521,
            (EC, _) => return Err("it is on a curve that is not supported".to_owned()),
            (RSA, _) => Scheme::Rsa,
            (ED25519, _) => Scheme::Ed25519,
            (other, _) => return Err(format!("it is a key of algorithm {other}")),
        };
        let key =
            info.subject_public_key.as_bytes().ok_or("its key is not a whole number of bytes")?;
        let key = key.to_vec();
        if matches!(scheme, Scheme::P256 | Scheme::P384 | Scheme::P521) && key.first() != Some(&4) {
            return Err("its point is compressed".to_owned());
        }
        Ok(Spki { der: der.to_vec(), scheme, key })
    }

    /// The scheme, and the hash of a message that belongs to it.
    pub(crate) fn hash(&self, message: &[u8]) -> (Scheme, Vec<u8>) {
        let algorithm = match self.scheme {
            Scheme::P384 => &ring::digest::SHA384,
            Scheme::P521 => &ring::digest::SHA512,
            Scheme::P256 | Scheme::Rsa | Scheme::Ed25519 => &ring::digest::SHA256,
        };
        (self.scheme, ring::digest::digest(algorithm, message).as_ref().to_vec())
    }

    /// `ring` has no P-521.
    fn verifies_p521(&self, message: &[u8], signature: &[u8]) -> bool {
        use p521::ecdsa::signature::Verifier as _;
        let key = p521::ecdsa::VerifyingKey::from_sec1_bytes(&self.key);
        let signature = p521::ecdsa::Signature::from_der(signature);
        key.is_ok_and(|key| signature.is_ok_and(|one| key.verify(message, &one).is_ok()))
    }

    /// The encoding of an Ed25519 key of 32 bytes.
    pub(crate) fn wrap_ed25519(raw: &[u8]) -> Vec<u8> {
        const HEAD: &[u8] =
            &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        [HEAD, raw].concat()
    }

    /// The encoding of a point on a curve, which has the name that JSON web keys call it by.
    pub(crate) fn wrap_ec(curve: &str, point: &[u8]) -> Vec<u8> {
        const EC: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
        let curve: &[u8] = match curve {
            "P-256" => &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07],
            "P-384" => &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22],
            _ => &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23],
        };
        let algorithm = tlv(0x30, &[EC, curve].concat());
        tlv(0x30, &[algorithm, tlv(0x03, &[&[0], point].concat())].concat())
    }

    /// The encoding of an RSA key of two numbers.
    pub(crate) fn wrap_rsa_numbers(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
        let number = |bytes: &[u8]| {
            let start = bytes.iter().take_while(|byte| **byte == 0).count();
            let sign: &[u8] =
                if bytes.get(start).is_some_and(|byte| *byte > 127) { &[0] } else { &[] };
            tlv(0x02, &[sign, &bytes[start..]].concat())
        };
        Spki::wrap_rsa(&tlv(0x30, &[number(modulus), number(exponent)].concat()))
    }

    /// The encoding of an RSA key in that of PKCS #1.
    pub(crate) fn wrap_rsa(key: &[u8]) -> Vec<u8> {
        const ALGORITHM: &[u8] = &[
            0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05,
            0x00,
        ];
        let bits = tlv(0x03, &[&[0], key].concat());
        tlv(0x30, &[ALGORITHM, &bits].concat())
    }

    /// The key as it was read.
    pub(crate) fn der(&self) -> &[u8] {
        &self.der
    }

    /// Whether this key made this signature of a message, with the hash that belongs to it.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let hash = match self.scheme {
            Scheme::P384 => Hash::Sha384,
            Scheme::P521 => Hash::Sha512,
            _ => Hash::Sha256,
        };
        self.verifies_with(hash, message, signature)
    }

    /// Whether this key made this signature with this hash.
    pub(crate) fn verifies_with(&self, hash: Hash, message: &[u8], signature: &[u8]) -> bool {
        let algorithm: &'static dyn VerificationAlgorithm = match (self.scheme, hash) {
            (Scheme::P256, Hash::Sha256) => &signature::ECDSA_P256_SHA256_ASN1,
            (Scheme::P256, Hash::Sha384) => &signature::ECDSA_P256_SHA384_ASN1,
            (Scheme::P384, Hash::Sha256) => &signature::ECDSA_P384_SHA256_ASN1,
            (Scheme::P384, Hash::Sha384) => &signature::ECDSA_P384_SHA384_ASN1,
            (Scheme::P256 | Scheme::P384, Hash::Sha512) => return false,
            (Scheme::P521, hash) => {
                return hash == Hash::Sha512 && self.verifies_p521(message, signature);
            }
            (Scheme::Ed25519, _) => &signature::ED25519,
            (Scheme::Rsa, Hash::Sha256) => &signature::RSA_PKCS1_2048_8192_SHA256,
            (Scheme::Rsa, Hash::Sha384) => &signature::RSA_PKCS1_2048_8192_SHA384,
            (Scheme::Rsa, Hash::Sha512) => &signature::RSA_PKCS1_2048_8192_SHA512,
        };
        UnparsedPublicKey::new(algorithm, &self.key).verify(message, signature).is_ok()
    }
}

/// A value in DER with its tag and length.
fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let length: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
    match content.len() {
        short @ 0..=127 => [&[tag, short as u8], content].concat(),
        _ => [&[tag, 0x80 | length.len() as u8], &length[..], content].concat(),
    }
}
