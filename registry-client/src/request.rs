//! One request: where it goes, under which credentials, through which redirects, how often.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use url::Url;

use crate::auth::Scope;
use crate::client::Inner;
use crate::feed::Feed;
use crate::limit::{Host, Lane};
use crate::quirks;
use crate::retry::{Attempts, Failure};
use crate::routes::{self, Place, Use};
use crate::wire::{self, Said};
use crate::{Error, Result};

/// Warnings passed on at most.
const MOST_WARNINGS: usize = 20;
/// Bytes of an error's body that are read.
const ERROR_BODY: u64 = 16 << 10;

/// One place of a repository, ready to be asked.
#[derive(Clone)]
pub(crate) struct Endpoint {
    pub(crate) place: Arc<Place>,
    pub(crate) host: Arc<Host>,
    /// Whether it is the registry that is spoken of, not a repository.
    pub(crate) about_registry: bool,
}

impl Endpoint {
    /// The registry as the user names it.
    pub(crate) fn registry(&self) -> &str {
        self.place.repository.registry()
    }

    /// The repository's path there.
    pub(crate) fn path(&self) -> &str {
        self.place.repository.path()
    }
}

/// Where a request goes.
#[derive(Clone)]
pub(crate) enum Where {
    /// A path of the endpoint, `/v2/…`, with its query.
    Path(String),
    /// A URL the registry gave.
    Url(Url),
}

/// What a request carries.
#[derive(Clone)]
pub(crate) enum Payload {
    None,
    Bytes(Bytes),
    Feed(Arc<Feed>),
}

/// What is done with the answer's body.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    /// Left to the caller.
    Stream,
    /// Read completely, at most this many bytes.
    Document(u64),
    /// Of no interest.
    Discard,
}

/// What proves who asks.
#[derive(Clone)]
pub(crate) enum Auth {
    /// The registry's challenges are answered for this scope.
    Scope(Scope),
    /// This header for the URL's own host, or nothing.
    Fixed(Option<HeaderValue>),
}

/// A request, complete but for host and credentials.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) to: Where,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Payload,
    pub(crate) auth: Auth,
    pub(crate) read: Read,
    pub(crate) lane: Lane,
    pub(crate) action: String,
    /// Whether the payload is a secret, and so stays with the URL's own host.
    pub(crate) secret: bool,
    /// Whether the answer may take as long as that to a whole upload.
    pub(crate) patient: bool,
    /// Failure statuses that are answers to the caller.
    pub(crate) accept: &'static [u16],
    /// Whether a failure that may pass is tried again here.
    pub(crate) retry: bool,
}

impl Call {
    pub(crate) fn new(method: Method, to: Where, scope: Scope, action: String) -> Call {
        Call {
            method,
            to,
            headers: HeaderMap::new(),
            payload: Payload::None,
            auth: Auth::Scope(scope),
            read: Read::Discard,
            lane: Lane::Small,
            action,
            secret: false,
            patient: false,
            accept: &[],
            retry: true,
        }
    }

    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Call {
        self.headers.append(name, value);
        self
    }

    pub(crate) fn payload(mut self, payload: Payload) -> Call {
        self.payload = payload;
        self
    }

    pub(crate) fn read(mut self, read: Read) -> Call {
        self.read = read;
        self
    }

    pub(crate) fn lane(mut self, lane: Lane) -> Call {
        self.lane = lane;
        self
    }

    pub(crate) fn accept(mut self, accept: &'static [u16]) -> Call {
        self.accept = accept;
        self
    }

    pub(crate) fn once(mut self) -> Call {
        self.retry = false;
        self
    }

    /// Whether it can be sent again from the start.
    pub(crate) fn restartable(&self) -> bool {
        match &self.payload {
            Payload::None | Payload::Bytes(_) => true,
            Payload::Feed(feed) => feed.untouched(),
        }
    }
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// After redirects.
    pub(crate) url: Url,
    /// The document; empty unless one was asked for.
    pub(crate) body: Bytes,
    /// The body still to come, if that was asked for.
    pub(crate) stream: Option<reqwest::Response>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Answer {
    /// The turn at the host, to be held while the stream is read.
    pub(crate) fn take_permit(&mut self) -> Option<OwnedSemaphorePermit> {
        self.permit.take()
    }
}

/// An answer whose body was not read yet.
pub(crate) struct Head {
    pub(crate) response: reqwest::Response,
    pub(crate) url: Url,
    /// Whether it came from the host the request was meant for.
    pub(crate) own: bool,
}

impl Inner {
    /// Sends a request until it is answered or there is no point in going on.
    pub(crate) async fn send(&self, endpoint: &Endpoint, call: &Call) -> Result<Answer> {
        self.send_repeatable(endpoint, call).await.map_err(|(error, _)| error)
    }

    /// As [`Inner::send`]; an error comes with whether attempts before the last one failed, so
    /// that their fate is unknown.
    pub(crate) async fn send_repeatable(
        &self,
        endpoint: &Endpoint,
        call: &Call,
    ) -> Result<Answer, (Error, bool)> {
        let mut attempts = Attempts::new(&self.options);
        if !call.retry {
            attempts = attempts.none();
        }
        let permit = endpoint.host.turn(call.lane).await;
        let mut repeated = false;
        loop {
            endpoint.host.pace.start().await;
            match self.once(endpoint, call).await {
                Ok(mut answer) => {
                    answer.permit = permit;
                    return Ok(answer);
                }
                Err(failure) => {
                    let pace = &endpoint.host.pace;
                    if matches!(failure.error, Error::Answer { status: 429, .. }) {
                        pace.refused();
                    }
                    if let Some(after) = failure.after
                        && after <= self.options.timeouts.pause
                    {
                        pace.pause(Instant::now() + after);
                    }
                    let again = attempts.again(failure, call.restartable()).await;
                    again.map_err(|error| (error, repeated))?;
                    repeated = true;
                }
            }
        }
    }

    /// One attempt: the request, and again with credentials where the registry asks for them.
    async fn once(&self, endpoint: &Endpoint, call: &Call) -> Result<Answer, Failure> {
        let mut header = match &call.auth {
            Auth::Scope(scope) => {
                let granted = self.authorization(endpoint, scope, &call.action).await;
                granted.map_err(Failure::settled)?
            }
            Auth::Fixed(header) => header.clone(),
        };
        let mut answered = 0;
        loop {
            let head = self.schemed(endpoint, call, header.as_ref()).await?;
            let status = head.response.status();
            let wants = match &call.auth {
                Auth::Scope(scope) if head.own && status == 401 => Some(scope),
                Auth::Scope(scope)
                    if head.own && status == 403 && insufficient(head.response.headers()) =>
                {
                    Some(scope)
                }
                _ => None,
            };
            let Some(scope) = wants else {
                return self.finish(endpoint, call, head).await;
            };
            let (url, headers) = (head.url, head.response.headers().clone());
            let said = self.error_text(head.response).await.message;
            if answered == 2 || (status == 403 && answered == 1) {
                self.forget(endpoint, scope);
                return Err(Failure::from(denied(endpoint, call, status, &said)));
            }
            answered += 1;
            header = self
                .answer_challenge(endpoint, scope, &url, &headers, header, &said, &call.action)
                .await
                .map_err(Failure::settled)?;
            if !call.restartable() {
                // The token ran out while the body was sent: the new one serves the next try.
                return Err(Failure::from(Error::Interrupted {
                    registry: endpoint.registry().to_owned(),
                    action: call.action.clone(),
                    reason: "asked for new credentials in the middle of an upload".into(),
                }));
            }
        }
    }

    /// Reads what the call wants of the body; a failure status becomes an error.
    async fn finish(
        &self,
        endpoint: &Endpoint,
        call: &Call,
        head: Head,
    ) -> Result<Answer, Failure> {
        let Head { response, url, own } = head;
        let (status, headers) = (response.status(), response.headers().clone());
        if own {
            endpoint.host.pace.answered(&headers);
            self.warned(endpoint, &headers);
        }
        // A redirect that leads nowhere has done nothing.
        let cached = status == StatusCode::NOT_MODIFIED && call.method == Method::GET;
        if !status.is_success() && !cached && !call.accept.contains(&status.as_u16()) {
            let Said { code, message } = self.error_text(response).await;
            let after =
                matches!(status.as_u16(), 429 | 503).then(|| wire::retry_after(&headers)).flatten();
            let message = match after {
                Some(after) if after > self.options.timeouts.pause => {
                    let wait = after.as_secs();
                    format!("{message} (it asks to wait {wait} s)").trim().to_owned()
                }
                _ => message,
            };
            let budget = endpoint.host.pace.left().filter(|_| status == 429);
            let message = match budget {
                Some(budget) => format!("{message} ({budget})").trim().to_owned(),
                None => message,
            };
            let error = Error::Answer {
                registry: endpoint.registry().to_owned(),
                action: call.action.clone(),
                status: status.as_u16(),
                code,
                message,
            };
            return Err(Failure { error, after, settled: false });
        }
        let mut answer =
            Answer { status, headers, url, body: Bytes::new(), stream: None, permit: None };
        let succeeded = status.as_u16() < 400;
        match call.read {
            Read::Stream if succeeded => answer.stream = Some(response),
            Read::Document(limit) if succeeded && call.method != Method::HEAD => {
                answer.body = self.document(endpoint, &call.action, response, limit).await?;
            }
            _ => drain(response).await,
        }
        Ok(answer)
    }

    /// Passes on what a registry warns of (distribution-spec, "Warnings"), each text once.
    fn warned(&self, endpoint: &Endpoint, headers: &HeaderMap) {
        let Some(warn) = &self.options.warn else { return };
        for text in wire::warnings(headers) {
            let text = format!("{} says: {text}", endpoint.registry());
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            if told.len() < MOST_WARNINGS && told.insert(text.clone()) {
                drop(told);
                warn(&text);
            }
        }
    }

    /// A whole body of at most `limit` bytes.
    async fn document(
        &self,
        endpoint: &Endpoint,
        action: &str,
        mut response: reqwest::Response,
        limit: u64,
    ) -> Result<Bytes, Error> {
        let (registry, action) = (endpoint.registry().to_owned(), action.to_owned());
        let declared = wire::content_length(response.headers()).unwrap_or(0);
        let too_long = |registry, action| Error::Malformed {
            registry,
            action,
            reason: format!("more than {limit} bytes"),
        };
        if declared > limit {
            return Err(too_long(registry, action));
        }
        let mut whole = BytesMut::with_capacity(declared as usize);
        let timeouts = &self.options.timeouts;
        let deadline = Instant::now() + timeouts.document;
        loop {
            let step = deadline.min(Instant::now() + timeouts.stall);
            let chunk = match tokio::time::timeout_at(step, response.chunk()).await {
                Ok(Ok(chunk)) => chunk,
                Ok(Err(error)) => return Err(connection(&registry, &action, error)),
                Err(_) => {
                    let (what, after) = ("did not finish its answer", timeouts.document);
                    return Err(Error::Timeout { registry, action, what, after });
                }
            };
            match chunk {
                None => return Ok(whole.freeze()),
                Some(chunk) if (whole.len() + chunk.len()) as u64 > limit => {
                    return Err(too_long(registry, action));
                }
                Some(chunk) if whole.is_empty() && chunk.len() as u64 == declared => {
                    return Ok(chunk);
                }
                Some(chunk) => whole.extend_from_slice(&chunk),
            }
        }
    }

    /// The registry's words in a failure, as far as they can be had quickly.
    pub(crate) async fn error_text(&self, mut response: reqwest::Response) -> Said {
        let kind = wire::content_type(response.headers());
        let mut body = Vec::new();
        let limit = self.options.timeouts.stall.min(Duration::from_secs(5));
        let reading = async {
            while let Ok(Some(chunk)) = response.chunk().await {
                body.extend_from_slice(&chunk);
                if body.len() as u64 > ERROR_BODY {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(limit, reading).await;
        body.truncate(ERROR_BODY as usize);
        wire::message(&body, kind.as_deref())
    }
}

/// Reads the little that is left of a body nobody wants, so that its connection can be used
/// again; gives the connection up where it is more.
pub(crate) async fn drain(mut response: reqwest::Response) {
    let mut read = 0;
    let reading = async {
        while let Ok(Some(chunk)) = response.chunk().await {
            read += chunk.len();
            if read > 64 << 10 {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(Duration::from_millis(500), reading).await;
}

fn insufficient(headers: &HeaderMap) -> bool {
    matches!(
        crate::auth::Challenge::best(headers),
        Some(crate::auth::Challenge::Bearer { error: Some(error), .. }) if error == "insufficient_scope"
    )
}

fn denied(endpoint: &Endpoint, call: &Call, status: StatusCode, said: &str) -> Error {
    let reason = match said {
        "" => format!("it answered {} to the credentials it asked for", status.as_u16()),
        said => said.to_owned(),
    };
    Error::Denied { registry: endpoint.registry().to_owned(), action: call.action.clone(), reason }
}

/// A transport failure without the URL, which may carry a signature.
pub(crate) fn connection(registry: &str, action: &str, source: reqwest::Error) -> Error {
    let (registry, action, source) = (registry.to_owned(), action.to_owned(), source.without_url());
    if untrusted(&source) {
        Error::Certificate { registry, action, source }
    } else {
        Error::Connection { registry, action, source }
    }
}

fn untrusted(error: &reqwest::Error) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return matches!(tls, rustls::Error::InvalidCertificate(_));
        }
        // An I/O error's source is what its inner error has as source; the inner error itself
        // is skipped.
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    false
}

impl Inner {
    /// A place, ready to be asked.
    pub(crate) fn endpoint(&self, place: Place) -> Endpoint {
        let rule = place.rule.and_then(|index| self.options.hosts.get(index));
        let host = self.hosts.host((&place.authority, place.tls, place.rule), || {
            let concurrency = rule.and_then(|rule| rule.concurrency);
            let like = rule.and_then(|rule| rule.like.as_deref());
            let quirk = quirks::of(like.unwrap_or(place.repository.registry()));
            Host::new(
                place.authority.clone(),
                place.tls,
                place.rule,
                (rule.and_then(|rule| rule.chunk), quirk),
                concurrency.unwrap_or(self.options.concurrency),
            )
        });
        Endpoint { place: Arc::new(place), host, about_registry: false }
    }

    /// A registry as such: its catalog, its presence.
    pub(crate) fn registry_endpoint(&self, registry: &str) -> Result<Endpoint> {
        // Rules and hosts go by repositories; the path is not used.
        let repository =
            image::Repository::new(registry, "registry").map_err(|error| Error::Configuration {
                action: format!("using {registry:?}"),
                reason: error.to_string(),
            })?;
        let place = self.primary(&repository)?.place;
        Ok(Endpoint { about_registry: true, ..self.endpoint((*place).clone()) })
    }

    /// The places of a repository, the mirrors that serve this use and the registry itself; see
    /// [`routes::places`].
    pub(crate) fn endpoints(
        &self,
        repository: &image::Repository,
        r#use: &Use,
    ) -> Result<(Vec<Endpoint>, Endpoint)> {
        let known = (&self.options.routes[..], &self.options.hosts[..]);
        let (mirrors, own) = routes::places(known, repository, r#use)?;
        let mirrors = mirrors.into_iter().map(|place| self.endpoint(place)).collect();
        Ok((mirrors, self.endpoint(own)))
    }

    /// The registry of a repository itself.
    pub(crate) fn primary(&self, repository: &image::Repository) -> Result<Endpoint> {
        Ok(self.endpoints(repository, &Use::Writing)?.1)
    }
}
