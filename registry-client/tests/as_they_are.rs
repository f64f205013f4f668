//! Registries, proxies and mirrors as they are met: each played by a scripted server.

#![allow(clippy::unwrap_used, clippy::too_many_lines, reason = "tests are tables")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use common::*;
use image::{Descriptor, Digest, Document, Index, Manifest, MediaType, Repository};
use registry_client::{
    Anonymous, Client, Credential, CredentialOverride, Download, Error, HostRule, Mirror,
    MirrorPull, Options, Proxies, Repo, Resume, Route, Target, Timeouts,
};
use registry_server::{Effect, Fault, Registry};
use task::{Fault as _, Kind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const MANIFESTS: &str = "*/manifests/*";
const BLOBS: &str = "*/blobs/sha256:*";
const UPLOADS: &str = "*/blobs/uploads/*";
const REFERRERS: &str = "*/referrers/*";

/// A client that collects its messages to the user.
fn hearing() -> (Client, Arc<Mutex<Vec<String>>>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&heard);
    let warn = move |text: &str| told.lock().unwrap().push(text.to_owned());
    let options = Options { warn: Some(Arc::new(warn)), ..options(Credential::Anonymous) };
    (Client::new(options).unwrap(), heard)
}

fn page(body: &str, kind: &str) -> Effect {
    let headers = vec![("content-type", kind.to_owned())];
    Effect::Answer { status: 200, headers, body: body.as_bytes().to_vec() }
}

#[test]
fn get_decides_where_head_of_a_manifest_is_refused() {
    run(async {
        let html = || Effect::Set("content-type", "text/html".into());
        for effect in [
            Effect::status(403),
            Effect::status(404),
            Effect::status(500),
            Effect::Reset,
            Effect::Forget,
            html(),
            Effect::Set("content-length", "0".into()),
        ] {
            let case = format!("{effect:?}");
            let registry = registry();
            let image = registry.put_image(NAME, "1", &[b"x"]).unwrap();
            registry.fault(Fault::always("HEAD", MANIFESTS, effect));
            let repo = repo(&registry, Credential::Anonymous);
            for target in [tag("1"), Target::Digest(image.digest), tag("1")] {
                assert_eq!(repo.resolve(&target).await.unwrap(), image, "{case}");
            }
            let gone = repo.resolve(&tag("2")).await.unwrap_err();
            assert_eq!(gone.kind(), Kind::NotFound, "{case}: {gone}");
        }
    });
}

#[test]
fn a_registry_that_answers_head_is_believed_when_it_says_404() {
    run(async {
        let registry = registry();
        registry.put_image(NAME, "1", &[]).unwrap();
        let repo = repo(&registry, Credential::Anonymous);
        repo.resolve(&tag("1")).await.unwrap();
        repo.resolve(&tag("2")).await.unwrap_err();
        assert_eq!(count(&registry, "GET", "/manifests/"), 0);
    });
}

#[test]
fn blobs_are_uploaded_where_head_of_them_is_refused() {
    run(async {
        for effect in [Effect::status(403), Effect::status(404), Effect::status(500), Effect::Reset]
        {
            let case = format!("{effect:?}");
            let registry = registry();
            registry.fault(Fault::always("HEAD", BLOBS, effect));
            let repo = repo(&registry, Credential::Anonymous);
            for bytes in [noise(100), noise(700_000)] {
                assert_eq!(repo.has_blob(Digest::of(&bytes)).await.unwrap(), None, "{case}");
                repo.upload(&layer(&bytes), body(&bytes)).await.unwrap();
                assert!(registry.content(Digest::of(&bytes)).unwrap().is_some(), "{case}");
            }
        }
    });
}

/// A manifest that refers to a subject.
fn referring(subject: &Descriptor, kind: &str) -> Document<Manifest> {
    let config = Descriptor::of(MediaType::OCI_EMPTY, b"{}");
    let mut manifest = Manifest::new(MediaType::OCI_MANIFEST, config.clone(), vec![config]);
    manifest.artifact_type = Some(kind.to_owned());
    manifest.subject = Some(subject.bare());
    Document::write(MediaType::OCI_MANIFEST, manifest)
}

/// Writes a referrer and its entry in the list that stands in for the API.
async fn attach(repo: &Repo, registry: &Registry, subject: &Descriptor, kind: &str) -> Descriptor {
    registry.put_blob(NAME, MediaType::OCI_EMPTY, &b"{}"[..]).unwrap();
    let document = referring(subject, kind);
    let target = Target::Digest(document.digest());
    let bytes = Bytes::clone(document.bytes());
    repo.put_manifest(&target, &MediaType::OCI_MANIFEST, bytes).await.unwrap();
    let mut entry = document.descriptor().clone();
    entry.artifact_type = Some(kind.to_owned());
    repo.add_referrer(subject.digest, &entry).await.unwrap();
    entry
}

#[test]
fn a_registry_that_does_not_say_what_refers_to_an_image_has_no_referrers() {
    run(async {
        let json = "application/json";
        let index = "application/vnd.oci.image.index.v1+json";
        for effect in [
            Effect::status(403),
            Effect::status(500),
            page("{}", json),
            page("[]", index),
            page("<html>", "text/html"),
            page("<html>", index),
        ] {
            let case = format!("{effect:?}");
            let registry = registry();
            let image = registry.put_image(NAME, "1", &[]).unwrap();
            registry.fault(Fault::always("GET", REFERRERS, effect));
            let (client, _) = hearing();
            let repo = client.repo(&name(&registry));
            assert_eq!(repo.referrers(image.digest, None).await.unwrap(), [], "{case}");
            assert_eq!(repo.api_referrers(image.digest).await.unwrap(), None, "{case}");
            // The list that stands in for the API still counts.
            let entry = attach(&repo, &registry, &image, "text/x").await;
            let found = repo.referrers(image.digest, None).await.unwrap();
            assert_eq!(found, [entry], "{case}");
        }
    });
}

#[test]
fn a_list_of_referrers_that_is_none_is_told_and_passed_over() {
    run(async {
        let registry = registry();
        let image = registry.put_image(NAME, "1", &[]).unwrap();
        let other = registry.put_image(NAME, "2", &[b"x"]).unwrap();
        let fallback = image.digest.to_string().replace(':', "-");
        for (case, descriptor) in [("the subject itself", &image), ("no index", &other)] {
            let bytes = registry.content(descriptor.digest).unwrap().unwrap();
            let kind = descriptor.media_type.clone();
            registry.put_manifest(NAME, Some(&fallback), kind, bytes).unwrap();
            registry.fault(Fault::always("GET", REFERRERS, Effect::status(404)));
            let (client, heard) = hearing();
            let repo = client.repo(&name(&registry));
            assert_eq!(repo.referrers(image.digest, None).await.unwrap(), [], "{case}");
            let told = heard.lock().unwrap().join("\n");
            assert!(told.contains("assuming that there are no referrers"), "{case}: {told}");
            // No other tag is overwritten.
            let error = repo.add_referrer(image.digest, &other).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{case}: {error}");
        }
        for status in [403, 500] {
            registry.heal();
            registry.fault(Fault::always("GET", REFERRERS, Effect::status(404)));
            registry.fault(Fault::always("", format!("*/{fallback}"), Effect::status(status)));
            let (client, heard) = hearing();
            let repo = client.repo(&name(&registry));
            assert_eq!(repo.referrers(image.digest, None).await.unwrap(), [], "{status}");
            assert_eq!(heard.lock().unwrap().len(), 1, "{status}");
            // What cannot be read is not replaced.
            repo.add_referrer(image.digest, &other).await.unwrap_err();
        }
    });
}

#[test]
fn deleting_an_attachment_takes_it_out_of_the_list_that_stands_in_for_the_api() {
    run(async {
        let registry = registry();
        let image = registry.put_image(NAME, "1", &[]).unwrap();
        registry.fault(Fault::always("GET", REFERRERS, Effect::status(404)));
        let repo = repo(&registry, Credential::Anonymous);
        let first = attach(&repo, &registry, &image, "text/one").await;
        let second = attach(&repo, &registry, &image, "text/two").await;
        repo.delete_manifest(&Target::Digest(first.digest)).await.unwrap();
        assert_eq!(repo.tagged_referrers(image.digest).await.unwrap(), [second]);
    });
}

#[test]
fn lists_of_older_clients_get_their_types_from_the_manifests() {
    run(async {
        let registry = registry();
        let image = registry.put_image(NAME, "1", &[]).unwrap();
        registry.fault(Fault::always("GET", REFERRERS, Effect::status(404)));
        let repo = repo(&registry, Credential::Anonymous);
        let kind = "application/vnd.dev.cosign.artifact.sig.v1+json";
        let mut entry = attach(&repo, &registry, &image, kind).await;
        let fallback = image.digest.to_string().replace(':', "-");
        for said in [None, Some("application/vnd.oci.image.config.v1+json".to_owned())] {
            entry.artifact_type = said;
            let index = Document::write(MediaType::OCI_INDEX, Index::new(vec![entry.clone()]));
            let bytes = Bytes::clone(index.bytes());
            repo.put_manifest(&tag(&fallback), &MediaType::OCI_INDEX, bytes).await.unwrap();
            let found = repo.referrers(image.digest, Some(kind)).await.unwrap();
            assert_eq!(found.len(), 1, "{:?}", entry.artifact_type);
        }
    });
}

#[test]
fn without_the_api_an_image_costs_one_question_for_its_referrers() {
    run(async {
        let registry = registry();
        registry.fault(Fault::always("GET", REFERRERS, Effect::status(404)));
        let repo = repo(&registry, Credential::Anonymous);
        for n in 0..5 {
            let image = registry.put_image(NAME, "1", &[&[n]]).unwrap();
            assert_eq!(repo.referrers(image.digest, None).await.unwrap(), []);
        }
        assert_eq!(count(&registry, "GET", "/referrers/"), 1);
        assert_eq!(count(&registry, "GET", "/manifests/sha256-"), 5);
    });
}

#[test]
fn a_tag_that_a_registry_refuses_to_show_is_not_there() {
    run(async {
        for status in [400, 403, 404, 500, 501] {
            let registry = registry();
            let image = registry.put_image(NAME, "1", &[]).unwrap();
            let repo = repo(&registry, Credential::Anonymous);
            assert_eq!(repo.probe(&"1".parse().unwrap()).await.unwrap(), Some(image));
            registry.fault(Fault::always("", "*/manifests/odd", Effect::status(status)));
            assert_eq!(repo.probe(&"odd".parse().unwrap()).await.unwrap(), None, "{status}");
            assert_eq!(count(&registry, "HEAD", "/manifests/odd"), 1, "{status}");
            assert_eq!(count(&registry, "GET", "/manifests/odd"), 0, "{status}");
        }
    });
}

/// Uploads, coming again as a copy does.
async fn brought(repo: &Repo, bytes: &Bytes) -> Result<u32, Error> {
    for tries in 1.. {
        match repo.upload(&layer(bytes), body(bytes)).await {
            Ok(()) => return Ok(tries),
            Err(error) if error.again() && tries < 4 => {}
            Err(error) => return Err(error),
        }
    }
    unreachable!()
}

#[test]
fn a_registry_whose_range_stands_still_gets_blobs_in_one_request_from_then_on() {
    run(async {
        for chunk in [None, Some(300_000)] {
            let registry = registry();
            registry.fault(Fault::always("PATCH", "*", Effect::Set("range", "0-0".into())));
            let directory = tempfile::tempdir().unwrap();
            let resume = Resume { directory: directory.path().to_owned(), from: 500_000 };
            let rule = HostRule { prefix: registry.address(), chunk, ..HostRule::default() };
            let options = Options {
                hosts: vec![rule],
                resume: Some(resume),
                ..options(Credential::Anonymous)
            };
            let repo = Client::new(options).unwrap().repo(&name(&registry));
            let first = noise(1_500_000);
            assert_eq!(brought(&repo, &first).await.unwrap(), 2, "{chunk:?}");
            let patches = count(&registry, "PATCH", "");
            let second = noise(1_400_000);
            assert_eq!(brought(&repo, &second).await.unwrap(), 1, "{chunk:?}");
            assert_eq!(count(&registry, "PATCH", ""), patches, "{chunk:?}");
            for bytes in [first, second] {
                let stored = registry.content(Digest::of(&bytes)).unwrap();
                assert!(stored.is_some_and(|stored| stored == bytes), "{chunk:?}");
            }
        }
    });
}

#[test]
fn a_lost_session_is_made_up_for_of_every_blob_in_flight() {
    run(async {
        let registry = registry();
        let blobs: Vec<Bytes> = (0..4).map(|n| noise(700_000 + n)).collect();
        for bytes in &blobs {
            let digest = Digest::of(bytes).to_string().replace(':', "%3A");
            let put = format!("{UPLOADS}{digest}*");
            registry.fault(Fault::times(1, "PUT", put, Effect::status(404)));
        }
        let repo = repo(&registry, Credential::Anonymous);
        let uploads = blobs.iter().map(|bytes| brought(&repo, bytes));
        for tries in futures::future::join_all(uploads).await {
            assert_eq!(tries.unwrap(), 2);
        }
        assert_eq!(count(&registry, "PATCH", ""), 0);
    });
}

#[test]
fn a_permanent_failure_is_met_by_one_loop_of_retries() {
    run(async {
        let options = Options { retries: 3, ..options(Credential::Anonymous) };
        for (method, path, size) in
            [("POST", UPLOADS, 100), ("PUT", UPLOADS, 100), ("POST", UPLOADS, 700_000)]
        {
            let registry = registry();
            registry.fault(Fault::always(method, path, Effect::status(500)));
            let repo = Client::new(options.clone()).unwrap().repo(&name(&registry));
            let error = repo.upload(&layer(&noise(size)), body(&noise(size))).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Unavailable, "{error}");
            // No caller repeats it.
            assert!(!error.again(), "{method} {size}: {error}");
            assert_eq!(count(&registry, method, ""), 4, "{method} {size}");
            assert!(registry.requests().len() <= 10, "{}", registry.requests().len());
        }
        let registry = registry();
        registry.fault(Fault::always("GET", BLOBS, Effect::status(500)));
        let repo = Client::new(options).unwrap().repo(&name(&registry));
        let error = repo.blob(Digest::of(b"x"), Some(1), None).await.err().unwrap();
        assert!(!error.again() && error.kind() == Kind::Unavailable, "{error}");
        assert_eq!(registry.requests().len(), 4);
    });
}

/// A server that only ever says that it goes on.
async fn never_final() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                while stream.write_all(b"HTTP/1.1 102 Processing\r\n\r\n").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            });
        }
    });
    address
}

#[test]
fn whatever_never_ends_is_given_up_after_one_time_over_all_attempts() {
    run(async {
        // So many attempts, and each so long, that only the common end can end them.
        let mut options = options(Credential::Anonymous);
        options.retries = 100_000;
        options.patience = Duration::from_millis(400);
        let hour = Duration::from_secs(3600);
        options.timeouts.first_byte = hour;
        options.timeouts.stall = hour;
        options.timeouts.document = hour;
        options.timeouts.commit = hour;
        let client = Client::new(options).unwrap();
        for effect in [
            Effect::status(503),
            Effect::status(429),
            Effect::with(429, &[("retry-after", "1")]),
            Effect::Silence,
            Effect::Reset,
            Effect::Stall(3),
            Effect::Drip(Duration::from_millis(50)),
        ] {
            let case = format!("{effect:?}");
            let registry = registry();
            registry.put_image(NAME, "1", &[]).unwrap();
            registry.fault(Fault::always("", "*", effect));
            let repo = client.repo(&name(&registry));
            let resolved = repo.resolve(&tag("1")).await;
            // An answer to HEAD has no body that could fail to come.
            let of_bodies = case.starts_with("Stall") || case.starts_with("Drip");
            assert_eq!(resolved.is_ok(), of_bodies, "{case}: {resolved:?}");
            for error in
                [repo.manifest(&tag("1")).await.unwrap_err(), repo.tags(None).await.unwrap_err()]
            {
                assert_eq!(error.kind(), Kind::Unavailable, "{case}: {error}");
            }
        }
        let address = never_final().await;
        let repo = client.repo(&Repository::new(&address, NAME).unwrap());
        let error = repo.resolve(&tag("1")).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    });
}

#[test]
fn a_list_whose_link_is_not_understood_is_no_whole_list() {
    run(async {
        for (link, whole) in [
            ("</v2/team/app/tags/list?last=a", false),
            ("next", false),
            ("<list>; rel=\"next", false),
            ("<list>; rel=prev", true),
        ] {
            let registry = registry();
            registry.put_image(NAME, "a", &[]).unwrap();
            let effect = Effect::Set("link", link.to_owned());
            registry.fault(Fault::always("GET", "*/tags/list*", effect));
            let listed = repo(&registry, Credential::Anonymous).tags(None).await;
            assert_eq!(listed.is_ok(), whole, "{link}: {listed:?}");
        }
        // One that does not say what it is leads on.
        let registry = registry();
        registry.put_image(NAME, "a", &[]).unwrap();
        let effect = Effect::Set("link", "<list?n=7>".to_owned());
        registry.fault(Fault::times(1, "GET", "*/tags/list*", effect));
        repo(&registry, Credential::Anonymous).tags(None).await.unwrap();
        assert_eq!(count(&registry, "GET", "n=7"), 1);
    });
}

#[test]
fn credentials_of_a_command_line_stay_with_the_registry_that_was_named() {
    run(async {
        for auth in [basic, bearer] {
            let (mirror, main) = (guarded(auth()), guarded(auth()));
            let image = main.put_image(NAME, "1", &[b"layer"]).unwrap();
            let route = Route {
                prefix: main.address(),
                mirrors: vec![Mirror {
                    // Another name of the loopback address, as a port alone is no other registry.
                    location: mirror.address().replace("127.0.0.1", "localhost"),
                    insecure: true,
                    pull: MirrorPull::All,
                }],
                ..Route::default()
            };
            for keychain in [
                Arc::new(user()) as Arc<dyn registry_client::Keychain>,
                Arc::new(CredentialOverride { credential: user(), others: Anonymous }),
            ] {
                let options = Options {
                    keychain,
                    routes: vec![route.clone()],
                    ..options(Credential::Anonymous)
                };
                let repo = Client::new(options).unwrap().repo(&name(&main));
                assert_eq!(repo.manifest(&tag("1")).await.unwrap().0, image);
                assert!(!mirror.requests().is_empty());
                assert_no_secrets(&mirror);
            }
        }
    });
}

#[test]
fn an_answer_that_is_no_success_is_none() {
    run(async {
        let registry = registry();
        let image = registry.put_image(NAME, "1", &[]).unwrap();
        let repo = repo(&registry, Credential::Anonymous);
        let target = Target::Digest(image.digest);
        for status in [300, 304, 399] {
            registry.heal();
            registry.fault(Fault::always("DELETE", "*", Effect::status(status)));
            repo.delete_manifest(&target).await.unwrap_err();
            // No request asked whether it has changed.
            registry.fault(Fault::always("GET", "*", Effect::status(status)));
            let url = format!("{}/v2/x", registry.url());
            let request = Download { url, ..Download::default() };
            assert!(client(Credential::Anonymous).download(&request).await.is_err(), "{status}");
        }
        registry.heal();
        assert_eq!(repo.resolve(&target).await.unwrap(), image);
    });
}

/// A proxy that answers every request like this.
async fn proxy(answer: &'static str) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let n = stream.read(&mut request).await.unwrap_or(0);
            let text = String::from_utf8_lossy(&request[..n]).into_owned();
            heard.lock().unwrap().push(text);
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (address, asked)
}

fn through(proxy: &str, except: &str) -> Client {
    let variables = [("http_proxy", proxy), ("https_proxy", proxy), ("no_proxy", except)]
        .map(|(n, v)| (n.to_owned(), v.to_owned()));
    let proxies = Proxies::from_variables(variables);
    Client::new(Options { proxies, ..options(Credential::Anonymous) }).unwrap()
}

#[test]
fn loopback_is_reached_without_the_proxy() {
    run(async {
        let (address, asked) = proxy("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").await;
        let registry = registry();
        let image = registry.put_image(NAME, "1", &[]).unwrap();
        let client = through(&address, "");
        for host in ["127.0.0.1", "localhost"] {
            let address = registry.address().replace("127.0.0.1", host);
            let repo = client.repo(&Repository::new(&address, NAME).unwrap());
            assert_eq!(repo.resolve(&tag("1")).await.unwrap(), image);
        }
        assert!(asked.lock().unwrap().is_empty());
    });
}

#[test]
fn a_proxys_refusal_is_told_as_the_proxys() {
    run(async {
        for (answer, words, kind) in [
            ("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n", "refuses", Kind::Refused),
            (
                "HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n",
                "wants credentials",
                Kind::Refused,
            ),
        ] {
            let (address, asked) = proxy(answer).await;
            let repo = through(&address, "").repo(&Repository::new("r.example", NAME).unwrap());
            let error = repo.manifest(&tag("1")).await.unwrap_err();
            let said = error.to_string();
            assert!(said.contains(&address) && said.contains(words), "{said}");
            assert_eq!(error.kind(), kind, "{said}");
            let asked = asked.lock().unwrap();
            assert_eq!(asked.len(), 1, "it is not asked again");
            assert!(asked[0].starts_with("CONNECT r.example:443"), "{asked:?}");
        }
        // One that is not there is named, too.
        let repo = through("127.0.0.1:1", "").repo(&Repository::new("r.example", NAME).unwrap());
        let error = repo.manifest(&tag("1")).await.unwrap_err();
        assert!(error.to_string().contains("the proxy 127.0.0.1:1"), "{error}");
    });
}

/// A registry that takes connections and never answers; counts them.
async fn silent() -> (String, Arc<Mutex<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let count = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            *counted.lock().unwrap() += 1;
            held.push(connection);
        }
    });
    (address, count)
}

#[test]
fn dead_mirrors_share_one_deadline() {
    run(async {
        let registry = registry();
        let image = registry.put_image(NAME, "1", &[b"x"]).unwrap();
        let (first, second) = (silent().await, silent().await);
        let mirror = |at: &str| Mirror {
            location: at.replace("127.0.0.1", "localhost"),
            insecure: true,
            pull: MirrorPull::All,
        };
        let route = Route {
            prefix: registry.address(),
            mirrors: vec![mirror(&first.0), mirror(&second.0)],
            ..Route::default()
        };
        let options = Options {
            routes: vec![route],
            patience: Duration::from_secs(4),
            timeouts: Timeouts {
                connect: Duration::from_secs(60),
                first_byte: Duration::from_secs(60),
                ..Timeouts::default()
            },
            ..options(Credential::Anonymous)
        };
        let client = Client::new(options).unwrap();
        let name = format!("{}/{NAME}", registry.address());
        let repository = name.parse::<image::Reference>().unwrap().repository;
        let found = client.repo(&repository).resolve(&tag("1")).await.unwrap();
        assert_eq!(found, image);
        assert!(*first.1.lock().unwrap() > 0, "the first mirror is asked");
        assert_eq!(*second.1.lock().unwrap(), 0, "the first one used the time of all");
    });
}
