//! What refers to a manifest: the referrers API, and the tag that stands in for it
//! (distribution-spec, "Listing Referrers", "Referrers Tag Schema").

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use image::{Descriptor, Digest, Document, Index, Manifest, MediaType, Node};
use reqwest::Method;
use reqwest::header::{ACCEPT, HeaderValue};
use task::{Fault, Kind};
use tokio::time::Instant;

use crate::auth::{Access, Scope};
use crate::call::{Call, Endpoint, RequestTarget};
use crate::inner::ClientInner;
use crate::pages::Pages;
use crate::repo::Repo;
use crate::retry::jittered;
use crate::{Error, Result, Target, wire};

/// Referrers of one manifest that are read.
const MOST: usize = 100_000;
/// How often the fallback tag is written and looked at until a change lasts.
const ROUNDS: usize = 24;
/// How often a change is looked for before it counts as lasting.
const LOOKS: usize = 2;
/// The least pause before a look.
const BETWEEN: Duration = Duration::from_millis(90);
/// The pause is this many times as long as it took us to read the tag and to write it: on a busy
/// machine or registry the others, who may have read before us, are slow as well.
const SLOWER: u32 = 4;
/// No pause is longer.
const LONGEST: Duration = Duration::from_secs(2);

/// The most entries without types that are read, and how many at a time.
const UNTYPED: usize = 256;
const READS: usize = 8;

/// From the API; `None` where there is none that works.
///
/// # Errors
/// The registry cannot be reached or wants to be left alone.
pub(crate) async fn listed(
    inner: &ClientInner,
    endpoint: &Endpoint,
    subject: Digest,
    artifact_type: Option<&str>,
) -> Result<Option<Vec<Descriptor>>> {
    if endpoint.host.is_without_referrers(endpoint.path()) {
        return Ok(None);
    }
    match pages(inner, endpoint, subject, artifact_type).await {
        Ok(Some(found)) => Ok(Some(found)),
        Ok(None) => {
            endpoint.host.without_referrers(endpoint.path());
            Ok(None)
        }
        // A registry that has listed referrers has the API, and this is a failure of it.
        Err(error) if tells_nothing(&error) && !endpoint.host.refers.load(Ordering::Relaxed) => {
            let registry = endpoint.registry();
            tracing::debug!(%error, registry, "there is no referrers API");
            if !matches!(error, Error::Answer { status: 400 | 404 | 405 | 406 | 501, .. }) {
                inner.warn(&format!("{error}; its referrers API is not used"));
            }
            endpoint.host.without_referrers(endpoint.path());
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Whether a failure is a registry's way to say that it has no such thing.
fn tells_nothing(error: &Error) -> bool {
    match error {
        Error::Answer { status, .. } => *status != 429,
        Error::Malformed { .. } | Error::Denied { .. } => true,
        _ => false,
    }
}

async fn pages(
    inner: &ClientInner,
    endpoint: &Endpoint,
    subject: Digest,
    artifact_type: Option<&str>,
) -> Result<Option<Vec<Descriptor>>> {
    let query = artifact_type.map(|kind| {
        let mut query = url::form_urlencoded::Serializer::new(String::from("?"));
        query.append_pair("artifactType", kind).finish()
    });
    let path = format!("/v2/{}/referrers/{subject}{}", endpoint.path(), query.unwrap_or_default());
    let call = Call::new(
        Method::GET,
        RequestTarget::Path(path),
        Scope::new(Access::Pull, endpoint.path()),
        format!("listing the referrers of {}@{subject}", endpoint.path()),
    );
    let call =
        call.header(ACCEPT, HeaderValue::from_static("application/vnd.oci.image.index.v1+json"));
    let mut pages = Pages::new(inner, endpoint, call);
    let mut referrers = Vec::new();
    let mut seen = HashSet::new();
    while let Some(answer) = pages.next().await? {
        if wire::content_type(&answer.headers).is_some_and(|kind| kind == "text/html") {
            return Ok(None);
        }
        let page: Index = pages.parse(&answer)?;
        endpoint.host.refers.store(true, Ordering::Relaxed);
        let before = referrers.len();
        let new = page.manifests.into_iter().filter(|referrer| seen.insert(referrer.digest));
        referrers.extend(new);
        pages.brought(referrers.len() - before)?;
        if referrers.len() > MOST {
            return Err(Error::Malformed {
                registry: endpoint.registry().to_owned(),
                action: format!("listing the referrers of {subject}"),
                reason: format!("more than {MOST} of them"),
            });
        }
    }
    Ok(Some(referrers))
}

/// The list under the fallback tag, for reading: entries have their types; a malformed list gives a
/// warning and is skipped.
///
/// # Errors
/// The registry cannot be reached or wants to be left alone.
pub(crate) async fn tagged_or_none(repo: &Repo, subject: Digest) -> Result<Vec<Descriptor>> {
    match tagged(repo, subject).await {
        Ok(index) => {
            let entries = index.map(|index| index.manifests).unwrap_or_default();
            Ok(typed(repo, entries).await)
        }
        Err(error) if tells_nothing(&error) => {
            repo.warn(&format!("{error}; assuming that there are no referrers"));
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

/// Older clients write lists whose entries have no type, or that of their config: it is read from
/// the manifests.
async fn typed(repo: &Repo, entries: Vec<Descriptor>) -> Vec<Descriptor> {
    let each = entries.into_iter().enumerate().map(|(at, entry)| async move {
        let doubtful = entry.artifact_type.as_deref().is_none_or(is_of_config);
        if at >= UNTYPED || !doubtful || !entry.media_type.is_manifest() {
            return entry;
        }
        match repo.manifest(&Target::Digest(entry.digest)).await {
            Ok((found, bytes)) => with_type(entry, found, bytes),
            Err(_) => entry,
        }
    });
    let each = each.collect::<Vec<_>>();
    stream::iter(each).buffered(READS).collect().await
}

fn is_of_config(artifact_type: &str) -> bool {
    artifact_type.ends_with("config.v1+json") || artifact_type == MediaType::OCI_EMPTY.as_str()
}

fn with_type(entry: Descriptor, found: Descriptor, bytes: Bytes) -> Descriptor {
    let Ok(manifest) = Document::<Manifest>::read(found, bytes) else { return entry };
    let config = || manifest.config.media_type.to_string();
    let annotations = match entry.annotations.is_empty() {
        true => manifest.annotations.clone(),
        false => entry.annotations.clone(),
    };
    let artifact_type = Some(manifest.artifact_type.clone().unwrap_or_else(config));
    Descriptor { artifact_type, annotations, ..entry }
}

/// What a manifest or index refers to.
pub(crate) fn subject_of(descriptor: Descriptor, bytes: Bytes) -> Option<Digest> {
    let node = Node::read(descriptor, bytes).ok()?;
    node.subject().map(|subject| subject.digest)
}

/// The tag that stands in for the API.
pub(crate) fn fallback_tag(subject: Digest) -> Result<Target> {
    let hex: String = subject.hex().chars().take(64).collect();
    let text = format!("{}-{hex}", subject.algorithm().as_str());
    text.parse().map(Target::Tag).map_err(|error: image::Error| Error::Configuration {
        action: format!("naming the referrers of {subject}"),
        reason: error.to_string(),
    })
}

/// From the fallback tag: the index as it is, if there is one.
pub(crate) async fn tagged(repo: &Repo, subject: Digest) -> Result<Option<Index>> {
    let (descriptor, bytes) = match repo.manifest(&fallback_tag(subject)?).await {
        Ok(found) => found,
        Err(error) if error.kind() == Kind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let malformed = |reason: String| Error::Malformed {
        registry: repo.repository().registry().to_owned(),
        action: format!("reading the referrers of {subject} from their tag"),
        reason,
    };
    if descriptor.digest == subject {
        return Err(malformed("the tag is that of the image itself".to_owned()));
    }
    if !descriptor.media_type.is_index() {
        return Err(malformed(format!("it is a {}, not an index", descriptor.media_type)));
    }
    let index = Document::<Index>::read(descriptor, bytes);
    Ok(Some(index.map_err(|error| malformed(error.to_string()))?.into_value()))
}

/// Changes the fallback tag and looks whether the change lasts: the tag has no lock, so another
/// writer may have read it before and write it after.
pub(crate) async fn update(
    repo: &Repo,
    subject: Digest,
    change: impl Fn(&mut Vec<Descriptor>) -> bool,
) -> Result<()> {
    let (mut looks, mut slowest) = (0, Duration::ZERO);
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let mut index = tagged(repo, subject)
            .await?
            .unwrap_or_else(|| Index { rest: BTreeMap::new(), ..Index::new(Vec::new()) });
        if change(&mut index.manifests) {
            let document = Document::write(MediaType::OCI_INDEX, index);
            let bytes = Bytes::clone(document.bytes());
            repo.put_manifest(&fallback_tag(subject)?, &MediaType::OCI_INDEX, bytes).await?;
            looks = LOOKS;
        } else if looks == 0 {
            return Ok(());
        } else {
            looks -= 1;
        }
        slowest = slowest.max(began.elapsed());
        tokio::time::sleep(jittered((slowest * SLOWER).clamp(BETWEEN, LONGEST))).await;
    }
    Err(Error::Interrupted {
        registry: repo.repository().registry().to_owned(),
        action: format!("updating the referrers tag of {subject}"),
        reason: "took the change, but others keep replacing it".into(),
        source: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fallback_tag_fits_a_tag() {
        let target = fallback_tag(Digest::of(b"x")).unwrap();
        assert_eq!(target.to_string(), Digest::of(b"x").to_string().replace(':', "-"));
        assert!(fallback_tag(Digest::Sha512([7; 64])).is_ok());
    }
}
