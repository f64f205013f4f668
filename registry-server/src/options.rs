//! How a registry behaves.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;

use crate::access::Auth;
use crate::pattern::Pattern;
use crate::quota::Quota;
use crate::retention::Retention;
use crate::rules::Renewal;
use crate::storage::Bucket;
use crate::tls::Tls;
use crate::upstream::peers::Peers;
use crate::upstream::source::Upstream;
use crate::{Error, Result};

/// How a registry behaves.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where content is kept; in memory if neither this nor `bucket`.
    pub directory: Option<PathBuf>,
    /// The bucket where content is kept, whatever `directory` says.
    pub bucket: Option<Bucket>,
    /// Where blobs that come from upstreams are buffered; in the directory, or `/var/tmp`.
    pub spool: Option<PathBuf>,
    /// Who may do what.
    pub auth: Auth,
    /// The port on 127.0.0.1; any free one if `None`.
    pub port: Option<u16>,
    /// Whether nothing may be deleted.
    pub keep: bool,
    /// TLS, if connections are to be encrypted.
    pub tls: Option<Tls>,
    /// Registries that some repositories are fetched from.
    pub upstreams: Vec<Upstream>,
    /// Servers beside this one that cache the same upstreams.
    pub peers: Peers,
    /// The proxies on the way to those.
    pub proxies: registry_client::Proxies,
    /// Tags that stay what they are.
    pub immutable: Vec<Immutable>,
    /// Which tags go after a while.
    pub retention: Vec<Retention>,
    /// How much some repositories may hold.
    pub quotas: Vec<Quota>,
    /// How much, how long.
    pub limits: Limits,
    /// How often the server tidies up by itself; never if `None`.
    pub tidying: Option<Duration>,
    /// URLs that receive an event for each push and deletion.
    pub webhooks: Vec<String>,
    /// Whether `/metrics` is served: with `auth`, to users who log in.
    pub metrics: bool,
    /// Whether `/metrics` is served to everybody who can reach the server.
    pub metrics_public: bool,
    /// Takes a line of JSON for each request.
    pub log: Option<Log>,
    /// The time of day.
    pub clock: Clock,
    /// What is configured later: `auth`, `tls`, `upstreams`, `immutable`, `retention`, `quotas`,
    /// `webhooks` and `limits` but for the grace change while [`crate::serve`] runs; everything
    /// else is as it was at the start.
    pub renewal: Option<Renewal>,
}

impl Options {
    /// Adds servers to the peers of this one, which listens on this port.
    ///
    /// # Errors
    /// [`Error::Configuration`] where there are peers and no upstream.
    pub fn share(&mut self, peers: Vec<String>, port: u16) -> Result<()> {
        self.peers.addresses.extend(peers);
        self.peers.port = port;
        if self.peers.host.tls.is_none() && self.tls.is_none() {
            // They are like this server.
            self.peers.host.tls = Some(registry_client::Tls::Off);
        }
        match self.upstreams.is_empty() && !self.peers.addresses.is_empty() {
            false => Ok(()),
            true => Err(Error::Configuration {
                what: "the peers",
                reason: "they share what comes from an [[upstream]], and there is none".to_owned(),
            }),
        }
    }
}

/// Tags that cannot be moved or deleted once they are set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Immutable {
    /// Which repositories.
    pub repositories: Vec<Pattern>,
    /// Which tags; all of them if there are none.
    #[serde(default)]
    pub tags: Vec<Pattern>,
    /// Which of them are not meant.
    #[serde(default)]
    pub except: Vec<Pattern>,
}

impl Immutable {
    /// Whether it is about tags of this repository.
    pub fn concerns(&self, repository: &str) -> bool {
        self.repositories.iter().any(|pattern| pattern.fits(repository))
    }

    /// Whether it is about this tag.
    pub fn fits(&self, repository: &str, tag: &str) -> bool {
        self.concerns(repository)
            && (self.tags.is_empty() || self.tags.iter().any(|pattern| pattern.fits(tag)))
            && !self.except.iter().any(|pattern| pattern.fits(tag))
    }
}

/// How much, how long.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The largest blob, in bytes.
    pub blob: u64,
    /// How long an upload may lie idle.
    pub idle_upload: Duration,
    /// How long content that nothing needs stays: a push must not take longer from one of its
    /// requests to the next.
    pub grace: Duration,
    /// Requests an address may make in a second, on average.
    pub requests_per_second: Option<f64>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            blob: u64::MAX / 2,
            idle_upload: Duration::from_secs(24 * 3600),
            grace: Duration::from_secs(24 * 3600),
            requests_per_second: None,
        }
    }
}

/// The time of day, given from outside.
#[derive(Clone, Copy, Default)]
pub struct Clock(Option<fn() -> SystemTime>);

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.0.is_some())
    }
}

impl Clock {
    /// A clock that asks this.
    pub fn new(now: fn() -> SystemTime) -> Clock {
        Clock(Some(now))
    }

    /// Whether there is one.
    pub(crate) fn goes(self) -> bool {
        self.0.is_some()
    }

    /// Seconds since 1970.
    pub(crate) fn seconds(self) -> u64 {
        let now = self.0.map(|now| now());
        now.and_then(|now| now.duration_since(UNIX_EPOCH).ok()).map_or(0, |since| since.as_secs())
    }

    /// As logs have it.
    pub(crate) fn timestamp(self) -> Option<String> {
        let now = self.0.map(|now| now())?;
        jiff::Timestamp::try_from(now).ok().map(|now| now.to_string())
    }
}

/// Takes the lines of the access log.
#[derive(Clone)]
pub struct Log(Arc<dyn Fn(&str) + Send + Sync>);

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Log")
    }
}

impl Log {
    /// A log that gives each line to this.
    pub fn new(line: impl Fn(&str) + Send + Sync + 'static) -> Log {
        Log(Arc::new(line))
    }

    pub(crate) fn line(&self, line: &str) {
        (self.0)(line);
    }
}
