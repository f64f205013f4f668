use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};
use task::{Fault as _, Kind};

use super::*;
use crate::bundle::Bundle;
use crate::key::tests::key;
use crate::{Evidence, Mismatch};

const NAME: &str = "r.example/team/app:1";

fn image() -> Digest {
    Digest::of(b"the image")
}

fn signed_by(seed: u8, name: &str) -> Candidate {
    let bundle = Bundle::sign(&image(), Some(name), &BTreeMap::new(), &key(seed)).unwrap();
    Candidate { origin: format!("{seed}"), evidence: Evidence::Bundle(bundle.to_json().into()) }
}

fn data(seed: u8) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(key(seed).public().to_pem())
}

fn requires(seed: u8) -> Value {
    json!({ "type": "sigstoreSigned", "keyData": data(seed) })
}

fn policy(json: &Value) -> Policy {
    Policy::read("policy.json", json.to_string().as_bytes()).unwrap()
}

fn at(text: &str) -> Location {
    text.parse().unwrap()
}

fn decide(policy: &Policy, location: &str, candidates: &[Candidate]) -> Result<Vec<Verified>> {
    policy.decide(&image(), Some(&at(location)), candidates)
}

#[test]
fn the_most_specific_scope_decides_alone() {
    let policy = policy(&json!({
        "default": [{ "type": "reject" }],
        "transports": {
            "docker": {
                "": [{ "type": "insecureAcceptAnything" }],
                "r.example": [{ "type": "reject" }],
                "r.example/team": [requires(1)],
                "r.example/team/app:open": [{ "type": "insecureAcceptAnything" }],
                "*.wild.example": [{ "type": "reject" }],
            },
            "dir": { "/srv": [{ "type": "insecureAcceptAnything" }] },
        },
    }));
    let accepted = [
        "docker://r.example/team/app:open",
        "docker://other.example/x",
        "dir:/srv/app",
        "docker://wild.example/a",
    ];
    for location in accepted {
        assert_eq!(decide(&policy, location, &[]).unwrap(), [], "{location}");
        assert!(!policy.wants_signatures(Some(&at(location))), "{location}");
    }
    let rejected = [
        "docker://r.example/x",
        "docker://a.b.wild.example:5000/x",
        "dir:/tmp",
        "oci:/srv/app",
        "store:x",
    ];
    for location in rejected {
        let error = decide(&policy, location, &[signed_by(1, NAME)]).unwrap_err();
        assert!(matches!(error, Error::Rejected { .. }), "{location}: {error}");
        assert_eq!(error.kind(), Kind::Refused);
    }
    let location = format!("docker://{NAME}");
    assert!(policy.wants_signatures(Some(&at(&location))));
    assert!(matches!(decide(&policy, &location, &[]), Err(Error::Unsigned { .. })));
    assert_eq!(decide(&policy, &location, &[signed_by(1, NAME)]).unwrap()[0].name(), Some(NAME));
    // A place without a name only meets the default.
    assert!(policy.decide(&image(), None, &[signed_by(1, NAME)]).is_err());
}

#[test]
fn all_requirements_must_be_satisfied() {
    let location = format!("docker://{NAME}");
    let both = policy(&json!({ "default": [requires(1), requires(2)] }));
    let (one, two) = (signed_by(1, NAME), signed_by(2, NAME));
    assert!(decide(&both, &location, std::slice::from_ref(&one)).is_err());
    assert_eq!(decide(&both, &location, &[one.clone(), two.clone()]).unwrap().len(), 2);
    let accept = json!({ "type": "insecureAcceptAnything" });
    let mixed = policy(&json!({ "default": [accept, requires(1)] }));
    assert!(decide(&mixed, &location, std::slice::from_ref(&two)).is_err());
    assert!(decide(&mixed, &location, &[two, one]).is_ok());
}

#[test]
fn a_signature_for_another_name_is_refused_unless_the_rule_allows_it() {
    let other = signed_by(1, "r.example/team/app:2");
    let location = format!("docker://{NAME}");
    let strict = policy(&json!({ "default": [requires(1)] }));
    let error = decide(&strict, &location, std::slice::from_ref(&other)).unwrap_err();
    let Error::Unverified { rejected, .. } = &error else { panic!("{error}") };
    assert!(matches!(rejected[0].mismatch, Mismatch::Identity { .. }), "{error}");
    assert!(error.hint().unwrap().contains("matchRepository"));
    let mut loose = requires(1);
    loose["signedIdentity"] = json!({ "type": "matchRepository" });
    let loose = policy(&json!({ "default": [loose] }));
    decide(&loose, &location, std::slice::from_ref(&other)).unwrap();
    let error = decide(&loose, "oci:/srv/app", &[other]).unwrap_err().to_string();
    assert!(error.contains("a place without names"), "{error}");
}

#[test]
fn keys_are_read_from_files_when_they_are_needed() {
    let directory = tempfile::tempdir().unwrap();
    let path: PathBuf = directory.path().join("team.pub");
    let file = directory.path().join("policy.json");
    let requirement = json!({ "type": "sigstoreSigned", "keyPath": path });
    let json = json!({ "default": [requirement] });
    std::fs::write(&file, json.to_string()).unwrap();
    let policy = Policy::open(&file).unwrap();
    let location = format!("docker://{NAME}");
    let missing = decide(&policy, &location, &[]).unwrap_err();
    assert_eq!(missing.kind(), Kind::NotFound);
    std::fs::write(&path, "nonsense").unwrap();
    assert!(matches!(decide(&policy, &location, &[]), Err(Error::Key { .. })));
    std::fs::write(&path, key(1).public().to_pem()).unwrap();
    decide(&policy, &location, &[signed_by(1, NAME)]).unwrap();
    assert!(Policy::open(&directory.path().join("none")).is_err());
}

#[test]
fn the_open_policy_accepts_anything() {
    let open = Policy::accept_anything();
    assert!(!open.wants_signatures(None));
    assert_eq!(open.decide(&image(), None, &[]).unwrap(), []);
}

#[test]
fn a_key_is_read_beside_what_waits() {
    let place = tempfile::tempdir().unwrap();
    let pipe = place.path().join("key.pub");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let signed = json!({ "type": "sigstoreSigned", "keyPath": pipe });
    let policy = policy(&json!({ "default": [signed] }));
    let memory = copy::Memory::new();
    let root = memory.insert(image::MediaType::OCI_MANIFEST, &b"{}"[..]);
    let (source, task) = (memory.image("app:1"), Task::silent());
    // Who reads the key in place of waiting for it is let go on in the end, and fails the test.
    let (done, waiting) = std::sync::mpsc::channel::<()>();
    let writer = pipe.clone();
    let guard = std::thread::spawn(move || {
        let _ = waiting.recv_timeout(std::time::Duration::from_secs(20));
        std::fs::File::options().write(true).open(writer).map(drop)
    });
    let executor = tokio::runtime::Builder::new_current_thread().build().unwrap();
    executor.block_on(async {
        tokio::select! {
            biased;
            checked = policy.check(&source, &root, &task) => panic!("{checked:?}"),
            () = std::future::ready(()) => {}
        }
    });
    drop(done);
    guard.join().unwrap().unwrap();
}
