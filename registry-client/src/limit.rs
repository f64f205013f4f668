//! Bounds that hold per host: requests at once, and the pause a registry asked for.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::auth::Authority;
use crate::hosts::Tls;
use crate::pace::Pace;
use crate::quirks::Quirk;

/// How long a mirror that did not answer is left out.
const LOST: Duration = Duration::from_secs(60);

/// Repositories remembered to be without referrers.
const MOST_WITHOUT: usize = 10_000;

/// What kind of traffic a request is. Each kind has its own limit, so that an upload fed by a
/// download from the same host cannot wait for it forever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    Small = 0,
    Download = 1,
    Upload = 2,
    /// Part of a request that has its turn already.
    Free = 3,
}

/// The state of one host while the client lives.
pub(crate) struct Host {
    /// Host and optional port of the API.
    pub(crate) authority: String,
    pub(crate) tls: Tls,
    pub(crate) rule: Option<usize>,
    pub(crate) chunk: Option<u64>,
    /// The known quirks of registries like this one.
    pub(crate) quirk: &'static Quirk,
    /// Credentials that were found to work.
    pub(crate) known: Authority,
    /// Whether uploads must go by PATCH.
    pub(crate) patch: AtomicBool,
    /// What its answers to HEAD for manifests are worth.
    pub(crate) heads: Heads,
    /// Whether uploads in several parts are not taken.
    pub(crate) whole: AtomicBool,
    /// Whether uploads must go in pieces.
    pub(crate) pieces: AtomicBool,
    /// Whether it has answered by the referrers API.
    pub(crate) refers: AtomicBool,
    /// Repositories that were seen not to have that API.
    without: Mutex<HashSet<String>>,
    scheme: AtomicU8,
    lanes: [Arc<Semaphore>; 3],
    pub(crate) pace: Pace,
    lost: Mutex<Option<Instant>>,
}

/// What answers to HEAD are worth: some registries and proxies refuse it while GET works.
#[derive(Debug, Default)]
pub(crate) struct Heads {
    good: AtomicBool,
    bad: AtomicBool,
}

impl Heads {
    /// Whether HEAD requests are useless.
    pub(crate) fn are_bad(&self) -> bool {
        self.bad.load(Ordering::Relaxed)
    }

    /// Whether one has been answered, so that the refusal of another is to be believed.
    pub(crate) fn are_good(&self) -> bool {
        self.good.load(Ordering::Relaxed)
    }

    /// One was answered, or refused where GET was answered.
    pub(crate) fn learn(&self, good: bool) {
        if good { &self.good } else { &self.bad }.store(true, Ordering::Relaxed);
    }
}

/// The scheme a request goes by, and the one to try when that one does not work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scheme {
    pub(crate) first: &'static str,
    pub(crate) other: Option<&'static str>,
}

impl Host {
    pub(crate) fn new(
        authority: String,
        tls: Tls,
        rule: Option<usize>,
        (chunk, quirk): (Option<u64>, &'static Quirk),
        concurrency: usize,
    ) -> Host {
        let lane = || Arc::new(Semaphore::new(concurrency.clamp(1, Semaphore::MAX_PERMITS)));
        Host {
            authority,
            tls,
            rule,
            chunk,
            quirk,
            known: Authority::default(),
            patch: AtomicBool::new(false),
            heads: Heads::default(),
            whole: AtomicBool::new(false),
            pieces: AtomicBool::new(false),
            refers: AtomicBool::new(false),
            without: Mutex::default(),
            scheme: AtomicU8::new(0),
            lanes: [lane(), lane(), lane()],
            pace: Pace::default(),
            lost: Mutex::new(None),
        }
    }

    pub(crate) fn scheme(&self) -> Scheme {
        let only = |first| Scheme { first, other: None };
        match (self.tls, self.scheme.load(Ordering::Relaxed)) {
            (Tls::Verify | Tls::SkipVerify, _) | (Tls::Optional, 2) => only("https"),
            (Tls::Off, _) | (Tls::Optional, 1) => only("http"),
            (Tls::Optional, _) if crate::hosts::is_loopback(&self.authority) => {
                Scheme { first: "http", other: Some("https") }
            }
            (Tls::Optional, _) => Scheme { first: "https", other: Some("http") },
        }
    }

    /// Remembers which scheme worked.
    pub(crate) fn speaks(&self, scheme: &str) {
        self.scheme.store(if scheme == "http" { 1 } else { 2 }, Ordering::Relaxed);
    }

    /// Waits for a turn; held until the answer's body has been read.
    pub(crate) async fn turn(&self, lane: Lane) -> Option<OwnedSemaphorePermit> {
        Arc::clone(self.lanes.get(lane as usize)?).acquire_owned().await.ok()
    }

    /// Whether a repository was seen not to have the referrers API.
    pub(crate) fn is_without_referrers(&self, path: &str) -> bool {
        self.without.lock().unwrap_or_else(PoisonError::into_inner).contains(path)
    }

    /// Notes that a repository does not have the referrers API.
    pub(crate) fn without_referrers(&self, path: &str) {
        let mut without = self.without.lock().unwrap_or_else(PoisonError::into_inner);
        if without.len() < MOST_WITHOUT {
            without.insert(path.to_owned());
        }
    }

    /// Notes that there was no answer.
    pub(crate) fn lost(&self) {
        *self.lost.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + LOST);
    }

    /// Whether there was no answer a short while ago.
    pub(crate) fn is_lost(&self) -> bool {
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.is_some_and(|until| Instant::now() < until)
    }
}

/// The hosts met so far.
#[derive(Default)]
pub(crate) struct Hosts(Mutex<HashMap<Key, Arc<Host>>>);

/// Authority, TLS policy, rule: two rules for one host may differ in all they say.
type Key = (String, Tls, Option<usize>);

impl Hosts {
    pub(crate) fn host(
        &self,
        key: (&str, Tls, Option<usize>),
        new: impl FnOnce() -> Host,
    ) -> Arc<Host> {
        let mut hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (key.0.to_owned(), key.1, key.2);
        Arc::clone(hosts.entry(key).or_insert_with(|| Arc::new(new())))
    }
}
