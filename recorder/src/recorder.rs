//! What was asked and answered so far.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use image::{Algorithm, Digest, Digester};

use crate::authority::Authority;
use crate::exchange::RequestKey;
use crate::upstream::{EgressPolicy, Upstream};
use crate::{ContentDirectory, Exchange, Result};

/// What a recorder works with.
#[derive(Debug, Clone)]
pub struct RecorderOptions {
    /// Where the content of answers is.
    pub contents: ContentDirectory,
    /// Texts that no URL and no header may show where it is kept.
    pub secrets: Vec<String>,
    /// Names of machines that mean these addresses.
    pub hosts: Vec<(String, IpAddr)>,
    /// The address that stands for the loopback of this machine, if commands may reach that.
    pub machine: Option<IpAddr>,
    /// Which addresses commands may reach.
    pub reaches: fn(IpAddr) -> bool,
    /// Variables that name the proxies on the way out: `http_proxy`, …
    pub proxies: BTreeMap<String, String>,
}

/// Records what commands get, or replays it.
pub struct Recorder {
    pub(crate) contents: ContentDirectory,
    pub(crate) secrets: Vec<String>,
    pub(crate) authority: Authority,
    pub(crate) mode: Mode,
    name: String,
}

pub(crate) enum Mode {
    Record { upstream: Upstream, kept: Mutex<Vec<(u64, Exchange)>>, next: AtomicU64 },
    Replay { known: HashMap<(String, RequestKey), Vec<Exchange>>, all: Vec<Exchange> },
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mode = if self.replays() { "replay" } else { "record" };
        f.debug_struct("Recorder").field("mode", &mode).finish_non_exhaustive()
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recorder {
    /// Passes requests on and keeps the answers.
    ///
    /// # Errors
    /// [`crate::Error::Setup`].
    pub fn record(options: RecorderOptions) -> Result<Arc<Recorder>> {
        let way = EgressPolicy {
            hosts: options.hosts.clone(),
            machine: options.machine,
            reaches: options.reaches,
        };
        let upstream = Upstream::new(way, &options.proxies)?;
        options.contents.sweep()?;
        let mode = Mode::Record { upstream, kept: Mutex::default(), next: AtomicU64::new(0) };
        Recorder::new(options, mode)
    }

    /// Answers from what was recorded; nothing is passed on.
    ///
    /// # Errors
    /// [`crate::Error::Setup`].
    pub fn replay(options: RecorderOptions, all: Vec<Exchange>) -> Result<Arc<Recorder>> {
        let mut known: HashMap<_, Vec<_>> = HashMap::new();
        for exchange in &all {
            let key = (exchange.step.clone(), exchange.asked());
            known.entry(key).or_default().push(exchange.clone());
        }
        Recorder::new(options, Mode::Replay { known, all })
    }

    fn new(options: RecorderOptions, mode: Mode) -> Result<Arc<Recorder>> {
        let authority = Authority::new()?;
        let name = Digest::of(authority.pem().as_bytes()).hex();
        let RecorderOptions { contents, secrets, .. } = options;
        Ok(Arc::new(Recorder { contents, secrets, authority, mode, name }))
    }

    /// A name that no other recorder has.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The certificate of the authority that commands are to trust, in PEM.
    pub fn certificate(&self) -> &str {
        self.authority.pem()
    }

    /// Where the content of answers is.
    pub fn contents(&self) -> &ContentDirectory {
        &self.contents
    }

    /// Whether answers come from a recording.
    pub fn replays(&self) -> bool {
        matches!(self.mode, Mode::Replay { .. })
    }

    /// What the answers to a step are, as one digest; nothing while they are recorded.
    pub fn answers_of(&self, step: &str) -> Option<Digest> {
        let Mode::Replay { all, .. } = &self.mode else { return None };
        let mut digester = Digester::new(Algorithm::Sha256);
        for exchange in all.iter().filter(|exchange| exchange.step == step) {
            // Every field, each with its length.
            let text = format!("{exchange:?}");
            digester.update(&(text.len() as u64).to_le_bytes());
            digester.update(text.as_bytes());
        }
        Some(digester.finish())
    }

    /// A URL as a recording shows it.
    pub fn shown(&self, url: &str) -> String {
        crate::redacted(url, &self.secrets)
    }

    /// Keeps an answer that came by another way than the proxy.
    pub fn add(&self, exchange: Exchange) {
        self.keep(self.number(), exchange);
    }

    /// The recorded answer to a request of a step without a body, if there is one.
    pub fn answer_to(&self, step: &str, method: &str, url: &str) -> Option<&Exchange> {
        let Mode::Replay { known, .. } = &self.mode else { return None };
        let url = self.shown(url);
        let asked = RequestKey { method: method.to_owned(), url, sent: None, range: None };
        known.get(&(step.to_owned(), asked))?.last()
    }

    /// Everything that was recorded, or is replayed, by step and request; requests that are the
    /// same in the order in which they came, and once if they were answered alike.
    pub fn exchanges(&self) -> Vec<Exchange> {
        let Mode::Record { kept, .. } = &self.mode else {
            let Mode::Replay { all, .. } = &self.mode else { return Vec::new() };
            return all.clone();
        };
        let mut groups: BTreeMap<(String, RequestKey), Vec<(u64, Exchange)>> = BTreeMap::new();
        for (number, exchange) in lock(kept).iter() {
            let group = groups.entry((exchange.step.clone(), exchange.asked())).or_default();
            group.push((*number, exchange.clone()));
        }
        let mut all = Vec::new();
        for mut group in groups.into_values() {
            group.sort_by_key(|(number, _)| *number);
            let alike = group.windows(2).all(|pair| pair[0].1 == pair[1].1);
            let count = if alike { 1 } else { group.len() };
            all.extend(group.into_iter().take(count).map(|(_, exchange)| exchange));
        }
        all
    }

    /// The place of a request among all.
    pub(crate) fn number(&self) -> u64 {
        match &self.mode {
            Mode::Record { next, .. } => next.fetch_add(1, Ordering::Relaxed),
            Mode::Replay { .. } => 0,
        }
    }

    pub(crate) fn keep(&self, number: u64, exchange: Exchange) {
        if let Mode::Record { kept, .. } = &self.mode {
            lock(kept).push((number, exchange));
        }
    }
}
