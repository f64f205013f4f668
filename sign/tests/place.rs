//! Signing an image in a place and finding the signatures again.

#![allow(clippy::unwrap_used, reason = "helpers of tests, like tests")]

mod support;

use std::collections::BTreeMap;

use image::{Descriptor, Document, Index, MediaType, Reference};
use sign::{
    Demand, Error, Form, MAX_SIGNATURES, Policy, PrivateKey, PublicKey, SignOptions,
    SignedIdentity, Verified, members, sign_image, verify_image,
};
use support::Place;
use task::{Kind, Task};
use transport::at::Memory;
use transport::{Artifact, Gate, attach};

const NAME: &str = "r.example/team/app:1";

fn name() -> Reference {
    NAME.parse().unwrap()
}

fn options(form: Form) -> SignOptions {
    let annotations = BTreeMap::from([("stage".to_owned(), "release".to_owned())]);
    SignOptions { form, name: Some(name()), annotations, created: None }
}

fn demand(key: &PrivateKey) -> Demand {
    Demand {
        signers: sign::Signers::keys(vec![key.public()]),
        identity: SignedIdentity::RepoDigestOrExact,
        asked: Some(name()),
        ..Demand::default()
    }
}

/// A repository with one image in it.
fn place() -> (Place, Descriptor) {
    let memory = Memory::new();
    let (manifest, blobs) = support::image("x");
    for (descriptor, bytes) in blobs {
        memory.insert(descriptor.media_type, bytes);
    }
    memory.insert(MediaType::OCI_MANIFEST, manifest.bytes().clone());
    memory.name(NAME, manifest.descriptor());
    (Place::new(&memory, name()), manifest.descriptor().clone())
}

async fn sign(place: &Place, image: &Descriptor, key: &PrivateKey, form: Form) -> Descriptor {
    let signed = sign_image(image, key, place, place, &options(form), &Task::silent()).await;
    signed.unwrap()
}

async fn verify(
    place: &Place,
    image: &Descriptor,
    demand: &Demand,
) -> Result<Vec<Verified>, Error> {
    verify_image(image, demand, place, &Task::silent()).await
}

#[tokio::test]
async fn both_forms_are_found_again_and_say_who_signed() {
    for form in [Form::Bundle, Form::Tag] {
        let (place, image) = place();
        let (key, other) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
        let unsigned = verify(&place, &image, &demand(&key)).await.unwrap_err();
        assert!(matches!(unsigned, Error::Unsigned { .. }), "{unsigned}");
        let first = sign(&place, &image, &key, form).await;
        let verified = verify(&place, &image, &demand(&key)).await.unwrap();
        assert_eq!(verified.len(), 1);
        assert_eq!(verified[0].form(), form);
        assert_eq!(*verified[0].signer(), sign::Signer::Key(key.public().id()));
        assert_eq!(verified[0].name(), Some(NAME));
        assert_eq!(verified[0].annotations()["stage"], "release");
        // Again changes nothing, another key adds.
        assert_eq!(sign(&place, &image, &key, form).await.digest, first.digest);
        assert_eq!(verify(&place, &image, &demand(&key)).await.unwrap().len(), 1);
        let refused = verify(&place, &image, &demand(&other)).await.unwrap_err();
        assert!(matches!(refused, Error::Unverified { .. }), "{refused}");
        sign(&place, &image, &other, form).await;
        verify(&place, &image, &demand(&key)).await.unwrap();
        verify(&place, &image, &demand(&other)).await.unwrap();
    }
}

#[tokio::test]
async fn a_signature_moved_to_another_image_does_not_fit_it() {
    let (place, image) = place();
    let key = PrivateKey::generate().unwrap();
    sign(&place, &image, &key, Form::Tag).await;
    let (other, _) = support::image("y");
    let tag = |descriptor: &Descriptor| {
        let tag = sign::simple_signing::tag(&descriptor.digest).unwrap();
        name().repository.tagged(tag).to_string()
    };
    let signatures = place.memory.named(&tag(&image)).unwrap();
    place.memory.name(&tag(other.descriptor()), &signatures);
    let error = verify(&place, other.descriptor(), &demand(&key)).await.unwrap_err().to_string();
    assert!(error.contains(&format!("it signs {}, not this image", image.digest)), "{error}");
}

#[tokio::test]
async fn content_that_is_gone_or_wrong_is_a_signature_that_is_not_accepted() {
    for form in [Form::Bundle, Form::Tag] {
        let (place, image) = place();
        let key = PrivateKey::generate().unwrap();
        let before = place.memory.digests();
        let carrier = sign(&place, &image, &key, form).await;
        let new = place.memory.digests().into_iter().filter(|digest| !before.contains(digest));
        for digest in new.filter(|digest| *digest != carrier.digest).collect::<Vec<_>>() {
            place.memory.remove(digest);
        }
        let error = verify(&place, &image, &demand(&key)).await.unwrap_err();
        assert!(error.to_string().contains("it cannot be read"), "{error}");
    }
}

#[tokio::test]
async fn the_older_form_needs_a_name_and_leaves_other_images_alone() {
    let (place, image) = place();
    let key = PrivateKey::generate().unwrap();
    let nameless = SignOptions { name: None, ..options(Form::Tag) };
    let error = sign_image(&image, &key, &place, &place, &nameless, &Task::silent()).await;
    assert!(error.unwrap_err().to_string().ends_with("the tag form needs the image's name"));
    let tag = sign::simple_signing::tag(&image.digest).unwrap();
    place.memory.name(&name().repository.tagged(tag).to_string(), &image);
    let options = options(Form::Tag);
    let error = sign_image(&image, &key, &place, &place, &options, &Task::silent()).await;
    assert!(matches!(error, Err(Error::NotSignatures { .. })), "{error:?}");
}

#[tokio::test]
async fn other_attachments_are_passed_over_and_floods_hide_nothing() {
    let (place, image) = place();
    let key = PrivateKey::generate().unwrap();
    let artifact = |index: usize, artifact_type: &str, predicate: Option<&str>| {
        let predicate = predicate
            .map(|predicate| (sign::bundle::PREDICATE_ANNOTATION.to_owned(), predicate.to_owned()));
        Artifact {
            artifact_type: artifact_type.to_owned(),
            blobs: vec![(MediaType::SIGSTORE_BUNDLE, format!("{index}").into(), BTreeMap::new())],
            annotations: predicate.into_iter().collect(),
            config: None,
        }
    };
    let task = Task::silent();
    let bundle = sign::bundle::MEDIA_TYPE;
    let sbom = artifact(0, "application/spdx+json", None);
    attach(&place, &image, &sbom, &task).await.unwrap();
    let provenance = artifact(0, bundle, Some("https://slsa.dev/provenance/v1"));
    attach(&place, &image, &provenance, &task).await.unwrap();
    let error = verify(&place, &image, &demand(&key)).await.unwrap_err();
    assert!(matches!(error, Error::Unsigned { .. }), "{error}");
    sign(&place, &image, &key, Form::Bundle).await;
    assert_eq!(verify(&place, &image, &demand(&key)).await.unwrap().len(), 1);
    // What another signer adds, however much and however new it says it is, hides nothing.
    let many = |made: &'static str, key: Option<&'static str>| {
        let annotations =
            [("org.opencontainers.image.created", Some(made)), ("dev.rbuild.signature.key", key)];
        let annotations = annotations
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
        annotations.collect::<BTreeMap<_, _>>()
    };
    for index in 1..=MAX_SIGNATURES {
        let annotations = many("2099-01-01T00:00:00Z", None);
        let flood = Artifact { annotations, ..artifact(index, bundle, None) };
        attach(&place, &image, &flood, &task).await.unwrap();
        let annotations = many("2099-01-01T00:00:00Z", Some("sha256:00"));
        let flood = Artifact { annotations, ..artifact(index, bundle, None) };
        attach(&place, &image, &flood, &task).await.unwrap();
    }
    assert_eq!(verify(&place, &image, &demand(&key)).await.unwrap().len(), 1);
    // Where there is none at all, the error has the number of those that were not read.
    let stranger = PrivateKey::generate().unwrap();
    let error = verify(&place, &image, &demand(&stranger)).await.unwrap_err();
    let Error::TooMany { found: 513, rejected, .. } = &error else { panic!("{error}") };
    assert_eq!(rejected.len(), MAX_SIGNATURES);
}

#[tokio::test]
async fn the_newest_of_many_signatures_without_a_key_are_read() {
    let (place, image) = place();
    let (key, other) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
    let task = Task::silent();
    // As cosign attaches them: with a time, and nothing that says whose they are.
    let bundle = |key: &PrivateKey, count: usize, made: String| {
        let annotations = BTreeMap::from([("count".to_owned(), count.to_string())]);
        let bundle =
            sign::bundle::Bundle::sign(&image.digest, Some(NAME), &annotations, key).unwrap();
        let json = bundle.to_json().into();
        Artifact {
            artifact_type: sign::bundle::MEDIA_TYPE.to_owned(),
            config: None,
            blobs: vec![(MediaType::SIGSTORE_BUNDLE, json, BTreeMap::new())],
            annotations: BTreeMap::from([("org.opencontainers.image.created".to_owned(), made)]),
        }
    };
    for count in 0..MAX_SIGNATURES + 20 {
        let made = format!("2026-01-01T00:{:02}:{:02}Z", count / 60, count % 60);
        attach(&place, &image, &bundle(&other, count, made), &task).await.unwrap();
    }
    let newest = bundle(&key, 0, "2026-01-02T00:00:00Z".to_owned());
    attach(&place, &image, &newest, &task).await.unwrap();
    assert_eq!(verify(&place, &image, &demand(&key)).await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_members_of_an_index_are_found_once_each() {
    let (place, image) = place();
    let (other, _) = support::image("y");
    let other = place.memory.insert(MediaType::OCI_MANIFEST, other.bytes().clone());
    let index = |manifests: Vec<Descriptor>| {
        let index = Document::write(MediaType::OCI_INDEX, Index::new(manifests));
        place.memory.insert(MediaType::OCI_INDEX, index.bytes().clone())
    };
    let inner = index(vec![other.clone(), image.clone()]);
    let outer = index(vec![image.clone(), inner.clone(), inner.clone()]);
    let found = members(&outer, &place, &Task::silent()).await.unwrap();
    let digests = |list: &[Descriptor]| list.iter().map(|one| one.digest).collect::<Vec<_>>();
    assert_eq!(digests(&found), digests(&[outer, image.clone(), inner, other]));
    assert_eq!(members(&image, &place, &Task::silent()).await.unwrap(), [image]);
}

#[tokio::test]
async fn a_policy_is_a_gate() {
    let (place, image) = place();
    let (key, other) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("team.pub");
    let trust = |key: PublicKey| std::fs::write(&path, key.to_pem()).unwrap();
    let policy = serde_json::json!({
        "default": [{ "type": "reject" }],
        "transports": { "docker": { "r.example/team": [{ "type": "sigstoreSigned", "keyPath": path }] } },
    });
    let policy = Policy::read("policy.json", policy.to_string().as_bytes()).unwrap();
    trust(key.public());
    let refused = policy.check(&place, &image, &Task::silent()).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Refused);
    assert!(refused.to_string().contains("it has no signature"), "{refused}");
    sign(&place, &image, &key, Form::Bundle).await;
    policy.check(&place, &image, &Task::silent()).await.unwrap();
    trust(other.public());
    let refused = policy.check(&place, &image, &Task::silent()).await.unwrap_err();
    assert!(refused.to_string().contains("it was made with key"), "{refused}");
    let elsewhere = Place::new(&place.memory, "other.example/app:1".parse().unwrap());
    let refused = policy.check(&elsewhere, &image, &Task::silent()).await.unwrap_err();
    assert!(refused.to_string().contains("is rejected"), "{refused}");
}
