//! Keys in the files that cosign and OpenSSL write: ECDSA on three curves, RSA and Ed25519.

use std::fmt;
use std::sync::Arc;

use image::Digest;
use p256::SecretKey;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use p256::elliptic_curve::rand_core::{OsRng, RngCore as _};
use p256::elliptic_curve::zeroize::Zeroizing;
use pkcs8::{EncodePrivateKey as _, EncodePublicKey as _, EncryptedPrivateKeyInfo, PrivateKeyInfo};
use ring::signature::{Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};

use crate::error::{Error, Result};
use crate::key_id::KeyId;
use crate::pem;
#[cfg(feature = "cosign-keys")]
use crate::sealed;
use crate::spki::{EC, ED25519, RSA, Spki};

/// What cosign 2 and 3, and `skopeo generate-sigstore-key`, call an encrypted key.
const SIGSTORE: &str = "ENCRYPTED SIGSTORE PRIVATE KEY";
/// What cosign 1 called the same.
const COSIGN: &str = "ENCRYPTED COSIGN PRIVATE KEY";
const PKCS8: &str = "PRIVATE KEY";
/// PKCS#8, encrypted (RFC 5958, section 3).
const ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";
const SEC1: &str = "EC PRIVATE KEY";
const PKCS1: &str = "RSA PRIVATE KEY";
const PUBLIC: &str = "PUBLIC KEY";

fn refuse(what: &'static str, reason: impl Into<String>) -> Error {
    Error::Key { what, reason: reason.into() }
}

/// The half of a key pair that signs.
#[derive(Clone)]
pub struct PrivateKey(KeyMaterial);

/// ECDSA is RustCrypto's, because the same message always gives the same signature there (but for
/// P-521); what is not ECDSA is `ring`'s, which does that anyway.
#[derive(Clone)]
enum KeyMaterial {
    P256(SigningKey),
    P384(p384::ecdsa::SigningKey),
    P521(Box<p521::ecdsa::SigningKey>),
    Rsa(Arc<RsaKeyPair>),
    Ed25519(Arc<Ed25519KeyPair>),
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({})", self.public().id())
    }
}

impl PrivateKey {
    /// A new key on P-256 from the kernel's random bytes.
    ///
    /// # Errors
    /// [`Error::Random`].
    pub fn generate() -> Result<PrivateKey> {
        // A random number is a valid key but for about one in 2^32: a few draws always suffice.
        for _ in 0..16 {
            let mut bytes = Zeroizing::new([0_u8; 32]);
            OsRng.try_fill_bytes(bytes.as_mut()).map_err(|_| Error::Random)?;
            if let Ok(key) = SigningKey::from_slice(bytes.as_ref()) {
                return Ok(PrivateKey(KeyMaterial::P256(key)));
            }
        }
        Err(Error::Random)
    }

    /// Whether this file needs a passphrase to be read.
    pub fn is_encrypted(pem: &[u8]) -> bool {
        pem::find(pem, is_private)
            .is_ok_and(|block| matches!(&*block.label, SIGSTORE | COSIGN | ENCRYPTED))
    }

    /// Reads a private key on P-256, P-384 or P-521, of RSA (2048 to 8192 bits) or Ed25519: in
    /// cosign's encrypted form, PKCS#8, encrypted or not, SEC1 or PKCS#1.
    ///
    /// # Errors
    /// [`Error::Key`], [`Error::PassphraseNeeded`], [`Error::Passphrase`].
    pub fn read(pem: &[u8], passphrase: Option<&[u8]>) -> Result<PrivateKey> {
        if pem.windows(PROC_TYPE.len()).any(|window| window == PROC_TYPE) {
            return Err(refuse(
                "private",
                "it uses the old encryption of OpenSSL; convert it with `openssl pkcs8 -topk8`",
            ));
        }
        let block = pem::find(pem, is_private).map_err(|reason| refuse("private", reason))?;
        let half = match &*block.label {
            #[cfg(feature = "cosign-keys")]
            SIGSTORE | COSIGN => {
                let passphrase = passphrase.ok_or(Error::PassphraseNeeded)?;
                from_pkcs8(&sealed::open(&block.bytes, passphrase)?)?
            }
            ENCRYPTED => {
                let passphrase = passphrase.ok_or(Error::PassphraseNeeded)?;
                from_pkcs8(&decrypted(&block.bytes, passphrase)?)?
            }
            PKCS8 => from_pkcs8(&block.bytes)?,
            SEC1 => from_sec1(&block.bytes)?,
            PKCS1 => rsa(RsaKeyPair::from_der(&block.bytes))?,
            other => {
                let reason = format!("keys of the kind {other:?} are not supported");
                return Err(refuse("private", reason));
            }
        };
        Ok(PrivateKey(half))
    }

    /// Writes a key on P-256 as cosign does: encrypted, PEM. The file's mode is the caller's affair.
    ///
    /// # Errors
    /// [`Error::Random`]; [`Error::Key`]: the key is of another kind.
    #[cfg(feature = "cosign-keys")]
    pub fn to_encrypted_pem(&self, passphrase: &[u8]) -> Result<String> {
        let KeyMaterial::P256(key) = &self.0 else {
            return Err(refuse("private", "only keys on P-256 are written"));
        };
        let der = SecretKey::from(key).to_pkcs8_der();
        let der = der.map_err(|_| refuse("private", "it cannot be written as PKCS#8"))?;
        Ok(pem::write(SIGSTORE, &sealed::seal(der.as_bytes(), passphrase)?))
    }

    /// The other half.
    pub fn public(&self) -> PublicKey {
        let der = |der: p256::pkcs8::spki::Result<p256::pkcs8::Document>| {
            der.map(|der| der.as_bytes().to_vec()).unwrap_or_default()
        };
        let der = match &self.0 {
            KeyMaterial::P256(key) => der(key.verifying_key().to_public_key_der()),
            KeyMaterial::P384(key) => der(key.verifying_key().to_public_key_der()),
            KeyMaterial::P521(key) => {
                let point = p521::ecdsa::VerifyingKey::from(&**key).to_encoded_point(false);
                let point = p521::PublicKey::from_sec1_bytes(point.as_bytes());
                point.map_or_else(|_| Vec::new(), |point| der(point.to_public_key_der()))
            }
            KeyMaterial::Rsa(key) => Spki::wrap_rsa(key.public_key().as_ref()),
            KeyMaterial::Ed25519(key) => Spki::wrap_ed25519(key.public_key().as_ref()),
        };
        PublicKey(Spki::read(&der).expect("half a key pair has another half"))
    }

    /// Signs a message with the hash of the curve's size, or SHA-256 by RSA (PKCS #1 v1.5), or
    /// Ed25519. ECDSA's signatures are DER. The same message always gives the same signature
    /// (RFC 6979), except on P-521.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.0 {
            KeyMaterial::P256(key) => {
                let signature: Signature = key.sign(message);
                signature.to_der().as_bytes().to_vec()
            }
            KeyMaterial::P384(key) => {
                let signature: p384::ecdsa::Signature = key.sign(message);
                signature.to_der().as_bytes().to_vec()
            }
            KeyMaterial::P521(key) => {
                let signature: p521::ecdsa::Signature = key.sign(message);
                signature.to_der().as_bytes().to_vec()
            }
            KeyMaterial::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                let random = ring::rand::SystemRandom::new();
                // It fails where the buffer has another length, or the kernel has no randomness.
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .expect("a key that was checked signs");
                signature
            }
            KeyMaterial::Ed25519(key) => key.sign(message).as_ref().to_vec(),
        }
    }
}

/// How OpenSSL marks a key that is encrypted with a key derived by MD5.
const PROC_TYPE: &[u8] = b"Proc-Type: 4,ENCRYPTED";

fn from_sec1(der: &[u8]) -> Result<KeyMaterial> {
    if let Ok(key) = SecretKey::from_sec1_der(der) {
        return Ok(KeyMaterial::P256(key.into()));
    }
    if let Ok(key) = p384::SecretKey::from_sec1_der(der) {
        return Ok(KeyMaterial::P384(key.into()));
    }
    let key = p521::SecretKey::from_sec1_der(der);
    let key =
        key.map_err(|_| refuse("private", "it is not an ECDSA key on P-256, P-384 or P-521"))?;
    p521_half(&key)
}

fn from_pkcs8(der: &[u8]) -> Result<KeyMaterial> {
    let info = PrivateKeyInfo::try_from(der)
        .map_err(|_| refuse("private", "its content is not a PKCS#8 key"))?;
    let curve = info.algorithm.parameters_oid().map(|oid| oid.to_string());
    let malformed = |_| refuse("private", "it is malformed");
    match (info.algorithm.oid.to_string().as_str(), curve.as_deref()) {
        (EC, Ok("1.2.840.10045.3.1.7")) => {
            Ok(KeyMaterial::P256(SecretKey::try_from(info).map_err(malformed)?.into()))
        }
        (EC, Ok("1.3.132.0.34")) => {
            Ok(KeyMaterial::P384(p384::SecretKey::try_from(info).map_err(malformed)?.into()))
        }
        (EC, Ok("1.3.132.0.35")) => p521_half(&p521::SecretKey::try_from(info).map_err(malformed)?),
        (EC, _) => Err(refuse("private", "it is on none of the curves P-256, P-384 and P-521")),
        (RSA, _) => rsa(RsaKeyPair::from_pkcs8(der)),
        (ED25519, _) => {
            let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der);
            let key = key.map_err(|error| refuse("private", format!("Ed25519: {error}")))?;
            Ok(KeyMaterial::Ed25519(Arc::new(key)))
        }
        (other, _) => Err(refuse("private", format!("it is a key of algorithm {other}"))),
    }
}

fn p521_half(key: &p521::SecretKey) -> Result<KeyMaterial> {
    let key = p521::ecdsa::SigningKey::from_bytes(&key.to_bytes());
    let key = key.map_err(|_| refuse("private", "it is malformed"))?;
    Ok(KeyMaterial::P521(Box::new(key)))
}

fn rsa(key: Result<RsaKeyPair, ring::error::KeyRejected>) -> Result<KeyMaterial> {
    let key = key.map_err(|error| refuse("private", format!("RSA: {error}")))?;
    Ok(KeyMaterial::Rsa(Arc::new(key)))
}

/// Decrypts PKCS#8 (PBES2). How much work a file may ask for is bounded.
fn decrypted(der: &[u8], passphrase: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
    let malformed = || refuse("private", "its content is not an encrypted PKCS#8 key");
    let info = EncryptedPrivateKeyInfo::try_from(der).map_err(|_| malformed())?;
    let kdf = &info.encryption_algorithm.pbes2().ok_or_else(|| {
        refuse("private", "its encryption is not PBES2; convert it with `openssl pkcs8 -topk8`")
    })?;
    let bearable = match &kdf.kdf {
        pkcs8::pkcs5::pbes2::Kdf::Pbkdf2(kdf) => kdf.iteration_count <= MAX_ROUNDS,
        pkcs8::pkcs5::pbes2::Kdf::Scrypt(kdf) => {
            let memory = kdf.cost_parameter.saturating_mul(u64::from(kdf.block_size)) / 8;
            memory <= MAX_MEMORY && kdf.parallelization <= 16
        }
        _ => false,
    };
    if !bearable {
        return Err(refuse("private", "its key derivation asks for too much work"));
    }
    let plain = info.decrypt(passphrase).map_err(|_| Error::Passphrase)?;
    Ok(Zeroizing::new(plain.as_bytes().to_vec()))
}

/// More rounds of PBKDF2 are not made.
const MAX_ROUNDS: u32 = 10_000_000;
/// More memory is not used for scrypt, in KiB.
const MAX_MEMORY: u64 = 1 << 20;

fn is_private(label: &str) -> bool {
    label.ends_with("PRIVATE KEY")
}

/// The half of a key pair that verifies.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(Spki);

impl From<Spki> for PublicKey {
    fn from(key: Spki) -> PublicKey {
        PublicKey(key)
    }
}

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

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A key that is the same in every run.
    pub(crate) fn key(seed: u8) -> PrivateKey {
        PrivateKey(KeyMaterial::P256(SigningKey::from_slice(&[seed; 32]).unwrap()))
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
    const ED25519_PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
MC4CAQAwBQYDK2VwBCIEIPs8iVNTZICKOSINe8035xAaJtkeFcxt5tDo+Y3ZfIBn\n\
-----END PRIVATE KEY-----\n";
    const ED25519_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\n\
MCowBQYDK2VwAyEAM4rnTM+1rtLygBsOBzYZIWVs/aHU24h6FmP1ZXXx3WQ=\n\
-----END PUBLIC KEY-----\n";
    const P384_PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
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
    fn keys_of_every_kind_sign_and_fit_their_public_half() {
        for (private, public) in [(ED25519_PEM, ED25519_PUBLIC), (P384_PEM, P384_PUBLIC)] {
            let key = PrivateKey::read(private.as_bytes(), None).unwrap();
            assert_eq!(key.public().to_pem(), public);
            let signature = key.sign(b"message");
            assert_eq!(signature, key.sign(b"message"));
            assert!(key.public().verifies(b"message", &signature));
            assert!(!key.public().verifies(b"massage", &signature));
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
            ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", "not a PKCS#8 key"),
            ("-----BEGIN PRIVATE KEY-----\n%%%%\n-----END PRIVATE KEY-----", "is not base64"),
            ("-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----", "not an ECDSA"),
            ("-----BEGIN RSA PRIVATE KEY-----\n-----END RSA PRIVATE KEY-----", "RSA: "),
            (
                "-----BEGIN DSA PRIVATE KEY-----\n-----END DSA PRIVATE KEY-----",
                "\"DSA PRIVATE KEY\"",
            ),
            (
                "-----BEGIN ENCRYPTED PRIVATE KEY-----\n-----END ENCRYPTED PRIVATE KEY-----",
                "not an encrypted PKCS#8 key",
            ),
            (
                "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\
                 DEK-Info: AES-128-CBC,00\n\nAAAA\n-----END EC PRIVATE KEY-----",
                "openssl pkcs8 -topk8",
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
