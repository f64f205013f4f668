//! The cache service of GitHub Actions, version 2: entries that are written once, found by the
//! beginning of their key. The bytes are at signed URLs of Azure Blob Storage.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt as _;
use image::Digest;
use reqwest::{Body, Response, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use task::{Cause, Kind};

use super::Objects;
use super::error::{ServiceError, whole};
use crate::{Blob, Result, Unverified};

/// Where the service has its calls.
const SERVICE: &str = "twirp/github.actions.results.api.v1.CacheService";
/// What entries of this form have in common, so that another form is not mistaken for it: the
/// SHA-256 of `rbuild cache 1`.
const VERSION: &str = "dd59e801670154fd5371dbe6a3f58f2e6850aa9168b1c70369536c4cd81fd5d3";
/// How often a call is repeated that the service had no time for.
const TRIES: u32 = 5;
/// How many writers of one name may be faster than this one.
const RIVALS: u64 = 10;
/// The longest pause before a call is repeated.
const PAUSE: Duration = Duration::from_secs(30);
const HINT: &str = "run it in a job of GitHub Actions that passes on ACTIONS_RUNTIME_TOKEN and ACTIONS_RESULTS_URL";

/// The service as a job sees it.
pub(super) struct Actions {
    client: reqwest::Client,
    url: String,
    token: String,
}

/// The answers of all calls.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    ok: bool,
    signed_upload_url: String,
    signed_download_url: String,
    matched_key: String,
}

fn failed(action: &str, kind: Kind, reason: impl Into<String>) -> Cause {
    let hint = (kind == Kind::Denied).then_some(HINT);
    ServiceError { action: format!("{action} GitHub's cache"), reason: reason.into(), kind, hint }
        .into()
}

/// An error without its URL, which is a secret.
fn lost(action: &'static str) -> impl Fn(reqwest::Error) -> Cause {
    move |error| {
        let error = error.without_url();
        let reason = match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        failed(action, Kind::Unavailable, reason)
    }
}

fn refused(action: &str, status: StatusCode) -> Cause {
    let kind = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Kind::Denied,
        StatusCode::NOT_FOUND => Kind::NotFound,
        status if status.is_server_error() => Kind::Unavailable,
        StatusCode::TOO_MANY_REQUESTS => Kind::Unavailable,
        _ => Kind::Refused,
    };
    failed(action, kind, format!("it answered {status}"))
}

/// How long the service asks to wait.
fn pause(answer: &Response, tried: u32) -> Duration {
    let asked = answer.headers().get(header::RETRY_AFTER);
    let asked = asked.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    asked.map_or(Duration::from_millis(500 << tried), Duration::from_secs).min(PAUSE)
}

fn blob_key(digest: &Digest) -> String {
    format!("rbuild-blob-1-{digest}")
}

/// What the keys of a name begin with; a number follows.
fn index_key(name: &str) -> String {
    format!("rbuild-index-1-{name}#")
}

impl Actions {
    pub(super) fn new(url: &str, token: &str) -> Result<Actions, Cause> {
        // An earlier choice of the process stands.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(Duration::from_secs(120))
            .build()
            .map_err(lost("opening"))?;
        let url = format!("{}/{SERVICE}", url.trim_end_matches('/'));
        Ok(Actions { client, url, token: token.to_owned() })
    }

    /// One call; `None` if the service says that there is such an entry already.
    async fn call(
        &self,
        action: &'static str,
        method: &str,
        body: &Value,
    ) -> Result<Option<Answer>, Cause> {
        let url = format!("{}/{method}", self.url);
        for tried in 0.. {
            let request = self
                .client
                .post(&url)
                .bearer_auth(&self.token)
                .header(header::CONTENT_TYPE, "application/json")
                .body(body.to_string());
            let answer = request.send().await.map_err(lost(action))?;
            let status = answer.status();
            let busy = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
            if busy && tried + 1 < TRIES {
                tokio::time::sleep(pause(&answer, tried)).await;
                continue;
            }
            if status == StatusCode::CONFLICT {
                return Ok(None);
            }
            if !status.is_success() {
                return Err(refused(action, status));
            }
            let stream = answer.bytes_stream().map_err(lost(action));
            let bytes = whole(stream, "reading an answer of GitHub's cache").await?;
            let answer = serde_json::from_slice(&bytes);
            return answer.map(Some).map_err(|error| {
                failed(action, Kind::Invalid, format!("its answer is malformed: {error}"))
            });
        }
        Err(failed(action, Kind::Unavailable, "it has no time"))
    }

    /// The newest entry whose key begins so.
    async fn find(&self, key: &str) -> Result<Option<Answer>, Cause> {
        let body = json!({ "key": key, "restore_keys": [key], "version": VERSION });
        let answer = self.call("asking", "GetCacheEntryDownloadURL", &body).await?;
        Ok(answer.filter(|answer| answer.ok))
    }

    async fn download(&self, answer: &Answer) -> Result<Response, Cause> {
        let url = &answer.signed_download_url;
        let got = self.client.get(url).send().await.map_err(lost("reading"))?;
        match got.status() {
            status if status.is_success() => Ok(got),
            status => Err(refused("reading", status)),
        }
    }

    /// Writes an entry; `false` if there is one of that key already.
    async fn create(&self, key: &str, size: u64, body: Body) -> Result<bool, Cause> {
        let entry = json!({ "key": key, "version": VERSION });
        let made = self.call("reserving an entry in", "CreateCacheEntry", &entry).await?;
        let Some(answer) = made.filter(|answer| answer.ok) else { return Ok(false) };
        let put = self
            .client
            .put(&answer.signed_upload_url)
            .header(header::CONTENT_LENGTH, size)
            .header("x-ms-blob-type", "BlockBlob")
            .body(body);
        let put = put.send().await.map_err(lost("writing"))?;
        if !put.status().is_success() {
            return Err(refused("writing", put.status()));
        }
        let end = json!({ "key": key, "size_bytes": size, "version": VERSION });
        let end = self.call("finishing an entry in", "FinalizeCacheEntryUpload", &end).await?;
        match end.is_some_and(|answer| answer.ok) {
            true => Ok(true),
            false => Err(failed("finishing an entry in", Kind::Refused, "it does not say why")),
        }
    }
}

#[async_trait]
impl Objects for Actions {
    async fn has(&self, digest: &Digest) -> Result<bool, Cause> {
        let key = blob_key(digest);
        Ok(self.find(&key).await?.is_some_and(|answer| answer.matched_key == key))
    }

    async fn read(&self, digest: &Digest) -> Result<Option<Unverified>, Cause> {
        let Some(answer) = self.find(&blob_key(digest)).await? else { return Ok(None) };
        let got = self.download(&answer).await?;
        Ok(Some(Unverified::new(got.bytes_stream().map_err(lost("reading")))))
    }

    async fn write(&self, blob: Blob) -> Result<(), Cause> {
        let (digest, size) = (blob.digest(), blob.size());
        let body = Body::wrap_stream(blob.map_err(std::io::Error::other));
        if self.create(&blob_key(&digest), size, body).await? || self.has(&digest).await? {
            return Ok(());
        }
        let reason = "another job has begun to write this blob and has not finished";
        Err(failed("writing", Kind::Unavailable, reason))
    }

    async fn named(&self, name: &str) -> Result<Option<Bytes>, Cause> {
        let Some(answer) = self.find(&index_key(name)).await? else { return Ok(None) };
        let stream = self.download(&answer).await?.bytes_stream().map_err(lost("reading"));
        whole(stream, "reading a document of GitHub's cache").await.map(Some)
    }

    async fn name(&self, name: &str, document: Bytes) -> Result<(), Cause> {
        let prefix = index_key(name);
        let newest = self.find(&prefix).await?.map(|answer| answer.matched_key);
        let number = newest.and_then(|key| key.strip_prefix(&prefix)?.parse::<u64>().ok());
        let first = number.map_or(0, |number| number.saturating_add(1));
        for number in first..first.saturating_add(RIVALS) {
            let body = Body::from(document.clone());
            if self.create(&format!("{prefix}{number}"), document.len() as u64, body).await? {
                return Ok(());
            }
        }
        Err(failed("writing", Kind::Unavailable, "other jobs write the same cache all the time"))
    }

    async fn buildkit(&self, _name: &str) -> Result<Option<Bytes>, Cause> {
        Ok(None)
    }
}
