//! Keys that are the same in every run.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::signature::hazmat::PrehashSigner as _;
use p256::ecdsa::{Signature, SigningKey};
use p256::pkcs8::EncodePublicKey as _;
use ring::signature::{Ed25519KeyPair, KeyPair as _};

/// The SHA-256 of bytes.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().try_into().unwrap()
}

/// A PEM block.
pub fn pem(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let lines: Vec<&str> =
        body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// An ECDSA key on P-256.
#[derive(Clone)]
pub struct P256(SigningKey);

impl P256 {
    /// The key that follows from a seed.
    pub fn new(seed: &[u8]) -> P256 {
        P256(SigningKey::from_slice(&sha256(seed)).unwrap())
    }

    /// The public half: SubjectPublicKeyInfo.
    pub fn spki(&self) -> Vec<u8> {
        self.0.verifying_key().to_public_key_der().unwrap().as_bytes().to_vec()
    }

    /// A signature in DER.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature: Signature = self.0.sign(message);
        signature.to_der().as_bytes().to_vec()
    }

    /// A signature of two numbers of 32 bytes each, as JSON web tokens have it.
    pub fn sign_fixed(&self, message: &[u8]) -> Vec<u8> {
        let signature: Signature = self.0.sign(message);
        signature.to_bytes().to_vec()
    }

    /// A signature in DER of what has this hash.
    pub fn sign_hash(&self, hash: &[u8]) -> Vec<u8> {
        let signature: Signature = self.0.sign_prehash(hash).unwrap();
        signature.to_der().as_bytes().to_vec()
    }

    /// The same as two numbers.
    pub fn sign_hash_fixed(&self, hash: &[u8]) -> Vec<u8> {
        let signature: Signature = self.0.sign_prehash(hash).unwrap();
        signature.to_bytes().to_vec()
    }

    /// The private half in PEM (PKCS#8).
    pub fn private_pem(&self) -> String {
        use p256::pkcs8::EncodePrivateKey as _;
        let key = p256::SecretKey::from(&self.0);
        pem("PRIVATE KEY", key.to_pkcs8_der().unwrap().as_bytes())
    }
}

/// An Ed25519 key.
pub struct Ed25519(Ed25519KeyPair);

impl Ed25519 {
    /// The key that follows from a seed.
    pub fn new(seed: &[u8]) -> Ed25519 {
        Ed25519(Ed25519KeyPair::from_seed_unchecked(&sha256(seed)).unwrap())
    }

    /// The 32 bytes of the public half.
    pub fn raw(&self) -> Vec<u8> {
        self.0.public_key().as_ref().to_vec()
    }

    /// The public half: SubjectPublicKeyInfo.
    pub fn spki(&self) -> Vec<u8> {
        let head = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        [&head[..], &self.raw()].concat()
    }

    /// A signature.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).as_ref().to_vec()
    }
}
