//! The registry as clients see it, over HTTP.

#![allow(clippy::unwrap_used, reason = "tests")]

mod access;
mod cache;
mod collection;
mod conformance;
mod limits;
mod reload;

use std::path::Path;

use image::Digest;
use registry_server::{Options, Registry};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

/// A client of one registry.
#[derive(Clone)]
pub(crate) struct Http {
    client: reqwest::Client,
    url: String,
    authorization: Option<String>,
}

impl Http {
    pub(crate) fn new(url: impl Into<String>) -> Http {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Http { client, url: url.into(), authorization: None }
    }

    pub(crate) fn of(registry: &Registry) -> Http {
        Http::new(registry.url())
    }

    pub(crate) fn authorized(&self, value: &str) -> Http {
        Http { authorization: Some(value.to_owned()), ..self.clone() }
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Response {
        let url = if path.starts_with('/') { format!("{}{path}", self.url) } else { path.into() };
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self.client.request(method, url).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(value) = &self.authorization {
            request = request.header("authorization", value);
        }
        request.send().await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.send("GET", path, &[], "").await
    }

    /// Pushes a blob in one request.
    pub(crate) async fn blob(&self, name: &str, bytes: &[u8]) -> StatusCode {
        let digest = Digest::of(bytes);
        let path = format!("/v2/{name}/blobs/uploads/?digest={digest}");
        self.send("POST", &path, &[], bytes.to_vec()).await.status()
    }

    pub(crate) async fn manifest(&self, name: &str, reference: &str, body: &Value) -> Response {
        let path = format!("/v2/{name}/manifests/{reference}");
        let kind = body["mediaType"].as_str().unwrap();
        self.send("PUT", &path, &[("content-type", kind)], body.to_string()).await
    }
}

pub(crate) fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

/// The JSON of an answer.
pub(crate) async fn parsed(response: Response) -> Value {
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

/// The code of an error answer.
pub(crate) async fn code(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let bytes = response.bytes().await.unwrap();
    let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    (status, body["errors"][0]["code"].as_str().unwrap_or_default().to_owned())
}

pub(crate) const CONFIG: &[u8] = b"{}";

/// An image of these layers.
pub(crate) fn image_of(layers: &[&[u8]]) -> Value {
    let describe = |kind: &str, bytes: &[u8]| json!({ "mediaType": kind, "digest": Digest::of(bytes), "size": bytes.len() });
    let layers: Vec<_> = layers
        .iter()
        .map(|layer| describe("application/vnd.oci.image.layer.v1.tar", layer))
        .collect();
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": describe("application/vnd.oci.image.config.v1+json", CONFIG),
        "layers": layers,
    })
}

pub(crate) fn digest_of(document: &Value) -> Digest {
    Digest::of(document.to_string().as_bytes())
}

pub(crate) fn in_directory(directory: &Path) -> Options {
    Options { directory: Some(directory.to_owned()), ..Options::default() }
}
