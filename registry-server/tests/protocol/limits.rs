//! What clients cannot do to a server.

use registry_server::{Limits, Quota};

use super::*;

#[tokio::test]
async fn large_blobs_and_many_requests() {
    let limits = Limits { blob: 1000, requests_per_second: Some(2.0), ..Limits::default() };
    let registry = Registry::start(Options { limits, metrics: true, ..Options::default() });
    let registry = registry.unwrap();
    let http = Http::of(&registry);
    assert_eq!(http.blob("a", &[0; 1000]).await, 201);
    assert_eq!(http.blob("a", &[0; 1001]).await, 413);
    let session = http.send("POST", "/v2/a/blobs/uploads/", &[], "").await;
    let location = header(&session, "location").to_owned();
    assert_eq!(http.send("PATCH", &location, &[], vec![0; 900]).await.status(), 202);
    let more = http.send("PATCH", &location, &[], vec![0; 101]).await;
    assert_eq!(code(more).await, (413, "SIZE_INVALID".into()));
    // What was accepted before is still there.
    assert_eq!(header(&http.get(&location).await, "range"), "0-899");
    let mut refused = None;
    for _ in 0..40 {
        let got = http.get("/v2/").await;
        if got.status() == 429 {
            refused = Some(header(&got, "retry-after").to_owned());
            break;
        }
    }
    assert_eq!(refused.as_deref(), Some("1"));
    // Those who watch are not limited, and see it.
    assert_eq!(http.get("/healthz").await.text().await.unwrap(), "ok\n");
    assert_eq!(http.get("/readyz").await.text().await.unwrap(), "ready\n");
    let metrics = http.get("/metrics").await.text().await.unwrap();
    let line = "registry_requests_total{method=\"GET\",route=\"base\",status=\"429\"} 1";
    assert!(metrics.lines().any(|found| found == line), "{metrics}");
    assert!(metrics.contains("registry_uploads_in_flight 0"));
}

#[tokio::test]
async fn http2_without_tls() {
    let registry = Registry::start(Options::default()).unwrap();
    let _ = Http::of(&registry);
    let client = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let path = format!("{}/v2/a/blobs/uploads/?digest={}", registry.url(), Digest::of(b"x"));
    let pushed = client.post(&path).body("x").send().await.unwrap();
    assert_eq!((pushed.status().as_u16(), pushed.version()), (201, reqwest::Version::HTTP_2));
    // Refused in the middle of a body: the connection goes on.
    let refused = client.put(format!("{}/v2/a/blobs/x", registry.url())).body(vec![0; 300_000]);
    assert_eq!(refused.send().await.unwrap().status(), 400);
    let got = client.get(format!("{}/v2/a/blobs/{}", registry.url(), Digest::of(b"x")));
    assert_eq!(got.send().await.unwrap().bytes().await.unwrap(), "x");
}

/// One request on a listener, answered with this status; its body.
async fn answered(listener: &tokio::net::TcpListener, status: u16) -> Value {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut request = Vec::new();
    let body = loop {
        let mut block = [0; 4096];
        let count = stream.read(&mut block).await.unwrap();
        request.extend_from_slice(&block[..count]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((_, body)) = text.split_once("\r\n\r\n") else { continue };
        if let Ok(body) = serde_json::from_str(body) {
            break body;
        }
    };
    let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    stream.write_all(answer.as_bytes()).await.unwrap();
    body
}

#[tokio::test]
async fn webhooks_are_told_again_until_they_listen() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let webhooks = vec![format!("http://{}/hook", listener.local_addr().unwrap())];
    let registry = Registry::start(Options { webhooks, ..Options::default() }).unwrap();
    let http = Http::of(&registry);
    http.blob("a", CONFIG).await;
    let image = image_of(&[]);
    http.manifest("a", "v1", &image).await;
    http.send("DELETE", "/v2/a/manifests/v1", &[], "").await;
    let target = json!({ "repository": "a", "tags": ["v1"], "digest": digest_of(&image) });
    for status in [500, 200] {
        let event = answered(&listener, status).await;
        assert_eq!((&event["action"], &event["target"]), (&json!("push"), &target));
    }
    assert_eq!(answered(&listener, 200).await["action"], "delete");
}

#[tokio::test]
async fn unfinished_uploads_count_in_quotas() {
    let quotas = vec![Quota { prefix: "team".to_owned(), bytes: 1000 }];
    let registry = Registry::start(Options { quotas, ..Options::default() }).unwrap();
    let http = Http::of(&registry);
    let begin = async |name: &str| {
        let session = http.send("POST", &format!("/v2/{name}/blobs/uploads/"), &[], "").await;
        header(&session, "location").to_owned()
    };
    let patch = async |location: &str, bytes: usize| {
        http.send("PATCH", location, &[], vec![0; bytes]).await.status().as_u16()
    };
    let (one, two, three) = (begin("team/a").await, begin("team/b").await, begin("else").await);
    assert_eq!(patch(&one, 600).await, 202);
    assert_eq!(patch(&two, 600).await, 403);
    assert_eq!(patch(&three, 600).await, 202, "no quota");
    let two = begin("team/b").await;
    assert_eq!(patch(&two, 400).await, 202);
    assert_eq!(http.blob("team/c", b"x").await, 403);
    assert_eq!(http.send("DELETE", &one, &[], "").await.status(), 204);
    assert_eq!(http.blob("team/c", b"x").await, 201);
    // A body of unknown length stops where the room ends.
    let endless = futures::stream::iter((0..100).map(|_| Ok::<_, std::io::Error>(vec![1_u8; 100])));
    let location = begin("team/a").await;
    let sent = http.send("PATCH", &location, &[], reqwest::Body::wrap_stream(endless)).await;
    assert_eq!(code(sent).await, (403, "DENIED".into()));
    let finish = format!("{two}&digest={}", Digest::of(&[0; 400]));
    assert_eq!(http.send("PUT", &finish, &[], "").await.status(), 201);
    // What finished counts once.
    assert_eq!(http.blob("team/d", &[2; 599]).await, 201);
    assert_eq!(http.blob("team/d", b"y").await, 403);
}
