//! One request: where it goes, under which credentials, through which redirects, how often.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use url::Url;

use crate::auth::Scope;
use crate::client::Inner;
use crate::connect::{Own, authority_of, policy_of};
use crate::feed::Feed;
use crate::hosts::{self, Place, Tls};
use crate::limit::{Host, Lane};
use crate::retry::{Attempts, Failure};
use crate::wire::{self, Said};
use crate::{Error, Result};

/// Redirects followed before giving up.
const REDIRECTS: usize = 10;
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
    fn restartable(&self) -> bool {
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
struct Head {
    response: reqwest::Response,
    url: Url,
    /// Whether it came from the host the request was meant for.
    own: bool,
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
            endpoint.host.unpaused().await;
            match self.once(endpoint, call).await {
                Ok(mut answer) => {
                    answer.permit = permit;
                    return Ok(answer);
                }
                Err(failure) => {
                    if let Some(after) = failure.after
                        && after <= self.options.timeouts.pause
                    {
                        endpoint.host.pause(Instant::now() + after);
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

    /// Sends by the scheme the host speaks, finding out which that is where it may be either.
    async fn schemed(
        &self,
        endpoint: &Endpoint,
        call: &Call,
        header: Option<&HeaderValue>,
    ) -> Result<Head, Failure> {
        let scheme = endpoint.host.scheme();
        let first = self.follow(endpoint, call, scheme.first, header).await;
        let (Some(other), Where::Path(_)) = (scheme.other, &call.to) else { return first };
        let doubtful = match &first {
            Ok(head) => scheme.first == "http" && head.response.status() == 400,
            Err(Failure { error: Error::Connection { source, .. }, .. }) => {
                // Nobody there at all is the same by any scheme on the same port.
                source.is_connect() == (scheme.first == "https")
            }
            Err(Failure { error: Error::Certificate { .. }, .. }) => true,
            Err(Failure { error: Error::Timeout { .. }, .. }) => scheme.first == "https",
            Err(_) => false,
        };
        if !doubtful {
            if first.is_ok() {
                endpoint.host.speaks(scheme.first);
            }
            return first;
        }
        match self.follow(endpoint, call, other, header).await {
            Ok(head) => {
                endpoint.host.speaks(other);
                Ok(head)
            }
            Err(_) if first.is_ok() => {
                endpoint.host.speaks(scheme.first);
                first
            }
            // An https attempt that failed says less than an http one that did.
            Err(failure) if other == "http" => Err(failure),
            Err(_) => first,
        }
    }

    /// One request and what it is redirected to. Credentials stay with the host they are for.
    async fn follow(
        &self,
        endpoint: &Endpoint,
        call: &Call,
        scheme: &str,
        header: Option<&HeaderValue>,
    ) -> Result<Head, Failure> {
        let origin = match (&call.to, &call.auth) {
            (Where::Url(url), Auth::Fixed(_)) => url.clone(),
            _ => base(endpoint, scheme, &call.action)?,
        };
        let mut url = match &call.to {
            Where::Path(path) => origin.join(path).map_err(|error| Error::Configuration {
                action: call.action.clone(),
                reason: format!("{path:?} makes no URL: {error}"),
            })?,
            Where::Url(url) => url.clone(),
        };
        let unsafely = |reason: String| {
            Failure::from(Error::Unsafe {
                registry: endpoint.registry().to_owned(),
                action: call.action.clone(),
                reason,
            })
        };
        for _ in 0..=REDIRECTS {
            let own = same_origin(&origin, &url);
            let policy = match authority_of(&url) == endpoint.host.authority {
                true => Own { tls: endpoint.host.tls, rule: endpoint.host.rule },
                false => policy_of(&self.options, &url),
            };
            let client = self.connections.client(&self.options, &url, policy)?;
            let header = header.filter(|_| own);
            let response = self.execute(&client, endpoint, call, &url, header).await?;
            let redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            let location = wire::text(response.headers(), header::LOCATION).filter(|_| redirect);
            let Some(location) = location else {
                return Ok(Head { response, url, own });
            };
            let reading = matches!(call.method, Method::GET | Method::HEAD);
            let keeps_method = matches!(response.status().as_u16(), 307 | 308);
            let shown = wire::printable(location);
            if !(reading || (keeps_method && call.restartable())) {
                return Err(unsafely(format!("it redirects a {} to {shown}", call.method)));
            }
            let next = self
                .next_url(&url, location)
                .map_err(|reason| unsafely(format!("it redirects to {shown}, {reason}")))?;
            if call.secret && !same_origin(&origin, &next) {
                return Err(unsafely(format!("it redirects credentials to {shown}")));
            }
            drain(response).await;
            url = next;
        }
        Err(unsafely(format!("more than {REDIRECTS} redirects")))
    }

    /// A URL given by a registry: absolute or relative, http or https, without credentials in it,
    /// and never from TLS to none.
    pub(crate) fn next_url(&self, base: &Url, location: &str) -> Result<Url, String> {
        if location.len() > 16 << 10 {
            return Err("which is too long".into());
        }
        let mut next = base.join(location).map_err(|error| format!("which is no URL: {error}"))?;
        if !matches!(next.scheme(), "http" | "https") || next.host_str().is_none() {
            return Err("which is neither http nor https".into());
        }
        if !next.username().is_empty() || next.password().is_some() {
            return Err("which carries credentials".into());
        }
        next.set_fragment(None);
        if base.scheme() == "https" && next.scheme() == "http" {
            // A registry behind a proxy that ends TLS for it often names itself without it.
            let behind = next.host_str() == base.host_str()
                && (next.port().is_none() || next.port() == base.port());
            if behind && next.set_scheme("https").is_ok() && next.set_port(base.port()).is_ok() {
                return Ok(next);
            }
            if !matches!(policy_of(&self.options, &next).tls, Tls::Off | Tls::Optional) {
                return Err("which gives TLS up".into());
            }
        }
        Ok(next)
    }

    /// Sends one request to one URL and waits for the head of the answer.
    async fn execute(
        &self,
        client: &reqwest::Client,
        endpoint: &Endpoint,
        call: &Call,
        url: &Url,
        authorization: Option<&HeaderValue>,
    ) -> Result<reqwest::Response, Error> {
        let mut request = reqwest::Request::new(call.method.clone(), url.clone());
        let headers = request.headers_mut();
        *headers = call.headers.clone();
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(value) = authorization {
            let mut value = value.clone();
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        match &call.payload {
            Payload::None if matches!(call.method, Method::POST | Method::PUT | Method::PATCH) => {
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
            }
            Payload::None => {}
            Payload::Bytes(bytes) => *request.body_mut() = Some(bytes.clone().into()),
            Payload::Feed(feed) => {
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from(feed.size()));
                *request.body_mut() = Some(reqwest::Body::wrap_stream(Arc::clone(feed).stream()));
            }
        }
        tracing::trace!(method = %call.method, host = url.host_str(), path = url.path(), "request");
        let timeouts = &self.options.timeouts;
        let timed_out = |what, after| Error::Timeout {
            registry: endpoint.registry().to_owned(),
            action: call.action.clone(),
            what,
            after,
        };
        let result = match &call.payload {
            Payload::Feed(feed) => {
                let sending = client.execute(request);
                match feed.watch(sending, timeouts).await {
                    Ok(result) => result,
                    Err((what, after)) => return Err(timed_out(what, after)),
                }
            }
            _ => {
                let answer = if call.patient { timeouts.commit } else { timeouts.first_byte };
                let limit = timeouts.connect + answer;
                match tokio::time::timeout(limit, client.execute(request)).await {
                    Ok(result) => result,
                    Err(_) => return Err(timed_out("did not answer", limit)),
                }
            }
        };
        result.map_err(|error| {
            if let Payload::Feed(feed) = &call.payload
                && let Some(error) = feed.failure()
            {
                return error;
            }
            connection(endpoint.registry(), &call.action, error)
        })
    }

    /// Reads what the call wants of the body; a failure status becomes an error.
    async fn finish(
        &self,
        endpoint: &Endpoint,
        call: &Call,
        head: Head,
    ) -> Result<Answer, Failure> {
        let Head { response, url, .. } = head;
        let (status, headers) = (response.status(), response.headers().clone());
        if status.as_u16() >= 400 && !call.accept.contains(&status.as_u16()) {
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

/// `scheme://host` of an endpoint.
fn base(endpoint: &Endpoint, scheme: &str, action: &str) -> Result<Url, Error> {
    let text = format!("{scheme}://{}/", endpoint.host.authority);
    Url::parse(&text).map_err(|error| Error::Configuration {
        action: action.to_owned(),
        reason: format!("{text:?} is no URL: {error}"),
    })
}

/// Whether two URLs are of the same scheme, host and port.
pub(crate) fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme()
        && a.host_str() == b.host_str()
        && a.port_or_known_default() == b.port_or_known_default()
}

/// Reads the little that is left of a body nobody wants, so that its connection can be used
/// again; gives the connection up where it is more.
async fn drain(mut response: reqwest::Response) {
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
            Host::new(
                place.authority.clone(),
                place.tls,
                place.rule,
                rule.and_then(|rule| rule.chunk),
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
        let place = hosts::places(&self.options.hosts, &repository, None)?.pop();
        let place = place.ok_or_else(|| Error::Blocked { name: registry.to_owned() })?;
        Ok(Endpoint { about_registry: true, ..self.endpoint(place) })
    }

    /// The places of a repository; see [`hosts::places`].
    pub(crate) fn endpoints(
        &self,
        repository: &image::Repository,
        digest: Option<bool>,
    ) -> Result<Vec<Endpoint>> {
        let places = hosts::places(&self.options.hosts, repository, digest)?;
        Ok(places.into_iter().map(|place| self.endpoint(place)).collect())
    }
}
