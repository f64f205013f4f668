//! What the source has no more.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};
use image::{Digest, Repository, Tag};
use registry_client::{Client, Repo, Target};
use task::{Cause, Fault, Kind};

use super::run::{Run, SetListing};
use super::{MirrorDestination, MirrorSource, Outcome, Set, Tags, tags};
use crate::{Error, Result, Side};

/// Tags resolved at a time.
const HEADS: usize = 16;

/// A repository at the destination, whatever many sets go there.
struct Group<'s> {
    client: &'s Client,
    repository: &'s Repository,
    sets: Vec<&'s Set>,
    kept: BTreeSet<String>,
    there: BTreeSet<String>,
}

/// Deletes the tags that a set would copy if the source still had them.
///
/// A repository is left alone when one of its sets could not be listed.
pub(super) async fn dropped(run: &Run<'_>, sets: &[Set], listed: &[Option<SetListing<'_>>]) {
    let mut groups: BTreeMap<String, Group<'_>> = BTreeMap::new();
    let mut unsure = BTreeSet::new();
    for (set, listed) in sets.iter().zip(listed) {
        let MirrorDestination::Repository { client, repository } = &set.to else { continue };
        let Some(SetListing { tags, there: Some(there), .. }) = listed else {
            unsure.insert(repository.to_string());
            continue;
        };
        let group = groups.entry(repository.to_string()).or_insert_with(|| Group {
            client,
            repository,
            sets: Vec::new(),
            kept: BTreeSet::new(),
            there: there.clone(),
        });
        group.sets.push(set);
        group.kept.extend(tags.iter().map(|tag| format!("{tag}{}", set.suffix)));
    }
    for (name, group) in &groups {
        if run.stopped() {
            return;
        }
        if unsure.contains(name) {
            continue;
        }
        if let Err(error) = group.delete(run).await {
            run.tell(None, format!("docker://{name}"), Err(error));
        }
    }
}

impl Group<'_> {
    /// Whether a set would have copied the tag.
    fn covers(&self, tag: &str) -> bool {
        self.sets.iter().any(|set| {
            let MirrorSource::Repository { tags, .. } = &set.from else { return false };
            // A list names the tags of this mirror; a tag that is not in it belongs to another.
            let stripped = tag.strip_suffix(set.suffix.as_str());
            !matches!(tags, Tags::These(_)) && stripped.is_some_and(|tag| tags.takes(tag))
        })
    }

    fn name(&self, tag: &str) -> String {
        format!("docker://{}:{tag}", self.repository)
    }

    async fn delete(&self, run: &Run<'_>) -> Result<()> {
        let mine = self.there.iter().filter(|tag| run.options.shard.owns(&self.name(tag)));
        let covered: Vec<&String> =
            mine.filter(|tag| tags::derived_from(tag).is_none() && self.covers(tag)).collect();
        let gone: Vec<&String> =
            covered.iter().copied().filter(|tag| !self.kept.contains(*tag)).collect();
        if gone.is_empty() {
            return Ok(());
        }
        let limit = run.options.delete.unwrap_or(0);
        if gone.len() * 100 > covered.len() * usize::from(limit) {
            return Err(Error::Floor {
                repository: self.repository.to_string(),
                count: gone.len(),
                of: covered.len(),
                limit,
            });
        }
        let repo = self.client.repo(self.repository);
        let mut digests = BTreeSet::new();
        for tag in gone {
            if run.stopped() {
                return Ok(());
            }
            let result = self.one(run, &repo, tag).await;
            if let Ok((_, Some(digest))) = &result {
                digests.insert(digest.to_string());
            }
            run.tell(None, self.name(tag), result);
        }
        self.attached(run, &repo, &digests).await;
        Ok(())
    }

    /// Deletes the signatures of the older form, and the list of referrers that a tag holds, that belong to
    /// what was deleted.
    async fn attached(&self, run: &Run<'_>, repo: &Repo, digests: &BTreeSet<String>) {
        for tag in self.there.difference(&self.kept) {
            let Some(subject) = tags::derived_from(tag) else { continue };
            if run.stopped() || !digests.contains(&subject) {
                continue;
            }
            let shared = match subject.parse::<Digest>() {
                Ok(digest) => !self.others(repo, digest, tag).await.unwrap_or_default().is_empty(),
                Err(_) => true,
            };
            if !shared {
                let result = self.one(run, repo, tag).await;
                run.tell(None, self.name(tag), result);
            }
        }
    }

    async fn one(
        &self,
        run: &Run<'_>,
        repo: &Repo,
        tag: &str,
    ) -> Result<(Outcome, Option<Digest>)> {
        let at = || Error::at(format!("deleting {}", self.name(tag)), Side::Destination);
        let target = Target::Tag(tag.parse::<Tag>()?);
        let digest = match repo.resolve(&target).await {
            Ok(found) => found.digest,
            Err(error) if error.kind() == Kind::NotFound => return Ok((Outcome::Deleted, None)),
            Err(error) => return Err(at()(Cause::new(error))),
        };
        if run.options.dry_run {
            return Ok((Outcome::WouldDelete, Some(digest)));
        }
        match repo.delete_manifest(&target).await {
            Ok(()) => {}
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) if only_by_digest(&error) => {
                let others = self.others(repo, digest, tag).await.map_err(|e| at()(e))?;
                if !others.is_empty() {
                    let (name, others) = (self.name(tag), others.join(", "));
                    return Err(Error::Shared { name, others });
                }
                let deleted = repo.delete_manifest(&Target::Digest(digest)).await;
                deleted.map_err(|error| at()(Cause::new(error)))?;
            }
            Err(error) => return Err(at()(Cause::new(error))),
        }
        run.forget(&self.name(tag));
        Ok((Outcome::Deleted, Some(digest)))
    }

    /// The tags that stay and point at the same manifest.
    async fn others(&self, repo: &Repo, digest: Digest, tag: &str) -> Result<Vec<String>, Cause> {
        let stays = |other: &&String| {
            other.as_str() != tag && (self.kept.contains(*other) || !self.covers(other))
        };
        let asked = self.there.iter().filter(stays).map(|other| async move {
            let target = Target::Tag(other.parse::<Tag>().map_err(Cause::from)?);
            match repo.resolve(&target).await {
                Ok(found) => Ok((found.digest == digest).then(|| other.clone())),
                Err(error) if error.kind() == Kind::NotFound => Ok(None),
                Err(error) => Err(Cause::new(error)),
            }
        });
        let asked: Vec<_> = asked.collect();
        stream::iter(asked)
            .buffered(HEADS)
            .try_filter_map(|same| async { Ok(same) })
            .try_collect()
            .await
    }
}

/// Registries before distribution-spec 1.0 delete manifests, not tags.
fn only_by_digest(error: &registry_client::Error) -> bool {
    match error {
        registry_client::Error::Answer { status, code, .. } => {
            *status == 405 || (*status == 400 && code != "DENIED") || code == "UNSUPPORTED"
        }
        _ => false,
    }
}
