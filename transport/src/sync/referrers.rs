//! Whether something was attached to an image since it was mirrored, at the price of one question
//! where the registry can answer it, and of none where its list of tags does.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use image::{Digest, Repository};
use registry_client::{Client, Repo, Target};
use task::{Fault, Kind};
use tokio::sync::OnceCell;

use super::Tags;
use super::tags::subject_of;

/// How many images are cached; others are queried again.
const REMEMBERED: usize = 200_000;

type Image = (Repository, Digest);
type Answer = Arc<OnceCell<Digest>>;

/// The referrers that this run has found.
#[derive(Default)]
pub(super) struct ReferrerCache {
    seen: Mutex<HashMap<Image, Answer>>,
    /// Registries that have no referrers API.
    without: Mutex<BTreeSet<String>>,
}

/// Tags derived from a digest, of a repository whose tags were listed, and whether the mirror
/// copies them as tags of their own, so that they are queried in any case.
pub(super) type DigestTags = BTreeMap<String, bool>;

/// Those among all tags.
pub(super) fn digest_tags(tags: &[String], taken: &Tags) -> DigestTags {
    let made = tags.iter().filter(|tag| tag.starts_with("sha256-"));
    made.map(|tag| (tag.clone(), taken.takes(tag))).collect()
}

/// The value for an image without attachments.
pub(super) fn nothing() -> Digest {
    mark(&[])
}

fn mark(attached: &[String]) -> Digest {
    Digest::of(attached.join("\n").as_bytes())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ReferrerCache {
    /// A value that changes when the attachments of an image do. `tags` are the repository's
    /// derived tags, if they are known.
    pub(super) async fn of(
        &self,
        (client, repository): (&Client, &Repository),
        image: Digest,
        tags: Option<&DigestTags>,
    ) -> registry_client::Result<Digest> {
        let known = {
            let (mut seen, key) = (lock(&self.seen), (repository.clone(), image));
            match seen.len() < REMEMBERED || seen.contains_key(&key) {
                true => Arc::clone(seen.entry(key).or_default()),
                false => Arc::default(),
            }
        };
        // Tags of one image that are looked at together ask once.
        let asked = known.get_or_try_init(|| self.ask(client.repo(repository), image, tags));
        asked.await.copied()
    }

    async fn ask(
        &self,
        repo: Repo,
        image: Digest,
        tags: Option<&DigestTags>,
    ) -> registry_client::Result<Digest> {
        let name = format!("{}-{}", image.algorithm().as_str(), image.hex());
        let registry = repo.repository().registry();
        let without = lock(&self.without).contains(registry);
        let listed = if without { None } else { repo.api_referrers(image).await? };
        if listed.is_none() {
            lock(&self.without).insert(registry.to_owned());
        }
        let listed = match (listed, tags) {
            (Some(listed), _) => listed,
            // Without the API a tag tells, and the list of tags whether there is one.
            (None, Some(tags)) if !tags.contains_key(&name) => Vec::new(),
            (None, _) => repo.tagged_referrers(image).await?,
        };
        let mut attached: Vec<String> = listed.iter().map(|one| one.digest.to_string()).collect();
        for (tag, taken) in tags.into_iter().flatten() {
            if !tag.starts_with(&format!("{name}.")) {
                continue;
            }
            let target = match (taken, subject_of(tag)) {
                (false, Some(_)) => tag.parse().ok().map(Target::Tag),
                _ => None,
            };
            // It can move, as any tag; one that is taken is asked about by itself.
            let Some(target) = target else {
                attached.push(tag.clone());
                continue;
            };
            match repo.resolve(&target).await {
                Ok(there) => attached.push(format!("{tag} {}", there.digest)),
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        attached.sort_unstable();
        Ok(mark(&attached))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_made_of_digests_are_kept_and_others_not() {
        let tags = ["v1", "sha256-00", "sha256-00.sig", "latest"].map(str::to_owned);
        let taken = Tags::matching("sig$").unwrap();
        let kept = digest_tags(&tags, &taken);
        let expected = [("sha256-00".to_owned(), false), ("sha256-00.sig".to_owned(), true)];
        assert_eq!(kept.into_iter().collect::<Vec<_>>(), expected);
        assert_ne!(mark(&["a".to_owned()]), nothing());
    }
}
