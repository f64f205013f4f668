//! What clients cannot do to a server.

use registry_server::Limits;

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
