//! What changes while a registry serves.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use registry_client::HostRule;
use registry_server::{Limits, Renewal, Upstream, serve};

use super::*;

#[tokio::test]
async fn upstreams_limits_and_webhooks_change_while_it_serves() {
    let origin = Registry::start(Options::default()).unwrap();
    let image = origin.put_image("team/app", "v1", &[b"layer"]).unwrap();
    let hook = Registry::start(Options::default()).unwrap();
    let told = || hook.requests().iter().filter(|r| r.path == "/hook").count();

    let next: Arc<Mutex<Option<Options>>> = Arc::default();
    let asked = Arc::clone(&next);
    let renewal = Renewal::new(move || Ok(asked.lock().unwrap().take()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http = Http::new(format!("http://{}", listener.local_addr().unwrap()));
    let options = Options { renewal: Some(renewal), ..Options::default() };
    let serving = tokio::spawn(serve(listener, options, std::future::pending()));

    let cached = "/v2/mirror/team/app/manifests/v1";
    let cache = Upstream {
        prefix: "mirror".to_owned(),
        registry: origin.address(),
        path: String::new(),
        host: HostRule { prefix: origin.address(), ..HostRule::default() },
        credential: None,
        ttl: Duration::from_secs(600),
    };
    assert_eq!(http.get(cached).await.status(), 404);
    assert_eq!(http.blob("own/app", b"0123456789").await, 201);
    assert_eq!(http.blob("own/app", b"{}").await, 201);
    let config = "application/vnd.oci.image.config.v1+json";
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": config, "digest": Digest::of(b"{}"), "size": 2 },
        "layers": [],
    });
    assert_eq!(http.manifest("own/app", "1", &manifest).await.status(), 201);
    assert_eq!(told(), 0);

    let mut changed = Options {
        upstreams: vec![cache],
        limits: Limits { blob: 4, ..Limits::default() },
        webhooks: vec![format!("{}/hook", hook.url())],
        ..Options::default()
    };
    *next.lock().unwrap() = Some(changed.clone());
    while http.get(cached).await.status() != 200 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(header(&http.get(cached).await, "docker-content-digest"), image.digest.to_string());
    assert_eq!(http.blob("mirror/team/app", b"x").await, 405, "it is a cache now");
    assert_eq!(http.blob("own/app", b"01234").await, 413);
    assert_eq!(http.manifest("own/app", "2", &manifest).await.status(), 201);
    while told() == 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    // A configuration without upstreams does not open the cache; one with a rate counts.
    changed.limits.requests_per_second = Some(0.1);
    *next.lock().unwrap() = Some(Options { upstreams: Vec::new(), ..changed.clone() });
    while next.lock().unwrap().is_some() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    *next.lock().unwrap() = Some(changed);
    while http.get(cached).await.status() != 429 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    serving.abort();
}
