//! Manifests and indexes: small documents that are read whole and checked here.

use bytes::Bytes;
use image::{Descriptor, Digest, Digester, MAX_DOCUMENT, MediaType};
use reqwest::Method;
use reqwest::header::{self, HeaderName, HeaderValue};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::auth::{Access, Scope};
use crate::call::{Answer, BodyMode, Call, Endpoint, Payload, RequestTarget};
use crate::inner::ClientInner;
use crate::retry::{Attempts, Retry};
use crate::{Error, Result, Target, wire};

/// What we can read, best first.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

fn call(
    endpoint: &Endpoint,
    method: Method,
    target: &Target,
    access: Access,
    action: &str,
) -> Call {
    let path = format!("/v2/{}/manifests/{target}", endpoint.path());
    let action = format!("{action} manifest {}{}", endpoint.path(), target.suffix());
    Call::new(method, RequestTarget::Path(path), Scope::new(access, endpoint.path()), action)
}

fn malformed(endpoint: &Endpoint, call: &Call, reason: String) -> Error {
    Error::Malformed {
        registry: endpoint.registry().to_owned(),
        action: call.action.clone(),
        reason,
    }
}

/// The digest in a header, if it is one.
fn digest_in(answer: &Answer, name: HeaderName) -> Option<Digest> {
    wire::text(&answer.headers, name)?.parse().ok()
}

/// One HEAD if that says everything; else the document: what GET answers counts.
pub(crate) async fn resolve(
    inner: &ClientInner,
    endpoint: &Endpoint,
    target: &Target,
) -> Result<Descriptor> {
    let heads = &endpoint.host.heads;
    let until = Attempts::new(&inner.options).until();
    if heads.are_bad() {
        return Ok(read(inner, endpoint, target).await?.0);
    }
    let call = call(endpoint, Method::HEAD, target, Access::Pull, "resolving")
        .header(header::ACCEPT, HeaderValue::from_static(ACCEPT))
        .retry(Retry::Limits)
        .until(until);
    let answer = match inner.send(endpoint, &call).await {
        Ok(answer) => answer,
        Err(error) if is_final(endpoint, &error) => return Err(error),
        Err(error) => {
            tracing::debug!(%error, "HEAD was refused");
            let again = Call { until: Some(until), ..reading(endpoint, target) };
            let found = read_by(inner, endpoint, target, again).await?.0;
            heads.learn(false);
            return Ok(found);
        }
    };
    heads.learn(true);
    match described(&answer, target) {
        Some(descriptor) => Ok(descriptor),
        None => Ok(read(inner, endpoint, target).await?.0),
    }
}

/// What the headers of an answer say, if they say all of it.
fn described(answer: &Answer, target: &Target) -> Option<Descriptor> {
    let digest = digest_in(answer, CONTENT_DIGEST)?;
    if matches!(target, Target::Digest(asked) if *asked != digest) {
        return None;
    }
    let size = wire::content_length(&answer.headers)?;
    let kind = wire::content_type(&answer.headers).map(MediaType::from)?;
    let sound = (1..=MAX_DOCUMENT).contains(&size) && kind.is_node();
    sound.then(|| Descriptor::new(kind, digest, size))
}

/// Whether GET would say the same.
fn is_final(endpoint: &Endpoint, error: &Error) -> bool {
    match error {
        Error::Answer { status: 429, .. } => true,
        Error::Answer { status: 404, .. } => endpoint.host.heads.are_good(),
        Error::Answer { .. } | Error::Connection { .. } | Error::Timeout { .. } => false,
        _ => true,
    }
}

/// The manifest of an optional tag: a registry that refuses to answer has no such tag.
///
/// # Errors
/// It cannot be reached, or its answers are none.
pub(crate) async fn probe(
    inner: &ClientInner,
    endpoint: &Endpoint,
    target: &Target,
) -> Result<Option<Descriptor>> {
    if !endpoint.host.heads.are_bad() {
        let call = call(endpoint, Method::HEAD, target, Access::Pull, "looking for")
            .header(header::ACCEPT, HeaderValue::from_static(ACCEPT))
            .retry(Retry::Limits)
            .accept(ABSENT);
        let answer = inner.send(endpoint, &call).await?;
        if !answer.status.is_success() {
            return Ok(None);
        }
        if let Some(descriptor) = described(&answer, target) {
            return Ok(Some(descriptor));
        }
    }
    match read(inner, endpoint, target).await {
        Ok((descriptor, _)) => Ok(Some(descriptor)),
        Err(Error::Answer { status, .. }) if ABSENT.contains(&status) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Answers of registries that have no such tag.
const ABSENT: &[u16] = &[400, 403, 404, 405, 406, 410, 415, 500, 501];

fn reading(endpoint: &Endpoint, target: &Target) -> Call {
    call(endpoint, Method::GET, target, Access::Pull, "reading")
        .header(header::ACCEPT, HeaderValue::from_static(ACCEPT))
        .read(BodyMode::Document(MAX_DOCUMENT))
}

/// The document, its digest checked, its type read from header and body.
pub(crate) async fn read(
    inner: &ClientInner,
    endpoint: &Endpoint,
    target: &Target,
) -> Result<(Descriptor, Bytes)> {
    read_by(inner, endpoint, target, reading(endpoint, target)).await
}

async fn read_by(
    inner: &ClientInner,
    endpoint: &Endpoint,
    target: &Target,
    call: Call,
) -> Result<(Descriptor, Bytes)> {
    let answer = inner.send(endpoint, &call).await?;
    let bytes = answer.body.clone();
    // The header is a promise about a tag's content; asked by digest, the digest is.
    let expected = match target {
        Target::Digest(digest) => Some(*digest),
        Target::Tag(_) => digest_in(&answer, CONTENT_DIGEST),
    };
    let mut digester = Digester::new(expected.map_or(image::Algorithm::Sha256, |d| d.algorithm()));
    digester.update(&bytes);
    let found = digester.finish();
    if let Some(expected) = expected.filter(|expected| *expected != found) {
        return Err(Error::Content {
            registry: endpoint.registry().to_owned(),
            action: call.action,
            source: image::Error::DigestMismatch { expected, found },
        });
    }
    let said = wire::content_type(&answer.headers).map(MediaType::from);
    let kind = media_type(said, &bytes).map_err(|reason| malformed(endpoint, &call, reason))?;
    Ok((Descriptor::new(kind, found, bytes.len() as u64), bytes))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<IgnoredAny>,
    #[serde(default)]
    layers: Option<IgnoredAny>,
    #[serde(default)]
    config: Option<IgnoredAny>,
    #[serde(default)]
    fs_layers: Option<IgnoredAny>,
}

/// The type of a document, from the response header and its own field. If both name a manifest
/// type, they must agree (CVE-2021-41190).
fn media_type(said: Option<MediaType>, bytes: &[u8]) -> Result<MediaType, String> {
    let shape: Shape = serde_json::from_slice(bytes)
        .map_err(|error| format!("the manifest is malformed JSON ({error})"))?;
    let inside = shape.media_type.filter(|kind| !kind.is_empty()).map(MediaType::from);
    let specific =
        said.filter(|kind| kind.is_node() || kind.as_str().starts_with("application/vnd."));
    match (specific, inside) {
        (Some(said), Some(inside)) if said != inside => Err(format!(
            "the manifest is sent as {} and calls itself {}",
            wire::printable(said.as_str()),
            wire::printable(inside.as_str())
        )),
        (Some(kind), _) | (None, Some(kind)) => Ok(kind),
        (None, None) => match (shape.manifests, shape.config.and(shape.layers), shape.fs_layers) {
            (Some(_), None, None) => Ok(MediaType::OCI_INDEX),
            (None, Some(_), None) => Ok(MediaType::OCI_MANIFEST),
            (None, None, Some(_)) => Ok(MediaType::DOCKER_V1_SIGNED),
            _ => Err("neither a manifest nor an index".to_owned()),
        },
    }
}

/// Writes a document; the digest it was registered as a referrer of.
pub(crate) async fn write(
    inner: &ClientInner,
    endpoint: &Endpoint,
    target: &Target,
    media_type: &MediaType,
    bytes: Bytes,
) -> Result<Option<Digest>> {
    let call = call(endpoint, Method::PUT, target, Access::Push, "writing");
    let kind = HeaderValue::from_str(media_type.as_str()).map_err(|_| Error::Configuration {
        action: call.action.clone(),
        reason: format!("{:?} is not a media type", media_type.as_str()),
    })?;
    let call = call.header(header::CONTENT_TYPE, kind).payload(Payload::Bytes(bytes.clone()));
    let answer = inner.send(endpoint, &call).await?;
    if !matches!(answer.status.as_u16(), 200..=202 | 204) {
        return Err(malformed(endpoint, &call, format!("it answered {}", answer.status.as_u16())));
    }
    if let Some(said) = digest_in(&answer, CONTENT_DIGEST) {
        let mut digester = Digester::new(said.algorithm());
        digester.update(&bytes);
        let sent = digester.finish();
        if said != sent {
            return Err(malformed(endpoint, &call, format!("it stored {said} instead of {sent}")));
        }
    }
    Ok(digest_in(&answer, SUBJECT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_and_body_agree_or_one_of_them_speaks() {
        let index = Some(MediaType::OCI_INDEX);
        let manifest = Some(MediaType::OCI_MANIFEST);
        let text = Some(MediaType::from("text/plain"));
        let saying =
            |kind: &MediaType| format!(r#"{{"mediaType":"{kind}","config":{{}},"layers":[]}}"#);
        for (said, body, expected) in [
            (manifest.clone(), saying(&MediaType::OCI_MANIFEST), manifest.clone()),
            (text.clone(), saying(&MediaType::OCI_MANIFEST), manifest.clone()),
            (None, saying(&MediaType::OCI_MANIFEST), manifest.clone()),
            (index.clone(), saying(&MediaType::OCI_MANIFEST), None),
            (manifest.clone(), r#"{"config":{},"layers":[]}"#.into(), manifest.clone()),
            (text.clone(), r#"{"config":{},"layers":[]}"#.into(), manifest),
            (text.clone(), r#"{"manifests":[]}"#.into(), index),
            (text.clone(), r#"{"manifests":[],"config":{},"layers":[]}"#.into(), None),
            (text.clone(), "{}".into(), None),
            (text.clone(), "<html>".into(), None),
            (text, r#"{"fsLayers":[]}"#.into(), Some(MediaType::DOCKER_V1_SIGNED)),
        ] {
            assert_eq!(media_type(said, body.as_bytes()).ok(), expected, "{body}");
        }
    }
}
