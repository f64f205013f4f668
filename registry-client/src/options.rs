use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;

use crate::{Anonymous, Error, HostRule, Keychain, Proxies, Result, Resume, Route};

/// Bytes a second that a registry is thought to check and move at least.
const CHECKED_PER_SECOND: u64 = 8 << 20;

/// Bytes on their way. Dropping it stops the transfer.
pub type Body = Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>>;

/// Hears a line of text.
pub type Warn = Arc<dyn Fn(&str) + Send + Sync>;

/// How a [`Client`](crate::Client) behaves.
#[derive(Clone)]
pub struct Options {
    /// Where credentials come from.
    pub keychain: Arc<dyn Keychain>,
    /// How registries are reached.
    pub hosts: Vec<HostRule>,
    /// Where names lead: mirrors, other locations, nowhere.
    pub routes: Vec<Route>,
    /// The `User-Agent` sent.
    pub user_agent: String,
    /// How often a request that failed for a passing reason is made again.
    pub retries: u32,
    /// Downloads, uploads and other requests (each counted by itself) at once to one host.
    pub concurrency: usize,
    /// How interrupted large uploads are resumed, if at all.
    pub resume: Option<Resume>,
    /// Hears what registries warn of, each text once.
    pub warn: Option<Warn>,
    /// When to stop waiting.
    pub timeouts: Timeouts,
    /// How long one operation may make no progress, over all attempts.
    pub patience: Duration,
    /// The first pause before a retry; doubles each time, with jitter.
    pub backoff: Duration,
    /// The proxies on the way to registries.
    pub proxies: Proxies,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            keychain: Arc::new(Anonymous),
            hosts: Vec::new(),
            routes: Vec::new(),
            user_agent: concat!("rbuild/", env!("CARGO_PKG_VERSION")).to_owned(),
            retries: 5,
            concurrency: 6,
            resume: None,
            warn: None,
            timeouts: Timeouts::default(),
            patience: Duration::from_secs(60),
            backoff: Duration::from_millis(200),
            proxies: Proxies::default(),
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

/// When to stop waiting. Every wait of the client is bounded by one of these.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// From a request sent to the complete head of its answer.
    pub first_byte: Duration,
    /// For a stream that gives (or takes) next to nothing.
    pub stall: Duration,
    /// From the last byte of a large upload to the answer; that of a small one is waited for as
    /// long as [`Options::patience`] says, and so are sizes between.
    pub commit: Duration,
    /// For a whole document.
    pub document: Duration,
    /// The longest pause a registry can ask for with `Retry-After`.
    pub pause: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            connect: Duration::from_secs(10),
            first_byte: Duration::from_secs(20),
            stall: Duration::from_secs(20),
            commit: Duration::from_secs(300),
            document: Duration::from_secs(40),
            pause: Duration::from_secs(60),
        }
    }
}

impl Options {
    /// How long to wait for the answer to an upload of so many bytes: registries check and move
    /// them before they answer.
    pub(crate) fn commit(&self, size: u64) -> Duration {
        let checking = Duration::from_secs(size / CHECKED_PER_SECOND);
        (self.patience + checking).min(self.timeouts.commit)
    }
}
