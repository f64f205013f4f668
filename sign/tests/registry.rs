//! Signatures in a real registry, which lacks the referrers API: both forms, and a policy.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests, like tests")]

mod support;

use serde_json::json;
use sign::{Error, Form, Policy};
use support::registry::{Scene, keys};
use task::{Kind, Task};
use transport::{Gate as _, Source as _};

#[tokio::test]
async fn signatures_are_kept_beside_the_image() {
    if !Scene::possible() {
        return;
    }
    let scene = Scene::set().await;
    let (key, other) = keys();
    let name = "team/app:1";
    for form in [Form::Bundle, Form::Tag] {
        let before = scene.verify(name, &key).await.unwrap_or_default();
        let first = scene.sign(name, &key, form).await;
        assert_eq!(scene.verify(name, &key).await.unwrap(), before + 1);
        assert_eq!(scene.sign(name, &key, form).await.digest, first.digest);
        assert_eq!(scene.verify(name, &key).await.unwrap(), before + 1);
        assert!(matches!(scene.verify(name, &other).await, Err(Error::Unverified { .. })));
    }
    scene.sign(name, &other, Form::Bundle).await;
    scene.sign(name, &other, Form::Tag).await;
    assert_eq!(scene.verify(name, &key).await.unwrap(), 2);
    assert_eq!(scene.verify(name, &other).await.unwrap(), 2);
    assert!(matches!(scene.verify("team/other:1", &key).await, Err(Error::Unsigned { .. })));
}

#[tokio::test]
async fn a_policy_guards_the_repository() {
    if !Scene::possible() {
        return;
    }
    let scene = Scene::set().await;
    let (key, _) = keys();
    let public = scene.file("team.pub", &key.public().to_pem());
    let requirement = json!({ "type": "sigstoreSigned", "keyPath": public });
    let scopes = json!({ "docker": { scene.host.as_str(): [requirement] } });
    let json = json!({ "default": [{ "type": "reject" }], "transports": scopes });
    let policy = Policy::open(&scene.file("policy.json", &json.to_string())).unwrap();
    let place = scene.place("team/app:1");
    let refused = policy.check(&place, &scene.image, &Task::silent()).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Refused);
    scene.sign("team/app:1", &key, Form::Bundle).await;
    policy.check(&place, &scene.image, &Task::silent()).await.unwrap();
    // The tag moves to an unsigned image.
    let changed = scene.push("team/app:1", "changed").await;
    assert_eq!(place.resolve().await.unwrap().digest, changed.digest);
    let refused = policy.check(&place, &changed, &Task::silent()).await.unwrap_err();
    assert!(refused.to_string().ends_with("it has no signature"), "{refused}");
}
