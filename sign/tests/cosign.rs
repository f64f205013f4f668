//! What we sign, cosign accepts; what cosign signs, we accept; in both forms.
//!
//! The tests need cosign 3 in `PATH`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests, like tests")]

mod support;

use std::process::Command;

use sign::{Form, PrivateKey, PublicKey};
use support::registry::{Scene, keys, run};

const PASSPHRASE: &str = "correct horse";

fn possible() -> bool {
    Scene::possible() && requires::program("cosign").is_some()
}

fn cosign(scene: &Scene, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new("cosign");
    command.args(arguments).env("COSIGN_PASSWORD", PASSPHRASE);
    // Nothing is read from a home directory, and no log or authority is asked.
    command.env("HOME", scene.directory.path()).current_dir(&scene.directory);
    run(&mut command).map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn accepts(scene: &Scene, key: &PrivateKey, form: Form) -> Result<String, String> {
    let public = scene.file("trusted.pub", &key.public().to_pem()).display().to_string();
    let bundle = format!("--new-bundle-format={}", form == Form::Bundle);
    let name = format!("{}/team/app@{}", scene.host, scene.image.digest);
    cosign(
        scene,
        &[
            "verify",
            "--insecure-ignore-tlog",
            "--allow-http-registry",
            &bundle,
            "--key",
            &public,
            &name,
        ],
    )
}

#[tokio::test]
async fn cosign_accepts_what_we_sign() {
    if !possible() {
        return;
    }
    for form in [Form::Bundle, Form::Tag] {
        let scene = Scene::set().await;
        let (key, other) = keys();
        accepts(&scene, &key, form).unwrap_err();
        scene.sign("team/app:1", &key, form).await;
        let seen = accepts(&scene, &key, form).unwrap();
        assert!(seen.contains(&scene.image.digest.to_string()), "{seen}");
        accepts(&scene, &other, form).unwrap_err();
        scene.sign("team/app:1", &other, form).await;
        accepts(&scene, &key, form).unwrap();
        accepts(&scene, &other, form).unwrap();
    }
}

#[tokio::test]
async fn we_accept_what_cosign_signs() {
    if !possible() {
        return;
    }
    for form in [Form::Bundle, Form::Tag] {
        let scene = Scene::set().await;
        let (_, other) = keys();
        // With cosign's own key, which we read.
        cosign(&scene, &["generate-key-pair"]).unwrap();
        let read = |name: &str| std::fs::read(scene.directory.path().join(name)).unwrap();
        let key = PrivateKey::read(&read("cosign.key"), Some(PASSPHRASE.as_bytes())).unwrap();
        assert_eq!(key.public(), PublicKey::read(&read("cosign.pub")).unwrap());
        let bundle = format!("--new-bundle-format={}", form == Form::Bundle);
        let name = format!("{}/team/app@{}", scene.host, scene.image.digest);
        let by =
            ["sign", "--key", "cosign.key", "--tlog-upload=false", "--use-signing-config=false"];
        cosign(&scene, &[&by[..], &["--allow-http-registry", "-y", &bundle, &name]].concat())
            .unwrap();
        let signed = scene.verify_any_name("team/app:1", &key).await.unwrap();
        assert_eq!(signed[0].form(), form);
        scene.verify_any_name("team/app:1", &other).await.unwrap_err();
    }
}
