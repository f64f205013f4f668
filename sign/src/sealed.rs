//! The encryption of cosign's private keys: scrypt and NaCl's secretbox, described in JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crypto_secretbox::aead::Aead as _;
use crypto_secretbox::{KeyInit as _, XSalsa20Poly1305};
use p256::elliptic_curve::rand_core::{OsRng, RngCore as _};
use p256::elliptic_curve::zeroize::Zeroizing;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

#[derive(Serialize, Deserialize)]
struct EncryptedKey {
    kdf: Kdf,
    cipher: Cipher,
    ciphertext: String,
}

#[derive(Serialize, Deserialize)]
struct Kdf {
    name: String,
    params: Params,
    salt: String,
}

#[derive(Serialize, Deserialize)]
struct Params {
    #[serde(rename = "N")]
    n: u64,
    r: u32,
    p: u32,
}

#[derive(Serialize, Deserialize)]
struct Cipher {
    name: String,
    nonce: String,
}

/// What is written: the weakest of the three that the format knows, because cosign before 2.5
/// and skopeo before 1.18 read nothing else.
const LOG_N: u8 = 15;

fn refuse(reason: impl Into<String>) -> Error {
    Error::Key { what: "private", reason: reason.into() }
}

/// Stretches a passphrase. `log_n` 17 takes 128 MiB and about half a second.
fn stretch(passphrase: &[u8], salt: &[u8], log_n: u8) -> Result<Zeroizing<[u8; 32]>> {
    let params = scrypt::Params::new(log_n, 8, 1, 32)
        .map_err(|_| refuse("its scrypt parameters are not supported"))?;
    let mut key = Zeroizing::new([0; 32]);
    scrypt::scrypt(passphrase, salt, &params, key.as_mut())
        .map_err(|_| refuse("its scrypt parameters are not supported"))?;
    Ok(key)
}

/// Encrypts.
pub(crate) fn seal(plain: &[u8], passphrase: &[u8]) -> Result<Vec<u8>> {
    let (mut salt, mut nonce) = ([0; 32], [0; 24]);
    OsRng.try_fill_bytes(&mut salt).map_err(|_| Error::Random)?;
    OsRng.try_fill_bytes(&mut nonce).map_err(|_| Error::Random)?;
    let key = stretch(passphrase, &salt, LOG_N)?;
    let cipher = XSalsa20Poly1305::new(key.as_ref().into());
    let ciphertext = cipher.encrypt(&nonce.into(), plain).map_err(|_| refuse("it is too long"))?;
    let sealed = EncryptedKey {
        kdf: Kdf {
            name: "scrypt".to_owned(),
            params: Params { n: 1 << LOG_N, r: 8, p: 1 },
            salt: STANDARD.encode(salt),
        },
        cipher: Cipher { name: "nacl/secretbox".to_owned(), nonce: STANDARD.encode(nonce) },
        ciphertext: STANDARD.encode(ciphertext),
    };
    serde_json::to_vec(&sealed).map_err(|error| refuse(error.to_string()))
}

/// Decrypts. Only the three parameter sets that the format defines are tried, so that a hostile
/// file cannot ask for all memory.
pub(crate) fn open(json: &[u8], passphrase: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
    let sealed: EncryptedKey = serde_json::from_slice(json)
        .map_err(|error| refuse(format!("its content is not what cosign writes: {error}")))?;
    if sealed.kdf.name != "scrypt" || sealed.cipher.name != "nacl/secretbox" {
        return Err(refuse(format!(
            "it is encrypted with {:.40} and {:.40}, only scrypt and nacl/secretbox are known",
            sealed.kdf.name, sealed.cipher.name
        )));
    }
    let params = &sealed.kdf.params;
    let log_n = match (params.n, params.r, params.p) {
        (0x8000, 8, 1) => 15,
        (0x1_0000, 8, 1) => 16,
        (0x2_0000, 8, 1) => 17,
        (n, r, p) => {
            return Err(refuse(format!(
                "its scrypt parameters N={n} r={r} p={p} are not supported"
            )));
        }
    };
    let bytes = |what: &str, text: &str| {
        STANDARD.decode(text).map_err(|error| refuse(format!("its {what} is not base64: {error}")))
    };
    let salt = bytes("salt", &sealed.kdf.salt)?;
    let nonce: [u8; 24] = bytes("nonce", &sealed.cipher.nonce)?
        .try_into()
        .map_err(|_| refuse("its nonce is not of 24 bytes"))?;
    let ciphertext = bytes("ciphertext", &sealed.ciphertext)?;
    let key = stretch(passphrase, &salt, log_n)?;
    let cipher = XSalsa20Poly1305::new(key.as_ref().into());
    let plain = cipher.decrypt(&nonce.into(), ciphertext.as_slice());
    plain.map(Zeroizing::new).map_err(|_| Error::Passphrase)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Well formed, and sealed with no key at all: stretching a passphrase is slow, and most of
    /// what is refused is refused before that.
    fn damaged(change: impl FnOnce(&mut Value)) -> String {
        let mut sealed = json!({
            "kdf": { "name": "scrypt", "params": { "N": 32768, "r": 8, "p": 1 }, "salt": "AAAA" },
            "cipher": { "name": "nacl/secretbox", "nonce": STANDARD.encode([0; 24]) },
            "ciphertext": STANDARD.encode([0; 40]),
        });
        change(&mut sealed);
        open(sealed.to_string().as_bytes(), b"x").unwrap_err().to_string()
    }

    #[test]
    fn parameters_out_of_bounds_are_not_even_tried() {
        // Each of these would take gigabytes, hours, or divide by nothing.
        let cases = [
            (1_u64 << 40, 8, 1),
            (1 << 20, 8, 1),
            (32768, 1 << 20, 1),
            (32768, 8, 1 << 20),
            (0, 0, 0),
        ];
        for (n, r, p) in cases {
            let error =
                damaged(|sealed| sealed["kdf"]["params"] = json!({ "N": n, "r": r, "p": p }));
            assert!(error.contains("are not supported"), "{error}");
        }
    }

    #[test]
    fn what_was_changed_is_refused() {
        let set = |path: &'static str, value: Value| {
            damaged(move |sealed| *sealed.pointer_mut(path).unwrap() = value)
        };
        assert!(set("/kdf/name", json!("argon2")).contains("argon2"));
        assert!(set("/cipher/name", json!("none")).contains("none"));
        assert!(set("/cipher/nonce", json!("AAAA")).contains("24 bytes"));
        assert!(set("/kdf/salt", json!("%")).contains("salt is not base64"));
        assert!(set("/ciphertext", json!("%")).contains("ciphertext is not base64"));
        // Too short to be anything, and not what the key opens.
        assert!(set("/ciphertext", json!("AAAA")).contains("passphrase is wrong"));
        assert!(damaged(|_| ()).contains("the file was changed"));
    }

    #[test]
    fn stronger_parameters_of_newer_writers_are_read() {
        let key = stretch(b"x", &[1; 32], 16).unwrap();
        let cipher = XSalsa20Poly1305::new(key.as_ref().into());
        let ciphertext = cipher.encrypt(&[2; 24].into(), b"plain".as_slice()).unwrap();
        let sealed = json!({
            "kdf": { "name": "scrypt", "params": { "N": 65536, "r": 8, "p": 1 }, "salt": STANDARD.encode([1; 32]) },
            "cipher": { "name": "nacl/secretbox", "nonce": STANDARD.encode([2; 24]) },
            "ciphertext": STANDARD.encode(ciphertext),
        });
        assert_eq!(&**open(sealed.to_string().as_bytes(), b"x").unwrap(), b"plain");
    }
}
