//! ECDSA P-256 keys, in the files that cosign and OpenSSL write.

use std::fmt;

use image::Digest;
use p256::SecretKey;
use p256::ecdsa::signature::{Signer as _, Verifier as _};
use p256::ecdsa::{Signature, SigningKey, VerifyingKey};
use p256::elliptic_curve::rand_core::{OsRng, RngCore as _};
use p256::elliptic_curve::zeroize::Zeroizing;
use p256::pkcs8::der::Decode as _;
use p256::pkcs8::spki::SubjectPublicKeyInfoRef;
use p256::pkcs8::{EncodePrivateKey as _, EncodePublicKey as _, PrivateKeyInfo};

use crate::{Error, Result, pem, sealed};

/// What cosign 2 and 3, and `skopeo generate-sigstore-key`, call an encrypted key.
const SIGSTORE: &str = "ENCRYPTED SIGSTORE PRIVATE KEY";
/// What cosign 1 called the same.
const COSIGN: &str = "ENCRYPTED COSIGN PRIVATE KEY";
const PKCS8: &str = "PRIVATE KEY";
const SEC1: &str = "EC PRIVATE KEY";
const PUBLIC: &str = "PUBLIC KEY";

fn refuse(what: &'static str, reason: impl Into<String>) -> Error {
    Error::Key { what, reason: reason.into() }
}

/// The name of a key: the sha256 digest of its public half (DER, SubjectPublicKeyInfo).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct KeyId(Digest);

impl KeyId {
    /// The form in which a sigstore bundle names the key: the digest in base64.
    pub fn hint(&self) -> String {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(self.0.as_bytes())
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The half of a key pair that signs. Its memory is wiped when it is dropped.
#[derive(Clone)]
pub struct PrivateKey(SigningKey);

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({})", self.public().id())
    }
}

impl PrivateKey {
    /// A new key from the kernel's random bytes.
    ///
    /// # Errors
    /// [`Error::Random`].
    pub fn generate() -> Result<PrivateKey> {
        // A random number is a valid key but for about one in 2^32: a few draws always suffice.
        for _ in 0..16 {
            let mut bytes = Zeroizing::new([0_u8; 32]);
            OsRng.try_fill_bytes(bytes.as_mut()).map_err(|_| Error::Random)?;
            if let Ok(key) = SigningKey::from_slice(bytes.as_ref()) {
                return Ok(PrivateKey(key));
            }
        }
        Err(Error::Random)
    }

    /// Whether this file needs a passphrase to be read.
    pub fn is_encrypted(pem: &[u8]) -> bool {
        pem::find(pem, is_private).is_ok_and(|block| matches!(&*block.label, SIGSTORE | COSIGN))
    }

    /// Reads a private key: cosign's encrypted form, or plain PKCS#8 or SEC1.
    ///
    /// # Errors
    /// [`Error::Key`], [`Error::PassphraseNeeded`], [`Error::Passphrase`].
    pub fn read(pem: &[u8], passphrase: Option<&[u8]>) -> Result<PrivateKey> {
        let block = pem::find(pem, is_private).map_err(|reason| refuse("private", reason))?;
        match &*block.label {
            SIGSTORE | COSIGN => {
                let passphrase = passphrase.ok_or(Error::PassphraseNeeded)?;
                PrivateKey::from_pkcs8(&sealed::open(&block.bytes, passphrase)?)
            }
            PKCS8 => PrivateKey::from_pkcs8(&block.bytes),
            SEC1 => {
                let key = SecretKey::from_sec1_der(&block.bytes);
                let key = key.map_err(|_| refuse("private", "it is no ECDSA P-256 key"))?;
                Ok(PrivateKey(key.into()))
            }
            "ENCRYPTED PRIVATE KEY" => Err(refuse(
                "private",
                "it is encrypted the PKCS#8 way; decrypt it with `openssl pkcs8`, then import it",
            )),
            other => {
                Err(refuse("private", format!("keys of the kind {other:?} are not supported")))
            }
        }
    }

    fn from_pkcs8(der: &[u8]) -> Result<PrivateKey> {
        let key = PrivateKeyInfo::try_from(der)
            .map_err(|_| refuse("private", "its content is no PKCS#8 key"))?;
        let name = algorithm(&key.algorithm.oid.to_string());
        let key = SecretKey::try_from(key)
            .map_err(|_| refuse("private", format!("it is {name}, and not on curve P-256")))?;
        Ok(PrivateKey(key.into()))
    }

    /// Writes the key as cosign does: encrypted, PEM. The file's mode is the caller's affair.
    ///
    /// # Errors
    /// [`Error::Random`].
    pub fn to_encrypted_pem(&self, passphrase: &[u8]) -> Result<String> {
        let der = SecretKey::from(&self.0).to_pkcs8_der();
        let der = der.map_err(|_| refuse("private", "it cannot be written as PKCS#8"))?;
        Ok(pem::write(SIGSTORE, &sealed::seal(der.as_bytes(), passphrase)?))
    }

    /// The other half.
    pub fn public(&self) -> PublicKey {
        PublicKey(*self.0.verifying_key())
    }

    /// Signs the sha256 of a message; the signature is DER. The same message always gives the
    /// same signature (RFC 6979).
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature: Signature = self.0.sign(message);
        signature.to_der().as_bytes().to_vec()
    }
}

fn is_private(label: &str) -> bool {
    label.ends_with("PRIVATE KEY")
}

/// The half of a key pair that verifies.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id())
    }
}

impl PublicKey {
    /// Reads a PEM `PUBLIC KEY`.
    ///
    /// # Errors
    /// [`Error::Key`].
    pub fn read(pem: &[u8]) -> Result<PublicKey> {
        let block =
            pem::find(pem, |label| label == PUBLIC).map_err(|reason| refuse("public", reason))?;
        let info = SubjectPublicKeyInfoRef::from_der(&block.bytes)
            .map_err(|_| refuse("public", "its content is no SubjectPublicKeyInfo"))?;
        let name = algorithm(&info.algorithm.oid.to_string());
        let key = VerifyingKey::try_from(info)
            .map_err(|_| refuse("public", format!("it is {name}, and not on curve P-256")))?;
        Ok(PublicKey(key))
    }

    /// Writes the key as cosign does: PEM, SubjectPublicKeyInfo.
    pub fn to_pem(&self) -> String {
        pem::write(PUBLIC, &self.der())
    }

    fn der(&self) -> Vec<u8> {
        // A point on the curve always has an encoding; an empty one would match no key.
        self.0.to_public_key_der().map(|der| der.as_bytes().to_vec()).unwrap_or_default()
    }

    /// The key's name.
    pub fn id(&self) -> KeyId {
        KeyId(Digest::of(&self.der()))
    }

    /// Whether this key made this DER signature of the sha256 of the message.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        Signature::from_der(signature)
            .is_ok_and(|signature| self.0.verify(message, &signature).is_ok())
    }
}

/// What people call the algorithm with this object identifier.
fn algorithm(oid: &str) -> String {
    match oid {
        "1.2.840.10045.2.1" => "an elliptic curve key".to_owned(),
        "1.2.840.113549.1.1.1" => "an RSA key".to_owned(),
        "1.3.101.112" => "an Ed25519 key".to_owned(),
        other => format!("a key of algorithm {other}"),
    }
}
