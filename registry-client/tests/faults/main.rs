//! What goes wrong on the way to a registry ends in the right result or in one clear error, soon.

#![allow(clippy::unwrap_used, clippy::too_many_lines, reason = "tests are tables")]

#[path = "../common/mod.rs"]
mod common;
mod logins;
mod uploads;

use std::time::Duration;

use bytes::Bytes;
use common::*;
use image::{Descriptor, Digest, MediaType};
use registry_client::{Client, Credential, Error, HostRule, Options, Target};
use registry_server::{Effect, Fault, Registry};
use task::{Fault as _, Kind};

const BLOBS: &str = "*/blobs/sha256:*";
const MANIFESTS: &str = "*/manifests/*";

fn once(method: &'static str, path: &str, effect: Effect) -> Vec<Fault> {
    vec![Fault::times(1, method, path, effect)]
}

fn always(method: &'static str, path: &str, effect: Effect) -> Vec<Fault> {
    vec![Fault::always(method, path, effect)]
}

fn get(effect: Effect) -> Vec<Fault> {
    once("GET", BLOBS, effect)
}

fn ever(effect: Effect) -> Vec<Fault> {
    always("GET", BLOBS, effect)
}

fn then(mut first: Vec<Fault>, second: Vec<Fault>) -> Vec<Fault> {
    first.extend(second);
    first
}

/// Runs all cases at once: most of them wait.
async fn each<T, F: Future<Output = ()>>(cases: Vec<T>, check: impl Fn(T) -> F) {
    futures::future::join_all(cases.into_iter().map(check)).await;
}

/// Downloads a blob of 1.2 MB under faults.
async fn under(faults: Vec<Fault>) -> (Bytes, Registry, Result<Vec<u8>, Error>) {
    let registry = registry();
    let bytes = noise(1_200_000);
    let blob = registry.put_blob(NAME, MediaType::OCI_LAYER, bytes.clone()).unwrap();
    for fault in faults {
        registry.fault(fault);
    }
    let result = download(&repo(&registry, Credential::Anonymous), &blob).await;
    (bytes, registry, result)
}

const UPLOADS: &str = "*/blobs/uploads/*";

/// Uploads a blob under faults, coming again as a caller should; counts the tries.
async fn pushed(registry: &Registry, client: &Client, bytes: &Bytes) -> Result<usize, Error> {
    let repo = client.repo(&name(registry));
    let mut tries = 1;
    loop {
        match repo.upload(&layer(bytes), body(bytes)).await {
            Ok(()) => return Ok(tries),
            Err(error) if error.kind() == Kind::Unavailable && tries < 3 => tries += 1,
            Err(error) => return Err(error),
        }
    }
}

#[test]
fn downloads_that_passing_faults_do_not_stop() {
    run(async {
        let now = "Wed, 21 Oct 2015 07:28:00 GMT";
        let cases: Vec<(&str, Vec<Fault>)> = vec![
            ("503 twice", vec![Fault::times(2, "GET", BLOBS, Effect::status(503))]),
            ("500", get(Effect::status(500))),
            ("502", get(Effect::status(502))),
            ("408", get(Effect::status(408))),
            ("429 at once", get(Effect::with(429, &[("retry-after", "0")]))),
            ("429 by date", get(Effect::with(429, &[("retry-after", now), ("date", now)]))),
            ("429 without a word", get(Effect::status(429))),
            ("429 with nonsense", get(Effect::with(429, &[("retry-after", "soon")]))),
            ("reset", get(Effect::Reset)),
            ("closed", get(Effect::Forget)),
            ("silence", get(Effect::Silence)),
            ("cut before the first byte", get(Effect::Cut(0))),
            ("cut after the first byte", get(Effect::Cut(1))),
            ("cut in the middle", get(Effect::Cut(600_000))),
            ("cut before the last byte", get(Effect::Cut(1_199_999))),
            ("cut every 300 kB", ever(Effect::Cut(300_000))),
            ("stalled", get(Effect::Stall(500_000))),
            ("cut, range ignored", then(get(Effect::Cut(600_000)), ever(Effect::Ignore("range")))),
            ("cut, 416", then(get(Effect::Cut(600_000)), get(Effect::status(416)))),
            ("cut, 503", then(get(Effect::Cut(600_000)), get(Effect::status(503)))),
            ("cut, other etag", then(get(Effect::Set("etag", "\"old\"".into())), vec![])),
            ("no length", ever(Effect::Remove("content-length"))),
            ("no etag", then(get(Effect::Cut(600_000)), ever(Effect::Remove("etag")))),
            ("content encoding", ever(Effect::Set("content-encoding", "gzip".into()))),
            ("odd type", ever(Effect::Set("content-type", "text/html".into()))),
            ("no digest", ever(Effect::Remove("docker-content-digest"))),
        ];
        each(cases, |(case, faults)| async move {
            let (expected, registry, result) = under(faults).await;
            let got = result.unwrap_or_else(|error| panic!("{case}: {error:?}"));
            assert!(got == expected, "{case}: {} bytes", got.len());
            assert!(registry.requests().len() <= 8, "{case}: {}", registry.requests().len());
        })
        .await;
    });
}

#[test]
fn a_resumed_download_asks_for_what_is_missing_of_the_same_content() {
    run(async {
        let (_, registry, result) = under(get(Effect::Cut(600_000))).await;
        result.unwrap();
        let second = registry.requests().pop().unwrap();
        let range = second.header("range").unwrap();
        let first: u64 = range[6..].split('-').next().unwrap().parse().unwrap();
        assert!((1..=600_000).contains(&first) && range.ends_with("-1199999"), "{range}");
        assert!(second.header("if-range").unwrap().starts_with("\"sha256:"));
    });
}

#[test]
fn downloads_that_end_in_one_clear_error() {
    run(async {
        let to = |url: &str| Effect::with(307, &[("location", url)]);
        let cases: Vec<(&str, Vec<Fault>, Kind, &str)> = vec![
            ("404", ever(Effect::status(404)), Kind::NotFound, "answered 404"),
            ("403", ever(Effect::status(403)), Kind::Denied, "answered 403"),
            ("teapot", ever(Effect::status(418)), Kind::Refused, "answered 418"),
            ("503 for ever", ever(Effect::status(503)), Kind::Unavailable, "answered 503"),
            (
                "429 for a day",
                ever(Effect::with(429, &[("retry-after", "86400")])),
                Kind::Unavailable,
                "asks to wait 86400 s",
            ),
            ("reset for ever", ever(Effect::Reset), Kind::Unavailable, "connection"),
            ("silence for ever", ever(Effect::Silence), Kind::Unavailable, "did not answer"),
            ("cut for ever", ever(Effect::Cut(10)), Kind::Unavailable, "connection"),
            ("stalled for ever", ever(Effect::Stall(10)), Kind::Unavailable, "nothing"),
            (
                "a byte now and then",
                ever(Effect::Drip(Duration::from_millis(30))),
                Kind::Unavailable,
                "next to",
            ),
            ("endless", ever(Effect::Endless), Kind::Invalid, "more than the 1200000 bytes"),
            ("too short", ever(Effect::Length(1_000_000)), Kind::Invalid, "1000000 bytes where"),
            ("too long", ever(Effect::Length(2_000_000)), Kind::Invalid, "2000000 bytes where"),
            ("circle", ever(to("?again")), Kind::Refused, "more than 10 redirects"),
            ("ftp", ever(to("ftp://127.0.0.1/x")), Kind::Refused, "neither http nor https"),
            ("file", ever(to("file:///etc/passwd")), Kind::Refused, "neither http nor https"),
            ("with user", ever(to("http://a:b@127.0.0.1/x")), Kind::Refused, "carries credentials"),
            ("no url", ever(to("http://[")), Kind::Refused, "not a URL"),
            (
                "another part",
                then(
                    get(Effect::Cut(600_000)),
                    ever(Effect::Set("content-range", "bytes 1199999-1199999/1200000".into())),
                ),
                Kind::Invalid,
                "another part",
            ),
            (
                "a part of something else",
                then(
                    get(Effect::Cut(600_000)),
                    ever(Effect::Set("content-range", "bytes 0-5/6".into())),
                ),
                Kind::Invalid,
                "another part",
            ),
            (
                "which part",
                then(get(Effect::Cut(600_000)), ever(Effect::Remove("content-range"))),
                Kind::Invalid,
                "which part",
            ),
        ];
        each(cases, |(case, faults, kind, text)| async move {
            let (_, registry, result) = under(faults).await;
            let error = result.expect_err(case);
            let said = task::chain(&error).join(": ");
            assert_eq!(error.kind(), kind, "{case}: {said}");
            assert!(said.contains(text), "{case}: {said}");
            assert!(said.contains(&registry.address()) && said.contains("reading blob"), "{said}");
            assert!(registry.requests().len() <= 11, "{case}: {}", registry.requests().len());
        })
        .await;
    });
}

#[test]
fn redirects_are_followed_without_credentials() {
    run(async {
        let storage = registry();
        let bytes = noise(300_000);
        storage.fault(Fault::times(
            1,
            "GET",
            "/signed*",
            Effect::Answer { status: 200, headers: vec![], body: bytes.to_vec() },
        ));
        let registry = guarded(basic());
        let blob = registry.put_blob(NAME, MediaType::OCI_LAYER, bytes.clone()).unwrap();
        let repo = repo(&registry, user());
        repo.has_blob(blob.digest).await.unwrap();
        let url = format!("{}/signed?sig=a%2Fb", storage.url());
        registry.fault(Fault::times(1, "GET", BLOBS, Effect::with(307, &[("location", &url)])));
        assert!(download(&repo, &blob).await.unwrap() == bytes);
        assert_no_secrets(&storage);
        assert_eq!(storage.requests()[0].path, "/signed?sig=a%2Fb");
        // The storage wants credentials: it does not get them.
        storage.fault(Fault::always(
            "GET",
            "*",
            Effect::with(401, &[("www-authenticate", "Basic realm=\"storage\"")]),
        ));
        registry.fault(Fault::times(1, "GET", BLOBS, Effect::with(302, &[("location", &url)])));
        let error = download(&repo, &blob).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Denied, "{error}");
        assert_no_secrets(&storage);
        // To the same host they do go, by a relative location too.
        let path = format!("/v2/{NAME}/blobs/{}", blob.digest);
        registry.fault(Fault::times(1, "GET", "*?first", Effect::status(500)));
        registry.fault(Fault::times(1, "GET", BLOBS, Effect::with(301, &[("location", &path)])));
        assert!(download(&repo, &blob).await.unwrap() == bytes);
    });
}

#[test]
fn manifests_under_faults() {
    run(async {
        let html = || Effect::Answer {
            status: 200,
            headers: vec![("content-type", "text/html".into())],
            body: b"<html>log in</html>".to_vec(),
        };
        let index = "application/vnd.oci.image.index.v1+json";
        let cases: Vec<(&str, Vec<Fault>, Option<Kind>)> = vec![
            ("HEAD refused", always("HEAD", MANIFESTS, Effect::status(405)), None),
            ("no digest", always("", MANIFESTS, Effect::Remove("docker-content-digest")), None),
            (
                "odd digest",
                always("", MANIFESTS, Effect::Set("docker-content-digest", "sha256:X".into())),
                None,
            ),
            (
                "HEAD without length",
                always("HEAD", MANIFESTS, Effect::Remove("content-length")),
                None,
            ),
            (
                "plain text",
                always("", MANIFESTS, Effect::Set("content-type", "text/plain".into())),
                None,
            ),
            (
                "parameters",
                always(
                    "",
                    MANIFESTS,
                    Effect::Set(
                        "content-type",
                        "application/vnd.oci.image.manifest.v1+json; charset=utf-8".into(),
                    ),
                ),
                None,
            ),
            ("no type", always("", MANIFESTS, Effect::Remove("content-type")), None),
            ("cut once", once("GET", MANIFESTS, Effect::Cut(5)), None),
            ("503 once", once("", MANIFESTS, Effect::status(503)), None),
            ("corrupt", always("GET", MANIFESTS, Effect::Corrupt(20)), Some(Kind::Invalid)),
            ("endless", always("GET", MANIFESTS, Effect::Endless), Some(Kind::Invalid)),
            ("huge", always("GET", MANIFESTS, Effect::Length(1 << 40)), Some(Kind::Invalid)),
            ("html", always("", MANIFESTS, html()), Some(Kind::Invalid)),
            (
                "other type",
                always("GET", MANIFESTS, Effect::Set("content-type", index.into())),
                Some(Kind::Invalid),
            ),
            (
                "drip",
                always("GET", MANIFESTS, Effect::Drip(Duration::from_millis(20))),
                Some(Kind::Unavailable),
            ),
            ("empty", always("GET", MANIFESTS, Effect::status(200)), Some(Kind::Invalid)),
            ("cut for ever", always("GET", MANIFESTS, Effect::Cut(5)), Some(Kind::Unavailable)),
        ];
        each(cases, |(case, faults, expected)| async move {
            let registry = registry();
            let image = registry.put_image(NAME, "1", &[b"x"]).unwrap();
            faults.into_iter().for_each(|fault| registry.fault(fault));
            let repo = repo(&registry, Credential::Anonymous);
            for target in [tag("1"), Target::Digest(image.digest)] {
                match (repo.manifest(&target).await, expected) {
                    (Ok((descriptor, _)), None) => assert_eq!(descriptor, image, "{case}"),
                    (Err(error), Some(kind)) => assert_eq!(error.kind(), kind, "{case}: {error}"),
                    (other, _) => panic!("{case}: {other:?}"),
                }
                if expected.is_none() {
                    assert_eq!(repo.resolve(&target).await.unwrap(), image, "{case}");
                }
            }
        })
        .await;
    });
}

#[test]
fn a_registry_that_answers_with_another_manifest_is_caught() {
    run(async {
        let registry = registry();
        let one = registry.put_image(NAME, "1", &[b"one"]).unwrap();
        let two = registry.put_image(NAME, "2", &[b"two"]).unwrap();
        let bytes = registry.content(two.digest).unwrap().unwrap().to_vec();
        let kind = ("content-type", one.media_type.to_string());
        let headers = vec![kind, ("docker-content-digest", one.digest.to_string())];
        registry.fault(Fault::always(
            "GET",
            "*",
            Effect::Answer { status: 200, headers, body: bytes },
        ));
        let repo = repo(&registry, Credential::Anonymous);
        for target in [Target::Digest(one.digest), tag("1")] {
            let error = repo.manifest(&target).await.unwrap_err();
            assert!(matches!(error, Error::Content { .. }), "{error:?}");
        }
    });
}

#[test]
fn what_a_registry_says_is_shown_but_not_obeyed_by_the_terminal() {
    run(async {
        let registry = registry();
        let body = "{\"errors\":[{\"code\":\"DENIED\",\"message\":\"no\\u001b[2J\\r\\nway\"}]}";
        let effect = Effect::Answer { status: 403, headers: vec![], body: body.into() };
        registry.fault(Fault::times(1, "", "*", effect));
        let repo = repo(&registry, Credential::Anonymous);
        let error = repo.delete_blob(Digest::of(b"")).await.unwrap_err();
        assert!(error.to_string().chars().all(|c| !c.is_control()), "{error:?}");
        let repo = repo.clone();
        registry.fault(Fault::times(
            1,
            "GET",
            "*",
            Effect::Answer { status: 403, headers: vec![], body: body.into() },
        ));
        let error = repo.tags(None).await.unwrap_err();
        assert!(error.to_string().ends_with("DENIED: no [2J way"), "{error}");
        // An endless one is not read to its end.
        registry.fault(Fault::times(
            1,
            "GET",
            "*",
            Effect::Answer { status: 403, headers: vec![], body: vec![b'x'; 50 << 20] },
        ));
        let error = repo.tags(None).await.unwrap_err();
        assert!(error.to_string().len() < 600, "{}", error.to_string().len());
    });
}

#[test]
fn lists_under_faults() {
    run(async {
        let link = |url: &str| Effect::Set("link", format!("<{url}>; rel=\"next\""));
        let tags = "*/tags/list*";
        let page = |names: &str| Effect::json(format!("{{\"name\":\"x\",\"tags\":{names}}}"));
        let cases: Vec<(&str, Vec<Fault>, Result<usize, Kind>)> = vec![
            ("null", always("GET", tags, page("null")), Ok(0)),
            ("nulls", always("GET", tags, page("[null,\"a\",null]")), Ok(1)),
            (
                "not tags",
                always("GET", tags, page(r#"["a","sha256:1","\u001b[2J","../x"]"#)),
                Ok(1),
            ),
            ("no list", always("GET", tags, Effect::json("{}")), Ok(0)),
            ("garbage", always("GET", tags, Effect::json("<html>")), Err(Kind::Invalid)),
            ("wrong shape", always("GET", tags, Effect::json("[1]")), Err(Kind::Invalid)),
            ("endless", always("GET", tags, Effect::Endless), Err(Kind::Invalid)),
            ("to itself", always("GET", tags, link("list")), Err(Kind::Invalid)),
            ("503 once", once("GET", tags, Effect::status(503)), Ok(2)),
            ("cut once", once("GET", tags, Effect::Cut(7)), Ok(2)),
            ("link to ftp", always("GET", tags, link("ftp://x")), Err(Kind::Invalid)),
            ("prev only", always("GET", tags, Effect::Set("link", "<x>; rel=prev".into())), Ok(2)),
        ];
        for (case, faults, expected) in cases {
            let registry = registry();
            registry.put_image(NAME, "a", &[]).unwrap();
            registry.put_image(NAME, "b", &[]).unwrap();
            faults.into_iter().for_each(|fault| registry.fault(fault));
            let found = repo(&registry, Credential::Anonymous).tags(None).await;
            let found = found.map(|tags| tags.len()).map_err(|error| error.kind());
            assert_eq!(found, expected, "{case}");
        }
    });
}

#[test]
fn pages_without_end_and_pages_elsewhere() {
    run(async {
        let other = registry();
        let registry = guarded(bearer());
        registry.put_image(NAME, "a", &[]).unwrap();
        let repo = repo(&registry, user());
        for number in 0..100 {
            let next = format!("<list?page={number}>; rel=\"next\"");
            registry
                .fault(Fault::times(1, "GET", "*/tags/list*", Effect::Set("link", next)).after(1));
        }
        let error = repo.tags(None).await.unwrap_err();
        assert!(error.to_string().contains("nothing new"), "{error}");
        assert!(count(&registry, "GET", "/tags/list") < 12);
        registry.heal();
        let next = format!("<{}/v2/x/tags/list>; rel=\"next\"", other.url());
        registry.fault(Fault::always("GET", "*/tags/list*", Effect::Set("link", next)));
        let error = repo.tags(None).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "{error}");
        assert!(other.requests().is_empty());
    });
}

#[test]
fn a_server_that_is_not_there_and_one_that_is_no_registry() {
    run(async {
        let gone = registry();
        let name = name(&gone);
        drop(gone);
        let client = client(Credential::Anonymous);
        let error = client.repo(&name).resolve(&tag("1")).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable, "{error:?}");
        assert!(task::chain(&error).join(": ").contains("refused"), "{error:?}");
        let registry = registry();
        registry.fault(Fault::always("", "*", Effect::json("[]")));
        let repo = client.repo(&common::name(&registry));
        for result in [
            repo.resolve(&tag("1")).await.map(drop),
            repo.tags(None).await.map(drop),
            repo.upload(&layer(&noise(9)), body(&noise(9))).await,
        ] {
            assert_eq!(result.unwrap_err().kind(), Kind::Invalid);
        }
    });
}

#[test]
fn a_dropped_download_gives_its_turn_back() {
    run(async {
        let registry = registry();
        let bytes = noise(2_000_000);
        let blob = registry.put_blob(NAME, MediaType::OCI_LAYER, bytes.clone()).unwrap();
        let options = Options { concurrency: 1, ..options(Credential::Anonymous) };
        let repo = Client::new(options).unwrap().repo(&name(&registry));
        for _ in 0..3 {
            let body = repo.blob(blob.digest, Some(blob.size), None).await.unwrap();
            // The open download does not keep smaller requests or uploads from their turn.
            repo.has_blob(blob.digest).await.unwrap();
            let copied = Descriptor::new(MediaType::OCI_LAYER, blob.digest, blob.size);
            repo.upload(&copied, body).await.unwrap();
            drop(repo.blob(blob.digest, Some(blob.size), None).await.unwrap());
        }
    });
}
