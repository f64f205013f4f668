//! Files that the libraries of cosign 3 wrote are read as cosign reads them.
//!
//! The bundle is by sigstore-go 1.2.2, the key by go-securesystemslib 0.9.0; both are made for
//! this test alone.

#![allow(clippy::unwrap_used, reason = "helpers of tests, like tests")]

use image::Digest;
use sign::{Candidate, Demand, Evidence, Form, Mismatch, PrivateKey, PublicKey, verify};

const BUNDLE: &str = include_str!("fixtures/sigstore-go.bundle.json");
const BUNDLE_KEY: &str = include_str!("fixtures/sigstore-go.pub");
const KEY: &str = include_str!("fixtures/cosign.key");
const KEY_PUBLIC: &str = include_str!("fixtures/cosign.pub");

fn check(content: &[u8], key: &str) -> Result<sign::Verified, Mismatch> {
    let candidate = Candidate {
        origin: "sigstore-go".to_owned(),
        evidence: Evidence::Bundle(BUNDLE.trim_end().into()),
    };
    let keys = vec![PublicKey::read(key.as_bytes()).unwrap()];
    verify(
        &Digest::of(content),
        &candidate,
        &Demand { signers: sign::Signers::keys(keys), ..Demand::default() },
    )
}

#[test]
fn a_bundle_by_sigstore_go_is_accepted() {
    let verified = check(b"the image", BUNDLE_KEY).unwrap();
    assert_eq!(verified.form(), Form::Bundle);
    assert_eq!(verified.name(), None);
    assert_eq!(verified.annotations()["stage"], "release");
    let other = check(b"another image", BUNDLE_KEY).unwrap_err();
    assert!(matches!(other, Mismatch::Digest { .. }), "{other}");
    let other = check(b"the image", KEY_PUBLIC).unwrap_err();
    assert!(matches!(other, Mismatch::Key { .. }), "{other}");
}

#[test]
fn a_key_as_cosign_encrypts_it_is_read() {
    let key = PrivateKey::read(KEY.as_bytes(), Some(b"secret")).unwrap();
    assert_eq!(key.public().to_pem(), KEY_PUBLIC);
    assert!(PrivateKey::read(KEY.as_bytes(), Some(b"Secret")).is_err());
}
