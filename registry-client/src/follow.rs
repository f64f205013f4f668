//! From a request to the answer's head: schemes, redirects, one exchange.

use std::sync::Arc;

use reqwest::Method;
use reqwest::header::{self, HeaderValue};
use url::Url;

use crate::call::{Auth, Call, Endpoint, Head, Payload, RequestTarget};
use crate::connect::{HostTls, authority_of, policy_of, same_origin};
use crate::hosts::Tls;
use crate::inner::ClientInner;
use crate::request::drain;
use crate::retry::RequestFailure;
use crate::{Error, Result, Timeouts, wire};

/// Redirects followed before giving up.
const REDIRECTS: usize = 10;

impl ClientInner {
    /// Sends by the scheme the host speaks, finding out which that is where it may be either.
    pub(crate) async fn schemed(
        &self,
        endpoint: &Endpoint,
        call: &Call,
        header: Option<&HeaderValue>,
    ) -> Result<Head, RequestFailure> {
        let scheme = endpoint.host.scheme();
        let first = self.follow(endpoint, call, scheme.first, header).await;
        let (Some(other), RequestTarget::Path(_)) = (scheme.other, &call.to) else { return first };
        let doubtful = match &first {
            Ok(head) => scheme.first == "http" && head.response.status() == 400,
            Err(RequestFailure { error: Error::Connection { source, .. }, .. }) => {
                // A refused connection is the same by any scheme on the same port.
                source.is_connect() == (scheme.first == "https")
            }
            Err(RequestFailure {
                error: Error::Certificate { .. } | Error::NoTls { .. }, ..
            }) => true,
            Err(RequestFailure { error: Error::Timeout { .. }, .. }) => scheme.first == "https",
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
    ) -> Result<Head, RequestFailure> {
        let origin = match (&call.to, &call.auth) {
            (RequestTarget::Url(url), Auth::Fixed(_)) => url.clone(),
            _ => base(endpoint, scheme, &call.action)?,
        };
        let mut url = match &call.to {
            RequestTarget::Path(path) => {
                origin.join(path).map_err(|error| Error::Configuration {
                    action: call.action.clone(),
                    reason: format!("{path:?} makes no URL: {error}"),
                })?
            }
            RequestTarget::Url(url) => url.clone(),
        };
        let unsafely = |reason: String| {
            RequestFailure::from(Error::Unsafe {
                registry: endpoint.registry().to_owned(),
                action: call.action.clone(),
                reason,
            })
        };
        for _ in 0..=REDIRECTS {
            let own = same_origin(&origin, &url);
            let policy = match authority_of(&url) == endpoint.host.authority {
                true => HostTls { tls: endpoint.host.tls, rule: endpoint.host.rule },
                false => policy_of(&self.options, &url),
            };
            let client = self.connections.client(&self.options, &url, policy)?;
            let header = header.filter(|_| own);
            let executed = self.execute(&client, endpoint, call, &url, header).await;
            let response = match executed {
                Ok(response) => response,
                Err(error) => return Err(self.explained(error, &url, policy).await.into()),
            };
            let redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            let location = wire::location(response.headers()).filter(|_| redirect);
            let Some(location) = location else {
                return Ok(Head { response, url, own });
            };
            let reading = matches!(call.method, Method::GET | Method::HEAD);
            let keeps_method = matches!(response.status().as_u16(), 307 | 308);
            let shown = wire::printable(&location);
            if !(reading || (keeps_method && call.restartable())) {
                return Err(unsafely(format!("it redirects a {} to {shown}", call.method)));
            }
            let next = self
                .next_url(&url, &location)
                .map_err(|reason| unsafely(format!("it redirects to {shown}, {reason}")))?;
            if call.secret && !same_origin(&origin, &next) {
                return Err(unsafely(format!("it redirects credentials to {shown}")));
            }
            drain(response).await;
            url = next;
        }
        Err(unsafely(format!("more than {REDIRECTS} redirects")))
    }

    /// A connection that broke off, told as what it is where the registry wanted a certificate.
    async fn explained(&self, error: Error, url: &Url, tls: HostTls) -> Error {
        let broke = matches!(&error, Error::Connection { source, .. } if !source.is_connect());
        if !broke || !self.connections.lacks_certificate(&self.options, url, tls).await {
            return error;
        }
        match error {
            Error::Connection { registry, action, source } => {
                Error::ClientCertificate { registry, action, cause: source }
            }
            other => other,
        }
    }

    /// A URL given by a registry: absolute or relative, http or https, without credentials in it,
    /// and never from TLS to none.
    pub(crate) fn next_url(&self, base: &Url, location: &str) -> Result<Url, String> {
        if location.len() > 16 << 10 {
            return Err("which is too long".into());
        }
        let mut next =
            base.join(location).map_err(|error| format!("which is not a URL: {error}"))?;
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
                return Err("which does not use TLS".into());
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
                let commit = self.options.commit(feed.size());
                match feed.watch(sending, Timeouts { commit, ..*timeouts }).await {
                    Ok(result) => result,
                    Err((what, after)) => return Err(timed_out(what, after)),
                }
            }
            _ => {
                let answer = match call.patient {
                    Some(size) => self.options.commit(size),
                    None => timeouts.first_byte,
                };
                let limit = timeouts.connect + answer;
                match tokio::time::timeout(limit, client.execute(request)).await {
                    Ok(result) => result,
                    Err(_) => return Err(timed_out("did not answer", limit)),
                }
            }
        };
        tell(call, url, &result);
        result.map_err(|error| {
            if let Payload::Feed(feed) = &call.payload
                && let Some(error) = feed.failure()
            {
                return error;
            }
            self.unreached(url, endpoint.registry(), &call.action, error)
        })
    }
}

/// Logs a request and how it was answered; the query may hold secrets and is left out.
fn tell(call: &Call, url: &Url, result: &Result<reqwest::Response, reqwest::Error>) {
    let (method, host, path) = (&call.method, url.authority(), url.path());
    match result {
        Ok(answer) => {
            let status = answer.status().as_u16();
            tracing::debug!(%method, status, host, path, "request");
        }
        Err(_) => tracing::debug!(%method, host, path, "request without an answer"),
    }
}

/// `scheme://host` of an endpoint.
fn base(endpoint: &Endpoint, scheme: &str, action: &str) -> Result<Url, Error> {
    let text = format!("{scheme}://{}/", endpoint.host.authority);
    Url::parse(&text).map_err(|error| Error::Configuration {
        action: action.to_owned(),
        reason: format!("{text:?} is not a URL: {error}"),
    })
}
