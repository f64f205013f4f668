//! One request: where it goes, under which credentials, through which redirects, how often.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use tokio::time::{Instant, timeout_at};
use url::Url;

use crate::call::{Answer, Auth, BodyMode, Call, Endpoint, Head};
use crate::inner::ClientInner;
use crate::retry::{Attempts, RequestFailure};
use crate::trouble::connection;
use crate::wire::{self, RegistryMessage};
use crate::{Error, Result};

/// Bytes of an error's body that are read.
const ERROR_BODY: u64 = 16 << 10;

impl ClientInner {
    /// Sends a request until it is answered or another attempt is useless.
    pub(crate) async fn send(&self, endpoint: &Endpoint, call: &Call) -> Result<Answer> {
        self.send_repeatable(endpoint, call).await.map_err(|(error, _)| error)
    }

    /// As [`ClientInner::send`]; an error comes with whether attempts before the last one failed, so
    /// that their fate is unknown.
    pub(crate) async fn send_repeatable(
        &self,
        endpoint: &Endpoint,
        call: &Call,
    ) -> Result<Answer, (Error, bool)> {
        let permit = endpoint.host.turn(call.lane).await;
        endpoint.host.pace.start().await;
        let attempts = Attempts::new(&self.options).only(call.retry).by(call.until);
        let (until, mut last) = (attempts.until(), None);
        let trying = self.attempts(endpoint, call, attempts, &mut last);
        let answered = match call.is_upload() {
            true => trying.await,
            false => timeout_at(until, trying).await.unwrap_or(Err(None)),
        };
        match answered {
            Ok(mut answer) => {
                answer.permit = permit;
                Ok(answer)
            }
            Err(Some(failed)) => Err(failed),
            // What it failed with before says more than that the time is over.
            Err(None) => {
                let repeated = last.is_some();
                Err((last.unwrap_or_else(|| self.too_late(endpoint, call)), repeated))
            }
        }
    }

    fn too_late(&self, endpoint: &Endpoint, call: &Call) -> Error {
        let (registry, action) = (endpoint.registry().to_owned(), call.action.clone());
        let after = self.options.patience;
        Error::Timeout { registry, action, what: "sent no complete response", after }
    }

    /// All attempts; `last` is what the last one that failed said.
    async fn attempts(
        &self,
        endpoint: &Endpoint,
        call: &Call,
        mut attempts: Attempts,
        last: &mut Option<Error>,
    ) -> Result<Answer, Option<(Error, bool)>> {
        let mut repeated = false;
        loop {
            let failure = match self.once(endpoint, call).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
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
            *last = Some(again.map_err(|error| Some((error, repeated)))?);
            repeated = true;
            pace.start().await;
        }
    }

    /// One attempt: the request, and again with credentials where the registry asks for them.
    async fn once(&self, endpoint: &Endpoint, call: &Call) -> Result<Answer, RequestFailure> {
        let mut header = match &call.auth {
            Auth::Scope(scope) => {
                let granted = self.authorization(endpoint, scope, &call.action).await;
                granted.map_err(RequestFailure::settled)?
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
                return Err(RequestFailure::from(denied(endpoint, call, status, &said)));
            }
            answered += 1;
            header = self
                .answer_challenge(endpoint, scope, &url, &headers, header, &said, &call.action)
                .await
                .map_err(RequestFailure::settled)?;
            if !call.restartable() {
                // The token ran out while the body was sent: the new one serves the next try.
                return Err(RequestFailure::from(Error::Interrupted {
                    registry: endpoint.registry().to_owned(),
                    action: call.action.clone(),
                    reason: "asked for new credentials in the middle of an upload".into(),
                    source: None,
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
    ) -> Result<Answer, RequestFailure> {
        let Head { response, url, own } = head;
        let (status, headers) = (response.status(), response.headers().clone());
        if own {
            endpoint.host.pace.answered(&headers);
            self.warned(endpoint, &headers);
        }
        if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
            return Err(self.unproxied(endpoint, call, &url));
        }
        let succeeded = status.is_success() || (status == 304 && call.is_conditional());
        if !succeeded && !call.accept.contains(&status.as_u16()) {
            let RegistryMessage { code, message } = self.error_text(response).await;
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
            return Err(RequestFailure { error, after, settled: false });
        }
        let mut answer =
            Answer { status, headers, url, body: Bytes::new(), stream: None, permit: None };
        match call.mode {
            BodyMode::Stream if succeeded => answer.stream = Some(response),
            BodyMode::Document(limit) if succeeded && call.method != Method::HEAD => {
                answer.body = self.document(endpoint, &call.action, response, limit).await?;
            }
            _ => drain(response).await,
        }
        Ok(answer)
    }

    /// A proxy that wants credentials, in the place of the registry's answer.
    fn unproxied(&self, endpoint: &Endpoint, call: &Call, url: &Url) -> RequestFailure {
        let proxy = self.options.proxies.of(url).ok().flatten();
        RequestFailure::from(Error::Proxy {
            proxy: proxy.map(crate::connect::authority_of).unwrap_or_default(),
            registry: endpoint.registry().to_owned(),
            action: call.action.clone(),
            reason: "wants credentials".to_owned(),
            refused: true,
            cause: None,
        })
    }

    /// Passes on what a registry warns of (distribution-spec, "Warnings").
    fn warned(&self, endpoint: &Endpoint, headers: &HeaderMap) {
        for text in wire::warnings(headers) {
            self.warn(&format!("{} says: {text}", endpoint.registry()));
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
                    let (what, after) = ("did not finish its response", timeouts.document);
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
    pub(crate) async fn error_text(&self, mut response: reqwest::Response) -> RegistryMessage {
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

/// Drains the small rest of a body, so that its connection can be reused; drops the connection if
/// the rest is larger.
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
