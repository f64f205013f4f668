//! What refers to a manifest: the referrers API, and the tag that stands in for it
//! (distribution-spec, "Listing Referrers", "Referrers Tag Schema").

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use image::{Descriptor, Digest, Document, Index, MediaType};
use reqwest::Method;
use reqwest::header::{ACCEPT, HeaderValue};
use task::{Fault, Kind};

use crate::auth::{Access, Scope};
use crate::client::Inner;
use crate::pages::Pages;
use crate::repo::{Repo, Target};
use crate::request::{Call, Endpoint, Where};
use crate::retry::jittered;
use crate::{Error, Result, wire};

/// Referrers of one manifest that are read.
const MOST: usize = 100_000;
/// How often the fallback tag is written and looked at until a change lasts.
const ROUNDS: usize = 24;
/// How often a change is looked for before it counts as lasting.
const LOOKS: usize = 2;
/// The pause before a look.
const BETWEEN: Duration = Duration::from_millis(90);

/// Statuses of registries that do not know the endpoint.
const UNKNOWN: &[u16] = &[400, 404, 405, 406, 501];

/// From the API; `None` where there is none.
pub(crate) async fn listed(
    inner: &Inner,
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
        Where::Path(path),
        Scope::new(Access::Pull, endpoint.path()),
        format!("listing the referrers of {}@{subject}", endpoint.path()),
    );
    let call = call
        .header(ACCEPT, HeaderValue::from_static("application/vnd.oci.image.index.v1+json"))
        .accept(UNKNOWN);
    let mut pages = Pages::new(inner, endpoint, call);
    let mut referrers = Vec::new();
    let mut seen = HashSet::new();
    while let Some(answer) = pages.next().await? {
        let html = wire::content_type(&answer.headers).is_some_and(|kind| kind == "text/html");
        if !answer.status.is_success() || html {
            if referrers.is_empty() {
                return Ok(None);
            }
            break;
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
    let mut looks = 0;
    for _ in 0..ROUNDS {
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
        tokio::time::sleep(jittered(BETWEEN)).await;
    }
    Err(Error::Interrupted {
        registry: repo.repository().registry().to_owned(),
        action: format!("updating the referrers tag of {subject}"),
        reason: "took the change, but others keep replacing it".into(),
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
