//! Collections while serving: one at a time on one storage, by any server.

use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Content;
use super::protocol::{self, CollectionReport, CollectionWorld};
use crate::keys;
use crate::storage::{Storage, WriteCondition, listed, whole};

/// How long a collection may be silent before another takes over.
const LEASE: Duration = Duration::from_secs(120);
/// What one pass condemns at most: pushes of it wait until the pass is over.
const BATCH: usize = 2_000;
/// The most passes of a collection; the rest waits for the next one.
const PASSES: usize = 1_000;

/// The right to collect.
#[derive(Debug)]
pub(crate) struct Lease {
    me: String,
    renewed: Option<Instant>,
}

#[derive(Debug, Serialize, Deserialize)]
struct CollectionLease {
    holder: String,
    /// On the storage's clock, in seconds.
    until: u64,
}

impl Lease {
    pub(crate) fn new(me: String) -> Lease {
        Lease { me, renewed: None }
    }

    /// Takes or renews it; `false` if another has it.
    async fn take(&mut self, storage: &dyn Storage) -> io::Result<bool> {
        let asked = Instant::now();
        let now = storage.now().await?;
        let there = storage.stat(keys::LEASE).await?;
        let when = match there {
            None => WriteCondition::Absent,
            Some(stat) => {
                let held = whole(storage, keys::LEASE, 4096).await?.unwrap_or_default();
                let lease: Option<CollectionLease> = serde_json::from_slice(&held).ok();
                let taken = lease.is_some_and(|held| {
                    held.holder != self.me && Duration::from_secs(held.until) > now
                });
                if taken {
                    return Ok(false);
                }
                stat.version.map_or(WriteCondition::Always, WriteCondition::Is)
            }
        };
        let held = CollectionLease { holder: self.me.clone(), until: (now + LEASE).as_secs() };
        let held = serde_json::to_vec(&held).map_err(io::Error::other)?;
        let taken = storage.put(keys::LEASE, held.into(), when).await?;
        self.renewed = taken.then_some(asked);
        Ok(taken)
    }

    /// Fails unless it is certain that no other server has taken over.
    pub(super) async fn mine(&mut self, storage: &dyn Storage) -> io::Result<()> {
        if self.renewed.is_some_and(|at| at.elapsed() < LEASE / 4) {
            return Ok(());
        }
        // A lease that ran out may have been another's in between: nothing seen before holds.
        let late = self.renewed.is_none_or(|at| at.elapsed() > LEASE / 2);
        if late || !self.take(storage).await? {
            self.renewed = None;
            return Err(io::Error::new(
                io::ErrorKind::Interrupted,
                "another server took over the collection",
            ));
        }
        Ok(())
    }

    async fn give_back(&mut self, storage: &dyn Storage) -> io::Result<()> {
        self.mine(storage).await?;
        self.renewed = None;
        storage.put(keys::LEASE, Bytes::new(), WriteCondition::Always).await.map(drop)
    }
}

/// What would be collected.
#[derive(Debug, Clone, Default)]
pub struct Garbage {
    /// Unneeded blobs and manifests.
    pub content: Vec<image::Digest>,
    /// Unneeded untagged manifests: repository and digest.
    pub manifests: Vec<(String, image::Digest)>,
}

impl Content {
    /// Collects until nothing is left; `None` if another server is collecting.
    pub(crate) async fn collect(&self) -> io::Result<Option<CollectionReport>> {
        if !self.lease.lock().await.take(self.storage.as_ref()).await? {
            return Ok(None);
        }
        let mut all = CollectionReport::default();
        let result = self.passes(&mut all).await;
        self.entries.lock().clear();
        result?;
        all.emptied = self.forget_empty().await?;
        self.lease.lock().await.give_back(self.storage.as_ref()).await?;
        Ok(Some(all))
    }

    async fn passes(&self, all: &mut CollectionReport) -> io::Result<()> {
        for _ in 0..PASSES {
            let done = protocol::collect(self, BATCH).await?;
            all.erased += done.erased;
            all.unlinked += done.unlinked;
            all.delisted += done.delisted;
            all.spared += done.spared;
            if done.erased + done.unlinked + done.delisted == 0 {
                break;
            }
        }
        Ok(())
    }

    /// What a first pass would take.
    pub(crate) async fn garbage(&self) -> io::Result<Garbage> {
        let now = self.time().await?;
        let verdicts = self.survey().await?.verdicts(now, self.grace);
        self.entries.lock().clear();
        let mut garbage = Garbage::default();
        for verdict in verdicts {
            if verdict.erase {
                garbage.content.push(verdict.id);
            }
            let id = verdict.id;
            garbage.manifests.extend(verdict.delist.iter().map(|repo| (repo.to_string(), id)));
        }
        Ok(garbage)
    }

    /// Deletes uploads that were idle for `idle`; returns how many.
    pub(crate) async fn expire_uploads(&self, idle: Duration) -> io::Result<u64> {
        let now = self.time().await?;
        let mut sessions = std::collections::BTreeMap::<String, (Duration, Vec<String>)>::new();
        for stat in listed(self.storage.as_ref(), keys::UPLOADS).await? {
            let rest = stat.key.strip_prefix(keys::UPLOADS).unwrap_or_default();
            let Some((session, _)) = rest.split_once('/') else { continue };
            let (last, of) = sessions.entry(session.to_owned()).or_default();
            *last = (*last).max(stat.modified);
            of.push(stat.key);
        }
        let mut count = 0;
        for (last, of) in sessions.into_values().filter(|(last, _)| *last + idle <= now) {
            tracing::debug!(?last, "forgetting an upload");
            for key in of {
                self.storage.delete(&key).await?;
            }
            count += 1;
        }
        Ok(count)
    }
}
