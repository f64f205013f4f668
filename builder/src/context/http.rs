//! Files that `ADD` downloads.

use std::io::Write;
use std::time::Duration;

use futures::StreamExt;
use image::Digest;
use reqwest::header;
use serde::{Deserialize, Serialize};
use store::Store;
use task::{Kind, Task};
use transport::bridge;

use crate::error::During;
use crate::plan::copy::without_credentials;
use crate::step::select::url_name;
use crate::{Error, Result};

/// Where the store remembers what a URL gave last time.
const SPACE: &str = "http-1";
/// How long a server may take to answer, and to send the next piece.
const PATIENCE: Duration = Duration::from_secs(60);

/// A file that was downloaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Download {
    /// Its content, a blob of the store.
    pub(crate) digest: Digest,
    /// What the URL calls it.
    pub(crate) name: String,
    /// `Last-Modified`, seconds since 1970.
    pub(crate) modified: Option<i64>,
    etag: Option<String>,
}

/// Gets a file, from the store if the server says it has not changed, or if its digest is known
/// beforehand and it is there.
pub(crate) async fn download(
    store: &Store,
    url: &str,
    checksum: Option<Digest>,
    task: &Task,
) -> Result<Download> {
    let shown = without_credentials(url);
    let name = url_name(url).ok_or_else(|| {
        Error::Invalid(format!("{shown} names no file; give the destination a file name"))
    })?;
    let remembered: Option<Download> = store
        .memo(SPACE, url.as_bytes())
        .during("recalling a download")?
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .filter(|known: &Download| store.contains(known.digest).unwrap_or(false));
    if let Some(known) = remembered.clone().filter(|known| Some(known.digest) == checksum) {
        return Ok(known);
    }
    let child = task.child(format!("downloading {shown}"));
    let fail = |kind: Kind| {
        let url = shown.clone();
        move |source: reqwest::Error| Error::Download {
            url,
            kind,
            source: Box::new(source.without_url()),
        }
    };
    let mut request = client().map_err(fail(Kind::System))?.get(url);
    if let Some(known) = &remembered {
        if let Some(etag) = &known.etag {
            request = request.header(header::IF_NONE_MATCH, etag);
        } else if let Some(modified) = known.modified.and_then(http_date) {
            request = request.header(header::IF_MODIFIED_SINCE, modified);
        }
    }
    let response = request.send().await.map_err(fail(Kind::Unavailable))?;
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
    let digest = receive(store, response, &shown, checksum, &child).await?;
    let download = Download { digest, name, modified, etag };
    let json = serde_json::to_vec(&download).unwrap_or_default();
    store.set_memo(SPACE, url.as_bytes(), &json).during("remembering a download")?;
    child.done();
    Ok(download)
}

async fn receive(
    store: &Store,
    response: reqwest::Response,
    url: &str,
    checksum: Option<Digest>,
    task: &Task,
) -> Result<Digest> {
    let algorithm = checksum.map_or(image::Algorithm::Sha256, |digest| digest.algorithm());
    let mut writer = store.writer_for(algorithm).during("storing a download")?;
    let mut body = response.bytes_stream();
    while let Some(piece) = body.next().await {
        task.check()?;
        let piece = piece.map_err(|source| Error::Download {
            url: url.to_owned(),
            kind: Kind::Unavailable,
            source: Box::new(source.without_url()),
        })?;
        task.advance(piece.len() as u64);
        writer = bridge::blocking(move || writer.write_all(&piece).map(|()| writer))
            .await
            .map_err(Error::file("storing", url))?;
    }
    let found = writer.digest();
    if let Some(expected) = checksum.filter(|expected| *expected != found) {
        return Err(Error::Download {
            url: url.to_owned(),
            kind: Kind::Invalid,
            source: Box::new(image::Error::DigestMismatch { expected, found }),
        });
    }
    bridge::blocking(move || writer.commit(None)).await.during("storing a download")
}

fn client() -> reqwest::Result<reqwest::Client> {
    // The first one installed in the process stays; either way there is one then.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .user_agent("rbuild")
        .connect_timeout(PATIENCE)
        .read_timeout(PATIENCE)
        .build()
}

fn parse_date(text: &str) -> Option<i64> {
    let parsed = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(parsed.timestamp().as_second())
}

fn http_date(seconds: i64) -> Option<String> {
    let timestamp = jiff::Timestamp::from_second(seconds).ok()?;
    jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&timestamp).ok()
}
