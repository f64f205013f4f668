//! Signatures with certificates: what is good is accepted, and for every step of verification
//! there is one that passes all steps before it and fails exactly there.
#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    clippy::needless_pass_by_value,
    reason = "tests are tables"
)]

mod made;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::Digest;
use made::*;
use serde_json::{Value, json};
use sign::keyless::Step;
use sign::{
    Candidate, Demand, Evidence, IdentityRule, Matching, Mismatch, SignedIdentity, Signer, Signers,
    TrustedRoot, verify,
};
use standins::{Authority, BEGIN, DAY, P256, San, World};

#[test]
fn a_workflow_that_is_asked_for_is_accepted_and_named() {
    let world = World::default();
    let demand = demand_of(&world.trusted_root(), rule());
    for log in both(&world) {
        let signer = verdict(&Recipe::new(&world, log).bundle(), &demand).unwrap();
        let Signer::Certificate(identity) = &signer else { panic!("{signer:?}") };
        assert_eq!((&*identity.subject, &*identity.issuer), (WORKFLOW, ISSUER));
        assert_eq!(identity.claims["githubWorkflowTrigger"], "push");
        assert!(signer.to_string().contains(WORKFLOW), "{signer}");
    }
    // With a timestamp as well, both times must hold.
    let mut recipe = Recipe::new(&world, &world.rekor);
    recipe.stamped = Some(NOW + 9);
    verdict(&recipe.bundle(), &demand).unwrap();
}

#[test]
fn step_1_material() {
    let world = World::default();
    let demand = demand_of(&world.trusted_root(), rule());
    let good = Recipe::new(&world, &world.rekor).bundle();
    let set = |pointer: &str, value: Value| {
        let mut bundle = good.clone();
        *bundle.pointer_mut(pointer).unwrap() = value;
        verdict(&bundle, &demand)
    };
    let certificate = "/verificationMaterial/certificate/rawBytes";
    fails(set(certificate, STANDARD.encode("no certificate").into()), Step::Material, "malformed");
    let unknown = json!([{ "logIndex": "0", "unknown": 1 }]);
    fails(set("/verificationMaterial/tlogEntries", unknown), Step::Material, "malformed");
    let mut many = good.clone();
    let entry = many["verificationMaterial"]["tlogEntries"][0].clone();
    many["verificationMaterial"]["tlogEntries"] = vec![entry; 9].into();
    fails(verdict(&many, &demand), Step::Material, "too many");
    // The promise alone was enough before bundles of version 0.3.
    let mut promised = good.clone();
    promised["verificationMaterial"]["tlogEntries"][0]
        .as_object_mut()
        .unwrap()
        .remove("inclusionProof");
    fails(verdict(&promised, &demand), Step::Material, "no proof");
}

#[test]
fn step_2_timestamp() {
    let world = World::default();
    let demand = demand_of(&world.trusted_root(), rule());
    let recipe = Recipe::new(&world, &world.tiles);
    let good = recipe.bundle();
    let stamp = |bytes: Vec<u8>| {
        let mut bundle = good.clone();
        bundle["verificationMaterial"]["timestampVerificationData"]["rfc3161Timestamps"] =
            json!([{ "signedTimestamp": STANDARD.encode(bytes) }]);
        verdict(&bundle, &demand)
    };
    let signature = recipe.signer.sign(&pae(&recipe.payload));
    let stranger = World::new(9).timestamps;
    fails(stamp(stranger.stamp(&signature, NOW)), Step::Timestamp, "its timestamp: ");
    let other = world.timestamps.stamp(b"something else", NOW);
    fails(stamp(other), Step::Timestamp, "something else");
    let mut response = world.timestamps.stamp(&signature, NOW);
    fails(stamp(response[..response.len() - 9].to_vec()), Step::Timestamp, "malformed");
    // The time inside is changed after it was signed.
    let at = response.windows(5).position(|bytes| bytes == b"20260").unwrap();
    response[at + 3] = b'7';
    fails(stamp(response), Step::Timestamp, "its content was changed");
    fails(stamp(vec![0x30, 0x05, 0x30, 0x03, 0x02, 0x01, 0x02]), Step::Timestamp, "refused");
    // Before the authority began.
    let early = world.timestamps.stamp(&signature, BEGIN - DAY);
    fails(stamp(early), Step::Timestamp, "not trusted for that time");
}

#[test]
fn step_3_log() {
    let world = World::default();
    let demand = demand_of(&world.trusted_root(), rule());
    let mut recipe = Recipe::new(&world, &world.rekor);
    recipe.log = None;
    recipe.stamped = Some(NOW + 5);
    fails(verdict(&recipe.bundle(), &demand), Step::Log, "it is in no log");
    let stranger = World::new(9);
    let mut elsewhere = Recipe::new(&world, &world.rekor);
    elsewhere.log = Some(&stranger.rekor);
    fails(verdict(&elsewhere.bundle(), &demand), Step::Log, "a log that is not trusted");
}

#[test]
fn step_4_promise() {
    let world = World::default();
    let demand = demand_of(&world.trusted_root(), rule());
    let mut bundle = Recipe::new(&world, &world.rekor).bundle();
    // Another time than the one that was promised.
    bundle["verificationMaterial"]["tlogEntries"][0]["integratedTime"] =
        (NOW + 6).to_string().into();
    fails(verdict(&bundle, &demand), Step::Promise, "did not sign the promise");
}

#[test]
fn step_5_inclusion() {
    let world = World::default();
    let demand = demand_of(&world.trusted_root(), rule());
    for log in both(&world) {
        let good = Recipe::new(&world, log).bundle();
        let proof = "/verificationMaterial/tlogEntries/0/inclusionProof";
        for (field, value) in [
            ("rootHash", json!(STANDARD.encode([0; 32]))),
            ("hashes", json!([])),
            ("hashes", json!([STANDARD.encode([0; 31])])),
            ("hashes", json!(vec![STANDARD.encode([0; 32]); 65])),
            ("logIndex", json!("4")),
            ("treeSize", json!("0")),
        ] {
            let mut bundle = good.clone();
            bundle.pointer_mut(proof).unwrap()[field] = value;
            fails(verdict(&bundle, &demand), Step::Inclusion, "");
        }
    }
}

#[test]
fn step_6_checkpoint() {
    let world = World::default();
    let demand = demand_of(&world.trusted_root(), rule());
    for (log, stranger) in
        [(&world.rekor, World::new(9).rekor), (&world.tiles, World::new(9).tiles)]
    {
        let good = Recipe::new(&world, log).bundle();
        let proof = "/verificationMaterial/tlogEntries/0/inclusionProof";
        let root = good.pointer(proof).unwrap()["rootHash"].as_str().unwrap();
        let root = STANDARD.decode(root).unwrap();
        let size: usize =
            good.pointer(proof).unwrap()["treeSize"].as_str().unwrap().parse().unwrap();
        let with = |note: String| {
            let mut bundle = good.clone();
            bundle.pointer_mut(proof).unwrap()["checkpoint"] = json!({ "envelope": note });
            verdict(&bundle, &demand)
        };
        fails(with(stranger.checkpoint(size, &root)), Step::Checkpoint, "did not sign");
        fails(with(log.checkpoint(size + 1, &root)), Step::Checkpoint, "another tree");
        fails(with(log.checkpoint(size, &[0; 32])), Step::Checkpoint, "another tree");
        fails(with("no note".to_owned()), Step::Checkpoint, "malformed");
        let unsigned = log.checkpoint(size, &root);
        let unsigned = unsigned.split("\n\n").next().unwrap();
        fails(with(format!("{unsigned}\n\n")), Step::Checkpoint, "did not sign");
        let mut without = good.clone();
        without.pointer_mut(proof).unwrap().as_object_mut().unwrap().remove("checkpoint");
        fails(verdict(&without, &demand), Step::Checkpoint, "no checkpoint");
    }
}

#[test]
fn step_7_time() {
    let world = World::default();
    let demand = demand_of(&world.trusted_root(), rule());
    // The tile log says no time, so that a timestamp is needed.
    let mut recipe = Recipe::new(&world, &world.tiles);
    recipe.stamped = None;
    fails(verdict(&recipe.bundle(), &demand), Step::Time, "no trusted source states when");
    // An unsigned time does not count.
    let mut claimed = recipe.bundle();
    claimed["verificationMaterial"]["tlogEntries"][0]["integratedTime"] = NOW.to_string().into();
    fails(verdict(&claimed, &demand), Step::Time, "no trusted source states when");
    // The log's key was retired before.
    for index in [0, 1] {
        let mut root = world.trusted_root();
        root["tlogs"][index]["publicKey"]["validFor"]["end"] = json!("2026-01-15T00:00:00Z");
        let demand = demand_of(&root, rule());
        let log = both(&world)[index];
        let bundle = Recipe::new(&world, log).bundle();
        fails(verdict(&bundle, &demand), Step::Time, "not trusted at the time");
    }
}

#[test]
fn step_8_chain() {
    let world = World::default();
    let demand = demand_of(&world.trusted_root(), rule());
    for log in both(&world) {
        // Another authority of the same name.
        let stranger = Authority::new("fulcio", 9, (BEGIN, BEGIN + 3650 * DAY));
        let recipe = Recipe::new(&world, log);
        let forged = stranger.issue(&recipe.certificate, &world.certificate_log);
        fails(verdict(&recipe.bundle_with(&forged), &demand), Step::Chain, "");
        // Signed after the certificate's ten minutes, or before them.
        for time in [NOW + 601, NOW - 1] {
            let mut recipe = Recipe::new(&world, log);
            recipe.integrated = time;
            recipe.stamped = recipe.stamped.map(|_| time);
            fails(verdict(&recipe.bundle(), &demand), Step::Chain, "not valid at that time");
        }
        // A certificate for something else, and that of an authority.
        let mut recipe = Recipe::new(&world, log);
        recipe.certificate.usage = "1.3.6.1.5.5.7.3.1".to_owned();
        fails(verdict(&recipe.bundle(), &demand), Step::Chain, "");
        let mut recipe = Recipe::new(&world, log);
        recipe.certificate.authority = true;
        fails(verdict(&recipe.bundle(), &demand), Step::Chain, "an authority's");
    }
    // The authority is trusted no more at that time; its intermediate or root had expired.
    let mut retired = world.trusted_root();
    retired["certificateAuthorities"][0]["validFor"]["end"] = json!("2026-01-15T00:00:00Z");
    let bundle = Recipe::new(&world, &world.rekor).bundle();
    let demand = demand_of(&retired, rule());
    fails(verdict(&bundle, &demand), Step::Chain, "not trusted for that time");
    let (long, short) = ((BEGIN, BEGIN + 3650 * DAY), (BEGIN, BEGIN + 10 * DAY));
    for (root, between) in [(long, short), (short, long)] {
        let fulcio = Authority::with_intermediate("fulcio", 1, root, between);
        let world = World { fulcio, ..World::default() };
        let demand = demand_of(&world.trusted_root(), rule());
        let bundle = Recipe::new(&world, &world.rekor).bundle();
        fails(verdict(&bundle, &demand), Step::Chain, "");
    }
}

#[test]
fn step_9_sct() {
    let world = World::default();
    let demand = demand_of(&world.trusted_root(), rule());
    let mut recipe = Recipe::new(&world, &world.rekor);
    recipe.certificate.promised = None;
    fails(verdict(&recipe.bundle(), &demand), Step::Sct, "no promise of a log");
    let recipe = Recipe::new(&world, &world.rekor);
    let stranger = P256::new(b"another log");
    let elsewhere = world.fulcio.issue(&recipe.certificate, &stranger);
    fails(verdict(&recipe.bundle_with(&elsewhere), &demand), Step::Sct, "no trusted log");
    let mut retired = world.trusted_root();
    retired["ctlogs"][0]["publicKey"]["validFor"]["end"] = json!("2026-01-15T00:00:00Z");
    let demand = demand_of(&retired, rule());
    fails(verdict(&recipe.bundle(), &demand), Step::Sct, "no trusted log");
}

#[test]
fn step_10_signature() {
    let world = World::default();
    let demand = demand_of(&world.trusted_root(), rule());
    for log in both(&world) {
        let mut recipe = Recipe::new(&world, log);
        recipe.signer = P256::new(b"somebody else");
        fails(verdict(&recipe.bundle(), &demand), Step::Signature, "did not sign its content");
        let mut bundle = Recipe::new(&world, log).bundle();
        let other = String::from_utf8(statement())
            .unwrap()
            .replace("\"predicate\":{}", "\"predicate\":{ }");
        bundle["dsseEnvelope"]["payload"] = STANDARD.encode(other).into();
        fails(verdict(&bundle, &demand), Step::Signature, "did not sign its content");
    }
}

#[test]
fn step_11_entry() {
    let world = World::default();
    let demand = demand_of(&world.trusted_root(), rule());
    for log in both(&world) {
        let recipe = Recipe::new(&world, log);
        let good = recipe.bundle();
        let der = recipe.der();
        let signature = recipe.signer.sign(&pae(&recipe.payload));
        let with = |body: Value| {
            let mut bundle = good.clone();
            let entry = log.add(&body, recipe.integrated);
            bundle["verificationMaterial"]["tlogEntries"] = json!([entry]);
            verdict(&bundle, &demand)
        };
        let body = |payload: &[u8], signature: &[u8], der: &[u8]| {
            log.envelope_body(payload, signature, der)
        };
        fails(with(body(b"other", &signature, &der)), Step::Entry, "other content");
        fails(with(body(&recipe.payload, b"other", &der)), Step::Entry, "another signature");
        fails(with(body(&recipe.payload, &signature, b"other")), Step::Entry, "another signer");
        let message = log.message_body(&[0; 32], &signature, &der, "CERTIFICATE");
        fails(with(message), Step::Entry, "other content");
        let unknown = json!({ "apiVersion": "0.0.1", "kind": "rpm", "spec": {} });
        fails(with(unknown), Step::Entry, "\"rpm\"");
        let mut kind = good.clone();
        kind["verificationMaterial"]["tlogEntries"][0]["kindVersion"]["kind"] = json!("intoto");
        fails(verdict(&kind, &demand), Step::Entry, "another kind than it says");
        // An entry about exactly this signature, as some writers make it.
        let hash = standins::sha256(&pae(&recipe.payload));
        with(log.message_body(&hash, &signature, &der, "CERTIFICATE")).unwrap();
    }
}

#[test]
fn step_12_identity() {
    let world = World::default();
    let root = world.trusted_root();
    let bundle = Recipe::new(&world, &world.rekor).bundle();
    let asked = |change: &dyn Fn(&mut IdentityRule)| {
        let mut rule = rule();
        change(&mut rule);
        verdict(&bundle, &demand_of(&root, rule))
    };
    let pattern = |text: &str| Matching::pattern(text).unwrap();
    asked(&|rule| rule.subjects = vec![pattern(r"https://github\.com/team/.*")]).unwrap();
    // A pattern is about the whole name.
    for text in [r"https://github\.com/team", r"github\.com/team/.*", "evil|x"] {
        let refused = asked(&|rule| rule.subjects = vec![pattern(text)]);
        fails(refused, Step::Identity, WORKFLOW);
    }
    let fork = WORKFLOW.replace("team/app", "evil/app");
    let refused = asked(&|rule| rule.subjects = vec![Matching::Exact(fork.clone())]);
    fails(refused, Step::Identity, "signed it, not https://github.com/evil");
    let refused = asked(&|rule| rule.subjects = vec![Matching::Email(WORKFLOW.to_owned())]);
    fails(refused, Step::Identity, "not the mail address");
    let other = Matching::Exact("https://accounts.example".to_owned());
    fails(asked(&|rule| rule.issuer = Some(other.clone())), Step::Identity, "vouches");
    let claim = |name: &str, value: &str| {
        asked(&|rule| drop(rule.claims.insert(name.to_owned(), value.to_owned())))
    };
    claim("githubWorkflowTrigger", "push").unwrap();
    fails(claim("githubWorkflowTrigger", "pull_request"), Step::Identity, "is \"push\"");
    fails(claim("githubWorkflowName", "x"), Step::Identity, "says no githubWorkflowName");
    let root_of = TrustedRoot::read(root.to_string().as_bytes()).unwrap();
    let nobody = Signers::certificates(Vec::new(), root_of);
    let nobody = Demand { signers: nobody, identity: SignedIdentity::Any, ..Demand::default() };
    fails(verdict(&bundle, &nobody), Step::Identity, "no signer is trusted");
    // Two names, of which the second is the right one.
    let mut recipe = Recipe::new(&world, &world.rekor);
    recipe.certificate.names.insert(0, San::Email("me@evil.example".to_owned()));
    let two = verdict(&recipe.bundle(), &demand_of(&root, rule()));
    fails(two, Step::Identity, "2 names");
    recipe.certificate.names.clear();
    let none = verdict(&recipe.bundle(), &demand_of(&root, rule()));
    fails(none, Step::Identity, "names no identity");
}

/// A key is required and a certificate signed, or the reverse.
#[test]
fn one_kind_of_signer_does_not_pass_for_the_other() {
    let world = World::default();
    let bundle = Recipe::new(&world, &world.rekor).bundle();
    let key = sign::PrivateKey::generate().unwrap();
    let keys = Demand { signers: Signers::keys(vec![key.public()]), ..Demand::default() };
    assert_eq!(verdict(&bundle, &keys), Err(Mismatch::Keyless));
    let keyed = sign::bundle::Bundle::sign(&image(), None, &BTreeMap::new(), &key).unwrap();
    let keyed: Value = serde_json::from_slice(&keyed.to_json()).unwrap();
    let demand = demand_of(&world.trusted_root(), rule());
    assert_eq!(verdict(&keyed, &demand), Err(Mismatch::Keyed));
    // A caller that accepts both learns which it was.
    let mut either = demand;
    either.signers.keys = vec![key.public()];
    assert!(matches!(verdict(&bundle, &either), Ok(Signer::Certificate(_))));
    assert!(matches!(verdict(&keyed, &either), Ok(Signer::Key(_))));
}

/// A bundle whose evidence is of another signature (CVE-2022-36056), and a signature of another
/// image.
#[test]
fn evidence_is_not_interchangeable() {
    let world = World::default();
    let demand = demand_of(&world.trusted_root(), rule());
    let one = Recipe::new(&world, &world.rekor).bundle();
    let mut other = Recipe::new(&world, &world.rekor);
    other.payload = String::from_utf8(statement())
        .unwrap()
        .replace("\"predicate\":{}", "\"predicate\":{\"a\":1}")
        .into();
    let other = other.bundle();
    let mut mixed = one.clone();
    mixed["verificationMaterial"]["tlogEntries"] =
        other["verificationMaterial"]["tlogEntries"].clone();
    fails(verdict(&mixed, &demand), Step::Entry, "other content");
    let mut moved = Recipe::new(&world, &world.rekor);
    let digest = Digest::of(b"another image").hex();
    moved.payload = String::from_utf8(statement()).unwrap().replace(&image().hex(), &digest).into();
    assert!(matches!(verdict(&moved.bundle(), &demand), Err(Mismatch::Digest { .. })));
}

/// The older form: payload, certificate and promise beside each other.
#[test]
fn the_older_form_is_verified_by_its_annotations() {
    let world = World::default();
    let demand = demand_of(&world.trusted_root(), rule());
    let recipe = Recipe::new(&world, &world.rekor);
    let der = recipe.der();
    let payload = json!({
        "critical": {
            "identity": { "docker-reference": "r.example/team/app" },
            "image": { "docker-manifest-digest": image() },
            "type": "cosign container image signature",
        },
        "optional": null,
    })
    .to_string()
    .into_bytes();
    let signature = recipe.signer.sign(&payload);
    let hash = standins::sha256(&payload);
    let body = world.rekor.message_body(&hash, &signature, &der, "CERTIFICATE").to_string();
    let id: String = world.rekor.id().iter().map(|byte| format!("{byte:02x}")).collect();
    let entry = |time: u64| {
        let promise = world.rekor.promise(body.as_bytes(), NOW + 5, 3);
        json!({
            "SignedEntryTimestamp": STANDARD.encode(promise),
            "Payload": {
                "body": STANDARD.encode(&body), "integratedTime": time, "logIndex": 3, "logID": id,
            },
        })
        .to_string()
    };
    let verdict = |annotations: &[(&str, String)]| {
        let annotations =
            annotations.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        of(Evidence::Payload(payload.clone().into(), annotations.collect()), &demand)
    };
    let signed = ("dev.cosignproject.cosign/signature", STANDARD.encode(&signature));
    let certificate = ("dev.sigstore.cosign/certificate", standins::pem("CERTIFICATE", &der));
    let promised = ("dev.sigstore.cosign/bundle", entry(NOW + 5));
    let good = [signed.clone(), certificate.clone(), promised.clone()];
    assert!(matches!(verdict(&good), Ok(Signer::Certificate(_))));
    fails(verdict(&good[..2]), Step::Log, "it is in no log");
    let moved = ("dev.sigstore.cosign/bundle", entry(NOW + 6));
    fails(verdict(&[signed.clone(), certificate.clone(), moved]), Step::Promise, "promise");
    let broken = ("dev.sigstore.cosign/bundle", "{}".to_owned());
    fails(verdict(&[signed.clone(), certificate, broken]), Step::Material, "malformed");
    assert_eq!(verdict(&[signed, promised]), Err(Mismatch::Keyed));
}

/// No byte of a valid bundle can be changed so that other content is accepted.
#[test]
fn a_changed_byte_is_never_believed() {
    let world = World::default();
    let demand = demand_of(&world.trusted_root(), rule());
    for log in both(&world) {
        let good = Recipe::new(&world, log).bundle();
        let identity = verdict(&good, &demand).unwrap();
        let json = good.to_string().into_bytes();
        for at in (0..json.len()).step_by(31) {
            let mut changed = json.clone();
            changed[at] ^= 1;
            let evidence = Evidence::Bundle(changed.into());
            let candidate = Candidate { origin: String::new(), evidence };
            if let Ok(believed) = verify(&image(), &candidate, &demand) {
                assert_eq!(*believed.signer(), identity, "byte {at}");
            }
        }
    }
}
