//! Images of a Docker daemon, through its API on a socket of this machine, or over TCP or TLS.
//!
//! The daemon gives and takes what `docker save` writes. It is kept in an unnamed file on its way,
//! so that an image can be read in any order, and so that the daemon is only given what is whole.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use image::{Descriptor, Reference};
use registry_client::Secure;
use serde::Deserialize;
use task::{Cause, Task};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::OnceCell;

use super::archive::{Archive, ArchiveSink, ArchiveSource, Form};
use super::daemon_tls::DaemonTls;
use super::files;
use crate::bridge::blocking;
use crate::{
    Blob, Capabilities, Error, ImageSelector, Location, Origin, Plan, Result, Sink, Source,
    Unverified,
};

/// How long a daemon may take to answer, and between two pieces of its answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take to store an image that it has received.
const STORING: Duration = Duration::from_secs(600);
/// Bytes read and written at once.
const PIECE: usize = 256 << 10;
/// The most that is read of what it says.
const SAID: usize = 1 << 20;

type Body = UnsyncBoxBody<Bytes, Cause>;

/// Where a daemon listens.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Unix(PathBuf),
    Tcp(String),
    /// The name it shows a certificate for, beside what it is reached at.
    Tls(String, String),
}

/// A Docker daemon.
#[derive(Debug, Clone)]
pub(crate) struct Daemon {
    host: Host,
    /// What speaks TLS, where that is spoken.
    secure: Option<Secure>,
    shown: String,
    scratch: PathBuf,
}

/// A request that the daemon refused or failed.
#[derive(Debug, thiserror::Error)]
#[error("{action}: the Docker daemon at {host} {reason}")]
pub(crate) struct DaemonError {
    action: String,
    host: String,
    reason: String,
    kind: task::Kind,
}

impl task::Fault for DaemonError {
    fn kind(&self) -> task::Kind {
        self.kind
    }

    fn hint(&self) -> Option<String> {
        (self.kind == task::Kind::Unavailable)
            .then(|| "start the daemon, or set DOCKER_HOST to where one listens".to_owned())
    }
}

impl Daemon {
    /// The daemon at `unix:///path`, `tcp://host:port`, `http://` or `https://`; large files go to
    /// `scratch` on their way.
    pub(crate) fn new(host: &str, tls: &DaemonTls, scratch: &Path) -> Result<Daemon, Cause> {
        let parsed = Host::parse(host, tls.tcp)?;
        let secure = match &parsed {
            Host::Tls(name, _) => Some(tls.open(name)?),
            _ => None,
        };
        Ok(Daemon { host: parsed, secure, shown: host.to_owned(), scratch: scratch.to_owned() })
    }

    fn failed(&self, action: &str, kind: task::Kind, reason: impl Into<String>) -> DaemonError {
        let (action, host) = (action.to_owned(), self.shown.clone());
        DaemonError { action, host, reason: reason.into(), kind }
    }

    fn lost(&self, action: &str, error: &dyn std::error::Error) -> DaemonError {
        self.failed(action, task::Kind::Unavailable, format!("cannot be reached: {error}"))
    }

    async fn send(
        &self,
        action: &str,
        (method, path): (Method, &str),
        body: Body,
        patience: Duration,
    ) -> Result<Response<Incoming>, Cause> {
        let sending = async {
            let host = match &self.host {
                Host::Unix(_) => "docker",
                Host::Tcp(authority) | Host::Tls(_, authority) => authority,
            };
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header(header::HOST, host)
                .header(header::CONTENT_TYPE, "application/x-tar")
                .body(body)
                .map_err(|error| self.lost(action, &error))?;
            let mut sender = self.connect(action).await?;
            sender.send_request(request).await.map_err(|error| self.lost(action, &error).into())
        };
        match tokio::time::timeout(patience, sending).await {
            Ok(answer) => answer,
            Err(_) => Err(self
                .failed(action, task::Kind::Unavailable, format!("did not answer for {patience:?}"))
                .into()),
        }
    }

    async fn connect(&self, action: &str) -> Result<http1::SendRequest<Body>, Cause> {
        let lost = |error: &dyn std::error::Error| Cause::new(self.lost(action, error));
        let tcp = async |at: &str| TcpStream::connect(at).await.map_err(|error| lost(&error));
        let sender = match (&self.host, &self.secure) {
            (Host::Unix(path), _) => {
                let socket = UnixStream::connect(path).await.map_err(|error| lost(&error))?;
                handshake(socket).await
            }
            (Host::Tls(name, authority), Some(secure)) => {
                let socket = secure.connect(name, tcp(authority).await?).await;
                handshake(socket.map_err(|error| lost(&error))?).await
            }
            (Host::Tcp(authority) | Host::Tls(_, authority), _) => {
                handshake(tcp(authority).await?).await
            }
        };
        sender.map_err(|error| lost(&error))
    }

    /// The next piece of an answer.
    async fn piece(&self, action: &str, body: &mut Incoming) -> Result<Option<Bytes>, Cause> {
        loop {
            let Ok(frame) = tokio::time::timeout(PATIENCE, body.frame()).await else {
                let reason = format!("sent nothing for {PATIENCE:?}");
                return Err(self.failed(action, task::Kind::Unavailable, reason).into());
            };
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(self.lost(action, &error).into()),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => return Ok(Some(data)),
                    Err(_) => {}
                },
            }
        }
    }

    /// A failure status as an error, with the daemon's own words.
    async fn answered(
        &self,
        action: &str,
        mut response: Response<Incoming>,
    ) -> Result<Response<Incoming>, Cause> {
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let mut said = Vec::new();
        while let Ok(Some(piece)) = self.piece(action, response.body_mut()).await {
            said.extend_from_slice(&piece[..piece.len().min(SAID - said.len())]);
            if said.len() >= SAID {
                break;
            }
        }
        let words = message(&said).unwrap_or_default();
        let kind = match status {
            StatusCode::NOT_FOUND => task::Kind::NotFound,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => task::Kind::Denied,
            status if status.is_server_error() => task::Kind::Unavailable,
            _ => task::Kind::Refused,
        };
        let reason = format!("answered {}: {words}", status.as_u16());
        Err(self.failed(action, kind, reason.trim_end_matches(": ")).into())
    }

    /// An image as `docker save` writes it, in an unnamed file.
    async fn save(&self, name: &str) -> Result<File, Cause> {
        let action = format!("reading the image {name}");
        let path = format!("/images/{}/get", escaped(name));
        let empty = Empty::new().map_err(|never| match never {}).boxed_unsync();
        let response = self.send(&action, (Method::GET, &path), empty, PATIENCE).await?;
        let mut response = self.answered(&action, response).await?;
        let scratch = self.scratch.clone();
        let mut file = blocking(move || files::unnamed(&scratch)).await?;
        let mut pending = BytesMut::new();
        loop {
            let piece = self.piece(&action, response.body_mut()).await?;
            let ended = piece.is_none();
            pending.extend_from_slice(&piece.unwrap_or_default());
            if ended || pending.len() >= PIECE {
                let (bytes, scratch) = (pending.split(), self.scratch.clone());
                file = blocking(move || {
                    file.write_all(&bytes)
                        .map_err(Error::file("writing to a file in", &scratch))?;
                    Ok::<_, Error>(file)
                })
                .await?;
            }
            if ended {
                return Ok(file);
            }
        }
    }

    /// Gives the daemon an archive and hears whether it took it.
    async fn load(&self, mut file: File, name: &str) -> Result<(), Cause> {
        let action = format!("writing the image {name}");
        file.rewind().map_err(|error| self.lost(&action, &error))?;
        let pieces = stream::try_unfold(file, |mut file| async move {
            let read = blocking(move || {
                let mut piece = vec![0; PIECE];
                let n = file.read(&mut piece).map_err(Error::Stream)?;
                piece.truncate(n);
                Ok::<_, Error>((!piece.is_empty()).then(|| (Frame::data(piece.into()), file)))
            });
            Ok::<_, Cause>(read.await?)
        });
        let body = StreamBody::new(pieces).boxed_unsync();
        let to = (Method::POST, "/images/load?quiet=1");
        let response = self.send(&action, to, body, STORING).await?;
        let mut response = self.answered(&action, response).await?;
        // A failure comes with a success status and in a line among others.
        let mut said = Vec::new();
        while let Some(piece) = self.piece(&action, response.body_mut()).await? {
            said.extend_from_slice(&piece);
            if said.len() > SAID {
                let keep = said.len() - SAID / 2;
                said.drain(..keep);
            }
        }
        let mut lines = said.split(|byte| *byte == b'\n');
        match lines.find_map(failure) {
            None => Ok(()),
            Some(words) => {
                let reason = format!("refused it: {words}");
                Err(self.failed(&action, task::Kind::Refused, reason).into())
            }
        }
    }
}

impl Host {
    /// `secure`: `tcp://` means TLS.
    fn parse(host: &str, secure: bool) -> Result<Host> {
        let refuse = |reason: &str| Error::Malformed {
            place: format!("the address {host:?} of the Docker daemon"),
            reason: reason.to_owned(),
        };
        let (scheme, rest) = host.split_once("://").unwrap_or_default();
        if scheme == "unix" && rest.starts_with('/') {
            return Ok(Host::Unix(rest.into()));
        }
        if !["tcp", "http", "https"].contains(&scheme) {
            return Err(refuse("it is neither unix:///path nor tcp://host:port"));
        }
        let authority = rest.trim_end_matches('/').to_owned();
        let name = match authority.rsplit_once(':') {
            Some((name, port)) if port.parse::<u16>().is_ok() => name,
            _ => return Err(refuse("it has no port")),
        };
        let name = name.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(match scheme == "https" || (scheme == "tcp" && secure) {
            true => Host::Tls(name, authority),
            false => Host::Tcp(authority),
        })
    }
}

/// Speaks HTTP on a connection, which ends with its request.
async fn handshake(
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> hyper::Result<http1::SendRequest<Body>> {
    let (sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// Everything but letters, digits and `-._~` as `%XX`.
fn escaped(name: &str) -> String {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    let escape = |byte: u8| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    name.bytes().map(escape).collect()
}

fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(500).collect()
}

fn message(said: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct DaemonMessage {
        message: String,
    }
    serde_json::from_slice::<DaemonMessage>(said).ok().map(|said| printable(&said.message))
}

fn failure(line: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Line {
        error: String,
    }
    serde_json::from_slice::<Line>(line).ok().map(|line| printable(&line.error))
}

/// `docker-daemon:…` to read.
#[derive(Debug, Clone)]
pub struct DaemonSource {
    daemon: Daemon,
    name: String,
    fetched: Arc<OnceCell<ArchiveSource>>,
}

impl DaemonSource {
    pub(crate) fn new(daemon: Daemon, name: &str) -> DaemonSource {
        DaemonSource { daemon, name: name.to_owned(), fetched: Arc::default() }
    }

    async fn fetched(&self) -> Result<&ArchiveSource, Cause> {
        let fetch = || async {
            let file = self.daemon.save(&self.name).await?;
            let shown = PathBuf::from(format!("docker-daemon:{}", self.name));
            let source = blocking(move || {
                ArchiveSource::over(file, &shown, Form::Docker, &ImageSelector::Only)
            });
            Ok::<_, Cause>(source.await?)
        };
        self.fetched.get_or_try_init(fetch).await
    }
}

#[async_trait]
impl Source for DaemonSource {
    async fn resolve(&self) -> Result<Descriptor, Cause> {
        self.fetched().await?.resolve().await
    }

    async fn fetch(&self, descriptor: &Descriptor) -> Result<Unverified, Cause> {
        self.fetched().await?.fetch(descriptor).await
    }

    async fn referrers(&self, _subject: &Descriptor) -> Result<Vec<Descriptor>, Cause> {
        Ok(Vec::new())
    }

    fn origin(&self) -> Origin {
        Origin::Elsewhere
    }

    fn location(&self) -> Option<Location> {
        Some(Location::Daemon(self.name.clone()))
    }
}

/// `docker-daemon:…` to write: the daemon is given the image when all of it is there.
#[derive(Debug, Clone)]
pub struct DaemonSink {
    daemon: Daemon,
    name: String,
    archive: Arc<Archive>,
    image: ArchiveSink,
}

impl DaemonSink {
    pub(crate) fn new(daemon: Daemon, name: &str) -> Result<DaemonSink> {
        let reference: Reference = name.parse::<Reference>()?;
        if let Some(digest) = reference.digest {
            let action = format!("writing an image under the digest {digest}");
            let place = format!("the Docker daemon at {}", daemon.shown);
            return Err(Error::Unsupported { action, place });
        }
        let name = reference.or_latest().to_string();
        let archive = Archive::create(&daemon.scratch.join("docker-daemon.tar"), Form::Docker)?;
        let image = archive.image(ImageSelector::Name(name.clone()));
        Ok(DaemonSink { daemon, name, archive, image })
    }
}

#[async_trait]
impl Sink for DaemonSink {
    async fn contains(&self, descriptor: &Descriptor) -> Result<bool, Cause> {
        self.image.contains(descriptor).await
    }

    async fn link(&self, _descriptor: &Descriptor, _origin: &Origin) -> Result<bool, Cause> {
        Ok(false)
    }

    fn capabilities(&self) -> Capabilities {
        self.image.capabilities()
    }

    fn expect(&self, plan: &Plan) {
        self.image.expect(plan);
    }

    async fn put(&self, descriptor: &Descriptor, blob: Blob) -> Result<(), Cause> {
        self.image.put(descriptor, blob).await
    }

    async fn publish(&self, root: &Descriptor, document: Bytes, task: &Task) -> Result<(), Cause> {
        self.image.publish(root, document, task).await?;
        let archive = Arc::clone(&self.archive);
        let file = blocking(move || archive.finish_unnamed()).await?;
        self.daemon.load(file, &self.name).await
    }

    async fn refer(
        &self,
        subject: &Descriptor,
        referrer: &Descriptor,
        document: Bytes,
        task: &Task,
    ) -> Result<(), Cause> {
        self.image.refer(subject, referrer, document, task).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_names() {
        let host = |text: &str| Host::parse(text, false);
        let docker = Host::Unix("/var/run/docker.sock".into());
        assert_eq!(host("unix:///var/run/docker.sock").unwrap(), docker);
        assert_eq!(host("tcp://127.0.0.1:2375").unwrap(), Host::Tcp("127.0.0.1:2375".into()));
        for (text, secure) in [("https://[::1]:2376/", false), ("tcp://[::1]:2376", true)] {
            let expected = Host::Tls("::1".into(), "[::1]:2376".into());
            assert_eq!(Host::parse(text, secure).unwrap(), expected);
        }
        assert_eq!(Host::parse("http://x:1", true).unwrap(), Host::Tcp("x:1".into()));
        for bad in ["", "/var/run/docker.sock", "unix://x", "tcp://x", "https://x", "ssh://x:1"] {
            assert!(host(bad).is_err(), "{bad}");
        }
        assert_eq!(escaped("r.example:5000/a/b:1"), "r.example%3A5000%2Fa%2Fb%3A1");
    }

    #[test]
    fn failures_among_lines() {
        assert_eq!(failure(br#"{"stream":"Loaded image"}"#), None);
        let line = br#"{"errorDetail":{"message":"x"},"error":"no\u001b space"}"#;
        assert_eq!(failure(line).unwrap(), "no space");
        assert_eq!(message(br#"{"message":"No such image: x"}"#).unwrap(), "No such image: x");
    }
}
