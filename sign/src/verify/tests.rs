//! For every step a signature that passes all steps before it and fails exactly there.

use serde_json::{Value, json};

use super::*;
use crate::PrivateKey;

const NAME: &str = "r.example/team/app:1";

fn image() -> Digest {
    Digest::of(b"the image")
}

fn key(seed: u8) -> PrivateKey {
    crate::key::tests::key(seed)
}

fn demand() -> Demand {
    Demand {
        signers: Signers::keys(vec![key(1).public()]),
        identity: SignedIdentity::RepoDigestOrExact,
        asked: Some(NAME.parse().unwrap()),
        annotations: BTreeMap::from([("stage".to_owned(), "release".to_owned())]),
    }
}

fn annotations() -> BTreeMap<String, String> {
    BTreeMap::from([("stage".to_owned(), "release".to_owned())])
}

fn candidate(evidence: Evidence) -> Candidate {
    Candidate { origin: "here".to_owned(), evidence }
}

/// A bundle around a payload, signed by the trusted key.
fn bundle_of(payload_type: &str, payload: &[u8]) -> Value {
    let signed = dsse::pre_authentication_encoding(payload_type, payload);
    json!({
        "mediaType": bundle::MEDIA_TYPE,
        "verificationMaterial": { "publicKey": { "hint": key(1).public().id().hint() } },
        "dsseEnvelope": {
            "payload": STANDARD.encode(payload),
            "payloadType": payload_type,
            "signatures": [{ "sig": STANDARD.encode(key(1).sign(&signed)) }],
        },
    })
}

fn statement() -> Value {
    json!({
        "_type": dsse::STATEMENT_V1,
        "subject": [{
            "name": NAME,
            "digest": { "sha256": image().hex() },
            "annotations": { "stage": "release" },
        }],
        "predicateType": dsse::SIGN_V1,
        "predicate": {},
    })
}

fn check_bundle(bundle: &Value) -> Result<Verified, Mismatch> {
    check_json(bundle.to_string())
}

fn check_json(json: String) -> Result<Verified, Mismatch> {
    verify(&image(), &candidate(Evidence::Bundle(json.into())), &demand())
}

/// The good bundle after a change to its outside.
fn outside(change: impl FnOnce(&mut Value)) -> Result<Verified, Mismatch> {
    let mut bundle = bundle_of(dsse::IN_TOTO, statement().to_string().as_bytes());
    change(&mut bundle);
    check_bundle(&bundle)
}

/// The good bundle after a change to its statement, which is then signed.
fn inside(change: impl FnOnce(&mut Value)) -> Result<Verified, Mismatch> {
    let mut statement = statement();
    change(&mut statement);
    check_bundle(&bundle_of(dsse::IN_TOTO, statement.to_string().as_bytes()))
}

fn set(path: &'static str, value: Value) -> impl FnOnce(&mut Value) {
    move |document| match document.pointer_mut(path) {
        Some(found) => *found = value,
        None => {
            let (parent, name) = path.rsplit_once('/').unwrap();
            document.pointer_mut(parent).unwrap()[name] = value;
        }
    }
}

fn remove(parent: &'static str, name: &'static str) -> impl FnOnce(&mut Value) {
    move |document| {
        document.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name).unwrap();
    }
}

/// Compares a verdict with the beginning of the message that is expected.
#[track_caller]
fn fails(verdict: Result<Verified, Mismatch>, message: &str) {
    let mismatch = verdict.expect_err(message).to_string();
    assert!(mismatch.contains(message), "{mismatch:?} is not about {message:?}");
}

#[test]
fn a_good_bundle_passes_and_tells_what_it_says() {
    let verified = outside(|_| ()).unwrap();
    assert_eq!(verified.image(), image());
    assert_eq!(*verified.signer(), Signer::Key(key(1).public().id()));
    assert_eq!(verified.form(), Form::Bundle);
    assert_eq!(verified.name(), Some(NAME));
    assert_eq!(verified.annotations(), &annotations());
    assert_eq!(verified.origin(), "here");
    assert_eq!(verified.unchecked(), 0);
    let json = serde_json::to_value(&verified).unwrap();
    assert_eq!(json["form"], "bundle");
    assert_eq!(json["signer"]["key"], key(1).public().id().to_string());
}

#[test]
fn what_we_sign_we_accept() {
    let bundle = Bundle::sign(&image(), Some(NAME), &annotations(), &key(1)).unwrap();
    let verified = check_json(String::from_utf8(bundle.to_json()).unwrap()).unwrap();
    assert_eq!(verified.name(), Some(NAME));
}

#[test]
fn what_comes_from_cosign_is_accepted() {
    // Log entries are not what a key's signature is verified by; they are counted, not read.
    let logged = outside(set("/verificationMaterial/tlogEntries", json!([{ "logIndex": "7" }])));
    assert_eq!(logged.unwrap().unchecked(), 1);
    let early = "application/vnd.dev.sigstore.bundle+json;version=0.3";
    outside(set("/mediaType", json!(early))).unwrap();
    // Cosign names no image in a bundle: only a demand without a name accepts it.
    let mut statement = statement();
    remove("/subject/0", "name")(&mut statement);
    let bundle = bundle_of(dsse::IN_TOTO, statement.to_string().as_bytes());
    fails(check_bundle(&bundle), "it names no image, only a digest, and r.example/team/app:1 is");
    let any = Demand { identity: SignedIdentity::Any, ..demand() };
    let bundle = candidate(Evidence::Bundle(bundle.to_string().into()));
    assert_eq!(verify(&image(), &bundle, &any).unwrap().name(), None);
}

#[test]
fn a_bundle_fails_at_its_step() {
    // Step 1.
    let large = set("/verificationMaterial/tlogEntries", json!(["x".repeat(1 << 20)]));
    fails(outside(large), "bytes, more than the 1048576");
    // Step 2.
    fails(check_json("{".to_owned()), "it is malformed");
    fails(check_json("[".repeat(100_000)), "it is malformed");
    fails(outside(set("/surprise", json!(1))), "unknown field `surprise`");
    fails(outside(set("/\u{1b}[31m", json!(1))), "unknown field `\u{fffd}[31m`");
    let surprise = set("/verificationMaterial/surprise", json!({}));
    fails(outside(surprise), "unknown field `surprise`");
    fails(outside(set("/dsseEnvelope/surprise", json!(1))), "unknown field `surprise`");
    let twice = bundle_of(dsse::IN_TOTO, b"{}").to_string();
    let twice = twice.replacen('{', "{\"mediaType\":\"x\",", 1);
    fails(check_json(twice), "duplicate field `mediaType`");
    let media_type = "application/vnd.dev.sigstore.bundle.v0.4+json";
    fails(outside(set("/mediaType", json!(media_type))), "its media type is");
    // Step 3.
    let certificate = json!({ "rawBytes": "AAAA" });
    let keyless = set("/verificationMaterial", json!({ "certificate": certificate.clone() }));
    fails(outside(keyless), "it is keyless");
    let chain = json!({ "x509CertificateChain": { "certificates": [certificate.clone()] } });
    fails(outside(set("/verificationMaterial", chain)), "it is keyless");
    let both = set("/verificationMaterial/certificate", certificate);
    fails(outside(both), "it has both a key and a certificate");
    fails(outside(set("/verificationMaterial", json!({}))), "it names neither a key nor a");
    // Step 4.
    fails(outside(set("/messageSignature", json!({ "signature": "" }))), "it has two contents");
    fails(outside(remove("", "dsseEnvelope")), "it has no content");
    let message = |bundle: &mut Value| {
        remove("", "dsseEnvelope")(bundle);
        set("/messageSignature", json!({ "signature": "AAAA" }))(bundle);
    };
    fails(outside(message), "it signs a bare message");
    // Step 5.
    fails(outside(set("/dsseEnvelope/signatures", json!([]))), "it has 0 signatures where");
    let twice = |bundle: &mut Value| {
        let signature = bundle["dsseEnvelope"]["signatures"][0].clone();
        bundle["dsseEnvelope"]["signatures"] = json!([signature.clone(), signature]);
    };
    fails(outside(twice), "it has 2 signatures where");
    fails(outside(set("/dsseEnvelope/payload", json!("%"))), "payload is not base64");
    fails(outside(set("/dsseEnvelope/signatures/0/sig", json!("%"))), "sig is not base64");
    // Step 6.
    let other = bundle_of("text/plain", statement().to_string().as_bytes());
    fails(check_bundle(&other), "its payload is of type \"text/plain\"");
}

#[test]
fn a_bundle_by_another_key_or_of_other_content_fails_at_step_7() {
    let trusted = key(1).public().id();
    // Signed by another key that says so.
    let bundle = Bundle::sign(&image(), Some(NAME), &annotations(), &key(2)).unwrap();
    let verdict = check_json(String::from_utf8(bundle.to_json()).unwrap());
    let signer = key(2).public().id().to_string();
    assert_eq!(verdict, Err(Mismatch::Key { signer, trusted: vec![trusted] }));
    // The same that claims to be by the trusted key.
    let mut lie = serde_json::to_value(&bundle).unwrap();
    set("/verificationMaterial/publicKey/hint", json!(trusted.hint()))(&mut lie);
    assert_eq!(check_bundle(&lie), Err(Mismatch::Signature { trusted: vec![trusted] }));
    // A signature by the trusted key, of something else (CVE-2022-23649).
    let other = bundle_of(dsse::IN_TOTO, b"{}")["dsseEnvelope"]["signatures"].clone();
    fails(outside(set("/dsseEnvelope/signatures", other)), "it does not fit its content");
    // The payload's type is signed as well (CVE-2022-35929).
    let mut retyped = bundle_of("text/plain", statement().to_string().as_bytes());
    set("/dsseEnvelope/payloadType", json!(dsse::IN_TOTO))(&mut retyped);
    fails(check_bundle(&retyped), "it does not fit its content");
    // Not DER, empty, and the bare numbers without DER.
    for broken in ["", "AAAA", &STANDARD.encode([7; 64])] {
        let broken = set("/dsseEnvelope/signatures/0/sig", json!(broken));
        fails(outside(broken), "it does not fit its content");
    }
    // No hint, or one that another tool chose, does no harm to a good signature.
    outside(set("/verificationMaterial/publicKey", json!({}))).unwrap();
    outside(set("/verificationMaterial/publicKey/hint", json!("team key"))).unwrap();
    // No signer is trusted.
    let json = serde_json::to_vec(&bundle).unwrap();
    let nobody = Demand { signers: Signers::default(), ..demand() };
    let verdict = verify(&image(), &candidate(Evidence::Bundle(json.into())), &nobody);
    assert_eq!(verdict, Err(Mismatch::NoKeys));
}

#[test]
fn a_statement_fails_at_its_step() {
    // Step 8.
    fails(inside(remove("", "subject")), "missing field `subject`");
    let old = "https://in-toto.io/Statement/v0.1";
    fails(inside(set("/_type", json!(old))), "which is not the type of an image's signature");
    let provenance = "https://slsa.dev/provenance/v1";
    fails(inside(set("/predicateType", json!(provenance))), "it signs \"https://slsa.dev");
    let doubled = statement().to_string().replacen('{', "{\"predicateType\":\"x\",", 1);
    let doubled = bundle_of(dsse::IN_TOTO, doubled.as_bytes());
    fails(check_bundle(&doubled), "duplicate field `predicateType`");
    // Step 9.
    fails(inside(set("/subject", json!([]))), "it signs nothing, not this image");
    let other = Digest::of(b"another image");
    let changed = set("/subject/0/digest/sha256", json!(other.hex()));
    fails(inside(changed), &format!("it signs {other}, not this image"));
    let weaker = set("/subject/0/digest", json!({ "md5": image().hex() }));
    fails(inside(weaker), "it signs md5:");
    let upper = set("/subject/0/digest/sha256", json!(image().hex().to_uppercase()));
    fails(inside(upper), "not this image");
    // Step 10.
    let renamed = inside(set("/subject/0/name", json!("r.example/team/app:2")));
    fails(renamed, "it was made for r.example/team/app:2, not for r.example/team/app:1");
    // Step 11.
    fails(inside(remove("/subject/0", "annotations")), "its annotation \"stage\" is missing");
    let staged = inside(set("/subject/0/annotations/stage", json!("test")));
    fails(staged, "its annotation \"stage\" is \"test\", not \"release\"");
    // Several subjects are fine as long as ours is among them; its own name counts.
    let more = |statement: &mut Value| {
        let other = json!({ "name": "x", "digest": { "sha256": Digest::of(b"x").hex() } });
        statement["subject"].as_array_mut().unwrap().insert(0, other);
    };
    assert_eq!(inside(more).unwrap().name(), Some(NAME));
}

/// A payload of the older form with its signature by the trusted key.
fn payload_of(payload: &[u8]) -> Evidence {
    let signature = STANDARD.encode(key(1).sign(payload));
    let name = simple_signing::SIGNATURE_ANNOTATION.to_owned();
    Evidence::Payload(Bytes::copy_from_slice(payload), BTreeMap::from([(name, signature)]))
}

fn payload() -> Value {
    json!({
        "critical": {
            "identity": { "docker-reference": NAME },
            "image": { "docker-manifest-digest": image().to_string() },
            "type": "cosign container image signature",
        },
        "optional": { "stage": "release", "timestamp": 1_700_000_000 },
    })
}

fn check_payload(change: impl FnOnce(&mut Value)) -> Result<Verified, Mismatch> {
    let mut payload = payload();
    change(&mut payload);
    let evidence = payload_of(payload.to_string().as_bytes());
    verify(&image(), &candidate(evidence), &demand())
}

#[test]
fn a_good_payload_passes_and_tells_what_it_says() {
    let verified = check_payload(|_| ()).unwrap();
    assert_eq!(verified.form(), Form::Tag);
    assert_eq!(verified.name(), Some(NAME));
    assert_eq!(verified.annotations()["timestamp"], "1700000000");
    let ours = simple_signing::payload(&image(), NAME, &annotations()).unwrap();
    verify(&image(), &candidate(payload_of(&ours)), &demand()).unwrap();
    // Cosign writes `"optional": null` where there are no annotations.
    let bare = simple_signing::payload(&image(), NAME, &BTreeMap::new()).unwrap();
    assert!(bare.ends_with(b"\"optional\":null}"));
    let undemanding = Demand { annotations: BTreeMap::new(), ..demand() };
    verify(&image(), &candidate(payload_of(&bare)), &undemanding).unwrap();
}

#[test]
fn a_payload_fails_at_its_step() {
    let verdict = |evidence: Evidence| verify(&image(), &candidate(evidence), &demand());
    let good = payload().to_string();
    let annotated = |annotations: &[(&str, &str)]| {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Evidence::Payload(good.clone().into(), annotations.iter().map(own).collect())
    };
    // Step 1.
    let large = verdict(Evidence::Payload(vec![b' '; (128 << 10) + 1].into(), BTreeMap::new()));
    fails(large, "bytes, more than the 131072");
    let long = "A".repeat(2000);
    fails(
        verdict(annotated(&[(simple_signing::SIGNATURE_ANNOTATION, &long)])),
        "it has 2000 bytes",
    );
    // Steps 4 and 5.
    fails(verdict(annotated(&[])), "it has a payload, but no signature of it");
    let broken = annotated(&[(simple_signing::SIGNATURE_ANNOTATION, "%")]);
    fails(verdict(broken), "its signature is not base64");
    // Steps 3 and 7.
    let other = STANDARD.encode(key(2).sign(good.as_bytes()));
    let by_other = [(simple_signing::SIGNATURE_ANNOTATION, other.as_str())];
    fails(verdict(annotated(&by_other)), "it does not fit its content by the trusted key");
    let certified = [by_other[0], (simple_signing::CERTIFICATE_ANNOTATION, "-----BEGIN")];
    fails(verdict(annotated(&certified)), "it is keyless");
    let Evidence::Payload(_, annotations) = payload_of(good.as_bytes()) else { unreachable!() };
    let tampered = good.replace("release", "debug!!");
    let tampered = Evidence::Payload(tampered.into(), annotations);
    fails(verdict(tampered), "it does not fit its content by the trusted key");
    // Step 2.
    fails(verdict(payload_of(b"{")), "it is malformed: its payload");
    fails(check_payload(set("/critical/surprise", json!(1))), "unknown field `surprise`");
    fails(check_payload(set("/surprise", json!(1))), "unknown field `surprise`");
    fails(check_payload(remove("/critical", "type")), "missing field `type`");
    let doubled = good.replacen("\"type\"", "\"type\":\"x\",\"type\"", 1);
    fails(verdict(payload_of(doubled.as_bytes())), "duplicate field `type`");
    let doubled = good.replacen("\"stage\"", "\"stage\":\"x\",\"stage\"", 1);
    fails(verdict(payload_of(doubled.as_bytes())), "\"stage\" appears twice");
    // Step 8.
    let gpg = set("/critical/type", json!("atomic container signature"));
    fails(check_payload(gpg), "it signs \"atomic container signature\"");
    // Step 9.
    let other = Digest::of(b"another image").to_string();
    let moved = set("/critical/image/docker-manifest-digest", json!(other.clone()));
    fails(check_payload(moved), &format!("it signs {other}, not this image"));
    // Step 10.
    let renamed = set("/critical/identity/docker-reference", json!("r.example/team/app"));
    fails(
        check_payload(renamed),
        "it was made for r.example/team/app, not for r.example/team/app:1",
    );
    let nameless = set("/critical/identity/docker-reference", json!(""));
    fails(check_payload(nameless), "it names no image");
    // Step 11.
    fails(check_payload(set("/optional", Value::Null)), "its annotation \"stage\" is missing");
}

#[test]
fn one_good_signature_suffices_and_bad_ones_are_all_told() {
    let good = candidate(payload_of(payload().to_string().as_bytes()));
    let bad = candidate(Evidence::Unreadable(Mismatch::Unreadable("gone".to_owned())));
    let verified = verify_any(&image(), &[bad.clone(), good], &demand()).unwrap();
    assert_eq!(verified.len(), 1);
    let none = verify_any(&image(), &[], &demand()).unwrap_err();
    assert!(matches!(none, Error::Unsigned { .. }), "{none}");
    let one = verify_any(&image(), std::slice::from_ref(&bad), &demand()).unwrap_err();
    assert!(
        one.to_string().ends_with("its signature is not accepted: here: it cannot be read: gone")
    );
    let many = verify_any(&image(), &vec![bad; 7], &demand()).unwrap_err().to_string();
    assert!(many.contains("none of its 7 signatures is accepted"), "{many}");
    assert!(many.ends_with("; and 3 more"), "{many}");
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    /// Replaces, inserts or removes one byte.
    fn damage(good: &[u8], at: usize, how: u8, byte: u8) -> Vec<u8> {
        let (mut bytes, at) = (good.to_vec(), at % good.len());
        match how % 3 {
            0 => bytes[at] = byte,
            1 => bytes.insert(at, byte),
            _ => drop(bytes.remove(at)),
        }
        bytes
    }

    /// A damaged signature is refused, or it says exactly what was signed.
    fn same_or_refused(evidence: Evidence, good: &Verified) {
        if let Ok(verified) = verify(&image(), &candidate(evidence), &demand()) {
            let unchecked = good.unchecked;
            assert_eq!(Verified { unchecked, ..verified }, *good);
        }
    }

    proptest! {
        // Signing is slow without optimisation.
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn no_damage_changes_what_a_bundle_says(at in any::<usize>(), how in 0..3_u8, byte in any::<u8>()) {
            let bundle = bundle_of(dsse::IN_TOTO, statement().to_string().as_bytes());
            let good = check_bundle(&bundle).unwrap();
            let damaged = damage(bundle.to_string().as_bytes(), at, how, byte);
            same_or_refused(Evidence::Bundle(damaged.into()), &good);
        }

        #[test]
        fn no_damage_changes_what_a_payload_says(at in any::<usize>(), how in 0..3_u8, byte in any::<u8>()) {
            let good = check_payload(|_| ()).unwrap();
            let Evidence::Payload(payload, annotations) = payload_of(payload().to_string().as_bytes()) else {
                unreachable!()
            };
            let damaged = Bytes::from(damage(&payload, at, how, byte));
            if damaged != payload {
                let damaged = Evidence::Payload(damaged, annotations.clone());
                prop_assert!(verify(&image(), &candidate(damaged), &demand()).is_err());
            }
            let mut annotations = annotations;
            for signature in annotations.values_mut() {
                *signature = String::from_utf8_lossy(&damage(signature.as_bytes(), at, how, byte)).into();
            }
            same_or_refused(Evidence::Payload(payload, annotations), &good);
        }

        #[test]
        fn a_signature_is_never_good_for_another_image(content in any::<Vec<u8>>()) {
            let bundle = Bundle::sign(&image(), Some(NAME), &annotations(), &key(1)).unwrap();
            let signed = candidate(Evidence::Bundle(bundle.to_json().into()));
            let other = Digest::of(&content);
            prop_assert_eq!(verify(&other, &signed, &demand()).is_ok(), other == image());
        }
    }
}
