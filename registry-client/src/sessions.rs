//! What is remembered of uploads within one client.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use image::Digest;
use url::Url;

use crate::call::Endpoint;

/// Sessions kept, and blobs whose losses are counted.
const MOST: usize = 256;

/// A blob on its way to a repository.
type Key = (String, String, Digest);

#[derive(Default)]
struct SessionTable {
    /// Sessions that a refused mount left open, for the upload that follows.
    open: HashMap<Key, Url>,
    /// How often a registry has lost a blob's session.
    lost: HashMap<Key, u32>,
}

/// The running uploads.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<SessionTable>);

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, SessionTable> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(endpoint: &Endpoint, digest: Digest) -> Key {
        (endpoint.host.authority.clone(), endpoint.path().to_owned(), digest)
    }

    /// Keeps an open session; returns the one that no longer fits.
    pub(crate) fn keep(&self, endpoint: &Endpoint, digest: Digest, session: Url) -> Option<Url> {
        let mut known = self.lock();
        if known.open.len() >= MOST {
            return Some(session);
        }
        known.open.insert(Sessions::key(endpoint, digest), session)
    }

    /// The session that was kept for a blob.
    pub(crate) fn take(&self, endpoint: &Endpoint, digest: Digest) -> Option<Url> {
        self.lock().open.remove(&Sessions::key(endpoint, digest))
    }

    /// Notes that the registry has lost a blob's session; how often it has by now.
    pub(crate) fn lost(&self, endpoint: &Endpoint, digest: Digest) -> u32 {
        let mut known = self.lock();
        if known.lost.len() >= MOST {
            known.lost.clear();
        }
        let count = known.lost.entry(Sessions::key(endpoint, digest)).or_default();
        *count += 1;
        *count
    }
}
