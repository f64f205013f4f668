//! Tokens of a token service that signs them: JSON web tokens as Docker's registry takes them.
//!
//! Only configured keys count. A key in the token itself (`jwk`, `x5c`, `jku`) is ignored, and the
//! algorithm is that of the key, not the token's choice.

use std::collections::BTreeSet;
use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use serde::Deserialize;
use serde_json::Value;

/// How far clocks may be apart, in seconds.
const LEEWAY: u64 = 60;
/// The longest token that is accepted.
const LONGEST: usize = 64 << 10;

/// Whose tokens are believed.
#[derive(Debug, Clone, Default)]
pub struct Tokens {
    /// Where clients get tokens: the URL of the token service.
    pub realm: String,
    /// What this registry is called there; tokens must be for it (`aud`).
    pub service: String,
    /// Who must have made a token (`iss`).
    pub issuer: String,
    /// The keys.
    pub keys: Vec<Key>,
}

/// A public key tokens are signed with.
#[derive(Clone)]
pub struct Key {
    id: Option<String>,
    public: Public,
}

#[derive(Clone)]
enum Public {
    /// A DER `RSAPublicKey`.
    Rsa(Vec<u8>),
    /// Modulus and exponent.
    Components(Vec<u8>, Vec<u8>),
    /// An uncompressed point.
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?})", self.id)
    }
}

/// What a token says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Claims {
    pub(crate) subject: String,
    grants: Vec<Grant>,
}

#[derive(Debug, Clone, Deserialize)]
struct Grant {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    #[serde(default)]
    actions: BTreeSet<String>,
}

impl Claims {
    /// Whether an action is granted on a repository, or on the catalog.
    pub(crate) fn allows(&self, name: Option<&str>, action: &str) -> bool {
        let (kind, name) = match name {
            Some(name) => ("repository", name),
            None => ("registry", "catalog"),
        };
        let mut grants = self.grants.iter().filter(|g| g.kind == kind && g.name == name);
        grants.any(|grant| grant.actions.contains(action) || grant.actions.contains("*"))
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    crit: Option<Value>,
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    iss: String,
    #[serde(default)]
    sub: String,
    #[serde(default)]
    aud: Value,
    exp: f64,
    #[serde(default)]
    nbf: f64,
    #[serde(default)]
    access: Option<Vec<Grant>>,
}

impl Tokens {
    /// What a token says, if it is to be believed at this time (seconds since 1970).
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn verify(&self, token: &str, now: u64) -> Result<Claims, &'static str> {
        if token.len() > LONGEST {
            return Err("it is too long");
        }
        let (signed, signature) = token.rsplit_once('.').ok_or("it has no signature")?;
        let (header, body) = signed.split_once('.').ok_or("it has no body")?;
        let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| "bad base64");
        let signature = decode(signature)?;
        let header: Header =
            serde_json::from_slice(&decode(header)?).map_err(|_| "a malformed header")?;
        if header.crit.is_some() {
            return Err("it has a critical header that is not supported");
        }
        let named = |key: &&Key| key.id.is_some() && key.id == header.kid;
        let by_name: Vec<&Key> = self.keys.iter().filter(named).collect();
        let candidates = if by_name.is_empty() { self.keys.iter().collect() } else { by_name };
        let signed = signed.as_bytes();
        if !candidates.iter().any(|key| key.signed(&header.alg, signed, &signature)) {
            return Err("no configured key signed it");
        }
        let body: Body = serde_json::from_slice(&decode(body)?).map_err(|_| "a malformed body")?;
        if body.iss != self.issuer {
            return Err("another made it");
        }
        let audience = match &body.aud {
            Value::String(one) => *one == self.service,
            Value::Array(several) => several.iter().any(|one| *one == *self.service),
            _ => false,
        };
        if !audience {
            return Err("it is for another service");
        }
        let now = now as f64;
        if now >= body.exp + LEEWAY as f64 {
            return Err("it has expired");
        }
        if now + (LEEWAY as f64) < body.nbf {
            return Err("it is not valid yet");
        }
        Ok(Claims { subject: body.sub, grants: body.access.unwrap_or_default() })
    }
}

impl Key {
    /// Reads keys: a JWKS document, or PEM with public keys or certificates.
    ///
    /// # Errors
    /// What is wrong.
    pub fn parse(text: &str) -> Result<Vec<Key>, String> {
        if text.trim_start().starts_with('{') {
            return from_jwks(text);
        }
        let mut keys = Vec::new();
        let blocks = pem::parse_many(text).map_err(|error| error.to_string())?;
        if text.matches("-----BEGIN ").count() != blocks.len() {
            return Err("a PEM block without its end".to_owned());
        }
        for block in blocks {
            let label = block.tag().to_owned();
            let der = block.into_contents();
            let public = match label.as_str() {
                "PUBLIC KEY" => from_spki(&der),
                "CERTIFICATE" => {
                    let der = rustls::pki_types::CertificateDer::from(der);
                    let certificate =
                        webpki::EndEntityCert::try_from(&der).map_err(|e| e.to_string())?;
                    from_spki(&certificate.subject_public_key_info())
                }
                "RSA PUBLIC KEY" => Some(Public::Rsa(der)),
                other => return Err(format!("a PEM block {other:?}, not a public key")),
            };
            let public = public.ok_or("neither an RSA, P-256, P-384 nor Ed25519 key")?;
            keys.push(Key { id: None, public });
        }
        if keys.is_empty() {
            return Err("neither a JWKS document nor a PEM public key".to_owned());
        }
        Ok(keys)
    }

    fn signed(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        let check = |algorithm: &'static dyn signature::VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
        };
        let rsa = match algorithm {
            "RS256" => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
            "RS384" => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
            "RS512" => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
            _ => None,
        };
        match (&self.public, algorithm, rsa) {
            (Public::Rsa(key), _, Some(rsa)) => check(rsa, key),
            (Public::Components(n, e), _, Some(rsa)) => {
                RsaPublicKeyComponents { n, e }.verify(rsa, message, signature).is_ok()
            }
            (Public::P256(key), "ES256", _) => check(&signature::ECDSA_P256_SHA256_FIXED, key),
            (Public::P384(key), "ES384", _) => check(&signature::ECDSA_P384_SHA384_FIXED, key),
            (Public::Ed25519(key), "EdDSA", _) => check(&signature::ED25519, key),
            _ => false,
        }
    }
}

fn from_jwks(text: &str) -> Result<Vec<Key>, String> {
    let document: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let single = [document.clone()];
    let list = document["keys"].as_array().map_or(&single[..], Vec::as_slice);
    let mut keys = Vec::new();
    for jwk in list {
        let field = |name: &str| -> Result<Vec<u8>, String> {
            let text = jwk[name].as_str().ok_or_else(|| format!("a key without {name:?}"))?;
            BASE64_URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|e| e.to_string())
        };
        let point = |size: usize| -> Result<Vec<u8>, String> {
            let (x, y) = (field("x")?, field("y")?);
            if x.len() != size || y.len() != size {
                return Err("a point of the wrong length".to_owned());
            }
            Ok([&[4][..], &x, &y].concat())
        };
        if jwk["use"].as_str().is_some_and(|purpose| purpose != "sig") {
            continue;
        }
        let public = match (jwk["kty"].as_str(), jwk["crv"].as_str()) {
            (Some("RSA"), _) => Public::Components(field("n")?, field("e")?),
            (Some("EC"), Some("P-256")) => Public::P256(point(32)?),
            (Some("EC"), Some("P-384")) => Public::P384(point(48)?),
            (Some("OKP"), Some("Ed25519")) => Public::Ed25519(field("x")?),
            (Some("oct"), _) => return Err("a shared secret is not a public key".to_owned()),
            _ => return Err("neither an RSA, P-256, P-384 nor Ed25519 key".to_owned()),
        };
        keys.push(Key { id: jwk["kid"].as_str().map(str::to_owned), public });
    }
    if keys.is_empty() { Err("it has no keys".to_owned()) } else { Ok(keys) }
}

/// One DER value with this tag, and what follows it.
fn der(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[found, length], rest) = bytes.split_first_chunk::<2>()?;
    if found != tag {
        return None;
    }
    let (length, rest) = match length {
        length if length < 0x80 => (usize::from(length), rest),
        0x81 => (usize::from(*rest.first()?), &rest[1..]),
        0x82 => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        _ => return None,
    };
    (rest.len() >= length).then(|| rest.split_at(length))
}

/// The key in a `SubjectPublicKeyInfo`.
fn from_spki(bytes: &[u8]) -> Option<Public> {
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
    const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
    const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
    const P384: &[u8] = &[0x2b, 0x81, 4, 0, 0x22];
    const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
    let (info, _) = der(0x30, bytes)?;
    let (algorithm, rest) = der(0x30, info)?;
    let (kind, parameters) = der(6, algorithm)?;
    let (bits, _) = der(3, rest)?;
    let key = bits.strip_prefix(&[0])?.to_vec();
    match kind {
        RSA => Some(Public::Rsa(key)),
        ED25519 => Some(Public::Ed25519(key)),
        EC => match der(6, parameters)?.0 {
            P256 => Some(Public::P256(key)),
            P384 => Some(Public::P384(key)),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests;
