use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::json;

use super::*;

const NOW: u64 = 1_800_000_000;

fn encode(value: &Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(value.to_string())
}

fn claims() -> Value {
    json!({
        "iss": "issuer", "sub": "anna", "aud": "registry.example", "exp": NOW + 300, "nbf": NOW,
        "access": [{ "type": "repository", "name": "team/app", "actions": ["pull"] }],
    })
}

struct Signer {
    key: EcdsaKeyPair,
    jwk: Value,
}

fn signer(id: &str) -> Signer {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random);
    let key = key.unwrap();
    let point = key.public_key().as_ref().to_vec();
    let part = |range: std::ops::Range<usize>| BASE64_URL_SAFE_NO_PAD.encode(&point[range]);
    let jwk =
        json!({ "kty": "EC", "crv": "P-256", "kid": id, "x": part(1..33), "y": part(33..65) });
    Signer { key, jwk }
}

impl Signer {
    fn token(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", encode(header), encode(claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }
}

fn tokens(keys: Vec<Key>) -> Tokens {
    let (service, issuer) = ("registry.example".to_owned(), "issuer".to_owned());
    Tokens { realm: "https://auth.example/token".to_owned(), service, issuer, keys }
}

#[test]
fn what_a_good_token_allows() {
    let signer = signer("a");
    let tokens = tokens(Key::parse(&json!({ "keys": [signer.jwk] }).to_string()).unwrap());
    let header = json!({ "alg": "ES256", "kid": "a" });
    let found = tokens.verify(&signer.token(&header, &claims()), NOW).unwrap();
    assert_eq!(found.subject, "anna");
    assert!(found.allows(Some("team/app"), "pull"));
    assert!(!found.allows(Some("team/app"), "push"));
    assert!(!found.allows(Some("team/apps"), "pull"));
    assert!(!found.allows(None, "*"));
    // An unknown key id does not matter as long as a key of ours signed it.
    let header = json!({ "alg": "ES256", "kid": "ABCD:EFGH" });
    assert!(tokens.verify(&signer.token(&header, &claims()), NOW).is_ok());
    let mut several = claims();
    several["aud"] = json!(["other", "registry.example"]);
    assert!(tokens.verify(&signer.token(&header, &several), NOW).is_ok());
}

#[test]
fn bad_tokens_are_refused() {
    let (ours, other) = (signer("a"), signer("a"));
    let tokens = tokens(Key::parse(&ours.jwk.to_string()).unwrap());
    let header = json!({ "alg": "ES256", "kid": "a" });
    let with = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        ours.token(&header, &claims)
    };
    let good = ours.token(&header, &claims());
    let forged = {
        let (signed, signature) = good.rsplit_once('.').unwrap();
        let mut more = claims();
        more["access"][0]["actions"] = json!(["*"]);
        let header = signed.split_once('.').unwrap().0;
        format!("{header}.{}.{signature}", encode(&more))
    };
    // The key a token brings along is not believed.
    let own_key = json!({ "alg": "ES256", "jwk": other.jwk, "kid": "b" });
    let none = format!("{}.{}.", encode(&json!({ "alg": "none" })), encode(&claims()));
    for (token, reason) in [
        (other.token(&header, &claims()), "no configured key"),
        (other.token(&own_key, &claims()), "no configured key"),
        (none, "no configured key"),
        (ours.token(&json!({ "alg": "HS256", "kid": "a" }), &claims()), "no configured key"),
        (forged, "no configured key"),
        (ours.token(&json!({ "alg": "ES256", "crit": ["b64"] }), &claims()), "not supported"),
        (with("iss", json!("somebody")), "another made it"),
        (with("aud", json!("other.example")), "another service"),
        (with("aud", json!(["other.example"])), "another service"),
        (with("exp", json!(NOW - 61)), "expired"),
        (with("exp", json!("never")), "malformed"),
        (with("nbf", json!(NOW + 61)), "not valid yet"),
        ("abc".to_owned(), "no signature"),
        ("a.b".to_owned(), "no body"),
        ("x".repeat(LONGEST + 1), "too long"),
    ] {
        let refused = tokens.verify(&token, NOW).unwrap_err();
        assert!(refused.contains(reason), "{refused} instead of {reason}");
    }
    assert!(tokens.verify(&good, NOW).is_ok());
}

#[test]
fn keys_of_all_kinds() {
    let random = SystemRandom::new();
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
    let spki = [
        &[0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0][..],
        pair.public_key().as_ref(),
    ];
    let body = base64::prelude::BASE64_STANDARD.encode(spki.concat());
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n");
    let tokens = tokens(Key::parse(&pem).unwrap());
    let signed = format!("{}.{}", encode(&json!({ "alg": "EdDSA" })), encode(&claims()));
    let signature = BASE64_URL_SAFE_NO_PAD.encode(pair.sign(signed.as_bytes()));
    assert!(tokens.verify(&format!("{signed}.{signature}"), NOW).is_ok());
    for (text, reason) in [
        ("", "neither"),
        ("{}", "neither"),
        ("{\"keys\": []}", "no keys"),
        ("{\"keys\": [{\"kty\": \"oct\", \"k\": \"c2VjcmV0\"}]}", "shared secret"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", "not a public key"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "neither"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA", "without its end"),
    ] {
        let refused = Key::parse(text).unwrap_err();
        assert!(refused.contains(reason), "{text}: {refused}");
    }
}

#[test]
fn rsa_keys_in_every_form_sign_with_their_algorithms_only() {
    use ring::signature::{RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256};
    use ring::signature::{RsaEncoding, RsaKeyPair};

    let Some(_) = requires::program("openssl") else { return };
    // The generator of keys is another's: ring has none for RSA.
    let openssl = |arguments: &[&str], input: &[u8]| {
        use std::io::Write as _;
        let mut child = std::process::Command::new("openssl")
            .args(arguments)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap().stdout
    };
    let generate = ["genpkey", "-algorithm", "RSA", "-outform", "DER"];
    let (private, stranger) = (openssl(&generate, &[]), openssl(&generate, &[]));
    let public = ["pkey", "-inform", "DER", "-pubout"];
    let spki = String::from_utf8(openssl(&public, &private)).unwrap();
    // Which of the two forms it writes depends on its version.
    let read = |der: &[u8]| RsaKeyPair::from_pkcs8(der).or_else(|_| RsaKeyPair::from_der(der));
    let key = read(&private).unwrap();
    let parts = RsaPublicKeyComponents::<Vec<u8>>::from(key.public());
    let [n, e] = [&parts.n, &parts.e].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
    let jwks = json!({ "keys": [{ "kty": "RSA", "kid": "a", "n": n, "e": e }] }).to_string();
    let der = base64::prelude::BASE64_STANDARD.encode(key.public().as_ref());
    let pkcs1 = format!("-----BEGIN RSA PUBLIC KEY-----\n{der}\n-----END RSA PUBLIC KEY-----\n");

    let token = |key: &RsaKeyPair, name: &str, encoding: &'static dyn RsaEncoding| {
        let header = json!({ "alg": name, "kid": "a" });
        let signed = format!("{}.{}", encode(&header), encode(&claims()));
        let mut signature = vec![0; key.public().modulus_len()];
        key.sign(encoding, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    };
    let stranger = read(&stranger).unwrap();
    for known in [spki, jwks, pkcs1] {
        let tokens = tokens(Key::parse(&known).unwrap());
        for (name, encoding) in [
            ("RS256", &RSA_PKCS1_SHA256 as &'static dyn RsaEncoding),
            ("RS384", &RSA_PKCS1_SHA384),
            ("RS512", &RSA_PKCS1_SHA512),
        ] {
            let claims = tokens.verify(&token(&key, name, encoding), NOW).unwrap();
            assert!(claims.allows(Some("team/app"), "pull"), "{name} {known}");
        }
        for wrong in [
            token(&stranger, "RS256", &RSA_PKCS1_SHA256),
            token(&key, "RS512", &RSA_PKCS1_SHA256),
            token(&key, "PS256", &RSA_PSS_SHA256),
            token(&key, "ES256", &RSA_PKCS1_SHA256),
            token(&key, "HS256", &RSA_PKCS1_SHA256),
        ] {
            let refused = tokens.verify(&wrong, NOW).err();
            assert_eq!(refused, Some("no configured key signed it"), "{known}");
        }
    }
}
