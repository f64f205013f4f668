//! The body of an upload on its way into a request: counted, cut to its size, and watched.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use image::{Descriptor, Digest};
use tokio::time::Instant;

use crate::{Body, Error, Result, Timeouts};

/// A one-shot body. Requests share it, so that an attempt that failed before taking a byte can be
/// repeated.
pub(crate) struct Feed {
    size: u64,
    digest: Digest,
    state: Mutex<FeedState>,
    taken: AtomicU64,
    /// Whether the wire waits for the source, rather than the source for the wire.
    starving: AtomicBool,
}

struct FeedState {
    body: Option<Body>,
    failure: Option<Error>,
    last: Instant,
}

impl Feed {
    pub(crate) fn new(body: Body, descriptor: &Descriptor) -> Arc<Feed> {
        Arc::new(Feed {
            size: descriptor.size,
            digest: descriptor.digest,
            state: Mutex::new(FeedState { body: Some(body), failure: None, last: Instant::now() }),
            taken: AtomicU64::new(0),
            starving: AtomicBool::new(false),
        })
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Whether no byte has been taken from the source.
    pub(crate) fn untouched(&self) -> bool {
        self.taken.load(Ordering::Relaxed) == 0 && self.lock().body.is_some()
    }

    /// What the source failed with, once.
    pub(crate) fn failure(&self) -> Option<Error> {
        self.lock().failure.take()
    }

    /// The bytes, for one request.
    pub(crate) fn stream(self: Arc<Feed>) -> impl Stream<Item = std::io::Result<Bytes>> + Send {
        Flow(self)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, FeedState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a request as long as it makes progress: the peer must take bytes (only its own
    /// slowness counts, not that of the source), and answer after the last one.
    pub(crate) async fn watch<F: Future>(
        &self,
        request: F,
        timeouts: Timeouts,
    ) -> Result<F::Output, (&'static str, Duration)> {
        self.lock().last = Instant::now();
        let tick = (timeouts.stall / 4).max(Duration::from_millis(5));
        let mut request = std::pin::pin!(request);
        let mut before = self.taken.load(Ordering::Relaxed);
        loop {
            if let Ok(output) = tokio::time::timeout(tick, request.as_mut()).await {
                return Ok(output);
            }
            let taken = self.taken.load(Ordering::Relaxed);
            if std::mem::replace(&mut before, taken) != taken
                || self.starving.load(Ordering::Relaxed)
            {
                continue;
            }
            let waited = self.lock().last.elapsed();
            let (limit, what) = match taken == self.size {
                true => (timeouts.commit, "did not answer after the last byte"),
                false => (timeouts.stall.max(timeouts.connect), "took no more bytes"),
            };
            if waited >= limit {
                return Err((what, limit));
            }
        }
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<Option<std::io::Result<Bytes>>> {
        let mut state = self.lock();
        let Some(body) = state.body.as_mut() else { return Poll::Ready(None) };
        let taken = self.taken.load(Ordering::Relaxed);
        let polled = match body.as_mut().poll_next(context) {
            Poll::Pending => {
                self.starving.store(true, Ordering::Relaxed);
                return Poll::Pending;
            }
            Poll::Ready(polled) => polled,
        };
        self.starving.store(false, Ordering::Relaxed);
        state.last = Instant::now();
        let wrong = |found: u64| {
            let (digest, expected) = (self.digest, self.size);
            Error::source(image::Error::SizeMismatch { digest, expected, found })
        };
        let failure = match polled {
            Some(Ok(bytes)) if taken + bytes.len() as u64 <= self.size => {
                self.taken.store(taken + bytes.len() as u64, Ordering::Relaxed);
                return Poll::Ready(Some(Ok(bytes)));
            }
            Some(Ok(bytes)) => wrong(taken + bytes.len() as u64),
            Some(Err(error)) => error,
            None if taken == self.size => {
                state.body = None;
                return Poll::Ready(None);
            }
            None => wrong(taken),
        };
        state.body = None;
        state.failure = Some(failure);
        Poll::Ready(Some(Err(std::io::Error::other("the content to upload failed"))))
    }
}

struct Flow(Arc<Feed>);

impl Stream for Flow {
    type Item = std::io::Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll(context)
    }
}
