//! Connections and requests: recording, faults, routes.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName};
use hyper::service::service_fn;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use image::Digest;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use crate::answer::{Answer, Bytestream, Spoil, With, answer, error, set_length};
use crate::auth::Token;
use crate::fault::{Effect, Fault};
use crate::state::{Lock, Repositories, Repository};
use crate::store::{Content, Directory, Draft, Memory, Store};
use crate::{Error, Options, Result, auth, blobs, manifests, uploads};

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
    pub(crate) options: Options,
    pub(crate) store: Box<dyn Store>,
    pub(crate) repositories: Lock<Repositories>,
    pub(crate) drafts: Lock<HashMap<String, Box<dyn Draft>>>,
    pub(crate) tokens: Lock<HashMap<String, Token>>,
    pub(crate) faults: Lock<Vec<Fault>>,
    pub(crate) records: Lock<Vec<Record>>,
    next: AtomicU64,
}

impl Shared {
    pub(crate) fn new(options: Options) -> Result<Shared> {
        let store: Box<dyn Store> = match &options.directory {
            Some(directory) => Box::new(Directory::open(directory)?),
            None => Box::new(Memory::default()),
        };
        let mut repositories = Repositories::new();
        let documents = store.load().map_err(|source| Error::Store {
            action: "reading the repositories of",
            path: options.directory.clone().unwrap_or_default(),
            source,
        })?;
        for (name, document) in documents {
            let repository = serde_json::from_slice(&document);
            repositories.insert(name, repository.map_err(|source| Error::Json { source })?);
        }
        Ok(Shared {
            options,
            store,
            repositories: Lock::new(repositories),
            drafts: Lock::default(),
            tokens: Lock::default(),
            faults: Lock::default(),
            records: Lock::default(),
            next: AtomicU64::new(1),
        })
    }

    /// A name nothing else has.
    pub(crate) fn unique(&self) -> String {
        // Unguessable enough for a session or token: keyed by the process's random state.
        use std::hash::BuildHasher;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let random = std::hash::RandomState::new().hash_one(number);
        format!("{number}-{random:016x}")
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(io::Error) -> Error {
        let path = self.options.directory.clone().unwrap_or_default();
        move |source| Error::Store { action, path, source }
    }

    /// Keeps bytes under their digest.
    pub(crate) fn insert(&self, digest: Digest, bytes: &[u8]) -> Result<()> {
        let keep = || {
            let mut draft = self.store.draft()?;
            draft.write(bytes)?;
            draft.commit(digest)
        };
        keep().map_err(self.failed("writing content to"))
    }

    /// Kept bytes, whole.
    pub(crate) fn bytes(&self, digest: Digest) -> Result<Option<Bytes>> {
        let read = || match self.store.open(digest)? {
            None => Ok(None),
            Some(Content::Memory(bytes)) => Ok(Some(bytes)),
            Some(Content::File(mut file, _)) => {
                let mut bytes = Vec::new();
                io::Read::read_to_end(&mut file, &mut bytes)?;
                Ok(Some(bytes.into()))
            }
        };
        read().map_err(self.failed("reading content from"))
    }

    /// Looks at a repository.
    pub(crate) fn read<T>(&self, name: &str, look: impl FnOnce(&Repository) -> T) -> Option<T> {
        self.repositories.lock().get(name).map(look)
    }

    /// Changes a repository, which is made if need be.
    pub(crate) fn change<T>(
        &self,
        name: &str,
        change: impl FnOnce(&mut Repository) -> T,
    ) -> Result<T> {
        let mut repositories = self.repositories.lock();
        let repository = repositories.entry(name.to_owned()).or_default();
        let result = change(repository);
        if self.options.directory.is_some() {
            let document =
                serde_json::to_vec(repository).map_err(|source| Error::Json { source })?;
            self.store.save(name, &document).map_err(self.failed("writing a repository to"))?;
        }
        Ok(result)
    }
}

/// A connection that can end with a reset.
struct Socket {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Relaxed) {
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Serves connections until dropped.
pub(crate) async fn accept(listener: TcpListener, shared: Arc<Shared>) -> Result<()> {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // One connection that broke before it began is no reason to stop.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(source) => return Err(Error::Listen { port: 0, source }),
        };
        while connections.try_join_next().is_some() {}
        let _ = stream.set_nodelay(true);
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let reset = Arc::new(AtomicBool::new(false));
            let socket = Socket { stream, reset: Arc::clone(&reset) };
            let service = service_fn(move |request| {
                let (shared, reset) = (Arc::clone(&shared), Arc::clone(&reset));
                async move { shared.respond(request, &reset).await }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service)
                .await;
        });
    }
}

/// A request on its way through.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Incoming,
}

impl Call {
    /// A parameter of the query.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A header as text.
    pub(crate) fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body, if it is not larger than `limit`.
    pub(crate) async fn collect(&mut self, limit: usize) -> Option<Bytes> {
        let body = http_body_util::Limited::new(&mut self.body, limit);
        body.collect().await.ok().map(http_body_util::Collected::to_bytes)
    }
}

/// `%xx` and `+` undone; what is malformed stays.
pub(crate) fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
                continue;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// `a=b&c=d` as pairs.
pub(crate) fn pairs(text: &str) -> Vec<(String, String)> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.map(|(key, value)| (decode(key), decode(value))).collect()
}

/// The connection is to end without an answer.
#[derive(Debug)]
struct Hangup;

impl std::fmt::Display for Hangup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("hang up")
    }
}

impl std::error::Error for Hangup {}

impl Shared {
    async fn respond(
        &self,
        request: Request<Incoming>,
        reset: &AtomicBool,
    ) -> Result<Answer, Hangup> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let headers = parts.headers.iter().map(|(name, value)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        });
        let method = parts.method.as_str().to_owned();
        self.records.lock().push(Record {
            method: method.clone(),
            path: path.clone(),
            headers: headers.collect(),
        });
        let effect = {
            let mut faults = self.faults.lock();
            let mut effects = faults
                .iter_mut()
                .filter_map(|fault| fault.acts(&method, &path).then(|| fault.effect.clone()));
            effects.next()
        };
        let mut call = Call {
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query: pairs(parts.uri.query().unwrap_or_default()),
            headers: parts.headers,
            body,
        };
        match effect {
            None => Ok(self.handle(&mut call).await),
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
                while let Some(Ok(_)) = call.body.frame().await {}
                let mut instead = answer(status);
                for (name, value) in headers {
                    instead = instead.with(name, value);
                }
                *instead.body_mut() = Bytestream::bytes(body);
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

    /// Answers a request as a registry should.
    async fn handle(&self, call: &mut Call) -> Answer {
        let path = call.path.clone();
        if path == "/token" {
            return auth::token(self, call).await;
        }
        let Some(rest) = path.strip_prefix("/v2") else {
            return error(404, "UNSUPPORTED", "not a path of a registry");
        };
        let Some(route) = Route::parse(rest) else {
            return error(404, "NAME_UNKNOWN", "not a path of a registry");
        };
        if let Err(refusal) = auth::check(self, call, &route) {
            return refusal;
        }
        let answered = match route {
            Route::Base => answer(200).with("content-type", "application/json"),
            Route::Catalog => manifests::catalog(self, call),
            Route::Tags(name) => manifests::tags(self, call, name),
            Route::Referrers(name, digest) => manifests::referrers(self, call, name, digest),
            Route::Manifest(name, reference) => {
                manifests::manifest(self, call, name, reference).await
            }
            Route::Blob(name, digest) => blobs::blob(self, call, name, digest),
            Route::Uploads(name) => uploads::begin(self, call, name).await,
            Route::Upload(name, session) => uploads::go_on(self, call, name, session).await,
        };
        answered.with("docker-distribution-api-version", "registry/2.0")
    }
}

/// The endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    Base,
    Catalog,
    Tags(&'a str),
    Referrers(&'a str, &'a str),
    Manifest(&'a str, &'a str),
    Blob(&'a str, &'a str),
    Uploads(&'a str),
    Upload(&'a str, &'a str),
}

impl<'a> Route<'a> {
    /// From the path below `/v2`.
    fn parse(path: &'a str) -> Option<Route<'a>> {
        let path = match path {
            "" | "/" => return Some(Route::Base),
            "/_catalog" => return Some(Route::Catalog),
            path => path.strip_prefix('/')?,
        };
        let two =
            |middle: &str| path.rfind(middle).map(|at| (&path[..at], &path[at + middle.len()..]));
        let route = if let Some((name, session)) = two("/blobs/uploads/") {
            if session.is_empty() { Route::Uploads(name) } else { Route::Upload(name, session) }
        } else if let Some(name) = path.strip_suffix("/blobs/uploads") {
            Route::Uploads(name)
        } else if let Some(name) = path.strip_suffix("/tags/list") {
            Route::Tags(name)
        } else if let Some((name, reference)) = two("/manifests/") {
            Route::Manifest(name, reference)
        } else if let Some((name, digest)) = two("/referrers/") {
            Route::Referrers(name, digest)
        } else {
            let (name, digest) = two("/blobs/")?;
            Route::Blob(name, digest)
        };
        let valid =
            route.repository().is_none_or(|name| image::Repository::new("localhost", name).is_ok());
        valid.then_some(route)
    }

    /// The repository it is about.
    pub(crate) fn repository(self) -> Option<&'a str> {
        match self {
            Route::Base | Route::Catalog => None,
            Route::Tags(name)
            | Route::Referrers(name, _)
            | Route::Manifest(name, _)
            | Route::Blob(name, _)
            | Route::Uploads(name)
            | Route::Upload(name, _) => Some(name),
        }
    }
}

/// The real answer, made worse.
fn spoiled(mut real: Answer, effect: Effect) -> Answer {
    let length = hyper::body::Body::size_hint(real.body()).exact().unwrap_or(0);
    let spoil = |mut real: Answer, spoil| {
        let body = std::mem::replace(real.body_mut(), Bytestream::bytes(Bytes::new()));
        *real.body_mut() = body.spoil(spoil);
        if !real.headers().contains_key(header::CONTENT_LENGTH) {
            set_length(&mut real, length);
        }
        real
    };
    match effect {
        Effect::Cut(after) => spoil(real, Spoil::Cut(after)),
        Effect::Stall(after) => spoil(real, Spoil::Stall(after)),
        Effect::Drip(every) => spoil(real, Spoil::Drip(every)),
        Effect::Corrupt(at) => spoil(real, Spoil::Corrupt(at)),
        Effect::Endless => {
            let mut real = spoil(real, Spoil::Endless);
            real.headers_mut().remove(header::CONTENT_LENGTH);
            real
        }
        Effect::Length(length) => {
            let mut real = spoil(real, Spoil::Unmeasured);
            set_length(&mut real, length);
            real
        }
        Effect::Remove("content-length") => {
            let mut real = spoil(real, Spoil::Unmeasured);
            real.headers_mut().remove(header::CONTENT_LENGTH);
            real
        }
        Effect::Set(name, value) => real.with(name, value),
        Effect::Remove(name) => {
            real.headers_mut().remove(name);
            real
        }
        Effect::Answer { .. }
        | Effect::Reset
        | Effect::Forget
        | Effect::Silence
        | Effect::Ignore(_) => real,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes() {
        for (path, expected) in [
            ("/", Some(Route::Base)),
            ("/_catalog", Some(Route::Catalog)),
            ("/a/b/tags/list", Some(Route::Tags("a/b"))),
            ("/a/manifests/latest", Some(Route::Manifest("a", "latest"))),
            ("/a/blobs/b/blobs/sha256:1", Some(Route::Blob("a/blobs/b", "sha256:1"))),
            ("/a/blobs/uploads/", Some(Route::Uploads("a"))),
            ("/a/blobs/uploads/7", Some(Route::Upload("a", "7"))),
            ("/a/referrers/sha256:1", Some(Route::Referrers("a", "sha256:1"))),
            ("/A/tags/list", None),
            ("/../tags/list", None),
            ("/a/else", None),
        ] {
            assert_eq!(Route::parse(path), expected, "{path}");
        }
    }

    #[test]
    fn queries() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(pairs("a=b%3Ac&d+e=&f"), [pair("a", "b:c"), pair("d e", ""), pair("f", "")]);
        assert_eq!(decode("%zz%"), "%zz%");
    }
}
