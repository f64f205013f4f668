//! Manifests: read, taken in when they are whole, deleted.

use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::Method;
use hyper::header;
use image::{Digest, Digester, MediaType};
use serde_json::{Value, json};

use super::answer::{
    Answer, HandlerResult, HeaderExt, ResponseBody, answer, busy, detailed, error, set_length,
};
use super::call::Call;
use crate::content::parts;
use crate::content::protocol::{Child, KeepOutcome};
use crate::content::{Entry, TaggedManifest};
use crate::inner::RegistryInner;
use crate::keys;
use crate::quota::Claim;
use crate::storage::{WriteCondition, whole};

/// A pull of a tag is written down at most so often.
const PULLS: Duration = Duration::from_secs(3600);
/// Tags one request can set.
const TAGS: usize = 32;

pub(crate) async fn manifest(
    shared: &RegistryInner,
    call: &mut Call,
    name: &str,
    reference: &str,
) -> HandlerResult {
    match call.method {
        Method::GET | Method::HEAD => get(shared, call, name, reference).await,
        Method::PUT => put(shared, call, name, reference).await,
        Method::DELETE if shared.options.keep => {
            Err(error(405, "UNSUPPORTED", "nothing is deleted here").into())
        }
        Method::DELETE => delete(shared, name, reference).await,
        _ => Err(error(405, "UNSUPPORTED", "not a method for manifests").into()),
    }
}

async fn unknown(shared: &RegistryInner, name: &str, reference: &str) -> std::io::Result<Answer> {
    if !shared.content.is_repository(name).await? {
        return Ok(error(404, "NAME_UNKNOWN", &format!("there is no repository {name}")));
    }
    let what = if reference.parse::<Digest>().is_ok() { "manifest" } else { "tag" };
    let message = format!("there is no {what} {reference} in the repository {name}");
    Ok(error(404, "MANIFEST_UNKNOWN", &message))
}

/// The manifest of a reference.
async fn found(
    shared: &RegistryInner,
    name: &str,
    reference: &str,
) -> std::io::Result<Option<TaggedManifest>> {
    match reference.parse::<Digest>() {
        Ok(digest) => Ok(shared.content.entry(name, digest).await?.map(|entry| TaggedManifest {
            digest,
            media_type: entry.descriptor.media_type.to_string(),
            size: entry.descriptor.size,
        })),
        Err(_) if reference.parse::<image::Tag>().is_err() => Ok(None),
        Err(_) => shared.content.tag(name, reference).await,
    }
}

async fn get(shared: &RegistryInner, call: &Call, name: &str, reference: &str) -> HandlerResult {
    if let Some(upstream) = shared.upstreams.of(name)
        && let Some(failed) = shared.upstreams.manifest(&upstream, name, reference).await?
    {
        return Err(failed.into());
    }
    let Some(tagged) = found(shared, name, reference).await? else {
        return Err(unknown(shared, name, reference).await?.into());
    };
    let digest = tagged.digest;
    let mut answer = answer(200)
        .with("content-type", &tagged.media_type)
        .with("docker-content-digest", digest.to_string())
        .with("etag", format!("\"{digest}\""));
    if call.method == Method::HEAD {
        match shared.content.keep(name, digest).await? {
            KeepOutcome::Yes => {}
            KeepOutcome::Missing(_) => return Err(unknown(shared, name, reference).await?.into()),
            KeepOutcome::Busy => return Err(busy().into()),
        }
        set_length(&mut answer, tagged.size);
        return Ok(answer);
    }
    let key = keys::blob(digest);
    let limit = image::MAX_DOCUMENT;
    let Some(bytes) = whole(shared.content.storage.as_ref(), &key, limit).await? else {
        return Err(unknown(shared, name, reference).await?.into());
    };
    if reference.parse::<Digest>().is_err() {
        pulled(shared, name, reference).await?;
    }
    *answer.body_mut() = ResponseBody::bytes(bytes);
    Ok(answer)
}

/// Writes down that a tag is pulled, where retention asks for it.
async fn pulled(shared: &RegistryInner, name: &str, tag: &str) -> std::io::Result<()> {
    if !crate::retention::counts_pulls(&shared.rules().retention, name) {
        return Ok(());
    }
    let key = keys::pull(name, tag);
    {
        let mut pulls = shared.pulls.lock();
        pulls.retain(|_, at| at.elapsed() < PULLS);
        if pulls.contains_key(&key) {
            return Ok(());
        }
        pulls.insert(key.clone(), Instant::now());
    }
    shared.content.storage.put(&key, Bytes::new(), WriteCondition::Always).await.map(drop)
}

async fn put(
    shared: &RegistryInner,
    call: &mut Call,
    name: &str,
    reference: &str,
) -> HandlerResult {
    if shared.upstreams.of(name).is_some() {
        return Err(error(405, "UNSUPPORTED", "this is a cache, it accepts no pushes").into());
    }
    let Some(bytes) = call.collect(image::MAX_DOCUMENT as usize).await else {
        return Err(error(413, "SIZE_INVALID", "a manifest of more than 4 MiB").into());
    };
    let media_type = media_type(call, &bytes)?;
    let lax = is_referrers_tag(reference);
    let children = parts::required(&media_type, &bytes, lax)
        .map_err(|reason| error(400, "MANIFEST_INVALID", &reason))?;
    let wanted = reference.parse::<Digest>().ok();
    let mut digester = Digester::new(wanted.map_or(image::Algorithm::Sha256, |w| w.algorithm()));
    digester.update(&bytes);
    let digest = digester.finish();
    let mut tags: Vec<String> = Vec::new();
    match wanted {
        Some(wanted) if wanted != digest => {
            return Err(error(400, "DIGEST_INVALID", &format!("the bytes are {digest}")).into());
        }
        Some(_) => tags.extend(call.parameters("tag").map(str::to_owned)),
        None => tags.push(reference.to_owned()),
    }
    if tags.iter().any(|tag| tag.parse::<image::Tag>().is_err()) {
        return Err(error(400, "TAG_INVALID", "neither a tag nor a digest").into());
    }
    if tags.len() > TAGS {
        return Err(error(414, "TAG_INVALID", "too many tags at once").into());
    }
    let content = &shared.content;
    for tag in tags.iter().filter(|tag| shared.immutable(name, tag)) {
        let there = content.tag(name, tag).await?;
        if there.is_some_and(|there| there.digest != digest) {
            return Err(stays(tag).into());
        }
    }
    let entry = Entry::of(&media_type, digest, &bytes);
    let claim = Claim::Content { digest, bytes: bytes.len() as u64, session: None };
    shared.room(name, claim).await?;
    match content.put_manifest(name, &entry, &children, &bytes).await? {
        KeepOutcome::Yes => {}
        KeepOutcome::Busy => return Err(busy().into()),
        KeepOutcome::Missing(missing) => return Err(lacks(&children, missing).into()),
    }
    for tag in &tags {
        let immutable = shared.immutable(name, tag);
        if !content.set_tag(name, tag, &entry.descriptor, immutable).await? {
            return Err(stays(tag).into());
        }
    }
    let mut answer = answer(201)
        .with("location", format!("/v2/{name}/manifests/{digest}"))
        .with("docker-content-digest", digest.to_string());
    if let (Some(_), false) = (wanted, tags.is_empty()) {
        for tag in &tags {
            if let Ok(value) = header::HeaderValue::from_str(tag) {
                answer.headers_mut().append("oci-tag", value);
            }
        }
    }
    shared.notices.tell("push", name, &tags, &digest.to_string());
    Ok(match entry.subject {
        Some(subject) => answer.with("oci-subject", subject.to_string()),
        None => answer,
    })
}

fn stays(tag: &str) -> Answer {
    error(409, "DENIED", &format!("the tag {tag} is immutable and refers to another manifest"))
}

fn lacks(children: &[Child<Digest>], missing: Digest) -> Answer {
    let manifest = children.iter().any(|child| child.id == missing && child.manifest);
    let code = if manifest { "MANIFEST_UNKNOWN" } else { "MANIFEST_BLOB_UNKNOWN" };
    let message = format!("{missing} is not in this repository");
    detailed(404, code, &message, &json!({ "digest": missing }))
}

/// The type of a manifest: from the header, and from its own field.
fn media_type(call: &Call, bytes: &[u8]) -> Result<MediaType, Answer> {
    let invalid = |reason: &str| error(400, "MANIFEST_INVALID", reason);
    let said = call.header(header::CONTENT_TYPE).unwrap_or_default();
    let said = said.split(';').next().unwrap_or_default().trim();
    let document: Value = serde_json::from_slice(bytes).map_err(|_| invalid("not JSON"))?;
    if !document.is_object() {
        return Err(invalid("not a JSON object"));
    }
    match document["mediaType"].as_str() {
        Some(inside) if said.is_empty() => Ok(MediaType::from(inside.to_owned())),
        Some(inside) if inside != said => {
            Err(invalid("it has another media type than its content type"))
        }
        None if said.is_empty() => Err(invalid("it comes without a content type")),
        // One document cannot be both (CVE-2021-41190).
        _ if document.get("manifests").is_some() && document.get("layers").is_some() => {
            Err(invalid("it is both an index and a manifest"))
        }
        _ => Ok(MediaType::from(said.to_owned())),
    }
}

/// Whether a tag is one under which clients keep the referrers of a digest where a registry has no
/// referrers API (distribution-spec, "referrers tag schema").
fn is_referrers_tag(tag: &str) -> bool {
    tag.split_once('-')
        .is_some_and(|(algorithm, hex)| format!("{algorithm}:{hex}").parse::<Digest>().is_ok())
}

async fn delete(shared: &RegistryInner, name: &str, reference: &str) -> HandlerResult {
    let content = &shared.content;
    let digest = reference.parse::<Digest>().ok();
    if digest.is_none() && shared.immutable(name, reference) {
        let message = format!("the tag {reference} is immutable");
        return Err(error(405, "UNSUPPORTED", &message).into());
    }
    let mut tags = vec![reference.to_owned()];
    if let Some(digest) = digest {
        shared.unheld(name, digest).await?;
        tags = match shared.rules().webhooks.is_empty() {
            true => Vec::new(),
            false => content.tags_of(name, digest).await?,
        };
    }
    let deleted = match digest {
        Some(digest) => content.delete_manifest(name, digest).await?,
        None if reference.parse::<image::Tag>().is_err() => false,
        None => content.delete_tag(name, reference).await?,
    };
    match deleted {
        true => {
            shared.notices.tell("delete", name, &tags, reference);
            Ok(answer(202))
        }
        false => Err(unknown(shared, name, reference).await?.into()),
    }
}
