//! Requests: recording, faults, access, routes, and what is counted and logged of them.

use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::{Method, Request, Version};

use super::answer::{Answer, HandlerResult, HeaderExt, ResponseBody, answer, error};
use super::call::{Call, pairs};
use super::route::Route;
use super::{blobs, lists, manifests, uploads};
use crate::access::{Requester, gate, service};
use crate::inner::RegistryInner;
use crate::metrics::Meter;

/// The connection is to end without an answer.
#[derive(Debug)]
#[cfg_attr(not(feature = "testing"), allow(dead_code, reason = "only faults hang up"))]
pub(crate) struct Hangup;

impl std::fmt::Display for Hangup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("hang up")
    }
}

impl std::error::Error for Hangup {}

impl RegistryInner {
    pub(crate) async fn respond(
        &self,
        request: Request<Incoming>,
        client: SocketAddr,
        reset: &AtomicBool,
    ) -> Result<Answer, Hangup> {
        let (parts, body) = request.into_parts();
        #[cfg(feature = "testing")]
        let effect = self.script.meet(&parts);
        let mut call = Call {
            method: parts.method,
            version: parts.version,
            path: parts.uri.path().to_owned(),
            query: pairs(parts.uri.query().unwrap_or_default()),
            headers: parts.headers,
            body,
            client,
            requester: Requester::Nobody,
        };
        #[cfg(feature = "testing")]
        if let Some(effect) = effect {
            return self.fail(&mut call, effect, reset).await;
        }
        #[cfg(not(feature = "testing"))]
        let _ = reset;
        Ok(self.counted(&mut call).await)
    }

    /// Answers, counts and logs a request.
    async fn counted(&self, call: &mut Call) -> Answer {
        let began = Instant::now();
        let mut answer = self.handle(call).await;
        if !call.drain().await && call.version < Version::HTTP_2 {
            answer = answer.with("connection", "close");
        }
        let route = call.path.strip_prefix("/v2").and_then(Route::parse);
        let label = route.map_or("other", Route::label);
        let status = answer.status().as_u16();
        let took = began.elapsed();
        self.metrics.request(&call.method, label, status, took);
        answer.body_mut().metered(Meter::new(&self.metrics));
        if status >= 500 {
            let (method, path, client) = (&call.method, &call.path, call.client.ip());
            tracing::error!(%method, path, %client, status, "answering a request");
        }
        if let Some(log) = &self.options.log {
            let line = serde_json::json!({
                "time": self.options.clock.timestamp(),
                "client": call.client.ip().to_string(),
                "user": call.requester.name(),
                "method": call.method.as_str(),
                "path": call.path,
                "status": status,
                "milliseconds": took.as_millis() as u64,
                "bytes": hyper::body::Body::size_hint(answer.body()).exact(),
                "agent": call.header(hyper::header::USER_AGENT),
            });
            log.line(&line.to_string());
        }
        answer
    }

    /// Answers a request as a registry should.
    pub(super) async fn handle(&self, call: &mut Call) -> Answer {
        let path = call.path.clone();
        match path.as_str() {
            "/token" => return service::token(self, call).await,
            "/healthz" => return text(200, "ok\n"),
            "/readyz" => return self.ready().await,
            "/metrics" if self.options.metrics => return self.measured(call).await,
            _ => {}
        }
        let Some(rest) = path.strip_prefix("/v2") else {
            return error(404, "UNSUPPORTED", "not a path of a registry");
        };
        let Some(route) = Route::parse(rest) else {
            return error(404, "NAME_UNKNOWN", "not a path of a registry");
        };
        let rate = self.rules().limits.requests_per_second;
        if let Err(seconds) = self.limiter.admit(call.client.ip(), rate) {
            return error(429, "TOOMANYREQUESTS", "too many requests from this address")
                .with("retry-after", seconds.to_string());
        }
        // `?ns=` names the registry that a mirror is asked for.
        let moved = route.repository().and_then(|name| {
            let space = call.parameter("ns")?;
            self.upstreams.namespaced(space, name).map(|moved| (name.len(), moved))
        });
        let rewritten;
        let route = match moved {
            None => route,
            Some((length, name)) => {
                rewritten = format!("/{name}{}", &rest[1 + length..]);
                match Route::parse(&rewritten) {
                    Some(route) => route,
                    None => return error(404, "NAME_UNKNOWN", "not a path of a registry"),
                }
            }
        };
        match gate::check(self, call, &route).await {
            Ok(who) => call.requester = who,
            Err(refusal) => return refusal,
        }
        let answered = self.dispatch(call, route).await.unwrap_or_else(|refusal| refusal.0);
        answered.with("docker-distribution-api-version", "registry/2.0")
    }

    async fn dispatch(&self, call: &mut Call, route: Route<'_>) -> HandlerResult {
        match route {
            Route::Base => Ok(answer(200).with("content-type", "application/json")),
            Route::Catalog => lists::catalog(self, call).await,
            Route::Tags(name) => lists::tags(self, call, name).await,
            Route::Referrers(name, digest) => lists::referrers(self, call, name, digest).await,
            Route::Manifest(name, reference) => {
                manifests::manifest(self, call, name, reference).await
            }
            Route::Blob(name, digest) => blobs::blob(self, call, name, digest).await,
            Route::Uploads(name) => uploads::begin(self, call, name).await,
            Route::Upload(name, session) => uploads::go_on(self, call, name, session).await,
        }
    }

    async fn ready(&self) -> Answer {
        let asked = self.content.storage.stat(crate::keys::LEASE);
        match tokio::time::timeout(std::time::Duration::from_secs(5), asked).await {
            Ok(Ok(_)) => text(200, "ready\n"),
            _ => text(503, "the storage does not answer\n"),
        }
    }

    async fn measured(&self, call: &Call) -> Answer {
        if call.method != Method::GET {
            return error(405, "UNSUPPORTED", "metrics are read");
        }
        if !self.options.metrics_public
            && let Err(refusal) = gate::check(self, call, &Route::Base).await
        {
            return refusal;
        }
        text(200, &self.metrics.text()).with("content-type", "text/plain; version=0.0.4")
    }
}

fn text(status: u16, text: &str) -> Answer {
    let mut answer = answer(status).with("content-type", "text/plain");
    *answer.body_mut() = ResponseBody::bytes(text.to_owned());
    answer
}
