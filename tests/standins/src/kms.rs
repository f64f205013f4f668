//! Key services, each with one and the same key: Vault's transit engine, and those of AWS, Google and
//! Azure.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::{P256, pem};

/// What is asked of a key service.
pub(crate) struct ReceivedRequest<'a> {
    pub(crate) method: &'a str,
    /// With what follows `?`.
    pub(crate) path: &'a str,
    pub(crate) headers: &'a [(String, String)],
    pub(crate) body: &'a [u8],
}

/// The status and content of an answer; `None` where no key service has this path.
pub(crate) fn answer(key: &P256, asked: &ReceivedRequest<'_>) -> Option<(u16, Value)> {
    let path = asked.path.split('?').next().unwrap_or_default();
    let header = |name: &str| {
        let found = asked.headers.iter().find(|(one, _)| one == name);
        found.map_or("", |(_, value)| value.as_str())
    };
    let given: Value = serde_json::from_slice(asked.body).unwrap_or_default();
    let denied = |what: &str| Some((403, json!({ "error": format!("{what}: permission denied") })));
    let bearer = header("authorization");
    match (asked.method, path) {
        ("GET" | "POST", path) if path.starts_with("/v1/transit/") => {
            if header("x-vault-token") != "vault-token" {
                return denied("vault");
            }
            vault(key, path, &given)
        }
        ("POST", "/") => {
            if !bearer.starts_with("AWS4-HMAC-SHA256 Credential=AKIDTEST/") {
                return denied("aws");
            }
            aws(key, header("x-amz-target"), &given)
        }
        (_, path) if path.starts_with("/v1/projects/") => {
            if bearer != "Bearer google-token" {
                return denied("google");
            }
            google(key, path, &given)
        }
        ("POST", "/tenant/oauth2/v2.0/token") => {
            let form = String::from_utf8_lossy(asked.body);
            if !form.contains("client_secret=azure-secret") {
                return denied("azure");
            }
            Some((200, json!({ "access_token": "azure-token", "token_type": "Bearer" })))
        }
        (_, path) if path.starts_with("/keys/") => {
            if bearer != "Bearer azure-token" || !asked.path.contains("api-version=") {
                return denied("azure");
            }
            azure(key, path, &given)
        }
        _ => None,
    }
}

fn bytes(value: &Value) -> Option<Vec<u8>> {
    STANDARD.decode(value.as_str()?).ok()
}

fn vault(key: &P256, path: &str, given: &Value) -> Option<(u16, Value)> {
    if path == "/v1/transit/keys/signer" {
        let public = pem("PUBLIC KEY", &key.spki());
        let keys = json!({ "1": { "public_key": "old" }, "2": { "public_key": public } });
        let data = json!({ "type": "ecdsa-p256", "latest_version": 2, "keys": keys });
        return Some((200, json!({ "data": data })));
    }
    if path != "/v1/transit/sign/signer/sha2-256" || given["prehashed"] != true {
        return Some((404, json!({ "errors": [] })));
    }
    let signature = STANDARD.encode(key.sign_hash(&bytes(&given["input"])?));
    Some((200, json!({ "data": { "signature": format!("vault:v2:{signature}") } })))
}

fn aws(key: &P256, target: &str, given: &Value) -> Option<(u16, Value)> {
    if given["KeyId"] != "alias/signer" {
        return Some((400, json!({ "__type": "NotFoundException" })));
    }
    Some(match target {
        "TrentService.GetPublicKey" => {
            (200, json!({ "PublicKey": STANDARD.encode(key.spki()), "KeySpec": "ECC_NIST_P256" }))
        }
        "TrentService.Sign"
            if given["MessageType"] == "DIGEST" && given["SigningAlgorithm"] == "ECDSA_SHA_256" =>
        {
            let signature = key.sign_hash(&bytes(&given["Message"])?);
            (200, json!({ "Signature": STANDARD.encode(signature) }))
        }
        _ => (400, json!({ "__type": "ValidationException" })),
    })
}

fn google(key: &P256, path: &str, given: &Value) -> Option<(u16, Value)> {
    const NAME: &str =
        "/v1/projects/p/locations/l/keyRings/r/cryptoKeys/signer/cryptoKeyVersions/1";
    Some(match path.strip_prefix(NAME) {
        Some("/publicKey") => {
            let pem = pem("PUBLIC KEY", &key.spki());
            (200, json!({ "pem": pem, "algorithm": "EC_SIGN_P256_SHA256" }))
        }
        Some(":asymmetricSign") => {
            let signature = key.sign_hash(&bytes(&given["digest"]["sha256"])?);
            (200, json!({ "signature": STANDARD.encode(signature) }))
        }
        _ => (404, json!({ "error": "no such key" })),
    })
}

fn azure(key: &P256, path: &str, given: &Value) -> Option<(u16, Value)> {
    let spki = key.spki();
    let point = &spki[spki.len() - 64..];
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    Some(match path {
        "/keys/signer" => (
            200,
            json!({ "key": {
                "kid": "https://vault.example/keys/signer/7", "kty": "EC", "crv": "P-256",
                "x": part(&point[..32]), "y": part(&point[32..]),
            } }),
        ),
        "/keys/signer/7/sign" if given["alg"] == "ES256" => {
            let hash = URL_SAFE_NO_PAD.decode(given["value"].as_str()?).ok()?;
            (200, json!({ "value": part(&key.sign_hash_fixed(&hash)) }))
        }
        _ => (404, json!({ "error": "no such key" })),
    })
}
