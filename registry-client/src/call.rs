//! A request before it is sent, and its answer.

use std::sync::Arc;

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use url::Url;

use crate::auth::Scope;
use crate::feed::Feed;
use crate::limit::{Host, Lane};
use crate::retry::Retry;
use crate::routes::RepositoryAddress;

/// One endpoint of a repository, ready for requests.
#[derive(Clone)]
pub(crate) struct Endpoint {
    pub(crate) place: Arc<RepositoryAddress>,
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
pub(crate) enum RequestTarget {
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

/// How the body of the answer is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyMode {
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
    pub(crate) to: RequestTarget,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Payload,
    pub(crate) auth: Auth,
    pub(crate) mode: BodyMode,
    pub(crate) lane: Lane,
    pub(crate) action: String,
    /// Whether the payload is a secret, and so stays with the URL's own host.
    pub(crate) secret: bool,
    /// Of how large an upload the answer is waited for.
    pub(crate) patient: Option<u64>,
    /// Failure statuses that are answers to the caller.
    pub(crate) accept: &'static [u16],
    /// What is tried again here.
    pub(crate) retry: Retry,
    /// By when; else as long as the client's patience lasts.
    pub(crate) until: Option<Instant>,
}

impl Call {
    pub(crate) fn new(method: Method, to: RequestTarget, scope: Scope, action: String) -> Call {
        Call {
            method,
            to,
            headers: HeaderMap::new(),
            payload: Payload::None,
            auth: Auth::Scope(scope),
            mode: BodyMode::Discard,
            lane: Lane::Small,
            action,
            secret: false,
            patient: None,
            accept: &[],
            retry: Retry::Passing,
            until: None,
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

    pub(crate) fn read(mut self, mode: BodyMode) -> Call {
        self.mode = mode;
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

    pub(crate) fn retry(mut self, retry: Retry) -> Call {
        self.retry = retry;
        self
    }

    pub(crate) fn once(self) -> Call {
        self.retry(Retry::Never)
    }

    /// Given up then, whatever was tried until then.
    pub(crate) fn until(mut self, until: Instant) -> Call {
        self.until = Some(until);
        self
    }

    /// Whether it takes as long as its payload does.
    pub(crate) fn is_upload(&self) -> bool {
        self.patient.is_some() || matches!(self.payload, Payload::Feed(_))
    }

    /// Whether it asks for content only if that has changed.
    pub(crate) fn is_conditional(&self) -> bool {
        self.headers.contains_key(reqwest::header::IF_NONE_MATCH)
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
    pub(crate) permit: Option<OwnedSemaphorePermit>,
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
