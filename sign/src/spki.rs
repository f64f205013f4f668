//! Public keys of any kind we verify with, and their signatures; `ring` does the arithmetic.

use p256::pkcs8::der::Decode as _;
use p256::pkcs8::spki::SubjectPublicKeyInfoRef;
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};

/// What signs: the algorithm with its curve or scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    P256,
    P384,
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

const EC: &str = "1.2.840.10045.2.1";
const RSA: &str = "1.2.840.113549.1.1.1";
const ED25519: &str = "1.3.101.112";

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
            (EC, Ok("1.3.132.0.35")) => {
                return Err("it is on curve P-521, which is not supported".to_owned());
            }
            (EC, _) => return Err("it is on a curve that is not supported".to_owned()),
            (RSA, _) => Scheme::Rsa,
            (ED25519, _) => Scheme::Ed25519,
            (other, _) => return Err(format!("it is a key of algorithm {other}")),
        };
        let key =
            info.subject_public_key.as_bytes().ok_or("its key is not a whole number of bytes")?;
        let key = key.to_vec();
        if matches!(scheme, Scheme::P256 | Scheme::P384) && key.first() != Some(&4) {
            return Err("its point is compressed".to_owned());
        }
        Ok(Spki { der: der.to_vec(), scheme, key })
    }

    /// The key as it was read.
    pub(crate) fn der(&self) -> &[u8] {
        &self.der
    }

    /// Whether this key made this signature of a message, with the hash that belongs to it.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let hash = if self.scheme == Scheme::P384 { Hash::Sha384 } else { Hash::Sha256 };
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
            (Scheme::Ed25519, _) => &signature::ED25519,
            (Scheme::Rsa, Hash::Sha256) => &signature::RSA_PKCS1_2048_8192_SHA256,
            (Scheme::Rsa, Hash::Sha384) => &signature::RSA_PKCS1_2048_8192_SHA384,
            (Scheme::Rsa, Hash::Sha512) => &signature::RSA_PKCS1_2048_8192_SHA512,
        };
        UnparsedPublicKey::new(algorithm, &self.key).verify(message, signature).is_ok()
    }
}
