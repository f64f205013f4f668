//! What is counted, in the text format of Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use hyper::Method;

use crate::lock::Lock;

/// Upper bounds of the histogram of request times, in seconds.
const BOUNDS: [f64; 8] = [0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 30.0, f64::INFINITY];

#[derive(Default)]
struct Requests {
    count: u64,
    seconds: f64,
    buckets: [u64; BOUNDS.len()],
}

/// The counters of one server.
#[derive(Default)]
pub(crate) struct Metrics {
    requests: Lock<BTreeMap<(String, &'static str, u16), Requests>>,
    sent: AtomicU64,
    received: AtomicU64,
    uploads: AtomicI64,
    pub(crate) hits: AtomicU64,
    pub(crate) misses: AtomicU64,
    pub(crate) upstream_errors: AtomicU64,
    pub(crate) peers: AtomicU64,
    pub(crate) stored: AtomicU64,
    pub(crate) blobs: AtomicU64,
    pub(crate) collections: AtomicU64,
    pub(crate) erased: AtomicU64,
    pub(crate) expired: AtomicU64,
    pub(crate) retired: AtomicU64,
}

/// Counts an upload for as long as it lasts.
pub(crate) struct UploadGuard<'a>(&'a Metrics);

impl Drop for UploadGuard<'_> {
    fn drop(&mut self) {
        self.0.uploads.fetch_sub(1, Relaxed);
    }
}

/// Counts bytes of a body that leaves.
pub(crate) struct Meter(Arc<Metrics>);

impl Meter {
    pub(crate) fn new(metrics: &Arc<Metrics>) -> Meter {
        Meter(Arc::clone(metrics))
    }

    pub(crate) fn sent(&self, bytes: u64) {
        self.0.sent.fetch_add(bytes, Relaxed);
    }
}

impl Metrics {
    pub(crate) fn request(
        &self,
        method: &Method,
        route: &'static str,
        status: u16,
        took: Duration,
    ) {
        // Clients make up methods; not everyone gets a line.
        let method = match method.as_str() {
            known @ ("GET" | "HEAD" | "PUT" | "POST" | "PATCH" | "DELETE") => known,
            _ => "other",
        };
        let mut requests = self.requests.lock();
        let of = requests.entry((method.to_owned(), route, status)).or_default();
        let seconds = took.as_secs_f64();
        of.count += 1;
        of.seconds += seconds;
        for (bucket, bound) in of.buckets.iter_mut().zip(BOUNDS) {
            *bucket += u64::from(seconds <= bound);
        }
    }

    pub(crate) fn received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Relaxed);
    }

    pub(crate) fn uploading(&self) -> UploadGuard<'_> {
        self.uploads.fetch_add(1, Relaxed);
        UploadGuard(self)
    }

    /// All of it.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let head = |name: &str, kind: &str, help: &str| {
            format!("# HELP registry_{name} {help}\n# TYPE registry_{name} {kind}\n")
        };
        text += &head("requests_total", "counter", "Requests by method, route and status.");
        let requests = self.requests.lock();
        for ((method, route, status), of) in requests.iter() {
            let labels = format!("method=\"{method}\",route=\"{route}\",status=\"{status}\"");
            let _ = writeln!(text, "registry_requests_total{{{labels}}} {}", of.count);
        }
        text += &head("request_seconds", "histogram", "Time to the head of the answer.");
        let mut routes: BTreeMap<&str, Requests> = BTreeMap::new();
        for ((_, route, _), of) in requests.iter() {
            let all = routes.entry(route).or_default();
            all.count += of.count;
            all.seconds += of.seconds;
            all.buckets.iter_mut().zip(of.buckets).for_each(|(all, of)| *all += of);
        }
        drop(requests);
        for (route, of) in routes {
            for (count, bound) in of.buckets.iter().zip(BOUNDS) {
                let bound = if bound.is_finite() { bound.to_string() } else { "+Inf".to_owned() };
                let labels = format!("route=\"{route}\",le=\"{bound}\"");
                let _ = writeln!(text, "registry_request_seconds_bucket{{{labels}}} {count}");
            }
            let _ =
                writeln!(text, "registry_request_seconds_sum{{route=\"{route}\"}} {}", of.seconds);
            let _ =
                writeln!(text, "registry_request_seconds_count{{route=\"{route}\"}} {}", of.count);
        }
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        let uploads = u64::try_from(self.uploads.load(Relaxed)).unwrap_or(0);
        for (name, kind, help, value) in [
            ("sent_bytes_total", "counter", "Bytes of bodies sent.", get(&self.sent)),
            ("received_bytes_total", "counter", "Bytes of blobs received.", get(&self.received)),
            ("uploads_in_flight", "gauge", "Uploads that send bytes now.", uploads),
            ("uploads_expired_total", "counter", "Idle uploads forgotten.", get(&self.expired)),
            ("storage_bytes", "gauge", "Bytes of content, as last counted.", get(&self.stored)),
            ("storage_blobs", "gauge", "Blobs and manifests, as last counted.", get(&self.blobs)),
            ("collections_total", "counter", "Garbage collections.", get(&self.collections)),
            ("collected_total", "counter", "Blobs and manifests collected.", get(&self.erased)),
            ("retired_tags_total", "counter", "Tags retention deleted.", get(&self.retired)),
            ("upstream_hits_total", "counter", "Requests a cache answered.", get(&self.hits)),
            ("upstream_misses_total", "counter", "Requests for an upstream.", get(&self.misses)),
            ("peer_answers_total", "counter", "Content from peers.", get(&self.peers)),
            ("upstream_errors_total", "counter", "Upstream failures.", get(&self.upstream_errors)),
        ] {
            text += &head(name, kind, help);
            let _ = writeln!(text, "registry_{name} {value}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text() {
        let metrics = Metrics::default();
        let took = Duration::from_millis(50);
        metrics.request(&Method::GET, "blob", 200, took);
        metrics.request(&Method::GET, "blob", 200, took);
        metrics.request(&Method::from_bytes(b"BREW").unwrap(), "blob", 405, took);
        metrics.received(7);
        let during = metrics.uploading();
        let text = metrics.text();
        drop(during);
        for line in [
            "registry_requests_total{method=\"GET\",route=\"blob\",status=\"200\"} 2",
            "registry_requests_total{method=\"other\",route=\"blob\",status=\"405\"} 1",
            "registry_request_seconds_bucket{route=\"blob\",le=\"0.02\"} 0",
            "registry_request_seconds_bucket{route=\"blob\",le=\"+Inf\"} 3",
            "registry_received_bytes_total 7",
            "registry_uploads_in_flight 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        assert!(metrics.text().contains("registry_uploads_in_flight 0\n"));
    }
}
