//! Manifests, and the lists made of them: tags, referrers, the catalog.

use hyper::Method;
use hyper::header;
use image::{Descriptor, Digest, Digester, Index, Manifest, MediaType};
use serde_json::{Value, json};

use crate::answer::{Answer, Bytestream, With, answer, error, json, set_length, trouble};
use crate::blobs::sweep;
use crate::server::{Call, Shared};
use crate::state::Entry;

/// The most of a list that is sent at once.
const PAGE: usize = 10_000;

/// What is remembered of a manifest.
pub(crate) fn entry(media_type: &MediaType, digest: Digest, bytes: &[u8]) -> Entry {
    let document: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let subject = text(&document["subject"]["digest"]).and_then(|digest| digest.parse().ok());
    let mut referrer = Descriptor::new(media_type.clone(), digest, bytes.len() as u64);
    referrer.artifact_type =
        text(&document["artifactType"]).or_else(|| text(&document["config"]["mediaType"]));
    if let Ok(annotations) = serde_json::from_value(document["annotations"].clone()) {
        referrer.annotations = annotations;
    }
    Entry { media_type: media_type.to_string(), subject, referrer }
}

pub(crate) async fn manifest(
    shared: &Shared,
    call: &mut Call,
    name: &str,
    reference: &str,
) -> Answer {
    match call.method {
        Method::GET | Method::HEAD => get(shared, call, name, reference),
        Method::PUT => put(shared, call, name, reference).await,
        Method::DELETE if shared.options.keep => {
            error(405, "UNSUPPORTED", "nothing is deleted here")
        }
        Method::DELETE => delete(shared, name, reference),
        _ => error(405, "UNSUPPORTED", "not a method for manifests"),
    }
}

fn unknown() -> Answer {
    error(404, "MANIFEST_UNKNOWN", "no such manifest in this repository")
}

fn get(shared: &Shared, call: &Call, name: &str, reference: &str) -> Answer {
    let found = shared.read(name, |repository| {
        let digest = match reference.parse::<Digest>() {
            Ok(digest) => digest,
            Err(_) => *repository.tags.get(reference)?,
        };
        Some((digest, repository.manifests.get(&digest)?.media_type.clone()))
    });
    let Some((digest, media_type)) = found.flatten() else { return unknown() };
    let bytes = match shared.bytes(digest) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return unknown(),
        Err(error) => return trouble(&error),
    };
    let mut answer = answer(200)
        .with("content-type", media_type)
        .with("docker-content-digest", digest.to_string())
        .with("etag", format!("\"{digest}\""));
    if call.method == Method::HEAD {
        set_length(&mut answer, bytes.len() as u64);
    } else {
        *answer.body_mut() = Bytestream::bytes(bytes);
    }
    answer
}

async fn put(shared: &Shared, call: &mut Call, name: &str, reference: &str) -> Answer {
    let Some(bytes) = call.collect(image::MAX_DOCUMENT as usize).await else {
        return error(413, "SIZE_INVALID", "a manifest of more than 4 MiB");
    };
    let invalid = |reason: &str| error(400, "MANIFEST_INVALID", reason);
    let said = call.header(header::CONTENT_TYPE).unwrap_or_default();
    let media_type = said.split(';').next().unwrap_or_default().trim().to_owned();
    let Ok(document) = serde_json::from_slice::<Value>(&bytes) else {
        return invalid("not JSON");
    };
    if document["mediaType"].as_str().is_some_and(|inside| inside != media_type) {
        return invalid("it has another media type than its content type");
    }
    let media_type = MediaType::from(media_type);
    if let Err(refusal) = children(shared, name, &media_type, &bytes) {
        return refusal;
    }
    let wanted = reference.parse::<Digest>();
    let mut digester =
        Digester::new(wanted.as_ref().map_or(image::Algorithm::Sha256, Digest::algorithm));
    digester.update(&bytes);
    let digest = digester.finish();
    match &wanted {
        Ok(wanted) if *wanted != digest => {
            return error(400, "DIGEST_INVALID", &format!("the bytes are {digest}"));
        }
        Err(_) if reference.parse::<image::Tag>().is_err() => {
            return error(400, "TAG_INVALID", "neither a tag nor a digest");
        }
        _ => {}
    }
    let entry = entry(&media_type, digest, &bytes);
    let subject = entry.subject;
    let kept = shared.insert(digest, &bytes).and_then(|()| {
        shared.change(name, |repository| {
            repository.manifests.insert(digest, entry);
            if wanted.is_err() {
                repository.tags.insert(reference.to_owned(), digest);
            }
        })
    });
    if let Err(error) = kept {
        return trouble(&error);
    }
    let answer = answer(201)
        .with("location", format!("/v2/{name}/manifests/{digest}"))
        .with("docker-content-digest", digest.to_string());
    match subject {
        Some(subject) => answer.with("oci-subject", subject.to_string()),
        None => answer,
    }
}

/// Refuses a manifest whose parts are not there.
fn children(shared: &Shared, name: &str, kind: &MediaType, bytes: &[u8]) -> Result<(), Answer> {
    let invalid = |reason: String| error(400, "MANIFEST_INVALID", &reason);
    if kind.is_index() {
        let index: Index =
            serde_json::from_slice(bytes).map_err(|error| invalid(error.to_string()))?;
        let missing = |repository: &crate::state::Repository| {
            let mut children = index.manifests.iter();
            children.find(|child| !repository.manifests.contains_key(&child.digest)).cloned()
        };
        let missing = match shared.read(name, missing) {
            Some(missing) => missing,
            None => index.manifests.first().cloned(),
        };
        // A referrers list may speak of manifests elsewhere; a registry need not insist.
        return match missing {
            Some(child) if child.artifact_type.is_none() => {
                Err(error(404, "MANIFEST_UNKNOWN", &child.digest.to_string()))
            }
            _ => Ok(()),
        };
    }
    if !kind.is_manifest() {
        return Ok(());
    }
    let manifest: Manifest =
        serde_json::from_slice(bytes).map_err(|error| invalid(error.to_string()))?;
    let elsewhere = |child: &Descriptor| {
        let kind = child.media_type.as_str();
        kind.contains("nondistributable") || kind.contains(".foreign.")
    };
    for child in std::iter::once(&manifest.config).chain(&manifest.layers) {
        let there = shared.read(name, |repository| repository.blobs.contains(&child.digest));
        if there != Some(true) && !elsewhere(child) {
            return Err(error(404, "MANIFEST_BLOB_UNKNOWN", &child.digest.to_string()));
        }
    }
    Ok(())
}

fn delete(shared: &Shared, name: &str, reference: &str) -> Answer {
    let digest = reference.parse::<Digest>().ok();
    if shared.read(name, |_| ()).is_none() {
        return unknown();
    }
    let removed = shared.change(name, |repository| match digest {
        None => repository.tags.remove(reference).is_some(),
        Some(digest) => {
            repository.tags.retain(|_, tagged| *tagged != digest);
            repository.manifests.remove(&digest).is_some()
        }
    });
    match (removed, digest) {
        (Ok(false), _) => unknown(),
        (Ok(true), None) => answer(202),
        (Ok(true), Some(digest)) => {
            sweep(shared, digest).map_or_else(|error| trouble(&error), |()| answer(202))
        }
        (Err(error), _) => trouble(&error),
    }
}

/// One page of sorted names, and the query of the next.
fn page(call: &Call, names: Vec<String>) -> (Vec<String>, Option<String>) {
    let last = call.parameter("last").unwrap_or_default();
    let n = call.parameter("n").and_then(|n| n.parse::<usize>().ok());
    let count = n.unwrap_or(PAGE).min(PAGE);
    let mut rest = names.into_iter().filter(|name| last.is_empty() || name.as_str() > last);
    let page: Vec<String> = rest.by_ref().take(count).collect();
    let next = rest.next().and(page.last()).map(|last| format!("n={count}&last={last}"));
    (page, next)
}

pub(crate) fn tags(shared: &Shared, call: &Call, name: &str) -> Answer {
    let Some(tags) = shared.read(name, |repository| repository.tags.keys().cloned().collect())
    else {
        return error(404, "NAME_UNKNOWN", "no such repository");
    };
    let (tags, next) = page(call, tags);
    let answer = json(200, &json!({ "name": name, "tags": tags }));
    match next {
        Some(next) => answer.with("link", format!("</v2/{name}/tags/list?{next}>; rel=\"next\"")),
        None => answer,
    }
}

pub(crate) fn catalog(shared: &Shared, call: &Call) -> Answer {
    let names = shared.repositories.lock().keys().cloned().collect();
    let (names, next) = page(call, names);
    let answer = json(200, &json!({ "repositories": names }));
    match next {
        Some(next) => answer.with("link", format!("</v2/_catalog?{next}>; rel=\"next\"")),
        None => answer,
    }
}

pub(crate) fn referrers(shared: &Shared, call: &Call, name: &str, digest: &str) -> Answer {
    let Ok(subject) = digest.parse::<Digest>() else {
        return error(400, "DIGEST_INVALID", "not a digest");
    };
    let kind = call.parameter("artifactType");
    let found = shared.read(name, |repository| {
        let entries = repository.manifests.values().filter(|entry| entry.subject == Some(subject));
        let referrers = entries.map(|entry| entry.referrer.clone());
        let fits = |r: &Descriptor| kind.is_none() || r.artifact_type.as_deref() == kind;
        referrers.filter(fits).collect::<Vec<_>>()
    });
    let index = Index::new(found.unwrap_or_default());
    let answer = json(200, &json!(index)).with("content-type", MediaType::OCI_INDEX.as_str());
    match kind {
        Some(_) => answer.with("oci-filters-applied", "artifactType"),
        None => answer,
    }
}
