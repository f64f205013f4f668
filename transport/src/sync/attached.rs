//! Whether something was attached to an image since it was mirrored, at the price of one question
//! where the registry can answer it, and of none where its list of tags does.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use image::{Digest, Repository};
use registry_client::Client;

/// How many images are remembered; more are asked about again.
const REMEMBERED: usize = 200_000;

/// What was learnt in this run.
#[derive(Default)]
pub(super) struct Attached {
    seen: Mutex<HashMap<(Repository, Digest), Digest>>,
    /// Registries that have no referrers API.
    without: Mutex<BTreeSet<String>>,
}

/// Tags that are made of a digest, of a repository whose tags were listed.
pub(super) fn digest_tags(tags: &[String]) -> BTreeSet<String> {
    tags.iter().filter(|tag| tag.starts_with("sha256-")).cloned().collect()
}

/// What stands for an image to which nothing is attached.
pub(super) fn nothing() -> Digest {
    mark(&[])
}

fn mark(attached: &[String]) -> Digest {
    Digest::of(attached.join("\n").as_bytes())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Attached {
    /// Something that changes when what is attached to an image does. `tags` are the repository's
    /// tags made of digests, where they are known.
    pub(super) async fn of(
        &self,
        (client, repository): (&Client, &Repository),
        image: Digest,
        tags: Option<&BTreeSet<String>>,
    ) -> registry_client::Result<Digest> {
        let key = (repository.clone(), image);
        if let Some(known) = lock(&self.seen).get(&key) {
            return Ok(*known);
        }
        let name = format!("{}-{}", image.algorithm().as_str(), image.hex());
        let repo = client.repo(repository);
        let without = lock(&self.without).contains(repository.registry());
        let listed = if without { None } else { repo.api_referrers(image).await? };
        if listed.is_none() {
            lock(&self.without).insert(repository.registry().to_owned());
        }
        let listed = match (listed, tags) {
            (Some(listed), _) => listed,
            // Without the API a tag tells, and the list of tags whether there is one.
            (None, Some(tags)) if !tags.contains(&name) => Vec::new(),
            (None, _) => repo.tagged_referrers(image).await?,
        };
        let mut attached: Vec<String> = listed.iter().map(|one| one.digest.to_string()).collect();
        let beside = tags.into_iter().flatten();
        attached.extend(beside.filter(|tag| tag.starts_with(&format!("{name}."))).cloned());
        attached.sort_unstable();
        let mark = mark(&attached);
        let mut seen = lock(&self.seen);
        if seen.len() < REMEMBERED {
            seen.insert(key, mark);
        }
        Ok(mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_made_of_digests_are_kept_and_others_not() {
        let tags = ["v1", "sha256-00", "sha256-00.sig", "latest"].map(str::to_owned);
        let kept = digest_tags(&tags);
        assert_eq!(kept.into_iter().collect::<Vec<_>>(), ["sha256-00", "sha256-00.sig"]);
        assert_ne!(mark(&["a".to_owned()]), nothing());
    }
}
