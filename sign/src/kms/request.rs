//! What is asked of key services, and how their answers are read.

use p256::ecdsa::Signature as P256;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::spki::Scheme;

pub(super) const WHAT: &str = "the key service";

pub(super) fn refuse(reason: impl Into<String>) -> Error {
    Error::Service { what: WHAT, reason: reason.into() }
}

/// A message to sign, and its hash by the key's scheme.
pub(super) struct SigningRequest<'a> {
    pub(super) message: &'a [u8],
    pub(super) hash: Vec<u8>,
    pub(super) scheme: Scheme,
}

/// A text in an answer.
pub(super) fn text<'a>(answer: &'a Value, pointer: &str) -> Result<&'a str> {
    let found = answer.pointer(pointer).and_then(Value::as_str);
    found.ok_or_else(|| refuse(format!("its answer has no {pointer}")))
}

/// An ECDSA signature of two numbers, in DER.
pub(super) fn in_der(scheme: Scheme, raw: &[u8]) -> Result<Vec<u8>> {
    let bad = |_| refuse("its signature is malformed");
    Ok(match scheme {
        Scheme::P256 => P256::from_slice(raw).map_err(bad)?.to_der().as_bytes().to_vec(),
        Scheme::P384 => {
            p384::ecdsa::Signature::from_slice(raw).map_err(bad)?.to_der().as_bytes().to_vec()
        }
        Scheme::P521 => {
            p521::ecdsa::Signature::from_slice(raw).map_err(bad)?.to_der().as_bytes().to_vec()
        }
        Scheme::Rsa | Scheme::Ed25519 => raw.to_vec(),
    })
}
