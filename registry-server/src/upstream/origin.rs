//! Where a blob comes from: servers beside this one in turn, at last the upstream.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use image::Digest;
use registry_client::{Body, Repo};

use super::peers::{OpenPeers, Peer};

/// A blob that is to be fetched.
pub(super) struct Origins {
    digest: Digest,
    size: Option<u64>,
    left: VecDeque<Peer>,
    upstream: Option<Repo>,
    peers: Option<Arc<OpenPeers>>,
    /// The servers that gave bytes of it.
    gave: Vec<SocketAddr>,
}

impl Origins {
    /// These peers first, then the upstream.
    pub(super) fn new(
        (digest, size): (Digest, Option<u64>),
        peers: (Option<Arc<OpenPeers>>, Vec<Peer>),
        upstream: Repo,
    ) -> Origins {
        let (peers, left) = (peers.0, peers.1.into());
        Origins { digest, size, left, upstream: Some(upstream), peers, gave: Vec::new() }
    }

    /// Opens the blob from a byte on, at the first place that gives it.
    ///
    /// # Errors
    /// Of the upstream.
    pub(super) async fn open(&mut self, from: u64) -> Result<Body, OpenError> {
        let part = match (from, self.size) {
            (0, _) => None,
            (from, Some(size)) => Some(from..size),
            (_, None) => return Err(OpenError::Nobody),
        };
        while let Some(peer) = self.left.pop_front() {
            match peer.repo.blob(self.digest, self.size, part.clone()).await {
                Ok(body) => {
                    self.gave.push(peer.address);
                    return Ok(body);
                }
                Err(error) => {
                    self.peers.iter().for_each(|all| all.refused(peer.address, &error));
                }
            }
        }
        let Some(upstream) = self.upstream.take() else { return Err(OpenError::Nobody) };
        upstream.blob(self.digest, self.size, part).await.map_err(OpenError::Upstream)
    }

    /// Whether a server beside this one gives it.
    pub(super) fn is_peer(&self) -> bool {
        !self.gave.is_empty() && self.upstream.is_some()
    }

    /// Goes on elsewhere after a fault.
    ///
    /// # Errors
    /// The fault, if there is nobody else.
    pub(super) async fn again(&mut self, from: u64, fault: io::Error) -> io::Result<Body> {
        if let Some(last) = self.gave.last().copied() {
            self.blame(&[last]);
        }
        self.open(from).await.map_err(|opening| match opening {
            OpenError::Nobody => fault,
            OpenError::Upstream(error) => io::Error::other(error),
        })
    }

    /// What came is not the blob: the servers that gave bytes of it are not asked for a while.
    pub(super) fn wrong(&self) {
        self.blame(&self.gave);
    }

    fn blame(&self, peers: &[SocketAddr]) {
        for peer in peers {
            self.peers.iter().for_each(|all| all.failed(*peer));
        }
    }
}

/// Why a blob cannot be opened.
pub(super) enum OpenError {
    /// There is nobody left to ask.
    Nobody,
    /// The upstream says so.
    Upstream(registry_client::Error),
}
