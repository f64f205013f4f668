//! Private keys in files, and what they sign. The keys never leave this process.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine;
use ring::rand::SystemRandom;
use ring::rsa::{KeyPair as Rsa, KeyPairComponents, PublicKeyComponents};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA512,
};
use task::{Fault, Kind};

/// No file of a key is longer.
const LONGEST: u64 = 64 << 10;
const MAGIC: &[u8] = b"openssh-key-v1\0";
const RSA_SHA2_256: u32 = 2;
const RSA_SHA2_512: u32 = 4;

/// Keys that answer for the commands of a build.
#[derive(Debug)]
pub struct Keys(Vec<Key>);

struct Key {
    /// The public key as the protocol has it.
    public: Vec<u8>,
    comment: String,
    secret: Secret,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("comment", &self.comment).finish_non_exhaustive()
    }
}

enum Secret {
    Ed25519(Ed25519KeyPair),
    Rsa(Box<Rsa>),
    Ecdsa { pair: Box<EcdsaKeyPair>, name: &'static str },
}

/// A file that is not a supported key.
#[derive(Debug, thiserror::Error)]
#[error("reading the ssh key {}: {reason}", .path.display())]
pub struct KeyError {
    path: PathBuf,
    reason: Refusal,
}

#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("it is not a private key")]
    NoKey,
    #[error("it is encrypted")]
    Encrypted,
    #[error("keys of type {0} are not supported")]
    Kind(String),
    #[error("the key is incomplete")]
    Broken,
    #[error("the key is refused: {0}")]
    Rejected(ring::error::KeyRejected),
}

impl From<ring::error::KeyRejected> for Refusal {
    fn from(rejected: ring::error::KeyRejected) -> Refusal {
        Refusal::Rejected(rejected)
    }
}

impl Fault for KeyError {
    fn kind(&self) -> Kind {
        match &self.reason {
            Refusal::Io(error) if error.kind() == std::io::ErrorKind::NotFound => Kind::NotFound,
            Refusal::Io(_) => Kind::System,
            _ => Kind::Invalid,
        }
    }

    fn hint(&self) -> Option<String> {
        match &self.reason {
            Refusal::Encrypted => {
                Some("add it to an agent with ssh-add and pass the agent's socket".to_owned())
            }
            Refusal::Kind(_) | Refusal::NoKey | Refusal::Rejected(_) => Some(
                "ed25519, ECDSA (P-256, P-384) and RSA keys of 2048 bits and more are supported"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

impl Keys {
    /// Reads the files of private keys.
    ///
    /// # Errors
    /// A file that cannot be read, is encrypted, or holds a key of a kind we do not know.
    pub fn read(paths: &[PathBuf]) -> Result<Keys, KeyError> {
        let one =
            |path: &PathBuf| read(path).map_err(|reason| KeyError { path: path.clone(), reason });
        paths.iter().map(one).collect::<Result<_, _>>().map(Keys)
    }

    /// The public keys with their comments.
    pub(super) fn public(&self) -> Vec<(&[u8], &str)> {
        self.0.iter().map(|key| (&key.public[..], key.comment.as_str())).collect()
    }

    /// A signature as the protocol has it; `None` when none of the keys makes it.
    pub(super) fn sign(&self, public: &[u8], data: &[u8], flags: u32) -> Option<Vec<u8>> {
        let key = self.0.iter().find(|key| key.public == public)?;
        let random = SystemRandom::new();
        let (name, bytes) = match &key.secret {
            Secret::Ed25519(pair) => ("ssh-ed25519", pair.sign(data).as_ref().to_vec()),
            Secret::Rsa(pair) => {
                let mut bytes = vec![0; pair.public().modulus_len()];
                let name = if flags & RSA_SHA2_512 != 0 {
                    pair.sign(&RSA_PKCS1_SHA512, &random, data, &mut bytes).ok()?;
                    "rsa-sha2-512"
                } else if flags & RSA_SHA2_256 != 0 {
                    pair.sign(&RSA_PKCS1_SHA256, &random, data, &mut bytes).ok()?;
                    "rsa-sha2-256"
                } else {
                    // SHA-1: no server of the last years wants it.
                    return None;
                };
                (name, bytes)
            }
            Secret::Ecdsa { pair, name } => {
                let both = pair.sign(&random, data).ok()?;
                let (r, s) = both.as_ref().split_at(both.as_ref().len() / 2);
                let mut bytes = Vec::new();
                put_number(&mut bytes, r);
                put_number(&mut bytes, s);
                (*name, bytes)
            }
        };
        let mut signature = Vec::new();
        put(&mut signature, name.as_bytes());
        put(&mut signature, &bytes);
        Some(signature)
    }
}

fn read(path: &Path) -> Result<Key, Refusal> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(LONGEST).read_to_string(&mut text)?;
    let begin = text.find("-----BEGIN ").ok_or(Refusal::NoKey)?;
    let (label, rest) = text[begin + 11..].split_once("-----").ok_or(Refusal::NoKey)?;
    let body = rest.split_once("-----END").ok_or(Refusal::Broken)?.0;
    if label.contains("ENCRYPTED") || body.contains("ENCRYPTED") {
        return Err(Refusal::Encrypted);
    }
    let packed: String = body.split_whitespace().collect();
    let bytes = base64::prelude::BASE64_STANDARD.decode(packed).map_err(|_| Refusal::Broken)?;
    let comment = path.display().to_string();
    match label {
        "OPENSSH PRIVATE KEY" => openssh(&bytes, comment),
        "RSA PRIVATE KEY" => Ok(rsa(Rsa::from_der(&bytes)?, comment)),
        "PRIVATE KEY" => Ok(rsa(Rsa::from_pkcs8(&bytes)?, comment)),
        other => Err(Refusal::Kind(format!("{other:?}"))),
    }
}

fn rsa(pair: Rsa, comment: String) -> Key {
    let parts = PublicKeyComponents::<Vec<u8>>::from(pair.public());
    let mut public = Vec::new();
    put(&mut public, b"ssh-rsa");
    put_number(&mut public, &parts.e);
    put_number(&mut public, &parts.n);
    Key { public, comment, secret: Secret::Rsa(Box::new(pair)) }
}

/// The format of `ssh-keygen`.
fn openssh(bytes: &[u8], path: String) -> Result<Key, Refusal> {
    let mut rest = bytes.strip_prefix(MAGIC).ok_or(Refusal::Broken)?;
    let mut next = || take(&mut rest).ok_or(Refusal::Broken);
    if next()? != b"none" {
        return Err(Refusal::Encrypted);
    }
    let (_function, _options) = (next()?, next()?);
    let rest = rest.strip_prefix(&1u32.to_be_bytes()).ok_or(Refusal::Broken)?;
    let mut rest = rest;
    let mut next = || take(&mut rest).ok_or(Refusal::Broken);
    let public = next()?.to_vec();
    let private = next()?;
    let (checks, mut fields) = private.split_at_checked(8).ok_or(Refusal::Broken)?;
    if checks[..4] != checks[4..] {
        return Err(Refusal::Broken);
    }
    let mut field = || take(&mut fields).ok_or(Refusal::Broken);
    let kind = field()?;
    let secret = match kind {
        b"ssh-ed25519" => {
            let (public, both) = (field()?, field()?);
            let seed = both.get(..32).ok_or(Refusal::Broken)?;
            Secret::Ed25519(Ed25519KeyPair::from_seed_and_public_key(seed, public)?)
        }
        b"ssh-rsa" => {
            let mut number = || field().map(plain);
            let (n, e, d) = (number()?, number()?, number()?);
            let (q_inv, p, q) = (number()?, number()?, number()?);
            let less = |prime: &[u8]| remainder(d, &minus_one(prime));
            Secret::Rsa(Box::new(Rsa::from_components(&KeyPairComponents {
                public_key: PublicKeyComponents { n, e },
                d,
                p,
                q,
                dP: &less(p)[..],
                dQ: &less(q)[..],
                qInv: q_inv,
            })?))
        }
        b"ecdsa-sha2-nistp256" | b"ecdsa-sha2-nistp384" => {
            let (_curve, point, scalar) = (field()?, field()?, plain(field()?));
            let (algorithm, name, length) = match kind {
                b"ecdsa-sha2-nistp256" => {
                    (&ECDSA_P256_SHA256_FIXED_SIGNING, "ecdsa-sha2-nistp256", 32)
                }
                _ => (&ECDSA_P384_SHA384_FIXED_SIGNING, "ecdsa-sha2-nistp384", 48),
            };
            let mut padded = vec![0; length - scalar.len().min(length)];
            padded.extend_from_slice(scalar);
            let random = SystemRandom::new();
            let pair =
                EcdsaKeyPair::from_private_key_and_public_key(algorithm, &padded, point, &random)?;
            Secret::Ecdsa { pair: Box::new(pair), name }
        }
        other => return Err(Refusal::Kind(String::from_utf8_lossy(other).into_owned())),
    };
    let comment = field()?;
    let comment = match comment {
        [] => path,
        comment => String::from_utf8_lossy(comment).into_owned(),
    };
    Ok(Key { public, comment, secret })
}

/// Takes a string of the protocol off the front.
pub(super) fn take<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (string, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    *bytes = rest;
    Some(string)
}

/// Adds a string of the protocol.
pub(super) fn put(to: &mut Vec<u8>, string: &[u8]) {
    to.extend((string.len() as u32).to_be_bytes());
    to.extend_from_slice(string);
}

/// Adds a number that is not negative.
fn put_number(to: &mut Vec<u8>, number: &[u8]) {
    let number = plain(number);
    match number.first() {
        Some(first) if first & 0x80 != 0 => put(to, &[&[0], number].concat()),
        _ => put(to, number),
    }
}

/// A number without zeros in front.
fn plain(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

/// One less than an odd number.
fn minus_one(number: &[u8]) -> Vec<u8> {
    let mut number = number.to_vec();
    if let Some(last) = number.last_mut() {
        *last &= !1;
    }
    number
}

/// The remainder of a division, bit by bit; as long as the divisor.
fn remainder(number: &[u8], divisor: &[u8]) -> Vec<u8> {
    let mut rest = vec![0u8; divisor.len() + 1];
    let divisor = [&[0], divisor].concat();
    for bit in number.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)) {
        let mut carry = bit;
        for byte in rest.iter_mut().rev() {
            (*byte, carry) = (*byte << 1 | carry, *byte >> 7);
        }
        if rest >= divisor {
            let mut borrow = 0i16;
            for (byte, less) in rest.iter_mut().zip(&divisor).rev() {
                let value = i16::from(*byte) - i16::from(*less) - borrow;
                borrow = i16::from(value < 0);
                *byte = (value & 0xff) as u8;
            }
        }
    }
    plain(&rest).to_vec()
}

#[cfg(test)]
mod tests {
    use ring::signature::{ED25519, RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey};

    use super::*;

    #[test]
    fn remainders_are_those_of_numbers() {
        for (number, divisor) in [(1_000_003u64, 1000u64), (5, 7), (u64::MAX - 3, 0xffff_fffe)] {
            let bytes = |n: u64| plain(&n.to_be_bytes()).to_vec();
            assert_eq!(remainder(&bytes(number), &bytes(divisor)), bytes(number % divisor));
        }
    }

    /// A key file of `ssh-keygen`; `None` without the program.
    fn keygen(dir: &Path, kind: &[&str]) -> Option<PathBuf> {
        let path = dir.join(kind.concat());
        let mut command = std::process::Command::new(requires::program("ssh-keygen")?);
        command.args(["-q", "-N", "", "-C", "me", "-f"]).arg(&path).args(kind);
        assert!(command.status().unwrap().success(), "{kind:?}");
        Some(path)
    }

    #[test]
    fn keys_of_ssh_keygen_sign() {
        let dir = tempfile::tempdir().unwrap();
        let kinds: [&[&str]; 4] = [
            &["-t", "ed25519"],
            &["-t", "rsa", "-b", "2048"],
            &["-t", "rsa", "-b", "2048", "-m", "PEM"],
            &["-t", "ecdsa", "-b", "256"],
        ];
        for kind in kinds {
            let Some(path) = keygen(dir.path(), kind) else { return };
            let public = std::fs::read_to_string(path.with_extension("pub")).unwrap_or_else(|_| {
                std::fs::read_to_string(format!("{}.pub", path.display())).unwrap()
            });
            let public = public.split(' ').nth(1).unwrap();
            let public = base64::prelude::BASE64_STANDARD.decode(public).unwrap();
            let keys = Keys::read(&[path]).unwrap();
            assert_eq!(keys.public()[0].0, public, "{kind:?}");
            let signature = keys.sign(&public, b"data", RSA_SHA2_512).unwrap();
            let mut rest = &signature[..];
            let (name, bytes) = (take(&mut rest).unwrap(), take(&mut rest).unwrap());
            let mut parts = &public[..];
            let _ = take(&mut parts);
            match name {
                b"ssh-ed25519" => {
                    let point = take(&mut parts).unwrap();
                    UnparsedPublicKey::new(&ED25519, point).verify(b"data", bytes).unwrap();
                }
                b"rsa-sha2-512" => {
                    let (e, n) = (take(&mut parts).unwrap(), take(&mut parts).unwrap());
                    let key = PublicKeyComponents { n: plain(n), e: plain(e) };
                    key.verify(&RSA_PKCS1_2048_8192_SHA512, b"data", bytes).unwrap();
                }
                other => assert_eq!(other, b"ecdsa-sha2-nistp256"),
            }
            assert!(keys.sign(b"another", b"data", 0).is_none());
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let begin = "-----BEGIN";
        for (text, reason) in [
            ("hello".to_owned(), "not a private key"),
            (
                format!("{begin} RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n-----END"),
                "encrypted",
            ),
            (format!("{begin} OPENSSH PRIVATE KEY-----\nAAAA\n-----END"), "incomplete"),
            (format!("{begin} DSA PRIVATE KEY-----\nAAAA\n-----END"), "DSA"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = Keys::read(std::slice::from_ref(&path)).unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
    }
}
