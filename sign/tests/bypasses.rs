//! Published ways around verifiers of signatures. Each is refused, and each for a reason of its own.
//!
//! Those that need more than one signature are elsewhere: `docs/decisions/0060-published-bypasses.md` lists all.
#![allow(clippy::unwrap_used, clippy::too_many_lines, reason = "tests are tables")]

mod made;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::Digest;
use made::*;
use serde_json::{Value, json};
use sign::{Evidence, Matching, Mismatch, Signer};
use standins::{Authority, BEGIN, DAY, World};

/// A published weakness, and what the words of the refusal are.
struct Bypass {
    published: &'static str,
    refused: Result<Signer, Mismatch>,
    words: &'static str,
}

const ENTRY: &str = "/verificationMaterial/tlogEntries/0";

/// The verdict about a good bundle after a change.
fn changed(world: &World, change: impl FnOnce(&mut Value)) -> Result<Signer, Mismatch> {
    let mut bundle = Recipe::new(world, &world.rekor).bundle();
    change(&mut bundle);
    verdict(&bundle, &demand_of(&world.trusted_root(), rule()))
}

/// The verdict about a good bundle whose log entry has another body.
fn entry(world: &World, body: impl FnOnce(&Recipe<'_>) -> Value) -> Result<Signer, Mismatch> {
    let recipe = Recipe::new(world, &world.rekor);
    let entry = world.rekor.add(&body(&recipe), recipe.integrated);
    changed(world, |bundle| *bundle.pointer_mut(ENTRY).unwrap() = entry)
}

/// The verdict about another payload that the same signer has signed and logged.
fn signed(world: &World, payload: &[u8]) -> Result<Signer, Mismatch> {
    let recipe = Recipe { payload: payload.to_vec(), ..Recipe::new(world, &world.rekor) };
    verdict(&recipe.bundle(), &demand_of(&world.trusted_root(), rule()))
}

/// The verdict where somebody else is asked for.
fn asked(world: &World, change: impl FnOnce(&mut sign::IdentityRule)) -> Result<Signer, Mismatch> {
    let mut rule = rule();
    change(&mut rule);
    let bundle = Recipe::new(world, &world.rekor).bundle();
    verdict(&bundle, &demand_of(&world.trusted_root(), rule))
}

fn about_the_log(world: &World) -> Vec<Bypass> {
    let signature = |recipe: &Recipe<'_>| recipe.signer.sign(&pae(&recipe.payload));
    let stranger = World::new(9);
    let row = |published, words, refused| Bypass { published, refused, words };
    vec![
        row(
            "CVE-2022-36056: the entry is of another signature",
            "another signature",
            entry(world, |recipe| {
                world.rekor.envelope_body(&recipe.payload, b"other", &recipe.der())
            }),
        ),
        row(
            "CVE-2022-36056: a promise that nobody signed",
            "did not sign the promise",
            changed(world, |bundle| {
                let promise = json!({ "signedEntryTimestamp": STANDARD.encode([0; 70]) });
                bundle.pointer_mut(ENTRY).unwrap()["inclusionPromise"] = promise;
            }),
        ),
        row(
            "CVE-2022-36056: an entry that cannot be read",
            "malformed",
            changed(world, |bundle| *bundle.pointer_mut(ENTRY).unwrap() = json!({ "body": 1 })),
        ),
        row("CVE-2023-47122: a log that vouches for itself", "a log that is not trusted", {
            let elsewhere = Recipe::new(&stranger, &stranger.rekor);
            let entry = elsewhere.bundle().pointer(ENTRY).unwrap().clone();
            changed(world, |bundle| *bundle.pointer_mut(ENTRY).unwrap() = entry)
        }),
        row(
            "CVE-2024-53267: a valid entry of somebody else",
            "another signer",
            entry(world, |recipe| {
                world.rekor.envelope_body(&recipe.payload, &signature(recipe), b"other")
            }),
        ),
        row(
            "CVE-2024-54140: a proof for a tree that the log never had",
            "the log did not sign its checkpoint",
            changed(world, |bundle| {
                let proof = &mut bundle.pointer_mut(ENTRY).unwrap()["inclusionProof"];
                let size = proof["treeSize"].as_str().unwrap().parse().unwrap();
                let root = STANDARD.decode(proof["rootHash"].as_str().unwrap()).unwrap();
                let note = stranger.rekor.checkpoint(size, &root);
                proof["checkpoint"] = json!({ "envelope": note });
            }),
        ),
        row(
            "CVE-2026-22703: any entry is accepted",
            "\"rpm\"",
            entry(world, |_| json!({ "apiVersion": "0.0.1", "kind": "rpm", "spec": {} })),
        ),
        row(
            "CVE-2026-49834: one good entry hides a bad one",
            "the log's tree does not have its entry",
            changed(world, |bundle| {
                let entries = bundle.pointer_mut("/verificationMaterial/tlogEntries").unwrap();
                let mut second = entries[0].clone();
                second["inclusionProof"]["rootHash"] = STANDARD.encode([0; 32]).into();
                entries.as_array_mut().unwrap().push(second);
            }),
        ),
        row(
            "CVE-2024-45395: more entries than anyone reads",
            "too many",
            changed(world, |bundle| {
                let entries = bundle.pointer_mut("/verificationMaterial/tlogEntries").unwrap();
                *entries = vec![entries[0].clone(); 100].into();
            }),
        ),
    ]
}

fn about_time(world: &World) -> Vec<Bypass> {
    let row = |published, words, refused| Bypass { published, refused, words };
    let demand = demand_of(&world.trusted_root(), rule());
    let mut retired = world.trusted_root();
    retired["tlogs"][0]["publicKey"]["validFor"]["end"] = json!("2026-01-15T00:00:00Z");
    let (long, short) = ((BEGIN, BEGIN + 3650 * DAY), (BEGIN, BEGIN + 10 * DAY));
    let fulcio = Authority::with_intermediate("fulcio", 1, long, short);
    let expired = World { fulcio, ..World::default() };
    vec![
        row("CVE-2024-55655: a time that nobody signed", "no trusted source states when", {
            let recipe = Recipe { stamped: None, ..Recipe::new(world, &world.tiles) };
            let mut bundle = recipe.bundle();
            bundle.pointer_mut(ENTRY).unwrap()["integratedTime"] = NOW.to_string().into();
            verdict(&bundle, &demand)
        }),
        row("CVE-2024-55655: signed after the certificate expired", "not valid at that time", {
            let late = Recipe { integrated: NOW + 3600, ..Recipe::new(world, &world.rekor) };
            verdict(&late.bundle(), &demand)
        }),
        row("CVE-2026-54787: a log whose key was retired", "not trusted at the time", {
            let bundle = Recipe::new(world, &world.rekor).bundle();
            verdict(&bundle, &demand_of(&retired, rule()))
        }),
        row(
            "CVE-2026-24122: an expired intermediate certificate",
            "a certificate of its chain had expired",
            {
                let bundle = Recipe::new(&expired, &expired.rekor).bundle();
                verdict(&bundle, &demand_of(&expired.trusted_root(), rule()))
            },
        ),
    ]
}

fn about_who_and_what(world: &World) -> Vec<Bypass> {
    let row = |published, words, refused| Bypass { published, refused, words };
    let statement = String::from_utf8(statement()).unwrap();
    let other = Digest::of(b"another image").hex();
    let bypass = |text: &str| Matching::pattern(text).unwrap();
    vec![
        row(
            "CVE-2022-23649, CVE-2024-51746: an entry of another signature of the same signer",
            "its log entry is about other content",
            tag_form_with_a_foreign_promise(world),
        ),
        row(
            "CVE-2022-36056: the issuer is not compared",
            "vouches for it",
            asked(world, |rule| rule.issuer = Some(Matching::Exact("https://other".to_owned()))),
        ),
        row(
            "CVE-2022-36056: the workflow is not compared",
            "githubWorkflowTrigger is \"push\"",
            asked(world, |rule| {
                rule.claims.insert("githubWorkflowTrigger".to_owned(), "release".to_owned());
            }),
        ),
        row(
            "CVE-2025-29778: patterns are not compared",
            "signed it, not",
            asked(world, |rule| rule.subjects = vec![bypass("https://github\\.com/other/.*")]),
        ),
        row(
            "CVE-2022-35929: a statement of another type",
            "not the type of an image's signature",
            signed(
                world,
                statement
                    .replace(sign::dsse::SIGN_V1, "https://cosign.sigstore.dev/attestation/vuln/v1")
                    .as_bytes(),
            ),
        ),
        row(
            "CVE-2022-47633, CVE-2023-33959: the signature of another image",
            "not this image",
            signed(world, statement.replace(&image().hex(), &other).as_bytes()),
        ),
        row(
            "CVE-2026-39395: a payload that cannot be read",
            "it is malformed",
            signed(world, b"no statement"),
        ),
        row(
            "CVE-2022-21449: a signature of zeros",
            "did not sign its content",
            changed(world, |bundle| {
                let zeros = STANDARD.encode([0x30, 6, 2, 1, 0, 2, 1, 0]);
                bundle["dsseEnvelope"]["signatures"][0]["sig"] = zeros.into();
            }),
        ),
    ]
}

/// Payload, certificate and signature of one image with the promise that the log gave for another.
fn tag_form_with_a_foreign_promise(world: &World) -> Result<Signer, Mismatch> {
    let recipe = Recipe::new(world, &world.rekor);
    let payload = |image: &Digest| {
        let critical = json!({
            "identity": { "docker-reference": "r.example/team/app" },
            "image": { "docker-manifest-digest": image },
            "type": "cosign container image signature",
        });
        json!({ "critical": critical, "optional": null }).to_string().into_bytes()
    };
    let (good, other) = (payload(&image()), payload(&Digest::of(b"another image")));
    let hash = standins::sha256(&other);
    let signature = recipe.signer.sign(&other);
    let body = world.rekor.message_body(&hash, &signature, &recipe.der(), "CERTIFICATE");
    let body = body.to_string();
    let id: String = world.rekor.id().iter().map(|byte| format!("{byte:02x}")).collect();
    let promise = world.rekor.promise(body.as_bytes(), recipe.integrated, 3);
    let entry = json!({
        "SignedEntryTimestamp": STANDARD.encode(promise),
        "Payload": {
            "body": STANDARD.encode(&body), "integratedTime": recipe.integrated, "logIndex": 3,
            "logID": id,
        },
    });
    let annotations = [
        ("dev.cosignproject.cosign/signature", STANDARD.encode(recipe.signer.sign(&good))),
        ("dev.sigstore.cosign/certificate", standins::pem("CERTIFICATE", &recipe.der())),
        ("dev.sigstore.cosign/bundle", entry.to_string()),
    ];
    let annotations = annotations.map(|(name, value)| (name.to_owned(), value));
    let evidence = Evidence::Payload(good.into(), annotations.into());
    of(evidence, &demand_of(&world.trusted_root(), rule()))
}

#[test]
fn published_bypasses_are_each_refused_with_their_own_reason() {
    let world = World::default();
    changed(&world, |_| ()).unwrap();
    let mut all = about_the_log(&world);
    all.extend(about_time(&world));
    all.extend(about_who_and_what(&world));
    assert!(all.len() >= 20, "{}", all.len());
    let mut reasons = BTreeMap::new();
    for Bypass { published, refused, words } in all {
        let reason = refused.expect_err(published).to_string();
        assert!(reason.contains(words), "{published}: {reason:?} is not about {words:?}");
        let before = reasons.insert(reason, published);
        assert_eq!(before, None, "{published} has the same reason");
    }
}
