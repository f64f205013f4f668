//! What we sign, skopeo accepts; what skopeo signs, we accept; what is wrong, both refuse.
//!
//! Debian 12 ships a skopeo whose sigstore part is cut out; the tests need one that has it, first
//! in `PATH`.
//!
//! Debian 12 ships a skopeo without sigstore; the first `skopeo` with it in `PATH` is used.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests, like tests")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use image::{Descriptor, MediaType, Reference};
use serde_json::json;
use sign::{Demand, Form, PrivateKey, SignOptions, SignedIdentity, sign_image, verify_image};
use support::Place;
use support::registry::Registry;
use task::Task;
use tempfile::TempDir;
use transport::at::Memory;

const PASSPHRASE: &str = "correct horse";

/// A registry, a directory for keys and configuration, and an image in memory.
struct Scene {
    directory: TempDir,
    registry: Registry,
    memory: Memory,
    image: Descriptor,
}

impl Scene {
    /// `None`, and a word about it, where the tools are not installed.
    fn set() -> Option<Scene> {
        if !knows_sigstore() || !Path::new("/usr/bin/docker-registry").exists() {
            println!("skipped: needs docker-registry and a skopeo with sigstore");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let registry = Registry::start(directory.path());
        let configuration = directory.path().join("registries.d");
        std::fs::create_dir(&configuration).unwrap();
        let host = &registry.host;
        let text = format!("docker:\n  {host}:\n    use-sigstore-attachments: true\n");
        std::fs::write(configuration.join("test.yaml"), text).unwrap();
        std::fs::write(directory.path().join("passphrase"), PASSPHRASE).unwrap();
        let memory = Memory::new();
        let (manifest, blobs) = support::image("x");
        for (descriptor, bytes) in blobs {
            memory.insert(descriptor.media_type, bytes);
        }
        let image = memory.insert(MediaType::OCI_MANIFEST, manifest.bytes().clone());
        Some(Scene { directory, registry, memory, image })
    }

    fn name(&self, repository: &str) -> Reference {
        format!("{}/{repository}:1", self.registry.host).parse().unwrap()
    }

    fn place(&self, repository: &str) -> Place {
        Place::new(&self.memory, self.name(repository))
    }

    fn tag(&self) -> String {
        sign::simple_signing::tag(&self.image.digest).unwrap().to_string()
    }

    /// Puts the image and its signatures into the registry.
    fn push(&self, repository: &str) {
        self.registry.push(&self.memory, &self.image, repository, "1");
        let tag = self.tag();
        let signatures = format!("{}/{repository}:{tag}", self.registry.host);
        if let Some(signatures) = self.memory.named(&signatures) {
            self.registry.push(&self.memory, &signatures, repository, &tag);
        }
    }

    async fn sign(&self, repository: &str, key: &PrivateKey) {
        let place = self.place(repository);
        let options = SignOptions {
            form: Form::Tag,
            name: Some(self.name(repository)),
            annotations: BTreeMap::from([("stage".to_owned(), "release".to_owned())]),
            created: None,
        };
        sign_image(&self.image, key, &place, &place, &options, &Task::silent()).await.unwrap();
    }

    async fn verify(&self, repository: &str, key: &PrivateKey) -> Result<usize, sign::Error> {
        let demand = Demand {
            keys: vec![key.public()],
            identity: SignedIdentity::Exact,
            asked: Some(self.name(repository)),
            ..Demand::default()
        };
        let place = self.place(repository);
        Ok(verify_image(&self.image, &demand, &place, &Task::silent()).await?.len())
    }

    fn skopeo(&self, policy: &Path, arguments: &[&str]) -> Result<(), String> {
        let output = Command::new("skopeo")
            .arg("--policy")
            .arg(policy)
            .arg("--registries.d")
            .arg(self.directory.path().join("registries.d"))
            .args(["--tmpdir", self.directory.path().to_str().unwrap(), "copy"])
            .args(["--src-tls-verify=false", "--dest-tls-verify=false"])
            .args(arguments)
            .output()
            .unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(message) }
    }

    /// Whether skopeo takes an image out of the registry by a policy that trusts this key.
    fn skopeo_accepts(&self, repository: &str, key: &PrivateKey) -> Result<(), String> {
        let directory = tempfile::tempdir_in(&self.directory).unwrap();
        let (public, policy) = (directory.path().join("k.pub"), directory.path().join("p.json"));
        std::fs::write(&public, key.public().to_pem()).unwrap();
        let requirement = json!({ "type": "sigstoreSigned", "keyPath": public });
        let scopes = json!({ "docker": { self.registry.host.as_str(): [requirement] } });
        let json = json!({ "default": [{ "type": "reject" }], "transports": scopes });
        std::fs::write(&policy, json.to_string()).unwrap();
        // The same file decides the same way here.
        sign::Policy::open(&policy).unwrap();
        let source = format!("docker://{}", self.name(repository));
        let target = format!("dir:{}", directory.path().join("out").display());
        self.skopeo(&policy, &["--remove-signatures", &source, &target])
    }

    /// Lets skopeo copy within the registry and sign the copy.
    fn skopeo_signs(&self, from: &str, to: &str, key: &PrivateKey) {
        let path = |name: &str| self.directory.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("k.key"), key.to_encrypted_pem(PASSPHRASE.as_bytes()).unwrap())
            .unwrap();
        std::fs::write(path("any.json"), r#"{"default":[{"type":"insecureAcceptAnything"}]}"#)
            .unwrap();
        let (key, passphrase) = (path("k.key"), path("passphrase"));
        let (from, to) =
            (format!("docker://{}", self.name(from)), format!("docker://{}", self.name(to)));
        let signing =
            ["--sign-by-sigstore-private-key", &key, "--sign-passphrase-file", &passphrase];
        let arguments = [&signing[..], &[&from, &to]].concat();
        self.skopeo(Path::new(&path("any.json")), &arguments).unwrap();
    }

    /// Brings the signatures of the image from the registry into the memory.
    fn pull_signatures(&self, repository: &str) {
        self.registry.pull(&self.memory, repository, &self.tag());
    }
}

/// Whether there is a skopeo that can make keys; Debian's, which cannot, lacks all of sigstore.
fn knows_sigstore() -> bool {
    let directory = tempfile::tempdir().unwrap();
    let passphrase = directory.path().join("passphrase");
    std::fs::write(&passphrase, PASSPHRASE).unwrap();
    let mut command = Command::new("skopeo");
    command.args(["generate-sigstore-key", "--output-prefix", "key", "--passphrase-file"]);
    let output = command.arg(&passphrase).current_dir(&directory).output();
    output.is_ok_and(|output| output.status.success())
}

fn keys() -> (PrivateKey, PrivateKey) {
    (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap())
}

#[tokio::test]
async fn skopeo_accepts_what_we_sign() {
    let Some(scene) = Scene::set() else { return };
    let (key, other) = keys();
    scene.push("team/app");
    let unsigned = scene.skopeo_accepts("team/app", &key).unwrap_err();
    assert!(unsigned.contains("no signature"), "{unsigned}");
    scene.sign("team/app", &key).await;
    scene.push("team/app");
    scene.skopeo_accepts("team/app", &key).unwrap();
    scene.skopeo_accepts("team/app", &other).unwrap_err();
    // The same content under another name carries a signature for the first name.
    scene.registry.push(&scene.memory, &scene.image, "team/other", "1");
    scene.pull_signatures("team/app");
    let moved = scene.memory.named(&format!("{}/team/app:{}", scene.registry.host, scene.tag()));
    scene.registry.push(&scene.memory, &moved.unwrap(), "team/other", &scene.tag());
    scene.skopeo_accepts("team/other", &key).unwrap_err();
    // A second signature is added to the first, and both count.
    scene.sign("team/app", &other).await;
    scene.push("team/app");
    scene.skopeo_accepts("team/app", &key).unwrap();
    scene.skopeo_accepts("team/app", &other).unwrap();
}

#[tokio::test]
async fn we_accept_what_skopeo_signs() {
    let Some(scene) = Scene::set() else { return };
    let (key, other) = keys();
    scene.push("team/app");
    // Skopeo reads the key as we encrypted it.
    scene.skopeo_signs("team/app", "team/signed", &key);
    scene.pull_signatures("team/signed");
    assert_eq!(scene.verify("team/signed", &key).await.unwrap(), 1);
    let refused = scene.verify("team/signed", &other).await.unwrap_err().to_string();
    assert!(refused.contains("it does not fit its content by the trusted key"), "{refused}");
    // We add to skopeo's signature, and skopeo still finds its own and ours.
    scene.sign("team/signed", &other).await;
    scene.push("team/signed");
    scene.skopeo_accepts("team/signed", &key).unwrap();
    scene.skopeo_accepts("team/signed", &other).unwrap();
    assert_eq!(scene.verify("team/signed", &key).await.unwrap(), 1);
}

#[tokio::test]
async fn a_tampered_payload_is_refused_by_both() {
    let Some(scene) = Scene::set() else { return };
    let (key, _) = keys();
    scene.sign("team/app", &key).await;
    let name = format!("{}/team/app:{}", scene.registry.host, scene.tag());
    let signatures = scene.memory.named(&name).unwrap();
    let bytes = scene.memory.get(signatures.digest).unwrap();
    let mut manifest: image::Manifest = serde_json::from_slice(&bytes).unwrap();
    // The payload is changed and the manifest points at the changed one.
    let payload = scene.memory.get(manifest.layers[0].digest).unwrap();
    let payload = String::from_utf8(payload.to_vec()).unwrap().replace("release", "changed");
    let changed = scene.memory.insert(MediaType::SIMPLE_SIGNING, payload);
    let annotations = manifest.layers[0].annotations.clone();
    manifest.layers[0] = Descriptor { annotations, ..changed };
    let bytes = serde_json::to_vec(&manifest).unwrap();
    let tampered = scene.memory.insert(MediaType::OCI_MANIFEST, bytes);
    scene.memory.name(&name, &tampered);
    scene.push("team/app");
    scene.skopeo_accepts("team/app", &key).unwrap_err();
    let refused = scene.verify("team/app", &key).await.unwrap_err().to_string();
    assert!(refused.contains("or one of the two was changed"), "{refused}");
}
