//! Keys in the files that cosign and OpenSSL write: ECDSA P-256 to sign with, and any kind that
//! [`ring`] knows to verify with.

use std::fmt;

use image::Digest;
use p256::SecretKey;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use p256::elliptic_curve::rand_core::{OsRng, RngCore as _};
use p256::elliptic_curve::zeroize::Zeroizing;
use p256::pkcs8::{EncodePrivateKey as _, EncodePublicKey as _, PrivateKeyInfo};

use crate::error::{Error, Result};
use crate::key_id::KeyId;
use crate::spki::Spki;
use crate::{pem, sealed};

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
                let key = key.map_err(|_| refuse("private", "it is not an ECDSA P-256 key"))?;
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
            .map_err(|_| refuse("private", "its content is not a PKCS#8 key"))?;
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
        let der = self.0.verifying_key().to_public_key_der();
        let spki = der.ok().and_then(|der| Spki::read(der.as_bytes()).ok());
        PublicKey(spki.expect("a point on the curve has an encoding"))
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
pub struct PublicKey(Spki);

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
        let key = Spki::read(&block.bytes).map_err(|reason| refuse("public", reason))?;
        Ok(PublicKey(key))
    }

    /// Writes the key as cosign does: PEM, SubjectPublicKeyInfo.
    pub fn to_pem(&self) -> String {
        pem::write(PUBLIC, self.0.der())
    }

    pub(crate) fn spki(&self) -> &Spki {
        &self.0
    }

    /// The key in DER (SubjectPublicKeyInfo).
    pub(crate) fn der(&self) -> &[u8] {
        self.0.der()
    }

    /// The key's name.
    pub fn id(&self) -> KeyId {
        KeyId(Digest::of(self.0.der()))
    }

    /// Whether this key made this signature of the message: ECDSA in DER with the hash of the
    /// curve's size, RSA (PKCS #1 v1.5) with SHA-256, or Ed25519.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.0.verifies(message, signature)
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

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A key that is the same in every run.
    pub(crate) fn key(seed: u8) -> PrivateKey {
        PrivateKey(SigningKey::from_slice(&[seed; 32]).unwrap())
    }

    /// Keys that OpenSSL made, for tests only.
    const SEC1_PEM: &str = "-----BEGIN EC PARAMETERS-----\n\
BggqhkjOPQMBBw==\n\
-----END EC PARAMETERS-----\n\
-----BEGIN EC PRIVATE KEY-----\n\
MHcCAQEEIIjD8rJBxNvVwVY22mtP3J+eQNgJkOGdAcCZzDojqx88oAoGCCqGSM49\n\
AwEHoUQDQgAEx4CTMOwneAAX5lr+Cnc2KRkCh5WFIGCpRIcGN41I73RwAGNnYw7m\n\
x5UoZOXqfRvJCrdD3vvLoQG1uFe1zkrkjg==\n\
-----END EC PRIVATE KEY-----\n";
    const PKCS8_PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgiMPyskHE29XBVjba\n\
a0/cn55A2AmQ4Z0BwJnMOiOrHzyhRANCAATHgJMw7Cd4ABfmWv4KdzYpGQKHlYUg\n\
YKlEhwY3jUjvdHAAY2djDubHlShk5ep9G8kKt0Pe+8uhAbW4V7XOSuSO\n\
-----END PRIVATE KEY-----\n";
    const PUBLIC_PEM: &str = "-----BEGIN PUBLIC KEY-----\n\
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEx4CTMOwneAAX5lr+Cnc2KRkCh5WF\n\
IGCpRIcGN41I73RwAGNnYw7mx5UoZOXqfRvJCrdD3vvLoQG1uFe1zkrkjg==\n\
-----END PUBLIC KEY-----\n";
    const ED25519: &str = "-----BEGIN PRIVATE KEY-----\n\
MC4CAQAwBQYDK2VwBCIEIPs8iVNTZICKOSINe8035xAaJtkeFcxt5tDo+Y3ZfIBn\n\
-----END PRIVATE KEY-----\n";
    const ED25519_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\n\
MCowBQYDK2VwAyEAM4rnTM+1rtLygBsOBzYZIWVs/aHU24h6FmP1ZXXx3WQ=\n\
-----END PUBLIC KEY-----\n";
    const P384: &str = "-----BEGIN PRIVATE KEY-----\n\
MIG2AgEAMBAGByqGSM49AgEGBSuBBAAiBIGeMIGbAgEBBDBJTuNmgRx4jALetIUf\n\
xe0wv/xG7xECDRt6alS6UyuDagxb3JTOUCc9Oc27ZkHf8TKhZANiAAR2vX1zAXI9\n\
fQWmTxVRwHtyfT0cpt0LQIU+u8O0YTokMKaEPI6SoDMjVp8zMR4Pt8eUmKP8H3OG\n\
mldb5vwOvXj+9wiKyKSa8iYFsL70KEQxstQfAxetX+OsV9LgbQIR/SY=\n\
-----END PRIVATE KEY-----\n";
    const P384_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\n\
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEdr19cwFyPX0Fpk8VUcB7cn09HKbdC0CF\n\
PrvDtGE6JDCmhDyOkqAzI1afMzEeD7fHlJij/B9zhppXW+b8Dr14/vcIisikmvIm\n\
BbC+9ChEMbLUHwMXrV/jrFfS4G0CEf0m\n\
-----END PUBLIC KEY-----\n";
    const RSA_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\n\
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDRf0DA9nMPKWGt/NC+lzF4Cb/z\n\
8IBLE1t/wCHcRQwIzoO78OuiluSriUw+zsRODMT1Q3VsiQubApp46zwfRwgZn5Ei\n\
ocA8u2cgF0xG6u8IgIOqCOnpS5jzk0Xbw0Xg+8CBIdzRaOAno7Wsi4Ge5e/9yFPY\n\
Nyf+10Z7GdeaufT7/wIDAQAB\n\
-----END PUBLIC KEY-----\n";

    #[test]
    fn keys_of_openssl_are_read_and_named() {
        let public = PublicKey::read(PUBLIC_PEM.as_bytes()).unwrap();
        assert_eq!(public.to_pem(), PUBLIC_PEM);
        let id = "sha256:ca6567bc581f9c7b65daf08b9d51587ca771684eee0f97e8035f9eba49e01ac0";
        assert_eq!(public.id().to_string(), id);
        assert_eq!(public.id().hint(), "ymVnvFgfnHtl2vCLnVFYfKdxaE7uD5foA1+eukngGsA=");
        for pem in [SEC1_PEM, PKCS8_PEM, &PKCS8_PEM.replace('\n', "\r\n")] {
            assert!(!PrivateKey::is_encrypted(pem.as_bytes()));
            let key = PrivateKey::read(pem.as_bytes(), None).unwrap();
            assert_eq!(key.public(), public);
        }
    }

    #[test]
    fn signatures_are_der_and_fit_one_message_and_one_key() {
        let signature = key(1).sign(b"message");
        assert_eq!(signature[0], 0x30, "a DER sequence");
        assert_eq!(signature, key(1).sign(b"message"));
        assert!(key(1).public().verifies(b"message", &signature));
        assert!(!key(1).public().verifies(b"massage", &signature));
        assert!(!key(2).public().verifies(b"message", &signature));
        let mut trailing = signature.clone();
        trailing.push(0);
        assert!(!key(1).public().verifies(b"message", &trailing));
    }

    #[test]
    fn encrypted_keys_come_back_with_the_right_passphrase_only() {
        let key = PrivateKey::generate().unwrap();
        let pem = key.to_encrypted_pem(b"open sesame").unwrap();
        assert!(pem.starts_with("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n"));
        assert!(pem.lines().all(|line| line.len() <= 64));
        assert!(PrivateKey::is_encrypted(pem.as_bytes()));
        let read = |pem: &str, passphrase| PrivateKey::read(pem.as_bytes(), passphrase);
        assert_eq!(read(&pem, Some(b"open sesame")).unwrap().public(), key.public());
        let older = pem.replace("SIGSTORE", "COSIGN");
        assert_eq!(read(&older, Some(b"open sesame")).unwrap().public(), key.public());
        assert!(matches!(read(&pem, Some(b"open barley")), Err(Error::Passphrase)));
        assert!(matches!(read(&pem, None), Err(Error::PassphraseNeeded)));
        assert!(!format!("{key:?}").contains("SigningKey"));
    }

    #[test]
    fn what_is_no_key_of_ours_is_refused_by_name() {
        let cut = &PKCS8_PEM[..90];
        let private = [
            ("", "it is not a PEM file"),
            ("-----BEGIN PRIVATE KEY-----", "does not end"),
            (cut, "does not end"),
            (PUBLIC_PEM, "it holds a block \"PUBLIC KEY\" instead"),
            (ED25519, "it is an Ed25519 key"),
            (P384, "it is an elliptic curve key, and not on curve P-256"),
            ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", "not a PKCS#8 key"),
            ("-----BEGIN PRIVATE KEY-----\n%%%%\n-----END PRIVATE KEY-----", "is not base64"),
            ("-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----", "not an ECDSA"),
            (
                "-----BEGIN RSA PRIVATE KEY-----\n-----END RSA PRIVATE KEY-----",
                "\"RSA PRIVATE KEY\"",
            ),
            (
                "-----BEGIN ENCRYPTED PRIVATE KEY-----\n-----END ENCRYPTED PRIVATE KEY-----",
                "decrypt it with `openssl pkcs8`",
            ),
            (
                "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\ne30=\n\
                 -----END ENCRYPTED SIGSTORE PRIVATE KEY-----",
                "not what cosign writes",
            ),
        ];
        for (pem, message) in private {
            let error = PrivateKey::read(pem.as_bytes(), Some(b"x")).unwrap_err().to_string();
            assert!(error.starts_with("reading a private key: "), "{error}");
            assert!(error.contains(message), "{error:?} is not about {message:?}");
        }
        let public = [
            (PKCS8_PEM, "it holds a block \"PRIVATE KEY\" instead"),
            ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "SubjectPublicKeyInfo"),
        ];
        for (pem, message) in public {
            let error = PublicKey::read(pem.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(message), "{error:?} is not about {message:?}");
        }
        for pem in [ED25519_PUBLIC, P384_PUBLIC, RSA_PUBLIC] {
            assert_eq!(PublicKey::read(pem.as_bytes()).unwrap().to_pem(), pem);
        }
        assert!(PublicKey::read(&[0xff; 100]).is_err());
        assert!(PublicKey::read(&vec![b' '; 70_000]).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0..240_usize) {
            let _ = PublicKey::read(&bytes);
            let _ = PrivateKey::read(&bytes, None);
            let _ = key(1).public().verifies(b"message", &bytes);
            for label in [PKCS8, SEC1, PUBLIC] {
                let pem = pem::write(label, &bytes);
                let _ = PublicKey::read(pem.as_bytes());
                let _ = PrivateKey::read(pem.as_bytes(), None);
                // A good key that was damaged in one place.
                let mut pem = PKCS8_PEM.replace(PKCS8, label).into_bytes();
                let at = at % pem.len();
                pem[at] = bytes.first().copied().unwrap_or_default();
                let _ = PrivateKey::read(&pem, None);
                let _ = PublicKey::read(&pem);
            }
        }

        #[test]
        fn blocks_come_back(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let text = format!("before\n{}after\n", pem::write("SOME KEY", &bytes));
            let block = pem::find(text.as_bytes(), |label| label == "SOME KEY").unwrap();
            prop_assert_eq!(&*block.bytes, &bytes);
        }
    }
}
