//! Blobs and files as streams that survive broken connections.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use image::{Digest, Repository};
use reqwest::header::{self, HeaderValue};
use reqwest::{Method, StatusCode};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use url::Url;

use crate::auth::{Access, Scope};
use crate::call::{Answer, Auth, BodyMode, Call, Endpoint, RequestTarget};
use crate::connect::{HostTls, authority_of, policy_of};
use crate::inner::ClientInner;
use crate::limit::Lane;
use crate::retry::{Attempts, RequestFailure};
use crate::routes::RepositoryAddress;
use crate::trouble::connection;
use crate::{Body, Error, Result, wire};

/// A window with fewer bytes than this is a stall: a peer that sends one byte now and then is no
/// better than one that sends none.
const TRICKLE: u64 = 16 << 10;
/// Progress after which a new fault counts as the first.
const PROGRESS: u64 = 256 << 10;

/// A plain URL to download.
#[derive(Debug, Clone, Default)]
pub struct Download {
    /// The URL, http or https.
    pub url: String,
    /// The `Authorization` header; only ever sent to the URL's own host.
    pub authorization: Option<String>,
    /// The ETag of what is there already: [`DownloadResponse::body`] is `None` if nothing changed.
    pub etag: Option<String>,
}

/// The answer to a [`Download`].
pub struct DownloadResponse {
    /// The bytes; `None` when the server says that the `etag` asked about is still current.
    pub body: Option<Body>,
    /// The length in bytes, where the server says.
    pub size: Option<u64>,
    /// The `ETag`.
    pub etag: Option<String>,
    /// The `Last-Modified` header, in seconds since 1970.
    pub last_modified: Option<u64>,
    /// The URL after redirects.
    pub url: String,
}

/// A transfer under way.
struct Transfer {
    inner: Arc<ClientInner>,
    endpoint: Endpoint,
    call: Call,
    /// The part wanted; `end` is what the transfer ends at, if known.
    start: u64,
    end: Option<u64>,
    /// The whole content's size, where known; for the sanity of ranges.
    total: Option<u64>,
    /// Where the next byte belongs.
    position: u64,
    /// Bytes still to be thrown away because the server sent from an earlier place.
    skip: u64,
    /// The validator that ties a resumed transfer to the first one.
    etag: Option<HeaderValue>,
    stream: Option<reqwest::Response>,
    attempts: Attempts,
    progress: u64,
    waited: Duration,
    trickled: u64,
    permit: Option<OwnedSemaphorePermit>,
}

/// Opens a blob.
pub(crate) async fn blob(
    inner: &Arc<ClientInner>,
    endpoint: &Endpoint,
    digest: Digest,
    size: Option<u64>,
    range: Option<Range<u64>>,
) -> Result<Body> {
    let range = range.unwrap_or(0..size.unwrap_or(u64::MAX));
    let transfer = begun(inner, endpoint, digest, size, range).await?;
    Ok(transfer.map_or_else(nothing, Transfer::into_body))
}

/// Opens a part of a blob; `None` where the registry answers with the blob from its start, so that
/// all bytes before the part would have to be received, too.
pub(crate) async fn part(
    inner: &Arc<ClientInner>,
    endpoint: &Endpoint,
    digest: Digest,
    size: u64,
    part: Range<u64>,
) -> Result<Option<Body>> {
    Ok(match begun(inner, endpoint, digest, Some(size), part).await? {
        None => Some(nothing()),
        Some(transfer) if transfer.skip > 0 && transfer.skip == transfer.start => None,
        Some(transfer) => Some(transfer.into_body()),
    })
}

fn nothing() -> Body {
    Box::pin(stream::empty())
}

/// A transfer that has its first answer; `None` where there is nothing to transfer.
async fn begun(
    inner: &Arc<ClientInner>,
    endpoint: &Endpoint,
    digest: Digest,
    size: Option<u64>,
    range: Range<u64>,
) -> Result<Option<Transfer>> {
    let path = endpoint.path();
    let call = Call::new(
        Method::GET,
        RequestTarget::Path(format!("/v2/{path}/blobs/{digest}")),
        Scope::new(Access::Pull, path),
        format!("reading blob {digest} of {path}"),
    );
    let call = call.read(BodyMode::Stream).lane(Lane::Download);
    let end = size.map_or(range.end, |size| range.end.min(size));
    let end = (end != u64::MAX).then_some(end);
    if end.is_some_and(|end| end <= range.start) && (size != Some(0) || range.start > 0) {
        return Ok(None);
    }
    let mut transfer = Transfer::new(Arc::clone(inner), endpoint.clone(), call, range.start, end);
    transfer.total = size;
    transfer.open().await?;
    Ok(Some(transfer))
}

/// Opens any URL.
pub(crate) async fn url(inner: &Arc<ClientInner>, request: &Download) -> Result<DownloadResponse> {
    let action = format!("downloading {}", wire::printable(&request.url));
    let bad =
        |reason: &str| Error::Configuration { action: action.clone(), reason: reason.to_owned() };
    let url = Url::parse(&request.url).map_err(|error| bad(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(bad("it is neither http nor https"));
    }
    let header =
        |text: &String| HeaderValue::from_str(text).map_err(|_| bad("a header is malformed"));
    let mut call = Call::new(
        Method::GET,
        RequestTarget::Url(url.clone()),
        Scope::new(Access::Any, ""),
        action.clone(),
    );
    call.auth = Auth::Fixed(request.authorization.as_ref().map(header).transpose()?);
    call = call.read(BodyMode::Stream).lane(Lane::Download);
    if let Some(etag) = &request.etag {
        call = call.header(header::IF_NONE_MATCH, header(etag)?);
    }
    let HostTls { tls, rule } = policy_of(&inner.options, &url);
    let authority = authority_of(&url);
    // Only messages use the name.
    let repository = Repository::new(&authority, "download")
        .map_err(|_| bad("its host is not a host name or address"))?;
    let place = RepositoryAddress { repository, authority, tls, rule, image: None, named: true };
    let endpoint = inner.endpoint(place);
    let mut transfer = Transfer::new(Arc::clone(inner), endpoint, call, 0, None);
    let answer = transfer.open().await?;
    let size = transfer.end;
    transfer.call.headers.remove(header::IF_NONE_MATCH);
    Ok(DownloadResponse {
        size,
        etag: wire::text(&answer.headers, header::ETAG),
        last_modified: wire::date(&answer.headers, header::LAST_MODIFIED),
        url: answer.url.to_string(),
        body: (answer.status != StatusCode::NOT_MODIFIED).then(|| transfer.into_body()),
    })
}

impl Transfer {
    fn new(
        inner: Arc<ClientInner>,
        endpoint: Endpoint,
        call: Call,
        start: u64,
        end: Option<u64>,
    ) -> Self {
        let attempts = Attempts::new(&inner.options);
        Transfer {
            inner,
            endpoint,
            call,
            start,
            end,
            total: None,
            position: start,
            skip: 0,
            etag: None,
            stream: None,
            attempts,
            progress: 0,
            waited: Duration::ZERO,
            trickled: 0,
            permit: None,
        }
    }

    /// Asks for what is still missing and checks that this is what will come.
    async fn open(&mut self) -> Result<Answer> {
        let partial = self.position > 0 || (self.end.is_some() && self.end != self.total);
        let mut call = self.call.clone();
        if self.permit.is_some() {
            call = call.lane(Lane::Free);
        }
        if partial {
            let last = self.end.map(|end| (end - 1).to_string()).unwrap_or_default();
            let range = format!("bytes={}-{last}", self.position);
            call = call.header(
                header::RANGE,
                HeaderValue::try_from(range)
                    .map_err(|_| self.malformed("a range that is not a header".into()))?,
            );
            if let Some(etag) = &self.etag {
                call = call.header(header::IF_RANGE, etag.clone());
            }
        }
        let resuming = self.stream_began();
        if resuming {
            call = call.until(self.attempts.until());
        }
        let mut answer = match self.inner.send(&self.endpoint, &call.accept(&[416])).await {
            Ok(answer) => answer,
            Err(error) => return Err(error),
        };
        if answer.status == StatusCode::RANGE_NOT_SATISFIABLE {
            return match resuming {
                // It has other content now, or cannot count: from the start, skipping.
                true => self.restart().await,
                false => Err(self.malformed("it has no such range".into())),
            };
        }
        if self.permit.is_none() {
            self.permit = answer.take_permit();
        }
        self.measure(&answer, partial)?;
        if !resuming {
            self.etag = answer
                .headers
                .get(header::ETAG)
                .filter(|etag| !etag.as_bytes().starts_with(b"W/"))
                .cloned();
        }
        self.stream = answer.stream.take();
        (self.waited, self.trickled) = (Duration::ZERO, 0);
        Ok(answer)
    }

    /// Asks for everything again, without a range.
    async fn restart(&mut self) -> Result<Answer> {
        let call = match self.permit {
            Some(_) => self.call.clone().lane(Lane::Free),
            None => self.call.clone(),
        };
        let mut answer = self.inner.send(&self.endpoint, &call).await?;
        self.measure(&answer, true)?;
        self.stream = answer.stream.take();
        (self.waited, self.trickled) = (Duration::ZERO, 0);
        Ok(answer)
    }

    fn stream_began(&self) -> bool {
        self.position > self.start
    }

    /// Compares the announced content with the requested one.
    fn measure(&mut self, answer: &Answer, partial: bool) -> Result<()> {
        let length = wire::content_length(&answer.headers);
        self.skip = 0;
        if partial && answer.status == StatusCode::PARTIAL_CONTENT {
            let Some((first, _, total)) = wire::content_range(&answer.headers) else {
                return Err(self.malformed("a partial answer that does not say which part".into()));
            };
            if first > self.position
                || total.zip(self.total).is_some_and(|(said, known)| said != known)
            {
                return Err(self.malformed("another part of the content than asked for".into()));
            }
            self.skip = self.position - first;
            self.total = self.total.or(total);
            self.end = self.end.or(total);
            return Ok(());
        }
        // The whole content, whatever was asked for.
        self.skip = self.position;
        if answer.status == StatusCode::NOT_MODIFIED {
            return Ok(());
        }
        match (length, self.total) {
            (Some(said), Some(known)) if said != known => {
                Err(self.malformed(format!("{said} bytes where {known} were declared")))
            }
            (Some(said), None) => {
                self.total = Some(said);
                self.end = self.end.or(Some(said));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn malformed(&self, reason: String) -> Error {
        Error::Malformed {
            registry: self.endpoint.registry().to_owned(),
            action: self.call.action.clone(),
            reason,
        }
    }

    fn into_body(self) -> Body {
        Box::pin(stream::try_unfold(Some(self), |transfer| async move {
            let Some(mut transfer) = transfer else { return Ok(None) };
            match transfer.next().await? {
                Some(bytes) => Ok(Some((bytes, Some(transfer)))),
                None => Ok(None),
            }
        }))
    }

    /// The next bytes, through as many connections as it takes.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if self.end.is_some_and(|end| self.position >= end) {
                return self.ended().await;
            }
            let failure = match self.chunk().await {
                Ok(Some(bytes)) => match self.take(bytes)? {
                    Some(bytes) => return Ok(Some(bytes)),
                    None => continue,
                },
                Ok(None) if self.end.is_none() => return Ok(None),
                Ok(None) => Error::Interrupted {
                    registry: self.endpoint.registry().to_owned(),
                    action: self.call.action.clone(),
                    reason: format!("stopped after {} bytes", self.position),
                    source: None,
                },
                Err(error) => error,
            };
            self.stream = None;
            if self.progress >= PROGRESS {
                self.attempts.progressed();
                self.progress = 0;
            }
            self.attempts.again(RequestFailure::from(failure), true).await?;
            self.open().await?;
        }
    }

    /// What of a chunk is wanted.
    fn take(&mut self, mut bytes: Bytes) -> Result<Option<Bytes>> {
        let skipped = self.skip.min(bytes.len() as u64);
        self.skip -= skipped;
        let _ = bytes.split_to(skipped as usize);
        if bytes.is_empty() {
            return Ok(None);
        }
        let length = bytes.len() as u64;
        if let Some(end) = self.end
            && length > end - self.position
        {
            if self.total.is_none_or(|total| total == end) {
                return Err(self.malformed(format!("more than the {end} bytes declared")));
            }
            // The whole content came where a part was asked for.
            bytes.truncate((end - self.position) as usize);
        }
        self.position += bytes.len() as u64;
        self.progress += bytes.len() as u64;
        Ok(Some(bytes))
    }

    /// The next bytes of this connection.
    async fn chunk(&mut self) -> Result<Option<Bytes>> {
        let Some(response) = self.stream.as_mut() else { return Ok(None) };
        let stall = self.inner.options.timeouts.stall;
        let began = Instant::now();
        let left = stall.saturating_sub(self.waited);
        let chunk = match tokio::time::timeout(left, response.chunk()).await {
            Ok(Ok(chunk)) => chunk,
            Ok(Err(error)) => {
                return Err(connection(self.endpoint.registry(), &self.call.action, error));
            }
            Err(_) => {
                return Err(Error::Timeout {
                    registry: self.endpoint.registry().to_owned(),
                    action: self.call.action.clone(),
                    what: "sent (next to) nothing",
                    after: stall,
                });
            }
        };
        // Only the time spent waiting for the peer counts, not that of a slow reader.
        self.waited += began.elapsed();
        self.trickled += chunk.as_ref().map_or(0, Bytes::len) as u64;
        if self.trickled >= TRICKLE {
            (self.waited, self.trickled) = (Duration::ZERO, 0);
        }
        Ok(chunk)
    }

    /// All wanted bytes are there: finishes the answer, so that the connection can be used again.
    async fn ended(&mut self) -> Result<Option<Bytes>> {
        let Some(mut response) = self.stream.take() else { return Ok(None) };
        let whole = self.total.is_none_or(|total| Some(total) == self.end);
        if !whole {
            return Ok(None);
        }
        let rest = tokio::time::timeout(Duration::from_millis(200), response.chunk()).await;
        match rest {
            Ok(Ok(Some(more))) if !more.is_empty() => {
                let end = self.position;
                Err(self.malformed(format!("more than the {end} bytes declared")))
            }
            _ => Ok(None),
        }
    }
}
