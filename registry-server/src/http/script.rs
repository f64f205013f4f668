//! What a test wants of a registry, and what it saw.

use hyper::http::request::Parts;

use crate::fault::{Effect, Fault};
use crate::lock::Lock;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct RecordedRequest {
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The headers in their order, names in lower case.
    pub headers: Vec<(String, String)>,
}

impl RecordedRequest {
    /// The first header of this name (in lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// What a test wants of a registry, and what it saw.
#[derive(Default)]
pub(crate) struct Script {
    pub(crate) faults: Lock<Vec<Fault>>,
    pub(crate) records: Lock<Vec<RecordedRequest>>,
}

impl Script {
    /// Remembers a request; what is to happen to it.
    pub(crate) fn meet(&self, parts: &Parts) -> Option<Effect> {
        let method = parts.method.as_str();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let headers = parts.headers.iter().map(|(name, value)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        });
        let (method_, path_) = (method.to_owned(), path.to_owned());
        let record = RecordedRequest { method: method_, path: path_, headers: headers.collect() };
        self.records.lock().push(record);
        let mut faults = self.faults.lock();
        faults.iter_mut().find_map(|fault| fault.acts(method, path).then(|| fault.effect.clone()))
    }
}
