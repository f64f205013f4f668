//! Manifests and indexes: small documents that are read whole and checked here.

use bytes::Bytes;
use image::{Descriptor, Digest, Digester, MAX_DOCUMENT, MediaType};
use reqwest::Method;
use reqwest::header::{self, HeaderName, HeaderValue};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::auth::{Access, Scope};
use crate::client::Inner;
use crate::repo::{Target, named};
use crate::request::{Answer, Call, Endpoint, Payload, Read, Where};
use crate::{Error, Result, wire};

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
    let action = format!("{action} manifest {}", named(endpoint, target));
    Call::new(method, Where::Path(path), Scope::new(access, endpoint.path()), action)
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
    wire::text(&answer.headers, name).and_then(|text| text.parse().ok())
}

/// One HEAD if that says everything; else the document.
pub(crate) async fn resolve(
    inner: &Inner,
    endpoint: &Endpoint,
    target: &Target,
) -> Result<Descriptor> {
    let call = call(endpoint, Method::HEAD, target, Access::Pull, "resolving")
        .header(header::ACCEPT, HeaderValue::from_static(ACCEPT))
        .accept(&[400, 405, 406, 415, 501]);
    let answer = inner.send(endpoint, &call).await?;
    let digest = digest_in(&answer, CONTENT_DIGEST);
    let size =
        wire::content_length(&answer.headers).filter(|size| (1..=MAX_DOCUMENT).contains(size));
    let kind = wire::content_type(&answer.headers).map(MediaType::from).filter(MediaType::is_node);
    let asked = match target {
        Target::Digest(asked) => digest.is_none_or(|digest| digest == *asked),
        Target::Tag(_) => true,
    };
    match (digest, size, kind) {
        (Some(digest), Some(size), Some(kind)) if asked && answer.status.is_success() => {
            Ok(Descriptor::new(kind, digest, size))
        }
        _ => Ok(read(inner, endpoint, target).await?.0),
    }
}

/// The document, its digest checked, its type read from header and body.
pub(crate) async fn read(
    inner: &Inner,
    endpoint: &Endpoint,
    target: &Target,
) -> Result<(Descriptor, Bytes)> {
    let call = call(endpoint, Method::GET, target, Access::Pull, "reading")
        .header(header::ACCEPT, HeaderValue::from_static(ACCEPT))
        .read(Read::Document(MAX_DOCUMENT));
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

/// What a document is, by what its answer's header says and what it says of itself. Where both
/// name a manifest type they must agree (CVE-2021-41190).
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
    inner: &Inner,
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
