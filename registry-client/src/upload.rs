//! Blobs on their way to a registry (distribution-spec, "Pushing Blobs").

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use image::{Descriptor, Digest, Repository};
use reqwest::Method;
use reqwest::header::{self, HeaderName, HeaderValue};
use task::{Fault, Kind};
use tokio::time::Instant;
use url::Url;

use crate::auth::{Access, Scope};
use crate::call::{Answer, Call, Endpoint, Payload, RequestTarget};
use crate::feed::Feed;
use crate::inner::ClientInner;
use crate::limit::Lane;
use crate::quirks::Parts;
use crate::retry::{Attempts, RequestFailure, Retry};
use crate::{Body, Error, Result, wire};

/// Blobs up to this size are held in memory, so that their uploads can be repeated here.
const SMALL: u64 = 256 << 10;
/// The size of pieces for registries that limit the size of requests.
const PIECE: u64 = 4 << 20;
/// The largest piece that is held in memory.
const LARGEST_PIECE: u64 = 64 << 20;
/// How long it takes to find out whether an upload whose answer was lost arrived.
const LOOK: Duration = Duration::from_secs(8);

/// One blob's upload.
pub(crate) struct Upload<'a> {
    pub(crate) inner: &'a ClientInner,
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) descriptor: &'a Descriptor,
    action: String,
    /// When it is given up, where all of it can be repeated here.
    until: Option<Instant>,
}

pub(crate) async fn upload(
    inner: &Arc<ClientInner>,
    endpoint: &Endpoint,
    descriptor: &Descriptor,
    body: Body,
) -> Result<()> {
    let action = format!("writing blob {} to {}", descriptor.digest, endpoint.path());
    let mut upload = Upload { inner, endpoint, descriptor, action, until: None };
    let _turn = endpoint.host.turn(Lane::Upload).await;
    if descriptor.size <= SMALL {
        return upload.small(body).await;
    }
    let host = &endpoint.host;
    let kept = inner.sessions.take(endpoint, descriptor.digest);
    let whole = host.whole.load(Ordering::Relaxed);
    let pieces = !whole && (host.chunk.is_some() || host.pieces.load(Ordering::Relaxed));
    let whole = whole || host.patch.load(Ordering::Relaxed);
    if let Some(resume) = &inner.options.resume
        && descriptor.size >= resume.from
        && !pieces
        && !whole
        && host.quirk.parts != Parts::None
    {
        return upload.resumable(resume, kept, body).await;
    }
    let (session, least) = match kept {
        Some(session) => (session, 0),
        None => upload.begin().await?,
    };
    match pieces {
        true => upload.in_pieces(session, least, body).await,
        false => upload.streamed(session, body).await,
    }
}

/// Mounts a blob; `false` if it must be uploaded instead.
pub(crate) async fn mount(
    inner: &Arc<ClientInner>,
    endpoint: &Endpoint,
    digest: Digest,
    from: &Repository,
) -> Result<bool> {
    let action = format!("mounting blob {digest} of {} into {}", from.path(), endpoint.path());
    let mut scope = Scope::new(Access::Push, endpoint.path());
    scope.from = Some(from.path().to_owned());
    // The serializer is not `Sync` and must be gone before anything is waited for.
    let query = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("mount", &digest.to_string())
        .append_pair("from", from.path())
        .finish();
    let path = format!("/v2/{}/blobs/uploads/?{query}", endpoint.path());
    let call = Call::new(Method::POST, RequestTarget::Path(path), scope, action);
    let answer = match inner.send(endpoint, &call.accept(&[400, 404, 405, 500, 501])).await {
        Ok(answer) => answer,
        // The source may be out of reach for this user; the upload tells about the target.
        Err(error) if error.kind() == Kind::Denied => return Ok(false),
        Err(error) => return Err(error),
    };
    if answer.status == 201 {
        return Ok(true);
    }
    if answer.status == 202
        && let Some(location) = wire::location(&answer.headers)
        && let Ok(session) = inner.next_url(&answer.url, &location)
        && let Some(unused) = inner.sessions.keep(endpoint, digest, session)
    {
        cancel(inner, endpoint, unused).await;
    }
    Ok(false)
}

/// Tells the registry that a session is over. Whether it listens does not matter.
pub(crate) async fn cancel(inner: &ClientInner, endpoint: &Endpoint, session: Url) {
    let scope = Scope::new(Access::Push, endpoint.path());
    let call =
        Call::new(Method::DELETE, RequestTarget::Url(session), scope, "ending an upload".into());
    let limit = inner.options.timeouts.connect.min(std::time::Duration::from_secs(2));
    let call = call.once().lane(Lane::Free);
    let _ = tokio::time::timeout(limit, inner.send(endpoint, &call)).await;
}

impl Upload<'_> {
    pub(crate) fn call(&self, method: Method, to: RequestTarget) -> Call {
        let scope = Scope::new(Access::Push, self.endpoint.path());
        let call = Call::new(method, to, scope, self.action.clone()).lane(Lane::Free);
        Call { until: self.until, ..call }
    }

    fn octets(call: Call) -> Call {
        let octets = HeaderValue::from_static("application/octet-stream");
        call.header(header::CONTENT_TYPE, octets)
    }

    fn malformed(&self, reason: String) -> Error {
        Error::Malformed {
            registry: self.endpoint.registry().to_owned(),
            action: self.action.clone(),
            reason,
        }
    }

    pub(crate) fn interrupted(&self, reason: &str) -> Error {
        Error::Interrupted {
            registry: self.endpoint.registry().to_owned(),
            action: self.action.clone(),
            reason: reason.to_owned(),
            source: None,
        }
    }

    /// A failure that may pass, of a request whose bytes are used up: bringing them again may help.
    pub(crate) fn come_again(&self, error: Error) -> Error {
        let ours = !matches!(error, Error::Source { .. } | Error::Interrupted { .. });
        if error.kind() != Kind::Unavailable || !ours {
            return error;
        }
        Error::Interrupted {
            registry: self.endpoint.registry().to_owned(),
            action: self.action.clone(),
            reason: "did not take it".to_owned(),
            source: Some(Box::new(error)),
        }
    }

    /// Opens a session: its URL, and the smallest piece the registry takes.
    pub(crate) async fn begin(&self) -> Result<(Url, u64)> {
        let path = format!("/v2/{}/blobs/uploads/", self.endpoint.path());
        let call = self.call(Method::POST, RequestTarget::Path(path));
        let answer = self.inner.send(self.endpoint, &call).await?;
        let least = wire::least_chunk(&answer.headers);
        let session = self.location(&answer)?;
        let session =
            session.ok_or_else(|| self.malformed("an upload without a Location".into()))?;
        Ok((session, least))
    }

    /// Where to go on.
    pub(crate) fn location(&self, answer: &Answer) -> Result<Option<Url>> {
        let Some(location) = wire::location(&answer.headers) else { return Ok(None) };
        let shown = wire::printable(&location);
        let next = self.inner.next_url(&answer.url, &location);
        next.map(Some).map_err(|reason| Error::Unsafe {
            registry: self.endpoint.registry().to_owned(),
            action: self.action.clone(),
            reason: format!("it redirects the upload to {shown}, {reason}"),
        })
    }

    /// The session's URL with the digest that ends it; what it carries already is kept as it is.
    pub(crate) fn closing(&self, mut session: Url) -> Url {
        session.query_pairs_mut().append_pair("digest", &self.descriptor.digest.to_string());
        session
    }

    /// A blob that fits into memory: everything about it can be repeated.
    async fn small(&mut self, body: Body) -> Result<()> {
        let whole = self.whole(body).await?;
        let mut attempts = Attempts::new(&self.inner.options);
        self.until = Some(attempts.until());
        let mut kept = self.inner.sessions.take(self.endpoint, self.descriptor.digest);
        loop {
            let session = match kept.take() {
                Some(session) => session,
                None => self.begin().await?.0,
            };
            let error = match self.put_small(&session, &whole).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let unknown = error.kind() == Kind::Unavailable;
            match attempts.again(RequestFailure::from(self.refused(error, true)), true).await {
                Ok(_) => {}
                // Perhaps only the answers were lost.
                Err(_) if unknown && self.is_there().await => return Ok(()),
                Err(error) => {
                    cancel(self.inner, self.endpoint, session).await;
                    return Err(settled(error));
                }
            }
        }
    }

    /// All bytes of a small blob.
    async fn whole(&self, mut body: Body) -> Result<Bytes> {
        let mut whole = BytesMut::with_capacity(self.descriptor.size as usize);
        while let Some(chunk) = body.next().await {
            whole.extend_from_slice(&chunk?);
            if whole.len() as u64 > self.descriptor.size {
                break;
            }
        }
        let (digest, expected, found) =
            (self.descriptor.digest, self.descriptor.size, whole.len() as u64);
        if expected != found {
            return Err(Error::source(image::Error::SizeMismatch { digest, expected, found }));
        }
        Ok(whole.freeze())
    }

    async fn put_small(&self, session: &Url, whole: &Bytes) -> Result<()> {
        let patch = self.endpoint.host.patch.load(Ordering::Relaxed);
        let session = match patch {
            true => self.patch(session.clone(), Payload::Bytes(whole.clone()), None).await?,
            false => session.clone(),
        };
        let payload = if patch { Payload::None } else { Payload::Bytes(whole.clone()) };
        let call = self.call(Method::PUT, RequestTarget::Url(self.closing(session)));
        let call = Self::octets(call).payload(payload).once();
        let answer = self.inner.send(self.endpoint, &call).await?;
        self.committed(&answer).await
    }

    /// The whole blob as one stream: in the closing PUT, or in one PATCH where that is refused.
    pub(crate) async fn streamed(&self, session: Url, body: Body) -> Result<()> {
        let feed = Feed::new(body, self.descriptor);
        let payload = Payload::Feed(feed);
        if self.endpoint.host.patch.load(Ordering::Relaxed) {
            let session = match self.patch(session.clone(), payload, None).await {
                Ok(session) => session,
                Err(error) => return self.failed(session, error, false).await,
            };
            return self.close(session).await;
        }
        let call = self.call(Method::PUT, RequestTarget::Url(self.closing(session.clone())));
        let call = Self::octets(call).payload(payload);
        match self.inner.send(self.endpoint, &call).await {
            Ok(answer) => self.committed(&answer).await,
            Err(error) => self.failed(session, error, true).await,
        }
    }

    /// Ends a session whose bytes are all there.
    async fn close(&self, session: Url) -> Result<()> {
        let mut call = self.call(Method::PUT, RequestTarget::Url(self.closing(session.clone())));
        call.patient = Some(self.descriptor.size);
        match self.inner.send(self.endpoint, &call).await {
            Ok(answer) => self.committed(&answer).await,
            Err(error) => self.failed(session, error, false).await,
        }
    }

    /// Sends bytes to a session; where it goes on from there.
    async fn patch(
        &self,
        session: Url,
        payload: Payload,
        range: Option<(u64, u64)>,
    ) -> Result<Url> {
        let answer = self.patch_answer(&session, payload, range).await?;
        Ok(self.location(&answer)?.unwrap_or(session))
    }

    pub(crate) async fn patch_answer(
        &self,
        session: &Url,
        payload: Payload,
        range: Option<(u64, u64)>,
    ) -> Result<Answer> {
        let mut call = Self::octets(self.call(Method::PATCH, RequestTarget::Url(session.clone())));
        call = call.payload(payload).once();
        if let Some((first, last)) = range {
            let range = HeaderValue::try_from(format!("{first}-{last}"));
            let range = range.map_err(|_| self.malformed("a range that is not a header".into()))?;
            call = call.header(header::CONTENT_RANGE, range);
        }
        self.inner.send(self.endpoint, &call).await
    }

    /// In pieces held in memory, each repeated until the registry has it.
    async fn in_pieces(&self, mut session: Url, least: u64, mut body: Body) -> Result<()> {
        let size = self.descriptor.size;
        let piece = self.endpoint.host.chunk.unwrap_or(PIECE).max(least).clamp(1, LARGEST_PIECE);
        let (mut sent, mut buffer) = (0, BytesMut::new());
        loop {
            let mut ended = false;
            while (buffer.len() as u64) < piece && !ended {
                match body.next().await {
                    Some(chunk) => buffer.extend_from_slice(&chunk?),
                    None => ended = true,
                }
            }
            let found = sent + buffer.len() as u64;
            if found > size || (ended && found != size) {
                cancel(self.inner, self.endpoint, session).await;
                let (digest, expected) = (self.descriptor.digest, size);
                return Err(Error::source(image::Error::SizeMismatch { digest, expected, found }));
            }
            while !buffer.is_empty() && (ended || buffer.len() as u64 >= piece) {
                let cut = buffer.len().min(piece as usize);
                let bytes = buffer.split_to(cut).freeze();
                session = self.piece(session, sent, &bytes).await?;
                sent += bytes.len() as u64;
            }
            if ended {
                return self.close(session).await;
            }
        }
    }

    /// One piece, resumed from where the registry says it is after a fault.
    async fn piece(&self, mut session: Url, start: u64, bytes: &Bytes) -> Result<Url> {
        let end = start + bytes.len() as u64;
        let mut from = start;
        let mut attempts = Attempts::new(&self.inner.options);
        loop {
            let rest = bytes.slice((from - start) as usize..);
            let range = Some((from, end - 1));
            let error = match self.patch_answer(&session, Payload::Bytes(rest), range).await {
                Ok(answer) => {
                    let next = self.location(&answer)?.unwrap_or(session);
                    if self.stands_still(&answer, from, end) {
                        cancel(self.inner, self.endpoint, next).await;
                        return Err(self.only_whole());
                    }
                    return Ok(next);
                }
                Err(error) => error,
            };
            let resumable = matches!(error, Error::Answer { status: 416, .. });
            if !resumable {
                attempts.again(RequestFailure::from(error), true).await?;
            } else if from != start {
                return Err(error);
            }
            let call = self.call(Method::GET, RequestTarget::Url(session.clone()));
            let answer = self.inner.send(self.endpoint, &call).await?;
            session = self.location(&answer)?.unwrap_or(session);
            match wire::upload_range(&answer.headers) {
                Some(there) if there == end => return Ok(session),
                Some(there) if (start..end).contains(&there) && !(resumable && there == from) => {
                    from = there;
                }
                _ => return Err(self.interrupted("lost track of the upload")),
            }
        }
    }

    /// Whether the registry took a part and says that it has no more than before.
    pub(crate) fn stands_still(&self, answer: &Answer, before: u64, after: u64) -> bool {
        // "0-0" is one byte as well as none.
        let there = wire::upload_range(&answer.headers);
        there.is_some_and(|there| there <= before && !(there == 0 && after == 1))
    }

    /// From now on blobs go to this registry in one request each.
    pub(crate) fn only_whole(&self) -> Error {
        self.endpoint.host.whole.store(true, Ordering::Relaxed);
        self.interrupted("accepts blobs in one request only")
    }

    /// Makes sure that an answer to the closing request means what it should.
    pub(crate) async fn committed(&self, answer: &Answer) -> Result<()> {
        let digest_header = HeaderName::from_static("docker-content-digest");
        let said = wire::text(&answer.headers, digest_header);
        let said = said.and_then(|text| text.parse::<Digest>().ok());
        let digest = self.descriptor.digest;
        if let Some(said) = said.filter(|said| said.algorithm() == digest.algorithm())
            && said != digest
        {
            return Err(self.malformed(format!("it stored {said} instead")));
        }
        if matches!(answer.status.as_u16(), 200 | 201 | 204) || self.is_there().await {
            return Ok(());
        }
        Err(self.malformed(format!("it answered {} and does not have it", answer.status.as_u16())))
    }

    pub(crate) async fn is_there(&self) -> bool {
        let (inner, endpoint) = (self.inner, self.endpoint);
        let until = Some(Instant::now() + LOOK);
        let found = has(inner, endpoint, self.descriptor.digest, Lane::Free, until).await;
        found.is_ok_and(|size| size == Some(self.descriptor.size))
    }

    /// An upload that failed: perhaps only its response was lost, perhaps the registry needs
    /// another form. Its rest is removed.
    async fn failed(&self, session: Url, error: Error, whole: bool) -> Result<()> {
        if error.kind() == Kind::Unavailable && self.is_there().await {
            return Ok(());
        }
        cancel(self.inner, self.endpoint, session).await;
        Err(self.come_again(self.refused(error, whole)))
    }

    /// What a refusal means: where another form of upload, or the same once more, may be taken, that
    /// is [`Error::Interrupted`].
    fn refused(&self, error: Error, whole: bool) -> Error {
        let status = match &error {
            // It says what is wrong with the blob, not with how it came.
            Error::Answer { code, .. } if code == "DIGEST_INVALID" || code == "SIZE_INVALID" => 0,
            Error::Answer { status, .. } => *status,
            _ => 0,
        };
        let host = &self.endpoint.host;
        let first = |flag: &AtomicBool| !flag.swap(true, Ordering::Relaxed);
        let again = match status {
            413 => first(&host.pieces),
            // Sessions do end; but some registries say that of bytes they want by PATCH.
            404 => match self.inner.sessions.lost(self.endpoint, self.descriptor.digest) {
                1 => true,
                _ => whole && first(&host.patch),
            },
            400 | 405 | 411 | 415 | 416 | 501 => whole && first(&host.patch),
            _ => false,
        };
        match again {
            true => self.interrupted("wants uploads in another form, or again"),
            false => error,
        }
    }
}

/// An upload that was repeated here as often as allowed: bringing it again does not help.
fn settled(error: Error) -> Error {
    match error {
        Error::Interrupted { source: Some(source), .. } => *source,
        error => error,
    }
}

/// The size of a blob, if it exists. For a registry that does not answer HEAD properly, the upload
/// that follows finds out.
///
/// # Errors
/// It wants to be left alone, or does not take the credentials.
pub(crate) async fn has(
    inner: &ClientInner,
    endpoint: &Endpoint,
    digest: Digest,
    lane: Lane,
    until: Option<Instant>,
) -> Result<Option<u64>> {
    let path = endpoint.path();
    let call = Call::new(
        Method::HEAD,
        RequestTarget::Path(format!("/v2/{path}/blobs/{digest}")),
        // Asked before an upload, whose token then serves both.
        Scope::new(Access::Push, path),
        format!("looking for blob {digest} in {path}"),
    );
    let call = call.lane(lane).retry(Retry::Limits).accept(NOT_TOLD);
    let asked = inner.send(endpoint, &Call { until, ..call }).await;
    let answer = match asked {
        Ok(answer) => answer,
        Err(error @ Error::Answer { status: 429, .. }) => return Err(error),
        Err(error) if error.kind() == Kind::Unavailable => {
            tracing::debug!(%error, "it is unknown whether the blob exists");
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    // One that does not say how large it is might as well not be there: uploading is safe.
    Ok(wire::content_length(&answer.headers).filter(|_| answer.status.is_success()))
}

/// Answers to HEAD that say nothing of a blob.
const NOT_TOLD: &[u16] = &[400, 403, 404, 405, 406, 410, 415, 500, 501];
