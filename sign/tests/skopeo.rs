//! What we sign, skopeo accepts; what skopeo signs, we accept; what is wrong, both refuse.
//!
//! Debian 12 ships a skopeo whose sigstore part is cut out; the tests need one that has it, first
//! in `PATH`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests, like tests")]

mod support;

use std::path::Path;
use std::process::Command;

use image::{Descriptor, MediaType};
use serde_json::json;
use sign::{Form, PrivateKey};
use support::registry::{Scene, keys, run};
use task::Task;
use transport::{Sink as _, Source as _, Unverified};

const PASSPHRASE: &str = "correct horse";

/// Whether there is a skopeo that can make keys; Debian's, which cannot, lacks all of sigstore.
fn possible() -> bool {
    if !Scene::possible() || requires::program("skopeo").is_none() {
        return false;
    }
    let directory = tempfile::tempdir().unwrap();
    let passphrase = directory.path().join("passphrase");
    std::fs::write(&passphrase, PASSPHRASE).unwrap();
    let mut command = Command::new("skopeo");
    command.args(["generate-sigstore-key", "--output-prefix", "key", "--passphrase-file"]);
    let output = command.arg(&passphrase).current_dir(&directory).output().unwrap();
    let possible = output.status.success();
    if !possible {
        requires::cannot("needs a skopeo with sigstore");
    }
    possible
}

fn skopeo(scene: &Scene, policy: &Path, arguments: &[&str]) -> Result<(), String> {
    let configuration = scene.directory.path().join("registries.d");
    std::fs::create_dir_all(&configuration).unwrap();
    let text = format!("docker:\n  {}:\n    use-sigstore-attachments: true\n", scene.host);
    std::fs::write(configuration.join("test.yaml"), text).unwrap();
    let mut command = Command::new("skopeo");
    command.arg("--policy").arg(policy).arg("--registries.d").arg(configuration);
    command.arg("--tmpdir").arg(scene.directory.path()).arg("copy");
    command.args(["--src-tls-verify=false", "--dest-tls-verify=false"]).args(arguments);
    run(&mut command).map(drop)
}

/// Whether skopeo takes an image out of the registry by a policy that trusts this key.
fn accepts(scene: &Scene, name: &str, key: &PrivateKey) -> Result<(), String> {
    let public = scene.file("trusted.pub", &key.public().to_pem());
    let requirement = json!({ "type": "sigstoreSigned", "keyPath": public });
    let scopes = json!({ "docker": { scene.host.as_str(): [requirement] } });
    let json = json!({ "default": [{ "type": "reject" }], "transports": scopes });
    let policy = scene.file("policy.json", &json.to_string());
    let target = tempfile::tempdir_in(&scene.directory).unwrap();
    let target = format!("dir:{}", target.path().join("out").display());
    let source = format!("docker://{}/{name}", scene.host);
    skopeo(scene, &policy, &["--remove-signatures", &source, &target])
}

#[tokio::test]
async fn skopeo_accepts_what_we_sign() {
    if !possible() {
        return;
    }
    let scene = Scene::set().await;
    let ((key, other), name) = (keys(), "team/app:1");
    accepts(&scene, name, &key).unwrap_err();
    scene.sign(name, &key, Form::Tag).await;
    accepts(&scene, name, &key).unwrap();
    accepts(&scene, name, &other).unwrap_err();
    // A second signature is added to the first, and both count.
    scene.sign(name, &other, Form::Tag).await;
    accepts(&scene, name, &key).unwrap();
    accepts(&scene, name, &other).unwrap();
}

#[tokio::test]
async fn we_accept_what_skopeo_signs() {
    if !possible() {
        return;
    }
    let scene = Scene::set().await;
    let (key, other) = keys();
    let private = key.to_encrypted_pem(PASSPHRASE.as_bytes()).unwrap();
    let private = scene.file("team.key", &private).display().to_string();
    let passphrase = scene.file("passphrase", PASSPHRASE).display().to_string();
    let any = scene.file("any.json", r#"{"default":[{"type":"insecureAcceptAnything"}]}"#);
    let from = format!("docker://{}/team/app:1", scene.host);
    let to = format!("docker://{}/team/signed:1", scene.host);
    let by = ["--sign-by-sigstore-private-key", &private, "--sign-passphrase-file", &passphrase];
    skopeo(&scene, &any, &[&by[..], &[&from, &to]].concat()).unwrap();
    let name = "team/signed:1";
    assert_eq!(scene.verify(name, &key).await.unwrap(), 1);
    scene.verify(name, &other).await.unwrap_err();
    // We add to skopeo's signature, and skopeo still finds its own and ours.
    scene.sign(name, &other, Form::Tag).await;
    accepts(&scene, name, &key).unwrap();
    accepts(&scene, name, &other).unwrap();
}

#[tokio::test]
async fn a_tampered_payload_is_refused_by_both() {
    if !possible() {
        return;
    }
    let scene = Scene::set().await;
    let ((key, _), name) = (keys(), "team/app:1");
    scene.sign(name, &key, Form::Tag).await;
    tamper(&scene).await;
    accepts(&scene, name, &key).unwrap_err();
    let refused = scene.verify(name, &key).await.unwrap_err().to_string();
    assert!(refused.contains("or one of the two was changed"), "{refused}");
}

/// Changes a payload, and lets the manifest of the signatures point at the changed one.
async fn tamper(scene: &Scene) {
    let place = scene.place(&format!("team/app:{}", scene.tag()));
    let read = async |descriptor: &Descriptor| {
        let fetched = place.fetch(descriptor).await.unwrap();
        fetched.verify(descriptor).read().await.unwrap()
    };
    let root = place.resolve().await.unwrap();
    let mut manifest: image::Manifest = serde_json::from_slice(&read(&root).await).unwrap();
    let payload = read(&manifest.layers[0]).await;
    let payload = String::from_utf8(payload.to_vec()).unwrap().replace("release", "changed");
    let changed = Descriptor::of(MediaType::SIMPLE_SIGNING, payload.as_bytes());
    place.put(&changed, Unverified::whole(payload).verify(&changed)).await.unwrap();
    let annotations = manifest.layers[0].annotations.clone();
    manifest.layers[0] = Descriptor { annotations, ..changed };
    let bytes = serde_json::to_vec(&manifest).unwrap();
    let root = Descriptor::of(MediaType::OCI_MANIFEST, &bytes);
    place.publish(&root, bytes.into(), &Task::silent()).await.unwrap();
}
