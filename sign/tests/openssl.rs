//! An independent implementation of the cryptography agrees with ours, in both directions.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests, like tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::Digest;
use serde_json::Value;
use sign::bundle::Bundle;
use sign::simple_signing::{self, SIGNATURE_ANNOTATION};
use sign::{Candidate, Demand, Evidence, PrivateKey, PublicKey, dsse, verify};
use tempfile::TempDir;

const NAME: &str = "r.example/a:1";

struct OpenSsl(TempDir);

impl OpenSsl {
    fn new() -> Option<OpenSsl> {
        requires::program("openssl").map(|_| OpenSsl(tempfile::tempdir().unwrap()))
    }

    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn run(&self, arguments: &[&str]) -> Option<Vec<u8>> {
        let mut command = Command::new("openssl");
        let output = command.args(arguments).current_dir(&self.0).output().unwrap();
        output.status.success().then_some(output.stdout)
    }

    fn verifies(&self, key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
        self.file("key.pub", key.to_pem());
        self.file("message", message);
        self.file("signature", signature);
        let arguments = ["dgst", "-sha256", "-verify", "key.pub", "-signature", "signature"];
        self.run(&[&arguments[..], &["message"]].concat()).is_some()
    }
}

#[test]
fn openssl_accepts_what_we_sign() {
    let Some(openssl) = OpenSsl::new() else { return };
    let (key, other) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
    let image = Digest::of(b"the image");
    let bundle = Bundle::sign(&image, Some(NAME), &BTreeMap::new(), &key).unwrap();
    let bundle: Value = serde_json::from_slice(&bundle.to_json()).unwrap();
    let envelope = &bundle["dsseEnvelope"];
    let bytes = |value: &Value| STANDARD.decode(value.as_str().unwrap()).unwrap();
    let payload = bytes(&envelope["payload"]);
    let message = dsse::pre_authentication_encoding(dsse::IN_TOTO, &payload);
    let signature = bytes(&envelope["signatures"][0]["sig"]);
    assert!(openssl.verifies(&key.public(), &message, &signature));
    assert!(!openssl.verifies(&other.public(), &message, &signature));
    assert!(!openssl.verifies(&key.public(), &payload, &signature));
    let signed = simple_signing::sign(&image, NAME, &BTreeMap::new(), &key, None).unwrap();
    let signature = &signed.manifest.layers[0].annotations[SIGNATURE_ANNOTATION];
    let signature = STANDARD.decode(signature).unwrap();
    assert!(openssl.verifies(&key.public(), &signed.blobs[0].1, &signature));
}

#[test]
fn we_accept_what_openssl_signs() {
    let Some(openssl) = OpenSsl::new() else { return };
    let generate = ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
    openssl.run(&[&generate[..], &["-out", "key"]].concat()).unwrap();
    let public = openssl.run(&["pkey", "-in", "key", "-pubout"]).unwrap();
    let public = PublicKey::read(&public).unwrap();
    let key = PrivateKey::read(&fs::read(openssl.0.path().join("key")).unwrap(), None).unwrap();
    assert_eq!(key.public(), public);
    let demand = Demand { signers: sign::Signers::keys(vec![public]), ..Demand::default() };
    // Openssl's signatures are random: half of them have a large `s`, which is fine too.
    for round in 0..8 {
        let image = Digest::of(&[round]);
        let payload = format!(
            r#"{{"critical":{{"identity":{{"docker-reference":"{NAME}"}},"image":{{"docker-manifest-digest":"{image}"}},"type":"cosign container image signature"}},"optional":null}}"#
        );
        openssl.file("payload", &payload);
        let signature = openssl.run(&["dgst", "-sha256", "-sign", "key", "payload"]).unwrap();
        let annotations =
            BTreeMap::from([(SIGNATURE_ANNOTATION.to_owned(), STANDARD.encode(signature))]);
        let evidence = Evidence::Payload(payload.into(), annotations);
        let candidate = Candidate { origin: "openssl".to_owned(), evidence };
        assert_eq!(verify(&image, &candidate, &demand).unwrap().name(), Some(NAME));
    }
}

/// A kind of key: how it is made, and how OpenSSL verifies with it.
const KINDS: [(&[&str], &[&str]); 5] = [
    (&["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"], &["dgst", "-sha256"]),
    (&["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"], &["dgst", "-sha384"]),
    (&["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"], &["dgst", "-sha512"]),
    (&["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"], &["dgst", "-sha256"]),
    (&["-algorithm", "ED25519"], &["pkeyutl"]),
];

#[test]
fn keys_of_every_kind_and_encryption_are_read_and_openssl_accepts_what_they_sign() {
    let Some(openssl) = OpenSsl::new() else { return };
    let read = |name: &str, passphrase: Option<&[u8]>| {
        PrivateKey::read(&fs::read(openssl.0.path().join(name)).unwrap(), passphrase)
    };
    for (kind, verify) in KINDS {
        openssl.run(&[&["genpkey", "-out", "key"], kind].concat()).unwrap();
        let public = openssl.run(&["pkey", "-in", "key", "-pubout"]).unwrap();
        let key = read("key", None).unwrap();
        assert_eq!(key.public().to_pem().into_bytes(), public, "{kind:?}");
        let signature = key.sign(b"the message");
        assert!(key.public().verifies(b"the message", &signature), "{kind:?}");
        assert!(!key.public().verifies(b"another message", &signature), "{kind:?}");
        openssl.file("key.pub", public);
        openssl.file("message", "the message");
        openssl.file("signature", &signature);
        let how: &[&str] = match verify {
            ["pkeyutl"] => &[
                "-verify",
                "-pubin",
                "-inkey",
                "key.pub",
                "-rawin",
                "-sigfile",
                "signature",
                "-in",
            ],
            _ => &["-verify", "key.pub", "-signature", "signature"],
        };
        assert!(openssl.run(&[verify, how, &["message"]].concat()).is_some(), "{kind:?}");
        for encryption in [&["-v2", "aes-256-cbc"][..], &["-v2", "aes-128-cbc"], &["-scrypt"]] {
            let line = ["pkcs8", "-topk8", "-in", "key", "-out", "sealed", "-passout", "pass:x"];
            openssl.run(&[&line[..], encryption].concat()).unwrap();
            let text = fs::read(openssl.0.path().join("sealed")).unwrap();
            assert!(PrivateKey::is_encrypted(&text));
            assert_eq!(read("sealed", Some(b"x")).unwrap().public(), key.public());
            assert!(matches!(read("sealed", Some(b"y")), Err(sign::Error::Passphrase)));
            assert!(matches!(read("sealed", None), Err(sign::Error::PassphraseNeeded)));
        }
    }
    // The forms before PKCS#8.
    for (kind, program) in [(KINDS[2].0, "ec"), (KINDS[3].0, "rsa")] {
        openssl.run(&[&["genpkey", "-out", "key"], kind].concat()).unwrap();
        let old = [program, "-in", "key", "-out", "old", "-traditional"];
        let old = if program == "ec" { &old[..5] } else { &old[..] };
        openssl.run(old).unwrap();
        assert_eq!(read("old", None).unwrap().public(), read("key", None).unwrap().public());
        let line = [&old[..5], &["-aes256", "-passout", "pass:x"], &old[5..]].concat();
        openssl.run(&line).unwrap();
        let error = read("old", Some(b"x")).unwrap_err().to_string();
        assert!(error.contains("openssl pkcs8 -topk8"), "{error}");
    }
}
