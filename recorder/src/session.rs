//! The proxy of one command.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{HeaderMap, RANGE};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use image::Digest;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use url::Url;

use crate::body::{self, Body};
use crate::exchange::{RequestKey, redacted};
use crate::recorder::{Mode, lock};
use crate::upstream::Upstream;
use crate::{Error, Exchange, Recorder, Result, headers, proxy};

/// How long an answer is recorded after the command that asked for it has ended.
const AFTER: Duration =
    if cfg!(test) { Duration::from_millis(200) } else { Duration::from_secs(60) };
/// Pieces of an answer that wait for the command.
const AHEAD: usize = 16;

/// The proxy of one command; ends with this value.
#[derive(Debug)]
pub struct Session {
    shared: Arc<SessionInner>,
    runtime: Handle,
    accepting: AbortHandle,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Session {
    /// Serves a command, which reaches the proxy through this listener. `step` is its instruction.
    ///
    /// # Errors
    /// [`Error::Setup`].
    pub fn start(
        recorder: &Arc<Recorder>,
        step: &str,
        listener: TcpListener,
        runtime: &Handle,
    ) -> Result<Session> {
        listener.set_nonblocking(true).map_err(Error::setup)?;
        let _inside = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener).map_err(Error::setup)?;
        let shared = Arc::new(SessionInner {
            recorder: Arc::clone(recorder),
            step: step.to_owned(),
            given: Mutex::default(),
            missing: Mutex::default(),
            refused: Mutex::default(),
            running: watch::Sender::new(0),
            over: watch::Sender::new(false),
        });
        let accepting = runtime.spawn(proxy::accept(listener, Arc::clone(&shared)));
        let accepting = accepting.abort_handle();
        Ok(Session { shared, runtime: runtime.clone(), accepting })
    }

    /// Waits until everything that was asked is recorded. Blocks.
    pub fn finish(&self) -> UnansweredRequests {
        let mut running = self.shared.running.subscribe();
        // The senders live as long as this value.
        self.runtime.block_on(async {
            let ended = running.wait_for(|count| *count == 0);
            if tokio::time::timeout(AFTER, ended).await.is_err() {
                self.shared.over.send_replace(true);
                let _ = running.wait_for(|count| *count == 0).await;
            }
        });
        UnansweredRequests {
            missing: lock(&self.shared.missing).values().cloned().collect(),
            refused: lock(&self.shared.refused).iter().cloned().collect(),
        }
    }
}

/// The requests of a command that the proxy did not answer; a sentence each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnansweredRequests {
    /// Requests that a recording has no whole answer to.
    pub missing: Vec<String>,
    /// Requests that the proxy never answers.
    pub refused: Vec<String>,
}

/// What the connections of a command share.
#[derive(Debug)]
pub(crate) struct SessionInner {
    recorder: Arc<Recorder>,
    step: String,
    /// How many answers to a request were given.
    given: Mutex<HashMap<RequestKey, usize>>,
    /// Why the recording has no answer to a request.
    missing: Mutex<BTreeMap<RequestKey, String>>,
    /// Why a request is never answered.
    refused: Mutex<BTreeSet<String>>,
    /// How many answers are being recorded.
    running: watch::Sender<usize>,
    /// Whether answers that still come are given up.
    over: watch::Sender<bool>,
}

/// Counts an answer that is being recorded.
struct RecordingGuard(Arc<SessionInner>);

impl RecordingGuard {
    fn new(shared: &Arc<SessionInner>) -> RecordingGuard {
        shared.running.send_modify(|count| *count += 1);
        RecordingGuard(Arc::clone(shared))
    }
}

impl Drop for RecordingGuard {
    fn drop(&mut self) {
        self.0.running.send_modify(|count| *count -= 1);
    }
}

impl SessionInner {
    /// How to be the server of this name.
    pub(crate) fn server(&self, host: &str) -> Result<Arc<rustls::ServerConfig>> {
        self.recorder.authority.server(host)
    }

    /// Refuses a request, whether it is recorded or replayed.
    pub(crate) fn refuse(&self, method: &str, url: &str, why: &str) -> Response<Body> {
        let text = format!("{method} {} {why}", redacted(url, &self.recorder.secrets));
        lock(&self.refused).insert(text.clone());
        plain(StatusCode::BAD_GATEWAY, format!("{text}\n"))
    }

    fn missing(&self, key: RequestKey, why: &str) -> Response<Body> {
        let text = format!("{key} {why}");
        lock(&self.missing).insert(key, text.clone());
        plain(StatusCode::BAD_GATEWAY, format!("{text}\n"))
    }

    /// Answers a request.
    pub(crate) async fn answer(
        self: &Arc<Self>,
        parts: Parts,
        url: Url,
        sent: Bytes,
    ) -> Response<Body> {
        let range = parts.headers.get(RANGE).and_then(|range| range.to_str().ok());
        let asked = RequestKey {
            method: parts.method.to_string(),
            url: redacted(url.as_str(), &self.recorder.secrets),
            sent: (!sent.is_empty()).then(|| Digest::of(&sent)),
            range: range.map(str::to_owned),
        };
        match &self.recorder.mode {
            Mode::Replay { known, .. } => {
                let known = known.get(&(self.step.clone(), asked.clone()));
                self.replay(asked, known.map(Vec::as_slice)).await
            }
            Mode::Record { upstream, .. } => {
                let headers = headers::passed_on(&parts.headers);
                self.record(upstream, asked, (parts.method, url, headers, sent)).await
            }
        }
    }

    async fn replay(&self, key: RequestKey, known: Option<&[Exchange]>) -> Response<Body> {
        let Some([.., last]) = known else { return self.missing(key, "is not recorded") };
        let nth = {
            let mut given = lock(&self.given);
            let count = given.entry(key.clone()).or_default();
            *count += 1;
            *count - 1
        };
        let exchange = known.and_then(|known| known.get(nth)).unwrap_or(last).clone();
        let mut answer = Response::new(body::full(""));
        *answer.status_mut() = StatusCode::from_u16(exchange.status).unwrap_or_default();
        headers::put(&exchange.headers, answer.headers_mut());
        if key.method == Method::HEAD.as_str() {
            return answer;
        }
        let contents = self.recorder.contents.clone();
        let opened = tokio::task::spawn_blocking(move || contents.open(exchange.digest)).await;
        let opened = opened.map_err(Error::setup).and_then(|opened| opened);
        let file = match opened {
            Ok(file) => file,
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                let why = format!("has no content: {error}: {}", cause.unwrap_or_default());
                return self.missing(key, &why);
            }
        };
        if let Ok(length) = file.metadata().map(|metadata| metadata.len()) {
            let length = BTreeMap::from([("content-length".to_owned(), length.to_string())]);
            headers::put(&length, answer.headers_mut());
        }
        *answer.body_mut() = body::of_file(file);
        answer
    }

    async fn record(
        self: &Arc<Self>,
        upstream: &Upstream,
        key: RequestKey,
        (method, url, headers, sent): (Method, Url, HeaderMap, Bytes),
    ) -> Response<Body> {
        let running = RecordingGuard::new(self);
        let number = self.recorder.number();
        let head = method == Method::HEAD;
        let response = match upstream.send(method, &url, headers, sent).await {
            Ok(response) => response,
            Err(why) => return self.unanswered(number, key, &why),
        };
        tracing::debug!(url = key.url, status = response.status().as_u16(), "recorded request");
        let kept = headers::kept(response.headers(), head, &self.recorder.secrets);
        let mut answer = Response::new(body::full(""));
        *answer.status_mut() = response.status();
        headers::put(&kept, answer.headers_mut());
        // These are for this command alone: they may hold secrets.
        for name in [hyper::header::SET_COOKIE, hyper::header::LOCATION] {
            answer.headers_mut().remove(&name);
            for value in response.headers().get_all(&name) {
                answer.headers_mut().append(name.clone(), value.clone());
            }
        }
        if let Some(length) = response.headers().get(hyper::header::CONTENT_LENGTH) {
            answer.headers_mut().insert(hyper::header::CONTENT_LENGTH, length.clone());
        }
        let status = response.status().as_u16();
        let exchange = move |key: RequestKey, digest| Exchange {
            step: String::new(),
            method: key.method,
            url: key.url,
            sent: key.sent,
            range: key.range,
            status,
            digest,
            headers: kept,
        };
        let (sender, receiver) = mpsc::channel(AHEAD);
        *answer.body_mut() = body::received(receiver);
        let shared = Arc::clone(self);
        // The command may go away before the end; what it asked for is recorded all the same.
        tokio::spawn(async move {
            match pump(&shared, response, &sender).await {
                Ok(digest) => {
                    lock(&shared.missing).remove(&key);
                    let step = shared.step.clone();
                    shared.recorder.keep(number, Exchange { step, ..exchange(key, digest) });
                }
                Err(why) => {
                    shared.missing(key, &format!("broke off: {why}"));
                    let _ = sender.send(Err(io::Error::other(why))).await;
                }
            }
            drop(running);
        });
        answer
    }

    /// That a server does not answer is recorded, too.
    fn unanswered(&self, number: u64, key: RequestKey, why: &str) -> Response<Body> {
        tracing::debug!(url = key.url, why, "a request has no answer");
        let text = format!("{key} has no answer\n");
        let kept = self.recorder.contents.keep(text.as_bytes());
        let digest = match kept {
            Ok(digest) => digest,
            Err(error) => return self.missing(key, &error.to_string()),
        };
        let step = self.step.clone();
        let (method, url, sent, range) = (key.method, key.url, key.sent, key.range);
        let (status, headers) = (StatusCode::BAD_GATEWAY.as_u16(), BTreeMap::new());
        let exchange = Exchange { step, method, url, sent, range, status, digest, headers };
        self.recorder.keep(number, exchange);
        plain(StatusCode::BAD_GATEWAY, text)
    }
}

/// Keeps an answer while the command receives it.
async fn pump(
    shared: &SessionInner,
    mut response: reqwest::Response,
    sender: &mpsc::Sender<io::Result<Bytes>>,
) -> Result<Digest, String> {
    let (pieces, mut written) = mpsc::channel::<Bytes>(AHEAD);
    let contents = shared.recorder.contents.clone();
    let mut over = shared.over.subscribe();
    let writing = tokio::task::spawn_blocking(move || -> Result<Digest> {
        let mut writer = contents.writer()?;
        let mut whole = false;
        while let Some(piece) = written.blocking_recv() {
            // An empty piece is the end of what came whole.
            whole = piece.is_empty();
            writer.write(&piece)?;
        }
        match whole {
            true => writer.finish(),
            false => Err(Error::setup("the answer came in part")),
        }
    });
    let mut broken = None;
    loop {
        let chunk = tokio::select! {
            chunk = response.chunk() => chunk,
            _ = over.wait_for(|over| *over) => {
                broken = Some("it did not end soon after its command".to_owned());
                break;
            }
        };
        match chunk {
            Ok(Some(piece)) if piece.is_empty() => {}
            Ok(Some(piece)) => {
                if pieces.send(piece.clone()).await.is_err() {
                    break;
                }
                // A command that is gone does not receive it.
                let _ = sender.send(Ok(piece)).await;
            }
            Ok(None) => {
                let _ = pieces.send(Bytes::new()).await;
                break;
            }
            Err(error) => {
                broken = Some(error.without_url().to_string());
                break;
            }
        }
    }
    drop(pieces);
    match (broken, writing.await) {
        (Some(why), _) => Err(why),
        (None, Ok(Ok(digest))) => Ok(digest),
        (None, Ok(Err(error))) => Err(error.to_string()),
        (None, Err(error)) => Err(error.to_string()),
    }
}

pub(crate) fn plain(status: StatusCode, text: String) -> Response<Body> {
    let mut answer = Response::new(body::full(text));
    *answer.status_mut() = status;
    answer
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;
    use crate::{ContentDirectory, RecorderOptions};

    /// A server whose answer has no end; gives its address.
    fn endless() -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]).unwrap();
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
            // Until the recorder has enough.
            while stream.write_all(b"5\r\nagain\r\n").is_ok() {}
        });
        address
    }

    #[test]
    fn an_answer_without_end_is_given_up_after_its_command() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let recorder = Recorder::record(RecorderOptions {
            contents: ContentDirectory::new(directory.path().join("c")),
            secrets: Vec::new(),
            hosts: Vec::new(),
            machine: None,
            reaches: |_| true,
            proxies: BTreeMap::new(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = listener.local_addr().unwrap();
        let session =
            Session::start(&recorder.unwrap(), "RUN x", listener, runtime.handle()).unwrap();
        let server = endless();
        let mut command = TcpStream::connect(proxy).unwrap();
        write!(command, "GET http://{server}/ HTTP/1.1\r\nhost: {server}\r\n\r\n").unwrap();
        let mut begun = [0; 12];
        command.read_exact(&mut begun).unwrap();
        assert_eq!(&begun, b"HTTP/1.1 200");
        drop(command);
        let troubles = session.finish();
        assert!(troubles.missing[0].contains("broke off: it did not end"), "{troubles:?}");
        let blobs = directory.path().join("c/blobs/sha256");
        assert_eq!(std::fs::read_dir(blobs).unwrap().count(), 0, "nothing is left of it");
    }
}
