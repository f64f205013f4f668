//! Requests to the services of keyless signing: small, bounded, and in the clear only to this
//! machine.

use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Client, Method, RequestBuilder, StatusCode, redirect};
use serde_json::Value;
use url::Url;

use crate::error::{Error, Result};
use crate::printable::printable;

/// No longer answer is read.
const MAX_ANSWER: usize = 1 << 20;
/// How long a service may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client of the services.
#[derive(Debug, Clone)]
pub struct Http(Client);

fn failed(what: &'static str, error: &dyn std::fmt::Display) -> Error {
    Error::Service { what, reason: printable(&error.to_string()) }
}

fn refused(what: &'static str, status: StatusCode, body: &[u8]) -> Error {
    let said: String = String::from_utf8_lossy(body).chars().take(200).collect();
    failed(what, &format!("it answered {status}: {said}"))
}

impl Http {
    /// A client.
    ///
    /// # Errors
    /// [`Error::Service`]: TLS cannot be set up.
    pub fn new() -> Result<Http> {
        // The first provider installed in a process stays; ours or another's serves alike.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = Client::builder()
            .redirect(redirect::Policy::none())
            .referer(false)
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .timeout(PATIENCE);
        builder.build().map(Http).map_err(|error| failed("an HTTP client", &error))
    }

    fn request(&self, what: &'static str, method: Method, url: &str) -> Result<RequestBuilder> {
        let parsed = Url::parse(url).map_err(|error| failed(what, &format!("{url}: {error}")))?;
        let here = match parsed.host() {
            // The second is the machine's own metadata server in a cloud.
            Some(url::Host::Ipv4(address)) => {
                address.is_loopback() || address.octets() == [169, 254, 169, 254]
            }
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            Some(url::Host::Domain(name)) => {
                name == "localhost" || name == "metadata.google.internal"
            }
            None => false,
        };
        match parsed.scheme() {
            "https" => {}
            "http" if here => {}
            _ => {
                return Err(failed(
                    what,
                    &format!("{url} is neither https:// nor on this machine"),
                ));
            }
        }
        Ok(self.0.request(method, parsed))
    }

    async fn answer(&self, what: &'static str, request: RequestBuilder) -> Result<Vec<u8>> {
        let (status, body) = self.answer_of(what, request, MAX_ANSWER).await?;
        match status.is_success() {
            true => Ok(body),
            false => Err(refused(what, status, &body)),
        }
    }

    async fn answer_of(
        &self,
        what: &'static str,
        request: RequestBuilder,
        limit: usize,
    ) -> Result<(StatusCode, Vec<u8>)> {
        let mut answer =
            request.send().await.map_err(|error| failed(what, &error.without_url()))?;
        let status = answer.status();
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| failed(what, &error))? {
            body.extend_from_slice(&chunk);
            if body.len() > limit {
                return Err(failed(what, &format!("its answer has more than {limit} bytes")));
            }
        }
        Ok((status, body))
    }

    /// Reads a file of at most `limit` bytes; `None` where there is none. Stores of objects call
    /// what is not there forbidden.
    ///
    /// # Errors
    /// [`Error::Service`].
    pub(crate) async fn find(
        &self,
        what: &'static str,
        url: &str,
        limit: usize,
    ) -> Result<Option<Vec<u8>>> {
        let request = self.request(what, Method::GET, url)?;
        match self.answer_of(what, request, limit).await? {
            (StatusCode::NOT_FOUND | StatusCode::FORBIDDEN, _) => Ok(None),
            (status, body) if status.is_success() => Ok(Some(body)),
            (status, body) => Err(refused(what, status, &body)),
        }
    }

    /// Sends JSON and reads JSON.
    ///
    /// # Errors
    /// [`Error::Service`].
    pub(crate) async fn post(&self, what: &'static str, url: &str, body: &Value) -> Result<Value> {
        self.post_with(what, url, body, &[]).await
    }

    /// The same with more headers, which may say the type of what is sent.
    ///
    /// # Errors
    /// [`Error::Service`].
    pub(crate) async fn post_with(
        &self,
        what: &'static str,
        url: &str,
        body: &Value,
        headers: &[(&str, &str)],
    ) -> Result<Value> {
        let mut request = self.request(what, Method::POST, url)?.body(body.to_string());
        if headers.iter().all(|(name, _)| *name != "content-type") {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let mut request = request.header(ACCEPT, "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = self.answer(what, request).await?;
        serde_json::from_slice(&answer).map_err(|error| failed(what, &error))
    }

    /// Sends bytes of a type and reads bytes.
    ///
    /// # Errors
    /// [`Error::Service`].
    pub(crate) async fn post_bytes(
        &self,
        what: &'static str,
        url: &str,
        kind: &str,
        body: Vec<u8>,
    ) -> Result<Vec<u8>> {
        let request = self.request(what, Method::POST, url)?;
        self.answer(what, request.header(CONTENT_TYPE, kind).body(body)).await
    }

    /// Reads JSON, with one more header if there is one.
    ///
    /// # Errors
    /// [`Error::Service`].
    pub(crate) async fn get(
        &self,
        what: &'static str,
        url: &str,
        header: Option<(&str, &str)>,
    ) -> Result<Vec<u8>> {
        let mut request = self.request(what, Method::GET, url)?;
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        self.answer(what, request).await
    }
}
