//! Pull-through caches: one registry of ours in front of another, with faults.

use std::time::Duration;

use futures::StreamExt;
use registry_client::{Credential, HostRule};
use registry_server::{Auth, Effect, Fault, Peers, Upstream};

use super::*;

fn upstream(of: &Registry, ttl: Duration, credential: Option<Credential>) -> Upstream {
    Upstream {
        prefix: "mirror".to_owned(),
        registry: of.address(),
        path: String::new(),
        host: HostRule { prefix: of.address(), ..HostRule::default() },
        credential,
        ttl,
    }
}

fn cache(of: &Registry, ttl: Duration) -> Registry {
    let upstreams = vec![upstream(of, ttl, None)];
    Registry::start(Options { upstreams, ..Options::default() }).unwrap()
}

fn asked(registry: &Registry, method: &str, part: &str) -> usize {
    let fits = |r: &&registry_server::RecordedRequest| r.method == method && r.path.contains(part);
    registry.requests().iter().filter(fits).count()
}

#[tokio::test]
async fn images_come_once_and_stay() {
    let origin = Registry::start(Options::default()).unwrap();
    let layer: Vec<u8> = (0..700_000_u32).map(|n| (n % 251) as u8).collect();
    let image = origin.put_image("team/app", "v1", &[&layer]).unwrap();
    let cache = cache(&origin, Duration::from_secs(600));
    let http = Http::of(&cache);
    let got = http.get("/v2/mirror/team/app/manifests/v1").await;
    assert_eq!(header(&got, "docker-content-digest"), image.digest.to_string());
    let blob = format!("/v2/mirror/team/app/blobs/{}", Digest::of(&layer));
    // Clients that come together share one download, and each gets all of it.
    origin.fault(Fault::always("GET", "*/blobs/*", Effect::Set("x-slow", "no".into())));
    let clients = (0..8).map(|_| {
        let (http, blob) = (http.clone(), blob.clone());
        async move {
            let got = http.get(&blob).await;
            let length = header(&got, "content-length").to_owned();
            (length, got.bytes().await.unwrap())
        }
    });
    for (length, bytes) in futures::future::join_all(clients).await {
        assert_eq!(length, layer.len().to_string());
        assert_eq!(bytes, layer);
    }
    assert_eq!(asked(&origin, "GET", "/blobs/"), 1);
    // Everything is here now: the origin may be gone.
    let before = origin.requests().len();
    assert_eq!(http.get("/v2/mirror/team/app/manifests/v1").await.status(), 200);
    assert_eq!(http.get(&blob).await.bytes().await.unwrap(), layer);
    assert_eq!(http.send("HEAD", &blob, &[], "").await.status(), 200);
    assert_eq!(origin.requests().len(), before);
    // As containerd asks a mirror: by the name of the registry.
    let named = format!("/v2/team/app/manifests/v1?ns={}", origin.address());
    assert_eq!(http.get(&named).await.status(), 200);
    // Lists come from there; pushes go elsewhere.
    let tags: Value = parsed(http.get("/v2/mirror/team/app/tags/list").await).await;
    assert_eq!(tags["tags"], json!(["v1"]));
    assert_eq!(http.blob("mirror/team/app", b"x").await, 405);
    assert_eq!(http.blob("own/app", b"x").await, 201);
    let unknown = http.get("/v2/mirror/team/app/manifests/none").await;
    assert_eq!(code(unknown).await, (404, "MANIFEST_UNKNOWN".into()));
    let none = format!("/v2/mirror/team/app/blobs/{}", Digest::of(b"none"));
    assert_eq!(code(http.get(&none).await).await, (404, "BLOB_UNKNOWN".into()));
    let metrics = http.get("/metrics").await;
    assert_eq!(metrics.status(), 404, "metrics are served where they are asked for");
}

#[tokio::test]
async fn tags_are_asked_again_after_a_while_and_old_is_better_than_nothing() {
    let origin = Registry::start(Options::default()).unwrap();
    let old = origin.put_image("app", "v1", &[b"old"]).unwrap();
    let cache = cache(&origin, Duration::ZERO);
    let http = Http::of(&cache);
    let current = async || {
        let got = http.get("/v2/mirror/app/manifests/v1").await;
        header(&got, "docker-content-digest").to_owned()
    };
    assert_eq!(current().await, old.digest.to_string());
    assert_eq!(current().await, old.digest.to_string());
    // What did not change is not fetched again.
    assert_eq!(asked(&origin, "GET", "/manifests/"), 1);
    let new = origin.put_image("app", "v1", &[b"new"]).unwrap();
    assert_eq!(current().await, new.digest.to_string());
    origin.fault(Fault::always("", "*", Effect::status(404)));
    assert_eq!(http.get("/v2/mirror/app/manifests/v1").await.status(), 404);
    origin.heal();
    assert_eq!(current().await, new.digest.to_string());
    drop(origin);
    assert_eq!(current().await, new.digest.to_string());
    let other = http.get("/v2/mirror/app/manifests/v2").await;
    assert_eq!(code(other).await, (502, "UNAVAILABLE".into()));
}

#[tokio::test]
async fn a_lying_upstream_is_not_believed() {
    let origin = Registry::start(Options::default()).unwrap();
    let layer = vec![7; 400_000];
    origin.put_image("app", "v1", &[&layer]).unwrap();
    let cache = cache(&origin, Duration::from_secs(600));
    let http = Http::of(&cache);
    http.get("/v2/mirror/app/manifests/v1").await;
    let blob = format!("/v2/mirror/app/blobs/{}", Digest::of(&layer));
    origin.fault(Fault::times(1, "GET", "*/blobs/*", Effect::Corrupt(10)));
    let mut stream = http.get(&blob).await.bytes_stream();
    let (mut received, mut broken) = (0, false);
    while let Some(bytes) = stream.next().await {
        match bytes {
            Ok(bytes) => received += bytes.len(),
            Err(_) => broken = true,
        }
    }
    // The client sees that it is not whole, and nothing of it is kept.
    assert!(broken && received < layer.len(), "{received}");
    assert!(cache.content(Digest::of(&layer)).unwrap().is_none());
    assert_eq!(http.get(&blob).await.bytes().await.unwrap(), layer);
    assert!(cache.content(Digest::of(&layer)).unwrap().is_some());
}

#[tokio::test]
async fn credentials_are_the_upstreams() {
    let auth = Auth::Bearer {
        username: "anna".to_owned(),
        password: "geheim".to_owned(),
        refresh_token: String::new(),
        anonymous_pull: false,
        lifetime: Duration::from_secs(60),
    };
    let origin = Registry::start(Options { auth, ..Options::default() }).unwrap();
    let image = origin.put_image("app", "v1", &[b"one"]).unwrap();
    let credential = Some(Credential::Basic { username: "anna".into(), password: "geheim".into() });
    for (credential, status) in [(credential, 200), (None, 403)] {
        let upstreams = vec![upstream(&origin, Duration::from_secs(60), credential)];
        let cache = Registry::start(Options { upstreams, ..Options::default() }).unwrap();
        let got = Http::of(&cache).get("/v2/mirror/app/manifests/v1").await;
        assert_eq!(got.status(), status);
        let known = got.headers().get("docker-content-digest").map(|v| v.to_str().unwrap());
        let expected = image.digest.to_string();
        assert_eq!(known, (status == 200).then_some(expected.as_str()));
    }
}

/// Caches of one upstream that know each other.
fn beside_each_other(origin: &Registry, count: usize) -> Vec<Registry> {
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let held: Vec<_> = (0..count).map(|_| free()).collect();
    let ports: Vec<u16> = held.iter().map(|one| one.local_addr().unwrap().port()).collect();
    drop(held);
    let addresses: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let started = ports.iter().map(|port| {
        let peers = Peers { addresses: addresses.clone(), port: *port, ..Peers::default() };
        let upstreams = vec![upstream(origin, Duration::from_secs(600), None)];
        let options = Options { upstreams, peers, port: Some(*port), ..Options::default() };
        Registry::start(options).unwrap()
    });
    started.collect()
}

#[tokio::test]
async fn many_caches_ask_the_upstream_once() {
    let origin = Registry::start(Options::default()).unwrap();
    let layer: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let image = origin.put_image("team/app", "v1", &[&layer]).unwrap();
    let caches = beside_each_other(&origin, 9);
    let pulls = caches.iter().map(|cache| {
        let (http, layer) = (Http::of(cache), &layer);
        async move {
            let got = http.get("/v2/mirror/team/app/manifests/v1").await;
            assert_eq!(header(&got, "docker-content-digest"), image.digest.to_string());
            let blob = format!("/v2/mirror/team/app/blobs/{}", Digest::of(layer));
            assert!(http.get(&blob).await.bytes().await.unwrap() == *layer);
        }
    });
    futures::future::join_all(pulls).await;
    assert_eq!(asked(&origin, "GET", "/blobs/"), 1);
    assert_eq!(asked(&origin, "GET", "/manifests/"), 1);
}

#[tokio::test]
async fn a_peer_that_ends_or_lies_is_passed_over() {
    let origin = Registry::start(Options::default()).unwrap();
    let layers: Vec<Vec<u8>> = (0..12_u32)
        .map(|layer| (0..400_000_u32).map(|n| (n * (layer + 7) % 251) as u8).collect())
        .collect();
    let slices: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    origin.put_image("team/app", "v1", &slices).unwrap();
    let caches = beside_each_other(&origin, 6);
    let path = |layer: &[u8]| format!("/v2/mirror/team/app/blobs/{}", Digest::of(layer));
    // One breaks off in the middle, one gives other bytes, one is gone.
    caches[0].fault(Fault::always("GET", "*/blobs/*", Effect::Cut(100_000)));
    caches[1].fault(Fault::always("GET", "*/blobs/*", Effect::Corrupt(5000)));
    let mut caches = caches;
    drop(caches.pop());
    for cache in &caches[2..] {
        let http = Http::of(cache);
        assert_eq!(http.get("/v2/mirror/team/app/manifests/v1").await.status(), 200);
        for layer in &layers {
            // Who asks gets the right bytes, or sees that it broke off, and asks again.
            let mut attempts = 0;
            loop {
                let got = http.get(&path(layer)).await;
                if let Ok(bytes) = got.bytes().await {
                    assert!(bytes == *layer);
                    break;
                }
                attempts += 1;
                assert!(attempts < 5);
            }
        }
    }
}
