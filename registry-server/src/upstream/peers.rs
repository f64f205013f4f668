//! Servers beside this one that cache the same upstreams: one of them fetches a blob, the others get
//! it from each other.
//!
//! For each blob the servers form a tree of their own. Its order is that of a score, a hash of the
//! server's address and the blob's digest, so it needs no coordination. The first asks the
//! upstream, every other one asks a server before it, which passes the bytes on as they arrive. A
//! server only ever asks one with a higher score: no two wait for each other, even where they do not
//! know the same servers. What arrives is checked by its digest, as what an upstream sends.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use image::{Digest, Digester, Repository};
use registry_client::{Client, Credential, HostRule, Proxies, Repo, Timeouts};
use task::{Fault, Kind};
use tokio::time::Instant;

use crate::lock::Lock;
use crate::random::random;
use crate::{Error, Result};

/// How many servers each server passes a blob on to.
const FANOUT: usize = 2;
/// How many servers are asked before the upstream is.
const TRIES: usize = 3;
/// How long names are not resolved again.
const KNOWN: Duration = Duration::from_secs(10);
/// How long a server is not asked that failed.
const DOWN: Duration = Duration::from_secs(30);

/// Servers beside this one.
#[derive(Debug, Clone, Default)]
pub struct Peers {
    /// `HOST:PORT` of one server, or `dns:NAME:PORT` of all servers whose addresses a name has. This
    /// server may be among them.
    pub addresses: Vec<String>,
    /// How they are reached; its prefix is not used.
    pub host: HostRule,
    /// Sent to them only.
    pub credential: Option<Credential>,
    /// The port on which this server listens, to find itself among them.
    pub port: u16,
}

/// The servers in use.
pub(crate) struct OpenPeers {
    peers: Peers,
    client: Client,
    known: tokio::sync::Mutex<Option<(Instant, Arc<KnownPeers>)>>,
    down: Lock<HashMap<SocketAddr, Instant>>,
    /// The name of a server that is not in the list: it asks others, and none asks it.
    unlisted: String,
}

#[derive(Debug, Default, PartialEq)]
struct KnownPeers {
    all: BTreeSet<SocketAddr>,
    own: Option<SocketAddr>,
}

/// A server that may have a blob.
#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    pub(crate) repo: Repo,
}

impl OpenPeers {
    /// `None` without peers.
    ///
    /// # Errors
    /// [`Error::Configuration`] for what is no address.
    pub(crate) fn new(peers: &Peers, proxies: &Proxies) -> Result<Option<OpenPeers>> {
        if peers.addresses.is_empty() {
            return Ok(None);
        }
        let failed = |reason: String| Error::Configuration { what: "the peers", reason };
        for address in &peers.addresses {
            let name = address.strip_prefix("dns:").unwrap_or(address);
            let port = name.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            if port.is_none() {
                return Err(failed(format!("{address}: write HOST:PORT or dns:NAME:PORT")));
            }
        }
        let mut options = registry_client::Options {
            hosts: vec![HostRule { prefix: "*".to_owned(), ..peers.host.clone() }],
            retries: 0,
            concurrency: 16,
            proxies: proxies.clone(),
            timeouts: Timeouts { connect: Duration::from_secs(2), ..Timeouts::default() },
            ..registry_client::Options::default()
        };
        if let Some(credential) = &peers.credential {
            options.keychain = Arc::new(credential.clone());
        }
        let client = Client::new(options).map_err(|error| failed(error.to_string()))?;
        Ok(Some(OpenPeers {
            peers: peers.clone(),
            client,
            known: tokio::sync::Mutex::default(),
            down: Lock::default(),
            unlisted: random(),
        }))
    }

    /// The servers to ask for a blob, one after the other; none where this server comes first.
    pub(crate) async fn before(&self, name: &str, digest: Digest) -> Vec<Peer> {
        let known = self.known().await;
        let own = known.own.map_or_else(|| self.unlisted.clone(), |own| own.to_string());
        let down = {
            let mut down = self.down.lock();
            let now = Instant::now();
            down.retain(|_, until| *until > now);
            down.keys().copied().collect::<BTreeSet<_>>()
        };
        let others = known.all.iter().copied().filter(|peer| Some(*peer) != known.own);
        let chain = chain(others.collect(), &own, digest).into_iter();
        let chain = chain.filter(|peer| !down.contains(peer)).take(TRIES);
        chain.filter_map(|address| self.peer(address, name)).collect()
    }

    fn peer(&self, address: SocketAddr, name: &str) -> Option<Peer> {
        let repository = Repository::new(&address.to_string(), name).ok()?;
        Some(Peer { address, repo: self.client.repo(&repository) })
    }

    /// Does not ask a server for a while.
    pub(crate) fn failed(&self, address: SocketAddr) {
        self.down.lock().insert(address, Instant::now() + DOWN);
    }

    /// Hears what a server answered that did not give what it was asked for.
    pub(crate) fn refused(&self, address: SocketAddr, error: &registry_client::Error) {
        tracing::info!(%error, peer = %address, "asking a peer");
        // What the upstream does not have, no server has.
        if error.kind() != Kind::NotFound {
            self.failed(address);
        }
    }

    async fn known(&self) -> Arc<KnownPeers> {
        let mut known = self.known.lock().await;
        if let Some((at, peers)) = &*known
            && at.elapsed() < KNOWN
        {
            return Arc::clone(peers);
        }
        let mut all = BTreeSet::new();
        for address in &self.peers.addresses {
            let name = address.strip_prefix("dns:").unwrap_or(address);
            match tokio::net::lookup_host(name).await {
                Ok(found) if address.starts_with("dns:") => all.extend(found),
                Ok(mut found) => all.extend(found.next()),
                Err(error) => tracing::warn!(%error, name, "resolving the name of a peer"),
            }
        }
        let own = all.iter().find(|peer| peer.port() == self.peers.port && is_here(peer.ip()));
        let peers = Arc::new(KnownPeers { own: own.copied(), all });
        *known = Some((Instant::now(), Arc::clone(&peers)));
        peers
    }
}

/// Whether an address is one of this machine's.
fn is_here(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

/// What places a server for a blob.
fn score(server: &str, digest: Digest) -> [u8; 32] {
    let mut digester = Digester::default();
    digester.update(server.as_bytes());
    digester.update(b"\n");
    digester.update(digest.as_bytes());
    let mut score = [0; 32];
    score.copy_from_slice(&digester.finish().as_bytes()[..32]);
    score
}

/// The servers above one in the tree of a blob: its parent first, the root last.
fn chain(others: Vec<SocketAddr>, own: &str, digest: Digest) -> Vec<SocketAddr> {
    let own = score(own, digest);
    let scored = others.into_iter().map(|peer| (score(&peer.to_string(), digest), peer));
    let mut higher: Vec<_> = scored.filter(|(score, _)| *score > own).collect();
    higher.sort_unstable_by(|a, b| b.cmp(a));
    let mut chain = Vec::new();
    let mut at = higher.len();
    while at > 0 {
        at = (at - 1) / FANOUT;
        chain.push(higher[at].1);
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(count: u16) -> Vec<SocketAddr> {
        (0..count).map(|n| SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], 5000))).collect()
    }

    fn above(all: &[SocketAddr], own: SocketAddr, digest: Digest) -> Vec<SocketAddr> {
        let others = all.iter().copied().filter(|peer| *peer != own).collect();
        chain(others, &own.to_string(), digest)
    }

    #[test]
    fn one_server_asks_the_upstream_and_none_serves_many() {
        for blob in 0..20_u8 {
            let (all, digest) = (servers(500), Digest::of(&[blob]));
            let chains: Vec<_> = all.iter().map(|own| above(&all, *own, digest)).collect();
            assert_eq!(chains.iter().filter(|chain| chain.is_empty()).count(), 1);
            assert!(chains.iter().map(Vec::len).max() <= Some(9));
            let mut served: HashMap<SocketAddr, usize> = HashMap::new();
            for chain in &chains {
                if let Some(parent) = chain.first() {
                    *served.entry(*parent).or_default() += 1;
                }
            }
            assert!(served.values().all(|count| *count <= FANOUT));
        }
    }

    #[test]
    fn servers_that_know_different_servers_never_wait_for_each_other() {
        let all = servers(60);
        let digest = Digest::of(b"blob");
        for (number, own) in all.iter().enumerate() {
            // Each knows another half of them.
            let known: Vec<_> = all.iter().copied().skip(number % 7).step_by(2).collect();
            let own_score = score(&own.to_string(), digest);
            for asked in above(&known, *own, digest) {
                assert!(score(&asked.to_string(), digest) > own_score);
            }
        }
    }

    #[tokio::test]
    async fn a_server_finds_itself_and_leaves_out_who_failed() {
        let addresses = vec!["127.0.0.1:5001".to_owned(), "192.0.2.7:5001".to_owned()];
        let peers = Peers { addresses, port: 5001, ..Peers::default() };
        let open = OpenPeers::new(&peers, &Proxies::default()).unwrap().unwrap();
        assert_eq!(open.known().await.own, Some("127.0.0.1:5001".parse().unwrap()));
        let mut found = Vec::new();
        for blob in 0..40_u8 {
            found.extend(open.before("team/app", Digest::of(&[blob])).await);
        }
        assert!(!found.is_empty() && found.len() < 40);
        assert!(found.iter().all(|peer| peer.address.to_string() == "192.0.2.7:5001"));
        open.failed(found[0].address);
        for blob in 0..40_u8 {
            assert!(open.before("team/app", Digest::of(&[blob])).await.is_empty());
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for address in ["host", "dns:host", "host:port", ""] {
            let peers = Peers { addresses: vec![address.to_owned()], ..Peers::default() };
            let error = OpenPeers::new(&peers, &Proxies::default()).err().unwrap().to_string();
            assert!(error.contains("HOST:PORT"), "{error}");
        }
    }
}
