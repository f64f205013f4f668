//! The two ends of one image of a mirror: they remember what was asked before, and what the
//! images beside it have brought already.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use image::{Descriptor, Digest, Repository, Tag};
use task::{Cause, Task};
use tokio::sync::Notify;

use crate::{Blob, Capabilities, Origin, Plan, Sink};

/// How many blobs are cached; others are queried again.
const REMEMBERED: usize = 200_000;

/// The blobs that the images of this run have at the destination, each where it was put first.
#[derive(Debug, Default)]
pub(super) struct DestinationBlobs {
    blobs: Mutex<HashMap<Digest, BlobLocation>>,
    changed: Notify,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum BlobLocation {
    /// It is being sent to this repository.
    Coming(Repository),
    /// These repositories have it.
    Here(Vec<Repository>),
}

enum Answer {
    /// It is in this repository.
    Here,
    /// Unknown; the caller is the one to send it.
    Yours,
    /// It is being sent to this repository now.
    Wait,
    /// It is in another repository, or sent to one now.
    Elsewhere,
}

impl DestinationBlobs {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, BlobLocation>> {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, digest: Digest, to: &Repository) -> Answer {
        let mut blobs = self.lock();
        let full = blobs.len() >= REMEMBERED;
        match blobs.get(&digest) {
            Some(BlobLocation::Here(repositories)) if repositories.contains(to) => Answer::Here,
            Some(BlobLocation::Coming(other)) if other == to => Answer::Wait,
            Some(_) => Answer::Elsewhere,
            None if full => Answer::Elsewhere,
            None => {
                blobs.insert(digest, BlobLocation::Coming(to.clone()));
                Answer::Yours
            }
        }
    }

    /// A repository beside `to` that has it.
    fn beside(&self, digest: Digest, to: &Repository) -> Option<Repository> {
        match self.lock().get(&digest) {
            Some(BlobLocation::Here(repositories)) if !repositories.contains(to) => {
                repositories.first().cloned()
            }
            _ => None,
        }
    }

    fn arrived(&self, digest: Digest, at: &Repository) {
        let mut blobs = self.lock();
        let full = blobs.len() >= REMEMBERED;
        match blobs.get_mut(&digest) {
            Some(BlobLocation::Here(repositories)) if repositories.contains(at) => {}
            Some(BlobLocation::Here(repositories)) => repositories.push(at.clone()),
            Some(coming) => *coming = BlobLocation::Here(vec![at.clone()]),
            None if !full => drop(blobs.insert(digest, BlobLocation::Here(vec![at.clone()]))),
            None => {}
        }
        drop(blobs);
        self.changed.notify_waiters();
    }

    /// The one who was to send it does not.
    fn given_up(&self, digest: Digest, to: &Repository) {
        let mut blobs = self.lock();
        if blobs.get(&digest) == Some(&BlobLocation::Coming(to.clone())) {
            blobs.remove(&digest);
        }
        drop(blobs);
        self.changed.notify_waiters();
    }
}

/// A repository at the destination that knows what has arrived, and whether it was written to.
pub(super) struct RepositorySink {
    pub(super) inner: Box<dyn Sink>,
    pub(super) repository: Repository,
    pub(super) blobs: Arc<DestinationBlobs>,
    /// What this image is to send; given up when it ends without.
    pub(super) mine: Mutex<Vec<Digest>>,
    pub(super) published: AtomicBool,
    /// Whether something was attached.
    pub(super) referred: AtomicBool,
}

impl RepositorySink {
    fn landed(&self, digest: Digest) {
        self.mine.lock().unwrap_or_else(PoisonError::into_inner).retain(|mine| *mine != digest);
        self.blobs.arrived(digest, &self.repository);
    }
}

impl Drop for RepositorySink {
    fn drop(&mut self) {
        for digest in self.mine.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            self.blobs.given_up(digest, &self.repository);
        }
    }
}

#[async_trait]
impl Sink for RepositorySink {
    async fn current(&self) -> Result<Option<Descriptor>, Cause> {
        self.inner.current().await
    }

    async fn contains(&self, descriptor: &Descriptor) -> Result<bool, Cause> {
        if descriptor.media_type.is_node() {
            return self.inner.contains(descriptor).await;
        }
        loop {
            let change = self.blobs.changed.notified();
            tokio::pin!(change);
            change.as_mut().enable();
            match self.blobs.ask(descriptor.digest, &self.repository) {
                Answer::Here => return Ok(true),
                Answer::Wait => change.await,
                Answer::Yours => {
                    self.mine
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(descriptor.digest);
                    break;
                }
                Answer::Elsewhere => break,
            }
        }
        let there = self.inner.contains(descriptor).await?;
        if there {
            self.landed(descriptor.digest);
        }
        Ok(there)
    }

    async fn link(&self, descriptor: &Descriptor, origin: &Origin) -> Result<bool, Cause> {
        let beside = self.blobs.beside(descriptor.digest, &self.repository);
        let beside = beside.map(Origin::Registry);
        for origin in beside.iter().chain([origin]) {
            if self.inner.link(descriptor, origin).await? {
                self.landed(descriptor.digest);
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn put(&self, descriptor: &Descriptor, blob: Blob) -> Result<(), Cause> {
        self.inner.put(descriptor, blob).await?;
        if !descriptor.media_type.is_node() {
            self.landed(descriptor.digest);
        }
        Ok(())
    }

    async fn publish(&self, root: &Descriptor, document: Bytes, task: &Task) -> Result<(), Cause> {
        self.published.store(true, Ordering::Relaxed);
        self.inner.publish(root, document, task).await
    }

    async fn refer(
        &self,
        subject: &Descriptor,
        referrer: &Descriptor,
        document: Bytes,
        task: &Task,
    ) -> Result<(), Cause> {
        self.referred.store(true, Ordering::Relaxed);
        self.inner.refer(subject, referrer, document, task).await
    }

    async fn referring(&self, subject: &Descriptor) -> Result<Vec<Descriptor>, Cause> {
        self.inner.referring(subject).await
    }

    fn sibling(&self, tag: &Tag) -> Option<Box<dyn Sink>> {
        self.inner.sibling(tag)
    }

    fn expect(&self, plan: &Plan) {
        self.inner.expect(plan);
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_sent_by_one_and_found_by_the_others() {
        let arrived = DestinationBlobs::default();
        let repository = |path: &str| Repository::new("r.example", path).unwrap();
        let (a, b, digest) = (repository("a"), repository("b"), Digest::of(b"x"));
        assert!(matches!(arrived.ask(digest, &a), Answer::Yours));
        assert!(matches!(arrived.ask(digest, &a), Answer::Wait));
        assert!(matches!(arrived.ask(digest, &b), Answer::Elsewhere));
        arrived.given_up(digest, &b);
        assert!(matches!(arrived.ask(digest, &a), Answer::Wait), "it is a's, not b's");
        arrived.given_up(digest, &a);
        assert!(matches!(arrived.ask(digest, &a), Answer::Yours));
        arrived.arrived(digest, &a);
        assert!(matches!(arrived.ask(digest, &a), Answer::Here));
        assert!(matches!(arrived.ask(digest, &b), Answer::Elsewhere));
        assert_eq!(arrived.beside(digest, &b), Some(a.clone()));
        assert_eq!(arrived.beside(digest, &a), None);
        arrived.arrived(digest, &b);
        assert!(matches!(arrived.ask(digest, &b), Answer::Here));
    }
}
