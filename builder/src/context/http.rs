//! Files that `ADD` downloads.

use std::io::Write;
use std::time::Duration;

use futures::StreamExt;
use image::{Algorithm, Digest, Digester};
use recorder::{Exchange, Recorder};
use reqwest::{header, redirect};
use serde::{Deserialize, Serialize};
use store::Store;
use task::{Kind, Task};
use transport::bridge;

use crate::error::ErrorContext;
use crate::inputs::InputDecision;
use crate::redact::without_credentials;
use crate::{Error, Result};

/// Where the store remembers what a URL gave last time.
const SPACE: &str = "http-3";
/// How long a server may take to answer, and to send the next piece.
const PATIENCE: Duration = Duration::from_secs(60);

/// Redirects followed before giving up.
const REDIRECTS: usize = 10;

/// A file that was downloaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Download {
    /// Its content, a blob of the store.
    pub(crate) digest: Digest,
    /// What the URL calls it, if anything.
    pub(crate) name: Option<String>,
    /// `Last-Modified`, seconds since 1970.
    pub(crate) modified: Option<i64>,
    etag: Option<String>,
}

/// Gets a file, which must have all these checksums: from the store if the server says it has not
/// changed, or if its digest is known beforehand and it is there.
pub(crate) async fn download(
    store: &Store,
    url: &str,
    checksums: &[Digest],
    authorization: Option<&str>,
    limit: u64,
    task: &Task,
) -> Result<Download> {
    let shown = without_credentials(url);
    let name = url_name(url);
    // A URL may carry a password, which the store is not to keep.
    let place = Digest::of(url.as_bytes());
    let remembered: Option<Download> = store
        .memo(SPACE, place.as_bytes())
        .during("recalling a download")?
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .filter(|known: &Download| store.contains(known.digest).unwrap_or(false));
    // What the server gave last time is good enough where it is what is asked for; where it is
    // not, the server is not told of it, and gives the whole file.
    let remembered = match (remembered, checksums) {
        (Some(known), [_, ..]) => {
            if holds(store, known.digest, checksums, task).await? {
                return Ok(known);
            }
            None
        }
        (remembered, _) => remembered,
    };
    let child = task.child(format!("downloading {shown}"));
    let fail = |kind: Kind| {
        let url = shown.clone();
        move |source: reqwest::Error| Error::Download {
            url,
            kind,
            source: Box::new(source.without_url()),
        }
    };
    let mut request = client(!checksums.is_empty()).map_err(fail(Kind::System))?.get(url);
    if let Some(header) = authorization {
        // Redirects to another server do not take it along.
        request = request.header(header::AUTHORIZATION, header);
    }
    if let Some(known) = &remembered {
        if let Some(etag) = &known.etag {
            request = request.header(header::IF_NONE_MATCH, etag);
        } else if let Some(modified) = known.modified.and_then(http_date) {
            request = request.header(header::IF_MODIFIED_SINCE, modified);
        }
    }
    let response = request.send().await.map_err(|error| {
        let kind = if error.is_redirect() { Kind::Refused } else { Kind::Unavailable };
        fail(kind)(error)
    })?;
    let status = response.status();
    if status == reqwest::StatusCode::NOT_MODIFIED
        && let Some(known) = remembered
    {
        child.reused();
        return Ok(known);
    }
    if !status.is_success() {
        let kind = match status.as_u16() {
            404 | 410 => Kind::NotFound,
            401 | 403 => Kind::Denied,
            408 | 429 | 500.. => Kind::Unavailable,
            _ => Kind::Refused,
        };
        let source = format!("the server answered {status}").into();
        return Err(Error::Download { url: shown, kind, source });
    }
    let text = |name: header::HeaderName| {
        response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    let etag = text(header::ETAG);
    let modified = text(header::LAST_MODIFIED).and_then(|date| parse_date(&date));
    let most = Limit { url: &shown, bytes: limit };
    most.check(response.content_length().unwrap_or(0))?;
    let digest = receive(store, response, &most, checksums, &child).await?;
    let download = Download { digest, name, modified, etag };
    let json = serde_json::to_vec(&download).unwrap_or_default();
    store.set_memo(SPACE, place.as_bytes(), &json).during("remembering a download")?;
    child.done();
    Ok(download)
}

/// What a recording calls the step of a download.
const STEP: &str = "download";

/// Gets a file from a recording; it must have all these checksums.
pub(crate) async fn replayed(
    store: &Store,
    recorder: &Recorder,
    url: &str,
    checksums: &[Digest],
    task: &Task,
) -> Result<Download> {
    let shown = without_credentials(url);
    let unanswered = |why: &str| Error::Unanswered {
        replayed: true,
        requests: vec![format!("GET {shown} {why}")],
    };
    let exchange = recorder.answer_to(STEP, "GET", url);
    let exchange = exchange.ok_or_else(|| unanswered("is not recorded"))?;
    let (contents, digest, store_) = (recorder.contents().clone(), exchange.digest, store.clone());
    let algorithm = checksums.first().map_or(Algorithm::Sha256, Digest::algorithm);
    let bring = move || -> Result<Digest> {
        let mut file = contents.open(digest).during("replaying a download")?;
        let mut writer = store_.writer_for(algorithm).during("storing a download")?;
        std::io::copy(&mut file, &mut writer)
            .map_err(Error::file("storing", contents.path(digest)))?;
        writer.commit(None).during("storing a download")
    };
    let digest = bridge::blocking(bring).await?;
    if !holds(store, digest, checksums, task).await? {
        return Err(unanswered("is recorded with another checksum"));
    }
    let modified = exchange.headers.get("last-modified").and_then(|date| parse_date(date));
    Ok(Download { digest, name: url_name(url), modified, etag: None })
}

/// Adds a file to a recording.
pub(crate) async fn recorded(
    store: &Store,
    recorder: &Recorder,
    url: &str,
    download: &Download,
) -> Result<()> {
    let (contents, blob, from) = (recorder.contents().clone(), download.digest, store.clone());
    let keep = move || {
        let file = from.open_blob(blob).during("recording a download")?;
        contents.keep(file).during("recording a download")
    };
    let digest = bridge::blocking(keep).await?;
    let modified = download.modified.and_then(http_date);
    let modified = modified.map(|date| ("last-modified".to_owned(), date));
    recorder.add(Exchange {
        step: STEP.to_owned(),
        method: "GET".to_owned(),
        url: recorder.shown(url),
        sent: None,
        range: None,
        status: 200,
        digest,
        headers: modified.into_iter().collect(),
    });
    Ok(())
}

/// The last component of a URL's path, as a file name.
fn url_name(url: &str) -> Option<String> {
    let parsed = url::Url::parse(url).ok()?;
    let name = parsed.path_segments()?.next_back()?.to_owned();
    let good = !name.is_empty() && name != "." && name != ".." && !name.contains('/');
    good.then_some(name)
}

/// The host of an address, with its port.
pub(crate) fn host(url: &str) -> Option<String> {
    let parsed = url::Url::parse(url).ok()?;
    let host = parsed.host_str()?;
    Some(parsed.port().map_or(host.to_owned(), |port| format!("{host}:{port}")))
}

/// What is to be downloaded instead of `url`, and the checksums that its content must have.
pub(crate) fn admitted(
    url: &str,
    decision: &InputDecision,
    own: Option<Digest>,
) -> Result<(String, Vec<Digest>)> {
    let deny = |reason: String| Error::Denied { identifier: decision.identifier.clone(), reason };
    let to = &decision.identifier;
    if decision.converted && !to.starts_with("https://") && !to.starts_with("http://") {
        return Err(deny(format!("the source policy substitutes it for the file {url}")));
    }
    let policy = decision.attrs.get("http.checksum").map(|text| text.parse::<Digest>());
    let policy = policy.transpose().map_err(|error| deny(format!("http.checksum: {error}")))?;
    let mut expected: Vec<Digest> = own.into_iter().collect();
    for (who, digest) in [("the source policy", policy), ("the lock", decision.digest()?)] {
        let Some(digest) = digest else { continue };
        let rival = expected.iter().find(|other| other.algorithm() == digest.algorithm());
        match rival {
            Some(other) if *other != digest => {
                return Err(deny(format!("{who} requires {digest}, not {other}")));
            }
            Some(_) => {}
            None => expected.push(digest),
        }
    }
    Ok((if decision.converted { to.clone() } else { url.to_owned() }, expected))
}

/// How large the file at an address may be.
struct Limit<'a> {
    url: &'a str,
    bytes: u64,
}

impl Limit<'_> {
    fn check(&self, bytes: u64) -> Result<()> {
        if bytes <= self.bytes {
            return Ok(());
        }
        let limit = self.bytes;
        let source = format!("the file is larger than {limit} bytes").into();
        Err(Error::Download { url: self.url.to_owned(), kind: Kind::Refused, source })
    }
}

/// Whether a blob of the store has all these checksums.
async fn holds(store: &Store, blob: Digest, checksums: &[Digest], task: &Task) -> Result<bool> {
    for expected in checksums.iter().copied() {
        if expected.algorithm() == blob.algorithm() {
            if expected != blob {
                return Ok(false);
            }
            continue;
        }
        task.check()?;
        let store = store.clone();
        let digest = move || -> Result<Digest> {
            let mut file = store.open_blob(blob).during("checking a download")?;
            let mut digester = Digester::new(expected.algorithm());
            std::io::copy(&mut file, &mut digester)
                .map_err(Error::file("checking", store.blob_path(blob)))?;
            Ok(digester.finish())
        };
        if bridge::blocking(digest).await? != expected {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn receive(
    store: &Store,
    response: reqwest::Response,
    limit: &Limit<'_>,
    checksums: &[Digest],
    task: &Task,
) -> Result<Digest> {
    let algorithm = checksums.first().map_or(Algorithm::Sha256, Digest::algorithm);
    let mut others: Vec<(Digest, Digester)> =
        checksums.iter().skip(1).map(|sum| (*sum, Digester::new(sum.algorithm()))).collect();
    let mut writer = store.writer_for(algorithm).during("storing a download")?;
    let url = limit.url;
    let mut received = 0u64;
    let mut body = response.bytes_stream();
    while let Some(piece) = body.next().await {
        task.check()?;
        let piece = piece.map_err(|source| Error::Download {
            url: url.to_owned(),
            kind: Kind::Unavailable,
            source: Box::new(source.without_url()),
        })?;
        task.advance(piece.len() as u64);
        received += piece.len() as u64;
        limit.check(received)?;
        others.iter_mut().for_each(|(_, digester)| digester.update(&piece));
        writer = bridge::blocking(move || writer.write_all(&piece).map(|()| writer))
            .await
            .map_err(Error::file("storing", url))?;
    }
    let first = checksums.first().map(|expected| (*expected, writer.digest()));
    let others = others.into_iter().map(|(expected, digester)| (expected, digester.finish()));
    for (expected, found) in first.into_iter().chain(others) {
        if expected != found {
            return Err(Error::Download {
                url: url.to_owned(),
                kind: Kind::Invalid,
                source: Box::new(image::Error::DigestMismatch { expected, found }),
            });
        }
    }
    bridge::blocking(move || writer.commit(None)).await.during("storing a download")
}

/// A client that gives TLS up along redirects only where the content is known beforehand, and
/// tells no server the URL it came from: a query may be a secret.
fn client(known: bool) -> reqwest::Result<reqwest::Client> {
    // The first one installed in the process stays; either way there is one then.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let redirect = redirect::Policy::custom(move |attempt| {
        let from = attempt.previous().last().map(|url| url.scheme().to_owned());
        match follow(from.as_deref(), attempt.url().scheme(), attempt.previous().len(), known) {
            Ok(()) => attempt.follow(),
            Err(reason) => attempt.error(reason),
        }
    });
    reqwest::Client::builder()
        .user_agent("rbuild")
        .connect_timeout(PATIENCE)
        .read_timeout(PATIENCE)
        .referer(false)
        .redirect(redirect)
        .build()
}

/// Whether a redirect is followed: the schemes it leads from and to, the addresses before it.
fn follow(from: Option<&str>, to: &str, before: usize, known: bool) -> Result<(), &'static str> {
    if before > REDIRECTS {
        return Err("there are too many redirects");
    }
    if from == Some("https") && to == "http" && !known {
        return Err("it redirects to a server without TLS; give the file's --checksum");
    }
    Ok(())
}

pub(crate) fn parse_date(text: &str) -> Option<i64> {
    let parsed = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(parsed.timestamp().as_second())
}

pub(crate) fn http_date(seconds: i64) -> Option<String> {
    let timestamp = jiff::Timestamp::from_second(seconds).ok()?;
    jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&timestamp).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_is_given_up_for_known_content_only() {
        for (from, to, before, known, expected) in [
            ("https", "https", 1, false, true),
            ("http", "http", 1, false, true),
            ("http", "https", 1, false, true),
            ("https", "http", 1, false, false),
            ("https", "http", 1, true, true),
            ("https", "https", 10, false, true),
            ("https", "https", 11, true, false),
        ] {
            let followed = follow(Some(from), to, before, known).is_ok();
            assert_eq!(followed, expected, "{from} {to} {before} {known}");
        }
    }
}
