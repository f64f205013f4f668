//! Large blobs, sent in parts whose arrival is remembered: an upload that was interrupted, with
//! its process or without, goes on where the registry is (distribution-spec, "Pushing a blob in
//! chunks").

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use image::Descriptor;
use reqwest::{Method, header};
use task::{Fault as _, Kind};
use url::Url;

use crate::call::{Answer, Payload, RequestTarget};
use crate::connect::same_origin;
use crate::feed::Feed;
use crate::journal::{PendingUpload, Resume};
use crate::upload::{Upload, cancel};
use crate::{Body, Error, Result, quirks, wire};

/// Parts of a blob: what is lost when a registry forgets the part that broke off.
const PARTS: u64 = 20;

/// Why a session cannot be resumed.
const LOST: &[u16] = &[400, 401, 403, 404, 405, 409, 410, 416, 500, 501, 502, 503];

/// A body that is taken part by part.
#[derive(Clone)]
struct Parts(Arc<Mutex<BodyRemainder>>);

struct BodyRemainder {
    body: Body,
    /// The end of a piece that went over a part's end.
    left: Bytes,
}

impl Parts {
    fn new(body: Body) -> Parts {
        Parts(Arc::new(Mutex::new(BodyRemainder { body, left: Bytes::new() })))
    }

    /// The next `length` bytes; fewer where the body ends before.
    fn next(&self, length: u64) -> Body {
        let rest = Arc::clone(&self.0);
        let parts = stream::unfold((rest, length), |(rest, length)| async move {
            if length == 0 {
                return None;
            }
            let piece = std::future::poll_fn(|context| {
                let mut rest = rest.lock().unwrap_or_else(PoisonError::into_inner);
                if rest.left.is_empty() {
                    rest.body.as_mut().poll_next(context)
                } else {
                    std::task::Poll::Ready(Some(Ok(std::mem::take(&mut rest.left))))
                }
            });
            let mut piece = match piece.await? {
                Ok(piece) => piece,
                Err(error) => return Some((Err(error), (rest, 0))),
            };
            if piece.len() as u64 > length {
                let left = piece.split_off(length as usize);
                rest.lock().unwrap_or_else(PoisonError::into_inner).left = left;
            }
            let length = length - piece.len() as u64;
            Some((Ok(piece), (rest, length)))
        });
        Box::pin(parts)
    }

    /// Reads what the registry has already.
    async fn skip(&self, length: u64) -> Result<u64> {
        let mut skipped = 0;
        let mut part = self.next(length);
        while let Some(piece) = part.next().await {
            skipped += piece?.len() as u64;
        }
        Ok(skipped)
    }
}

impl Upload<'_> {
    /// The whole blob in parts; `kept` is a session that is open already.
    pub(crate) async fn resumable(
        &self,
        resume: &Resume,
        kept: Option<Url>,
        body: Body,
    ) -> Result<()> {
        let place = (self.endpoint.host.authority.as_str(), self.endpoint.path());
        let Some((mut entry, known)) = resume.entry(place, self.descriptor) else {
            let session = match kept {
                Some(session) => session,
                None => self.begin().await?.0,
            };
            return self.streamed(session, body).await;
        };
        let (mut session, mut sent, mut least) = self.opened(known, kept).await?;
        let size = self.descriptor.size;
        tracing::debug!(blob = %self.descriptor.digest, sent, size, "uploading in parts");
        let parts = Parts::new(body);
        let skipped = parts.skip(sent).await?;
        if skipped != sent {
            return Err(self.wrong_size(skipped));
        }
        let part = (size / PARTS).max(resume.from / 8).max(1);
        let part = match self.endpoint.host.quirk.parts {
            quirks::Parts::Sized(least, most) => part.clamp(least, most),
            quirks::Parts::Any | quirks::Parts::None => part,
        };
        while sent < size {
            let own = self.is_own(&session);
            entry.note(&session, sent, own);
            let length = part.max(least).min(size - sent);
            let about = Descriptor { size: length, ..self.descriptor.clone() };
            let payload = Payload::Feed(Feed::new(parts.next(length), &about));
            let range = Some((sent, sent + length - 1));
            match self.patch_answer(&session, payload, range).await {
                Ok(answer) => {
                    if self.stands_still(&answer, sent, sent + length) {
                        cancel(self.inner, self.endpoint, session).await;
                        entry.forget();
                        return Err(self.only_whole());
                    }
                    sent += length;
                    self.arrived(&answer, sent)?;
                    least = wire::least_chunk(&answer.headers).max(least);
                    session = self.location(&answer)?.unwrap_or(session);
                }
                Err(error) => return Err(self.broke(entry, session, error, sent == 0).await),
            }
        }
        // The body says at its end whether it was what it should be.
        if parts.skip(1).await? > 0 {
            cancel(self.inner, self.endpoint, session).await;
            entry.forget();
            return Err(self.wrong_size(size + 1));
        }
        let own = self.is_own(&session);
        entry.note(&session, sent, own);
        let mut call = self.call(Method::PUT, RequestTarget::Url(self.closing(session.clone())));
        call.patient = Some(size);
        match self.inner.send(self.endpoint, &call).await {
            Ok(answer) => {
                entry.forget();
                self.committed(&answer).await
            }
            Err(error) if error.kind() == Kind::Unavailable && self.is_there().await => {
                entry.forget();
                Ok(())
            }
            Err(error) => Err(self.broke(entry, session, error, false).await),
        }
    }

    /// The session to resume, its offset, and the smallest part it accepts.
    async fn opened(
        &self,
        known: Option<(Url, u64)>,
        kept: Option<Url>,
    ) -> Result<(Url, u64, u64)> {
        let found = match known {
            Some((session, sent)) => self.found(session, sent).await?,
            None => None,
        };
        match (found, kept) {
            (Some((session, there)), unused) => {
                if let Some(unused) = unused {
                    cancel(self.inner, self.endpoint, unused).await;
                }
                Ok((session, there, 0))
            }
            (None, Some(session)) => Ok((session, 0, 0)),
            (None, None) => {
                let (session, least) = self.begin().await?;
                Ok((session, 0, least))
            }
        }
    }

    fn wrong_size(&self, found: u64) -> Error {
        let (digest, expected) = (self.descriptor.digest, self.descriptor.size);
        Error::source(image::Error::SizeMismatch { digest, expected, found })
    }

    fn is_own(&self, session: &Url) -> bool {
        let scheme = session.scheme();
        let own = Url::parse(&format!("{scheme}://{}/", self.endpoint.host.authority));
        own.is_ok_and(|own| same_origin(&own, session))
    }

    /// The state of an earlier session, if it can be resumed; `sent` is the offset for registries
    /// that do not report one.
    async fn found(&self, session: Url, sent: u64) -> Result<Option<(Url, u64)>> {
        // What was written down may have been changed since.
        if !self.is_own(&session) || !matches!(session.scheme(), "http" | "https") {
            return Ok(None);
        }
        let call = self.call(Method::GET, RequestTarget::Url(session.clone())).accept(LOST);
        let answer = self.inner.send(self.endpoint, &call).await?;
        if !answer.status.is_success() {
            return Ok(None);
        }
        let there = match answer.headers.contains_key(header::RANGE) {
            true => wire::upload_range(&answer.headers),
            false => Some(sent),
        };
        match there.filter(|there| *there <= self.descriptor.size) {
            Some(there) => Ok(Some((self.location(&answer)?.unwrap_or(session), there))),
            None => Ok(None),
        }
    }

    /// A registry that took less than it was sent would give another blob.
    fn arrived(&self, answer: &Answer, sent: u64) -> Result<()> {
        match wire::upload_range(&answer.headers) {
            Some(there) if there != sent && !(there == 0 && sent == 1) => {
                Err(self.interrupted(&format!("has {there} bytes of the {sent} it was sent")))
            }
            _ => Ok(()),
        }
    }

    /// A part that was not taken. After a passing fault the session stays, for the next try or the
    /// next process.
    async fn broke(&self, entry: PendingUpload, session: Url, error: Error, first: bool) -> Error {
        let host = &self.endpoint.host;
        let again = match &error {
            // It says what is wrong with the blob, not with how it came.
            Error::Answer { code, .. } if code == "DIGEST_INVALID" || code == "SIZE_INVALID" => {
                false
            }
            Error::Answer { status: 413, .. } => {
                host.pieces.store(true, Ordering::Relaxed);
                true
            }
            Error::Answer { status: 400 | 404 | 405 | 411 | 415 | 416 | 501, .. } if first => {
                host.whole.store(true, Ordering::Relaxed);
                true
            }
            // The session is gone or elsewhere than we think; or, when that is said twice of one
            // blob, only the first part was taken.
            Error::Answer { status: 400 | 404 | 405 | 416, .. } => {
                if self.inner.sessions.lost(self.endpoint, self.descriptor.digest) > 1 {
                    host.whole.store(true, Ordering::Relaxed);
                }
                true
            }
            // The source's faults are among these.
            passing if passing.kind() == Kind::Unavailable => return self.come_again(error),
            _ => false,
        };
        cancel(self.inner, self.endpoint, session).await;
        entry.forget();
        match again {
            true => self.interrupted("wants uploads in another form, or again"),
            false => error,
        }
    }
}
