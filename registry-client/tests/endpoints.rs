//! Every endpoint against the in-process registry, and how few requests each takes.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use bytes::Bytes;
use common::*;
use image::{Descriptor, Digest, MediaType, Repository};
use registry_client::{
    Client, Credential, Download, Error, HostRule, Mirror, MirrorPull, Options, Route, Target,
};
use registry_server::{Auth, Effect, Fault, Registry};
use task::{Fault as _, Kind};

fn methods(registry: &Registry) -> Vec<String> {
    let requests = registry.requests();
    requests.iter().map(|r| format!("{} {}", r.method, r.path.split('?').next().unwrap())).collect()
}

#[test]
fn a_present_blob_is_one_head_and_a_tag_is_one_head() {
    run(async {
        let registry = registry();
        let image = registry.put_image(NAME, "1", &[b"layer"]).unwrap();
        let blob = registry.put_blob(NAME, MediaType::OCI_LAYER, "x").unwrap();
        let repo = repo(&registry, Credential::Anonymous);
        assert_eq!(repo.has_blob(blob.digest).await.unwrap(), Some(1));
        assert_eq!(repo.resolve(&tag("1")).await.unwrap(), image);
        assert_eq!(
            methods(&registry),
            [
                format!("HEAD /v2/{NAME}/blobs/{}", blob.digest),
                format!("HEAD /v2/{NAME}/manifests/1")
            ]
        );
    });
}

#[test]
fn manifests_by_tag_and_digest() {
    run(async {
        let registry = registry();
        let image = registry.put_image(NAME, "1", &[b"layer"]).unwrap();
        let repo = repo(&registry, Credential::Anonymous);
        let by_tag = repo.manifest(&tag("1")).await.unwrap();
        assert_eq!(by_tag.0, image);
        assert_eq!(repo.manifest(&Target::Digest(image.digest)).await.unwrap(), by_tag);
        let missing = repo.manifest(&tag("2")).await.unwrap_err();
        assert_eq!(missing.kind(), Kind::NotFound);
        assert!(missing.to_string().contains("reading manifest team/app:2"), "{missing}");
        assert!(missing.to_string().contains("MANIFEST_UNKNOWN"), "{missing}");
    });
}

#[test]
fn a_part_of_a_blob_is_read_only_where_ranges_are_answered() {
    run(async {
        let registry = registry();
        let repo = repo(&registry, Credential::Anonymous);
        let bytes = noise(300_000);
        let descriptor = layer(&bytes);
        repo.upload(&descriptor, body(&bytes)).await.unwrap();
        let part = |part| repo.blob_part(descriptor.digest, descriptor.size, part);
        let read = part(1000..2000).await.unwrap().unwrap();
        assert!(collect(read).await.unwrap() == bytes[1000..2000]);
        let read = part(7..7).await.unwrap().unwrap();
        assert!(collect(read).await.unwrap().is_empty());
        registry.fault(Fault::always("GET", "*/blobs/*", Effect::Ignore("range")));
        assert!(part(1000..2000).await.unwrap().is_none());
        // Nothing lies before the start.
        let read = part(0..1000).await.unwrap().unwrap();
        assert!(collect(read).await.unwrap() == bytes[..1000]);
    });
}

#[test]
fn uploads_small_large_and_empty_then_read_back_whole_and_in_part() {
    run(async {
        let registry = registry();
        let repo = repo(&registry, Credential::Anonymous);
        for size in [0, 1, 1000, 300_000, 5_000_000] {
            let bytes = noise(size);
            let descriptor = layer(&bytes);
            repo.upload(&descriptor, body(&bytes)).await.unwrap();
            assert_eq!(repo.has_blob(descriptor.digest).await.unwrap(), Some(size as u64));
            assert!(download(&repo, &descriptor).await.unwrap() == bytes, "{size}");
            let unsized_ = repo.blob(descriptor.digest, None, None).await.unwrap();
            assert!(collect(unsized_).await.unwrap() == bytes, "{size}");
            let end = size as u64;
            for range in [0..end, end / 2..end, end / 3..end / 2, end..end] {
                let (first, last) = (range.start as usize, range.end as usize);
                let part = repo.blob(descriptor.digest, Some(end), Some(range)).await.unwrap();
                assert!(collect(part).await.unwrap() == bytes[first..last], "{first}..{last}");
            }
        }
        // One session and one request for the bytes each, and one connection for all of it.
        assert_eq!(count(&registry, "POST", "/uploads/"), 5);
        assert_eq!(count(&registry, "PUT", "/uploads/"), 5);
        assert_eq!(count(&registry, "PATCH", ""), 0);
    });
}

#[test]
fn the_query_of_an_upload_location_is_kept() {
    run(async {
        let registry = registry();
        let bytes = noise(10);
        repo(&registry, Credential::Anonymous).upload(&layer(&bytes), body(&bytes)).await.unwrap();
        let put = registry.requests().into_iter().find(|r| r.method == "PUT").unwrap();
        assert!(put.path.contains("?state=a%2Fb%3D&digest=sha256%3A"), "{}", put.path);
    });
}

#[test]
fn sha512_goes_both_ways() {
    run(async {
        let registry = registry();
        let repo = repo(&registry, Credential::Anonymous);
        let bytes = noise(400_000);
        let mut digester = image::Digester::new(image::Algorithm::Sha512);
        digester.update(&bytes);
        let descriptor = Descriptor::new(MediaType::OCI_LAYER, digester.finish(), 400_000);
        repo.upload(&descriptor, body(&bytes)).await.unwrap();
        assert!(download(&repo, &descriptor).await.unwrap() == bytes);
    });
}

#[test]
fn a_mount_moves_nothing_and_a_refused_one_saves_the_session() {
    run(async {
        let registry = guarded(bearer());
        let bytes = noise(300_000);
        let blob = registry.put_blob("team/base", MediaType::OCI_LAYER, bytes.clone()).unwrap();
        let client = client(user());
        let repo = client.repo(&name(&registry));
        let base = Repository::new(&registry.address(), "team/base").unwrap();
        assert!(repo.mount(blob.digest, &base).await.unwrap());
        let token = registry.requests().into_iter().find(|r| r.path.starts_with("/token")).unwrap();
        assert!(token.path.contains("scope=repository%3Ateam%2Fapp%3Apull%2Cpush"), "{token:?}");
        assert!(token.path.contains("scope=repository%3Ateam%2Fbase%3Apull"), "{token:?}");
        let other = noise(400_000);
        let other = (layer(&other), other);
        assert!(!repo.mount(other.0.digest, &base).await.unwrap());
        registry.forget();
        repo.upload(&other.0, body(&other.1)).await.unwrap();
        assert_eq!(count(&registry, "POST", "/uploads/"), 0);
        assert_eq!(count(&registry, "PUT", "/uploads/"), 1);
    });
}

#[test]
fn chunked_where_the_rule_says_so() {
    run(async {
        let registry = registry();
        let bytes = noise(1_000_000);
        let rule =
            HostRule { prefix: registry.address(), chunk: Some(300_000), ..Default::default() };
        let client =
            Client::new(Options { hosts: vec![rule], ..options(Credential::Anonymous) }).unwrap();
        client.repo(&name(&registry)).upload(&layer(&bytes), body(&bytes)).await.unwrap();
        assert_eq!(registry.content(Digest::of(&bytes)).unwrap().unwrap(), bytes);
        let ranges = registry.requests().into_iter().filter(|r| r.method == "PATCH");
        let ranges: Vec<_> =
            ranges.map(|r| r.header("content-range").unwrap().to_owned()).collect();
        assert_eq!(ranges, ["0-299999", "300000-599999", "600000-899999", "900000-999999"]);
    });
}

#[test]
fn tags_and_catalog_in_pages() {
    run(async {
        let registry = registry();
        for number in 0..25 {
            registry.put_image(&format!("team/n{number:02}"), "x", &[]).unwrap();
            registry.put_image(NAME, &format!("t{number:02}"), &[]).unwrap();
        }
        let client = client(Credential::Anonymous);
        let repo = client.repo(&name(&registry));
        assert_eq!(repo.tags(None).await.unwrap().len(), 25);
        assert_eq!(count(&registry, "GET", "/tags/list"), 1);
        assert_eq!(repo.tags(Some(7)).await.unwrap().last().unwrap(), "t06");
        assert_eq!(client.catalog(&registry.address()).await.unwrap().len(), 26);
        let nobody = Repository::new(&registry.address(), "no/body").unwrap();
        let error = client.repo(&nobody).tags(None).await.unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
    });
}

#[test]
fn referrers_by_the_api_and_by_the_tag() {
    run(async {
        for api in [true, false] {
            let registry = registry();
            if !api {
                registry.fault(Fault::always("GET", "*/referrers/*", Effect::status(404)));
                registry.fault(Fault::always("PUT", "*", Effect::Remove("oci-subject")));
            }
            let subject = registry.put_image(NAME, "1", &[]).unwrap();
            let repo = repo(&registry, Credential::Anonymous);
            assert!(repo.referrers(subject.digest, None).await.unwrap().is_empty());
            let empty = registry.put_blob(NAME, MediaType::OCI_EMPTY, "{}").unwrap();
            let mut all = Vec::new();
            for kind in ["application/a", "application/b"] {
                let mut manifest =
                    image::Manifest::new(MediaType::OCI_MANIFEST, empty.clone(), vec![]);
                manifest.artifact_type = Some(kind.into());
                manifest.subject = Some(subject.bare());
                let bytes = Bytes::from(serde_json::to_vec(&manifest).unwrap());
                let mut referrer = Descriptor::of(MediaType::OCI_MANIFEST, &bytes);
                referrer.artifact_type = Some(kind.into());
                let target = Target::Digest(referrer.digest);
                let put = repo.put_manifest(&target, &MediaType::OCI_MANIFEST, bytes).await;
                let registered = put.unwrap();
                assert_eq!(registered, api.then_some(subject.digest));
                if registered.is_none() {
                    repo.add_referrer(subject.digest, &referrer).await.unwrap();
                    repo.add_referrer(subject.digest, &referrer).await.unwrap();
                }
                all.push(referrer);
            }
            // Where one of both was found not to be there it is not asked again.
            registry.forget();
            let mut found = repo.referrers(subject.digest, None).await.unwrap();
            assert_eq!(registry.requests().len(), 1, "{api}");
            found.sort_by(|a, b| a.artifact_type.cmp(&b.artifact_type));
            assert_eq!(found, all, "{api}");
            let one = repo.referrers(subject.digest, Some("application/b")).await.unwrap();
            assert_eq!(one, all[1..]);
            if !api {
                repo.remove_referrer(subject.digest, all[0].digest).await.unwrap();
                assert_eq!(repo.referrers(subject.digest, None).await.unwrap(), all[1..]);
            }
        }
    });
}

#[test]
fn deletions() {
    run(async {
        let registry = registry();
        let image = registry.put_image(NAME, "1", &[b"a"]).unwrap();
        registry.put_image(NAME, "2", &[b"a"]).unwrap();
        let blob = registry.put_blob(NAME, MediaType::OCI_LAYER, "x").unwrap();
        let repo = repo(&registry, Credential::Anonymous);
        repo.delete_manifest(&tag("1")).await.unwrap();
        assert_eq!(repo.tags(None).await.unwrap(), ["2"]);
        repo.delete_manifest(&Target::Digest(image.digest)).await.unwrap();
        assert!(repo.tags(None).await.unwrap().is_empty());
        let again = repo.delete_manifest(&Target::Digest(image.digest)).await.unwrap_err();
        assert_eq!(again.kind(), Kind::NotFound);
        // The answer to the first attempt is lost, the second finds nothing: it is done.
        registry.fault(Fault::times(1, "DELETE", "*", Effect::Forget));
        repo.delete_blob(blob.digest).await.unwrap();
        assert_eq!(repo.has_blob(blob.digest).await.unwrap(), None);
    });
}

#[test]
fn one_token_serves_a_whole_push() {
    run(async {
        let registry = guarded(bearer());
        let repo = repo(&registry, user());
        let bytes = noise(300_000);
        let descriptor = layer(&bytes);
        assert_eq!(repo.has_blob(descriptor.digest).await.unwrap(), None);
        repo.upload(&descriptor, body(&bytes)).await.unwrap();
        let config = Bytes::from_static(b"{}");
        let config_descriptor = Descriptor::of(MediaType::OCI_CONFIG, &config);
        repo.upload(&config_descriptor, body(&config)).await.unwrap();
        let manifest =
            image::Manifest::new(MediaType::OCI_MANIFEST, config_descriptor, vec![descriptor]);
        let manifest = Bytes::from(serde_json::to_vec(&manifest).unwrap());
        repo.put_manifest(&tag("1"), &MediaType::OCI_MANIFEST, manifest.clone()).await.unwrap();
        assert_eq!(repo.manifest(&tag("1")).await.unwrap().1, manifest);
        assert_eq!(count(&registry, "GET", "/token"), 1);
        let refused = registry.requests().len();
        // One refused request, one for the token, then one for each thing done.
        assert_eq!(refused, 2 + 1 + 2 + 2 + 1 + 1, "{:?}", methods(&registry));
    });
}

#[test]
fn many_at_once_share_one_token() {
    run(async {
        let registry = guarded(bearer());
        let blob = registry.put_blob(NAME, MediaType::OCI_LAYER, "x").unwrap();
        let repo = repo(&registry, user());
        let asks = (0..20).map(|_| repo.has_blob(blob.digest));
        for size in futures::future::join_all(asks).await {
            assert_eq!(size.unwrap(), Some(1));
        }
        assert_eq!(count(&registry, "GET", "/token"), 1);
    });
}

#[test]
fn the_second_repository_needs_no_refused_request() {
    run(async {
        let registry = guarded(bearer());
        registry.put_image(NAME, "1", &[]).unwrap();
        registry.put_image("team/other", "1", &[]).unwrap();
        let client = client(user());
        client.repo(&name(&registry)).resolve(&tag("1")).await.unwrap();
        registry.forget();
        let other = Repository::new(&registry.address(), "team/other").unwrap();
        client.repo(&other).resolve(&tag("1")).await.unwrap();
        assert_eq!(methods(&registry), ["GET /token", "HEAD /v2/team/other/manifests/1"]);
    });
}

#[test]
fn every_kind_of_credential() {
    run(async {
        let image = |registry: &Registry| registry.put_image(NAME, "1", &[]).unwrap();
        let open = |anonymous_pull| match bearer() {
            Auth::Bearer { username, password, refresh_token, lifetime, .. } => {
                Auth::Bearer { username, password, refresh_token, lifetime, anonymous_pull }
            }
            other => other,
        };
        let wrong = Credential::Basic { username: "user".into(), password: "wrong".into() };
        for (auth, credential, succeeds) in [
            (basic(), user(), true),
            (basic(), wrong.clone(), false),
            (basic(), Credential::Anonymous, false),
            (basic(), Credential::Identity("refresh".into()), false),
            (open(false), user(), true),
            (open(false), wrong, false),
            (open(false), Credential::Anonymous, false),
            (open(false), Credential::Identity("refresh".into()), true),
            (open(false), Credential::Identity("stale".into()), false),
            (open(false), Credential::Bearer("made up".into()), false),
            (open(true), Credential::Anonymous, true),
        ] {
            let registry = guarded(auth);
            let expected = image(&registry);
            let case = format!("{credential:?} {:?}", registry);
            match repo(&registry, credential).resolve(&tag("1")).await {
                Ok(found) => assert!(succeeds && found == expected, "{case}"),
                Err(error) => {
                    assert!(!succeeds && error.kind() == Kind::Denied, "{case}: {error}");
                    assert!(error.hint().unwrap().contains("rbuild login 127.0.0.1"), "{error}");
                }
            }
        }
    });
}

#[test]
fn tokens_expire_and_are_revoked_without_anybody_noticing() {
    run(async {
        let registry = guarded(bearer());
        let bytes = noise(300_000);
        let blob = registry.put_blob(NAME, MediaType::OCI_LAYER, bytes.clone()).unwrap();
        let repo = repo(&registry, user());
        repo.has_blob(blob.digest).await.unwrap();
        registry.revoke();
        repo.has_blob(blob.digest).await.unwrap();
        assert_eq!(count(&registry, "GET", "/token"), 2);
        // In the middle of a download that is resumed.
        registry.fault(Fault::times(1, "GET", "*/blobs/*", Effect::Cut(100_000)));
        let body = repo.blob(blob.digest, Some(blob.size), None).await.unwrap();
        registry.revoke();
        assert!(collect(body).await.unwrap() == bytes);
    });
}

#[test]
fn mirrors_are_tried_first_and_only_for_reading() {
    run(async {
        let (mirror, main) = (registry(), registry());
        let image = mirror.put_image("proxied/team/app", "1", &[]).unwrap();
        let second = main.put_image(NAME, "2", &[]).unwrap();
        let route = Route {
            prefix: main.address(),
            mirrors: vec![Mirror {
                location: format!("{}/proxied", mirror.address()),
                insecure: true,
                pull: MirrorPull::All,
            }],
            ..Route::default()
        };
        let options = Options { routes: vec![route], ..options(Credential::Anonymous) };
        let repo = Client::new(options).unwrap().repo(&name(&main));
        assert_eq!(repo.resolve(&tag("1")).await.unwrap(), image);
        assert_eq!(main.requests().len(), 0);
        assert_eq!(repo.resolve(&tag("2")).await.unwrap(), second);
        let bytes = noise(10);
        repo.upload(&layer(&bytes), body(&bytes)).await.unwrap();
        assert_eq!(count(&mirror, "POST", ""), 0);
    });
}

#[test]
fn plain_urls() {
    run(async {
        let server = registry();
        let bytes = noise(500_000);
        let blob = server.put_blob(NAME, MediaType::OCI_LAYER, bytes.clone()).unwrap();
        let url = format!("{}/v2/{NAME}/blobs/{}", server.url(), blob.digest);
        server.fault(Fault::times(1, "GET", "*", Effect::Cut(200_000)));
        let date = "Wed, 21 Oct 2015 07:28:00 GMT".to_owned();
        server.fault(Fault::times(1, "GET", "*", Effect::Set("last-modified", date)).after(1));
        let client = client(Credential::Anonymous);
        let request = Download { url: url.clone(), ..Download::default() };
        let got = client.download(&request).await.unwrap();
        assert_eq!((got.size, got.url), (Some(500_000), url.clone()));
        assert!(collect(got.body.unwrap()).await.unwrap() == bytes);
        let got = client.download(&request).await.unwrap();
        assert_eq!(got.last_modified, Some(1_445_412_480));
        server.heal();
        server.fault(Fault::always("GET", "*", Effect::status(304)));
        let etag = Some("\"x\"".to_owned());
        let got = client.download(&Download { etag, ..request.clone() }).await.unwrap();
        assert!(got.body.is_none());
        let last = server.requests().pop().unwrap();
        assert_eq!(last.header("if-none-match"), Some("\"x\""));
        for url in ["ftp://x/y", "file:///etc/passwd", "nonsense"] {
            let request = Download { url: url.into(), ..Download::default() };
            assert!(matches!(client.download(&request).await, Err(Error::Configuration { .. })));
        }
    });
}

#[test]
fn a_registry_in_a_directory_is_the_same_after_a_restart() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let options = || registry_server::Options {
            directory: Some(directory.path().to_owned()),
            ..Default::default()
        };
        let first = Registry::start(options()).unwrap();
        let bytes = noise(300_000);
        repo(&first, Credential::Anonymous).upload(&layer(&bytes), body(&bytes)).await.unwrap();
        let image = first.put_image(NAME, "1", &[b"x"]).unwrap();
        drop(first);
        let second = Registry::start(options()).unwrap();
        let repo = repo(&second, Credential::Anonymous);
        assert_eq!(repo.resolve(&tag("1")).await.unwrap(), image);
        assert!(download(&repo, &layer(&bytes)).await.unwrap() == bytes);
        assert_eq!(client(Credential::Anonymous).catalog(&second.address()).await.unwrap(), [NAME]);
    });
}

#[test]
fn ping_and_check() {
    run(async {
        let registry = guarded(bearer());
        let client = client(user());
        client.ping(&registry.address()).await.unwrap();
        client.check(&registry.address(), &user()).await.unwrap();
        let error = client.check(&registry.address(), &Credential::Anonymous).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Denied, "{error}");
        assert!(client.ping("not a host").await.is_err());
        let nobody = client.ping("127.0.0.1:1").await.unwrap_err();
        assert_eq!(nobody.kind(), Kind::Unavailable, "{nobody}");
    });
}
