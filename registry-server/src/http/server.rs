//! Requests: recording, faults, access, routes, and what is counted and logged of them.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use hyper::body::Incoming;
use hyper::{Method, Request, Version};
use image::Digest;

use super::answer::{Answer, Answered, Outgoing, Refusal, With, answer, error};
use super::call::{Call, pairs};
use super::faulty::spoiled;
use super::route::Route;
use super::{blobs, lists, manifests, uploads};
use crate::access::{self, Who, service};
use crate::content::Content;
use crate::fault::{Effect, Fault};
use crate::lock::Lock;
use crate::metrics::{Meter, Metrics};
use crate::notify::Notices;
use crate::quota::Counts;
use crate::rules::{Current, Rules};
use crate::storage::{Directory, Memory, Storage};
use crate::upstream::Upstreams;
use crate::{Error, Options, Result};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Record {
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The headers in their order, names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Record {
    /// The first header of this name (in lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// One registry.
pub(crate) struct Shared {
    /// As they were at the start; see [`Shared::rules`].
    pub(crate) options: Options,
    pub(crate) rules: Current,
    pub(crate) quotas: Counts,
    pub(crate) content: Content,
    pub(crate) upstreams: Upstreams,
    pub(crate) tokens: Lock<HashMap<String, service::Token>>,
    pub(crate) passwords: access::Remembered,
    pub(crate) faults: Lock<Vec<Fault>>,
    /// Only kept where somebody asks for them: in tests.
    pub(crate) records: Option<Lock<Vec<Record>>>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) notices: Notices,
    pub(crate) limiter: crate::limit::Limiter,
    /// When a pull of a tag was last written down.
    pub(crate) pulls: Lock<HashMap<String, Instant>>,
}

/// The connection is to end without an answer.
#[derive(Debug)]
pub(crate) struct Hangup;

impl std::fmt::Display for Hangup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("hang up")
    }
}

impl std::error::Error for Hangup {}

/// The place of a registry.
pub(crate) fn storage(options: &Options) -> Result<Arc<dyn Storage>> {
    let failed = |name: String| move |source| Error::Storage { action: "opening", name, source };
    Ok(match (&options.directory, &options.bucket) {
        (_, Some(bucket)) => {
            let open = crate::storage::open_bucket(bucket);
            open.map_err(failed(format!("the bucket {:?}", bucket.bucket)))?
        }
        (Some(directory), None) => {
            let open = Directory::open(directory)
                .and_then(|open| open.tidy(options.limits.idle_upload).map(|()| open));
            Arc::new(open.map_err(failed(directory.display().to_string()))?)
        }
        (None, None) => Arc::new(Memory::default()),
    })
}

impl Shared {
    pub(crate) fn new(options: Options, recording: bool) -> Result<Shared> {
        let storage = storage(&options)?;
        let rules = Current::new(Rules::of(&options, options.clock)?);
        let held = rules.clone();
        let content = Content::new(storage, options.limits.grace)
            .tidied(move |name| crate::retention::tidies(&held.get().retention, name));
        let metrics = Arc::new(Metrics::default());
        let counted = Arc::clone(&metrics);
        let upstreams = Upstreams::new(&options, rules.clone(), content.clone(), counted);
        let notices = Notices::start(&options.webhooks, options.clock);
        Ok(Shared {
            options,
            rules,
            quotas: Counts::default(),
            content,
            upstreams,
            tokens: Lock::default(),
            passwords: access::Remembered::default(),
            faults: Lock::default(),
            records: recording.then(Lock::default),
            metrics,
            notices,
            limiter: crate::limit::Limiter::default(),
            pulls: Lock::default(),
        })
    }

    pub(crate) async fn respond(
        &self,
        request: Request<Incoming>,
        client: SocketAddr,
        reset: &AtomicBool,
    ) -> Result<Answer, Hangup> {
        let (parts, body) = request.into_parts();
        let method = parts.method.as_str().to_owned();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        if let Some(records) = &self.records {
            let headers = parts.headers.iter().map(|(name, value)| {
                (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
            });
            let headers = headers.collect();
            records.lock().push(Record { method: method.clone(), path: path.clone(), headers });
        }
        let effect = {
            let mut faults = self.faults.lock();
            let mut effects = faults
                .iter_mut()
                .filter_map(|fault| fault.acts(&method, &path).then(|| fault.effect.clone()));
            effects.next()
        };
        let mut call = Call {
            method: parts.method,
            version: parts.version,
            path: parts.uri.path().to_owned(),
            query: pairs(parts.uri.query().unwrap_or_default()),
            headers: parts.headers,
            body,
            client,
            who: Who::Nobody,
        };
        match effect {
            None => Ok(self.counted(&mut call).await),
            Some(Effect::Silence) => std::future::pending().await,
            Some(Effect::Reset) => {
                reset.store(true, Ordering::Relaxed);
                Err(Hangup)
            }
            Some(Effect::Forget) => {
                self.handle(&mut call).await;
                Err(Hangup)
            }
            Some(Effect::Answer { status, headers, body }) => {
                while let Ok(Some(_)) = call.next().await {}
                let mut instead = answer(status);
                for (name, value) in headers {
                    instead = instead.with(name, value);
                }
                *instead.body_mut() = Outgoing::bytes(body);
                Ok(instead)
            }
            Some(Effect::Ignore(name)) => {
                call.headers.remove(name);
                Ok(self.handle(&mut call).await)
            }
            Some(effect) => {
                let real = self.handle(&mut call).await;
                Ok(spoiled(real, effect))
            }
        }
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
        if let Some(log) = &self.options.log {
            let line = serde_json::json!({
                "time": self.options.clock.timestamp(),
                "client": call.client.ip().to_string(),
                "user": call.who.name(),
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
    async fn handle(&self, call: &mut Call) -> Answer {
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
        match access::check(self, call, &route).await {
            Ok(who) => call.who = who,
            Err(refusal) => return refusal,
        }
        let answered = self.dispatch(call, route).await.unwrap_or_else(|refusal| refusal.0);
        answered.with("docker-distribution-api-version", "registry/2.0")
    }

    async fn dispatch(&self, call: &mut Call, route: Route<'_>) -> Answered {
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
        text(200, &self.metrics.text()).with("content-type", "text/plain; version=0.0.4")
    }

    /// Whether a tag stays what it is once it is set.
    pub(crate) fn immutable(&self, name: &str, tag: &str) -> bool {
        self.rules().immutable.iter().any(|rule| rule.fits(name, tag))
    }

    /// Who may do what now, and what else may change while the server runs.
    pub(crate) fn rules(&self) -> Arc<Rules> {
        self.rules.get()
    }

    /// Counts content for the quotas of a repository; see [`Counts::admit`].
    pub(crate) async fn room(
        &self,
        name: &str,
        what: (Option<Digest>, u64),
    ) -> Result<(), Refusal> {
        let rules = self.rules();
        match self.quotas.admit(&self.content, &rules.quotas, name, what).await? {
            Ok(()) => Ok(()),
            Err(full) => Err(error(403, "DENIED", &full.to_string()).into()),
        }
    }

    pub(crate) fn failed(&self, action: &'static str) -> impl FnOnce(io::Error) -> Error {
        let name = self.content.storage.name();
        move |source| Error::Storage { action, name, source }
    }
}

fn text(status: u16, text: &str) -> Answer {
    let mut answer = answer(status).with("content-type", "text/plain");
    *answer.body_mut() = Outgoing::bytes(text.to_owned());
    answer
}
