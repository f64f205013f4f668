//! How the client behaves towards registries that limit, warn, or differ from the specification.

#![allow(clippy::unwrap_used, clippy::too_many_lines, reason = "tests are tables")]

mod common;

use std::sync::{Arc, Mutex};

use common::*;
use image::Digest;
use registry_client::{Client, Credential, HostRule, Options, Resume};
use registry_server::{Effect, Fault, Registry};
use task::{Fault as _, Kind};

#[test]
fn a_limit_is_met_with_the_fewest_requests() {
    run(async {
        let registry = registry();
        registry.put_image(NAME, "1", &[]).unwrap();
        let limited = Effect::with(429, &[("retry-after", "1")]);
        registry.fault(Fault::times(2, "HEAD", "*", limited));
        let client = Client::new(Options { concurrency: 2, ..options(Credential::Anonymous) });
        let repo = client.unwrap().repo(&name(&registry));
        let asked = (0..12).map(|n| {
            let repo = repo.clone();
            async move { repo.has_blob(Digest::of(&[n])).await }
        });
        for answer in futures::future::join_all(asked).await {
            assert_eq!(answer.unwrap(), None);
        }
        // Two were under way at the limit; no request followed before its end.
        assert_eq!(registry.requests().len(), 14);
    });
}

#[test]
fn a_limit_without_end_is_one_clear_error() {
    run(async {
        let registry = registry();
        let limit = [
            ("ratelimit-limit", "100;w=21600"),
            ("ratelimit-remaining", "0;w=21600"),
            ("retry-after", "21600"),
        ];
        registry.fault(Fault::always("", "*", Effect::with(429, &limit)));
        let error = repo(&registry, Credential::Anonymous).resolve(&tag("1")).await.unwrap_err();
        let said = error.to_string();
        assert!(said.contains("0 of 100 requests left in 6 h"), "{said}");
        assert!(said.contains("asks to wait 21600 s"), "{said}");
        assert!(error.hint().unwrap().contains("wait, or log in"), "{:?}", error.hint());
        assert_eq!((error.kind(), registry.requests().len()), (Kind::Unavailable, 1));
    });
}

#[test]
fn warnings_are_passed_on_once_and_cannot_harm_a_terminal() {
    run(async {
        let registry = registry();
        registry.put_image(NAME, "1", &[]).unwrap();
        let text = r#"299 - "this registry ends in May""#.to_owned();
        registry.fault(Fault::always("HEAD", "*", Effect::Set("warning", text)));
        let heard = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&heard);
        let warn = move |text: &str| told.lock().unwrap().push(text.to_owned());
        let options = Options { warn: Some(Arc::new(warn)), ..options(Credential::Anonymous) };
        let repo = Client::new(options).unwrap().repo(&name(&registry));
        for _ in 0..3 {
            repo.resolve(&tag("1")).await.unwrap();
        }
        let expected = format!("{} says: this registry ends in May", registry.address());
        assert_eq!(*heard.lock().unwrap(), [expected]);
    });
}

/// How many PATCHes a blob of 10 MB takes at a registry that is like another.
async fn patches(like: &str, faults: Vec<Fault>) -> usize {
    let registry = registry();
    faults.into_iter().for_each(|fault| registry.fault(fault));
    let directory = tempfile::tempdir().unwrap();
    let rule =
        HostRule { prefix: registry.address(), like: Some(like.to_owned()), ..HostRule::default() };
    let resume = Resume { directory: directory.path().to_owned(), from: 1_000_000 };
    let options =
        Options { hosts: vec![rule], resume: Some(resume), ..options(Credential::Anonymous) };
    let bytes = noise(10_000_000);
    let repo = Client::new(options).unwrap().repo(&name(&registry));
    repo.upload(&layer(&bytes), body(&bytes)).await.unwrap();
    assert!(registry.content(Digest::of(&bytes)).unwrap().unwrap() == bytes, "{like}");
    count(&registry, "PATCH", "")
}

#[test]
fn blobs_go_to_hosted_registries_in_the_form_they_take() {
    run(async {
        // 10 MB are twenty parts where nothing else is known.
        for (like, parts) in [
            ("r.example", 20),
            ("docker.io", 20),
            ("quay.io", 20),
            ("registry.gitlab.com", 20),
            ("harbor.team.example", 20),
            ("registry.redhat.io", 20),
            ("nvcr.io", 20),
            ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", 2),
            ("public.ecr.aws", 2),
            ("team.azurecr.io", 10),
            ("ghcr.io", 0),
            ("europe-west1-docker.pkg.dev", 0),
            ("gcr.io", 0),
            ("team.jfrog.io", 0),
        ] {
            assert_eq!(patches(like, Vec::new()).await, parts, "{like}");
        }
    });
}

#[test]
fn hosted_registries_without_a_catalog_are_not_asked_for_it() {
    run(async {
        for (like, has) in [
            ("docker.io", false),
            ("ghcr.io", false),
            ("quay.io", false),
            ("public.ecr.aws", false),
            ("europe-west1-docker.pkg.dev", false),
            ("registry.gitlab.com", false),
            ("registry.redhat.io", false),
            ("nvcr.io", false),
            ("gcr.io", true),
            ("team.azurecr.io", true),
            ("team.jfrog.io", true),
            ("harbor.team.example", true),
            ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", true),
        ] {
            let registry = registry();
            registry.put_image(NAME, "1", &[]).unwrap();
            let rule = HostRule {
                prefix: registry.address(),
                like: Some(like.to_owned()),
                ..HostRule::default()
            };
            let options = Options { hosts: vec![rule], ..options(Credential::Anonymous) };
            let listed = Client::new(options).unwrap().catalog(&registry.address()).await;
            assert_eq!(listed.is_ok(), has, "{like}");
            assert_eq!(registry.requests().len(), usize::from(has), "{like}");
            if let Err(error) = listed {
                assert_eq!(error.kind(), Kind::Refused, "{error}");
            }
        }
    });
}

/// What hosted registries were seen to answer, each on its own way to the right result.
#[test]
fn odd_answers_of_hosted_registries() {
    run(async {
        let set = |name, value: &str| Effect::Set(name, value.to_owned());
        let json = "application/json";
        let cases: Vec<(&str, Vec<Fault>)> = vec![
            // Old Nexus and Quay leave digests out of answers.
            ("no digest", vec![Fault::always("", "*", Effect::Remove("docker-content-digest"))]),
            // Some proxies refuse HEAD.
            ("no HEAD", vec![Fault::always("HEAD", "*", Effect::status(405))]),
            // Artifactory has sent JSON as the type of manifests.
            ("plain type", vec![Fault::always("", "*/manifests/*", set("content-type", json))]),
            // ECR answers referrers with a failure where they are off.
            ("no referrers", vec![Fault::always("GET", "*/referrers/*", Effect::status(400))]),
            // GitLab and others answer them with their web page.
            (
                "a page for referrers",
                vec![Fault::always("GET", "*/referrers/*", set("content-type", "text/html"))],
            ),
            // GitHub and Google refuse the catalog and the list of tags of what is empty.
            ("slow start", vec![Fault::times(1, "", "*", Effect::status(503))]),
            // Harbor mounts only within a project; Hub starts an upload instead.
            ("no mounts", vec![Fault::always("POST", "*mount=*", Effect::status(405))]),
            // Azure and Amazon answer 429 and 503 with a pause.
            ("a pause", vec![Fault::times(1, "", "*", Effect::with(503, &[("retry-after", "0")]))]),
        ];
        for (case, faults) in cases {
            let registry = registry();
            let image = registry.put_image(NAME, "1", &[b"layer"]).unwrap();
            faults.into_iter().for_each(|fault| registry.fault(fault));
            let repo = repo(&registry, Credential::Anonymous);
            assert_eq!(repo.resolve(&tag("1")).await.unwrap(), image, "{case}");
            assert_eq!(repo.manifest(&tag("1")).await.unwrap().0, image, "{case}");
            assert_eq!(repo.referrers(image.digest, None).await.unwrap(), [], "{case}");
            let bytes = noise(300_000);
            let from = image::Repository::new(&registry.address(), "other/app").unwrap();
            let digest = layer(&bytes).digest;
            if !repo.mount(digest, &from).await.unwrap() {
                repo.upload(&layer(&bytes), body(&bytes)).await.unwrap();
            }
            assert!(stored(&registry, digest), "{case}");
        }
    });
}

fn stored(registry: &Registry, digest: Digest) -> bool {
    registry.content(digest).unwrap().is_some()
}
