//! `policy.json` with certificates of an own authority (`pki`), and with keys of logs (`rekorPublicKey…`).
#![allow(clippy::unwrap_used, reason = "test support fails loudly")]

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::Digest;
use serde_json::{Value, json};
use sign::{Candidate, Error, Evidence, Policy, Signer, Verified};
use standins::{BEGIN, Certificate, DAY, Log, P256, San, World, pem, sha256};
use transport::Location;

const NOW: u64 = BEGIN + 30 * DAY;
const ISSUER: &str = "https://token.actions.example";
const EMAIL: &str = "dev@team.example";

fn image() -> Digest {
    Digest::of(b"the image")
}

fn signer() -> P256 {
    P256::new(b"signer")
}

/// Makes log entries of what is signed, and of the signature.
type Entries<'a> = dyn Fn(&[u8], &[u8]) -> Vec<Value> + 'a;

/// A bundle of the image's signature: who says that he made it, and the log entries.
fn bundle(by: &Value, entries: &Entries<'_>) -> Candidate {
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "digest": { "sha256": image().hex() } }],
        "predicateType": "https://sigstore.dev/cosign/sign/v1", "predicate": {},
    });
    let payload = statement.to_string().into_bytes();
    let kind = "application/vnd.in-toto+json";
    let signed = sign::dsse::pre_authentication_encoding(kind, &payload);
    let signature = signer().sign(&signed);
    let mut material = by.clone();
    material["tlogEntries"] = entries(&signed, &signature).into();
    let bundle = json!({
        "mediaType": sign::bundle::MEDIA_TYPE, "verificationMaterial": material,
        "dsseEnvelope": {
            "payload": STANDARD.encode(&payload), "payloadType": kind,
            "signatures": [{ "sig": STANDARD.encode(signature) }],
        },
    });
    let evidence = Evidence::Bundle(bundle.to_string().into_bytes().into());
    Candidate { origin: "here".to_owned(), evidence }
}

fn by_certificate(der: &[u8]) -> Value {
    json!({ "certificate": { "rawBytes": STANDARD.encode(der) } })
}

fn by_key() -> Value {
    json!({ "publicKey": { "hint": STANDARD.encode(sha256(&signer().spki())) } })
}

/// The base64 of PEM, as a policy has it.
fn data(label: &str, der: &[u8]) -> Value {
    STANDARD.encode(pem(label, der)).into()
}

fn decide(requirement: &Value, time: u64, candidate: &Candidate) -> Result<Vec<Verified>, Error> {
    let mut requirement = requirement.clone();
    requirement["type"] = "sigstoreSigned".into();
    let policy = json!({ "default": [requirement] }).to_string();
    let policy = Policy::read("the policy", policy.as_bytes()).unwrap();
    let policy = policy.at(SystemTime::UNIX_EPOCH + Duration::from_secs(time));
    let location: Location = "docker://r.example/team/app:1".parse().unwrap();
    policy.decide(&image(), Some(&location), std::slice::from_ref(candidate))
}

#[track_caller]
fn refused(result: Result<Vec<Verified>, Error>, words: &str) {
    let error = result.unwrap_err().to_string();
    assert!(error.contains(words), "{error:?} is not about {words:?}");
}

fn certificate(world: &World, names: Vec<San>) -> Vec<u8> {
    let key = signer();
    let wanted = Certificate {
        names,
        issuer: None,
        promised: None,
        ..Certificate::new(&key, San::Host(String::new()), "", NOW)
    };
    world.fulcio.issue(&wanted, &world.certificate_log)
}

#[test]
fn certificates_of_an_own_authority_are_trusted_while_they_are_valid() {
    let world = World::default();
    let pki = |world: &World, subject: &Value| {
        let mut pki = subject.clone();
        pki["caRootsData"] = data("CERTIFICATE", &world.fulcio.root_certificate);
        pki["caIntermediatesData"] = data("CERTIFICATE", &world.fulcio.issuing_certificate);
        json!({ "pki": pki })
    };
    let email = json!({ "subjectEmail": EMAIL });
    let by = by_certificate(&certificate(&world, vec![San::Email(EMAIL.to_owned())]));
    let good = bundle(&by, &|_, _| Vec::new());
    let verified = decide(&pki(&world, &email), NOW, &good).unwrap();
    let Signer::Certificate(identity) = verified[0].signer() else { panic!("{verified:?}") };
    assert_eq!(identity.subject, EMAIL);
    // Ten minutes later the certificate has expired; before, it was not valid yet.
    refused(decide(&pki(&world, &email), NOW + 601, &good), "step 8");
    refused(decide(&pki(&world, &email), NOW - 1, &good), "step 8");
    refused(decide(&pki(&World::new(9), &email), NOW, &good), "step 8");
    refused(
        decide(&pki(&world, &json!({ "subjectEmail": "x@team.example" })), NOW, &good),
        "step 12",
    );
    refused(
        decide(&pki(&world, &json!({ "subjectHostname": "a.example" })), NOW, &good),
        "step 12",
    );
    // Both are asked for, and both must be named.
    let both = json!({ "subjectEmail": EMAIL, "subjectHostname": "build.team.example" });
    refused(decide(&pki(&world, &both), NOW, &good), "step 12");
    let names = vec![San::Email(EMAIL.to_owned()), San::Host("build.team.example".to_owned())];
    let named = bundle(&by_certificate(&certificate(&world, names)), &|_, _| Vec::new());
    decide(&pki(&world, &both), NOW, &named).unwrap();
}

fn logged(log: &Log, signed: &[u8], signature: &[u8], verifier: &[u8], label: &str) -> Vec<Value> {
    let body = log.message_body(&sha256(signed), signature, verifier, label);
    vec![log.add(&body, NOW + 5)]
}

#[test]
fn a_log_with_a_key_of_the_policy_must_have_the_signature() {
    let (world, stranger) = (World::default(), World::new(9));
    let key = signer().spki();
    let requirement = |logs: &[&Log]| {
        let logs: Vec<_> = logs.iter().map(|log| data("PUBLIC KEY", &log.spki())).collect();
        json!({ "keyData": data("PUBLIC KEY", &key), "rekorPublicKeyDatas": logs })
    };
    let wanted = requirement(&[&stranger.rekor, &world.rekor]);
    let good = bundle(&by_key(), &|signed, signature| {
        logged(&world.rekor, signed, signature, &key, "PUBLIC KEY")
    });
    decide(&wanted, NOW, &good).unwrap();
    refused(decide(&requirement(&[&stranger.rekor]), NOW, &good), "not trusted");
    // Without the log, with an entry of another signature or of another signer.
    refused(decide(&wanted, NOW, &bundle(&by_key(), &|_, _| Vec::new())), "in no log");
    let other = bundle(&by_key(), &|signed, _| {
        let signature = P256::new(b"other").sign(signed);
        logged(&world.rekor, signed, &signature, &key, "PUBLIC KEY")
    });
    refused(decide(&wanted, NOW, &other), "another signature");
    let other = bundle(&by_key(), &|signed, signature| {
        let other = P256::new(b"other").spki();
        logged(&world.rekor, signed, signature, &other, "PUBLIC KEY")
    });
    refused(decide(&wanted, NOW, &other), "another signer");
    // A log entry is asked for only where the policy says so.
    let plain = json!({ "keyData": data("PUBLIC KEY", &key) });
    decide(&plain, NOW, &bundle(&by_key(), &|_, _| Vec::new())).unwrap();
}

#[test]
fn an_authority_of_the_policy_goes_with_logs_of_the_policy() {
    let (world, stranger) = (World::default(), World::new(9));
    let key = signer();
    let wanted = Certificate::new(&key, San::Email(EMAIL.to_owned()), ISSUER, NOW);
    let der = world.fulcio.issue(&wanted, &world.certificate_log);
    let good = bundle(&by_certificate(&der), &|signed, signature| {
        logged(&world.rekor, signed, signature, &der, "CERTIFICATE")
    });
    let requirement = |authority: &World, log: &Log, email: &str| {
        let authorities = [
            pem("CERTIFICATE", &authority.fulcio.issuing_certificate),
            pem("CERTIFICATE", &authority.fulcio.root_certificate),
        ];
        let fulcio = json!({
            "caData": STANDARD.encode(authorities.concat()), "oidcIssuer": ISSUER, "subjectEmail": email,
        });
        json!({ "fulcio": fulcio, "rekorPublicKeyData": data("PUBLIC KEY", &log.spki()) })
    };
    decide(&requirement(&world, &world.rekor, EMAIL), NOW, &good).unwrap();
    refused(decide(&requirement(&world, &stranger.rekor, EMAIL), NOW, &good), "not trusted");
    refused(decide(&requirement(&stranger, &world.rekor, EMAIL), NOW, &good), "step 8");
    refused(decide(&requirement(&world, &world.rekor, "x@team.example"), NOW, &good), "step 12");
}
