//! How pushes and a collection get along, on storage that can do no more than write, read, list and
//! delete single objects.
//!
//! A repository's *link* to content is also a lease: content whose link was written less than the
//! grace ago is not collected. A push writes the link first and looks for a *condemnation* then; a
//! collection condemns first and looks at links and manifests then, and lifts the condemnation when
//! it has deleted or spared. So of the two at least one sees the other: either the collection spares
//! the content, or the push waits until the condemnation is lifted and begins again.
//!
//! The functions here are what the server runs; the model test runs them, too, on a world of small
//! numbers in which any step can come next.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::time::Duration;

/// How often a push comes back to something condemned.
const ROUNDS: usize = 40;

/// Storage as the protocol sees it. Every function is one step that others see whole.
pub(crate) trait World: Sync {
    /// Names content.
    type Id: Copy + Ord + Send + Sync + Debug;
    /// Names a repository.
    type Repo: Clone + Ord + Send + Sync + Debug;

    /// The time, on the clock that times of links are from.
    fn now(&self) -> impl Future<Output = io::Result<Duration>> + Send;
    /// How long a link protects.
    fn grace(&self) -> Duration;
    /// Lets others go on for a while.
    fn pause(&self) -> impl Future<Output = ()> + Send;

    /// When a link was written.
    fn linked(
        &self,
        repo: &Self::Repo,
        id: Self::Id,
    ) -> impl Future<Output = io::Result<Option<Duration>>> + Send;
    /// Writes or refreshes a link.
    fn link(&self, repo: &Self::Repo, id: Self::Id) -> impl Future<Output = io::Result<()>> + Send;
    /// Whether any of these is condemned.
    fn condemned(&self, ids: &[Self::Id]) -> impl Future<Output = io::Result<bool>> + Send;
    /// Whether there is content.
    fn content(&self, id: Self::Id) -> impl Future<Output = io::Result<bool>> + Send;
    /// Lists a manifest in a repository.
    fn enlist(
        &self,
        repo: &Self::Repo,
        id: Self::Id,
    ) -> impl Future<Output = io::Result<()>> + Send;
    /// Whether a manifest is listed in a repository.
    fn enlisted(
        &self,
        repo: &Self::Repo,
        id: Self::Id,
    ) -> impl Future<Output = io::Result<bool>> + Send;
    /// Takes a manifest out of a repository.
    fn delist(
        &self,
        repo: &Self::Repo,
        id: Self::Id,
    ) -> impl Future<Output = io::Result<()>> + Send;
}

/// The answer to a request to keep content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeepOutcome<Id> {
    /// It is there, and stays for half the grace at least.
    Yes,
    /// This is not there.
    Missing(Id),
    /// A collection is working on it and did not finish in the time we wait.
    Busy,
}

/// What a manifest needs to be whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Child<Id> {
    pub(crate) id: Id,
    /// Whether it is a manifest itself, and so must be listed.
    pub(crate) manifest: bool,
}

/// Makes content be there and stay; `supply` puts it there.
pub(crate) async fn acquire<W: World, F>(
    world: &W,
    repo: &W::Repo,
    id: W::Id,
    mut supply: impl FnMut() -> F + Send,
) -> io::Result<KeepOutcome<W::Id>>
where
    F: Future<Output = io::Result<()>> + Send,
{
    for _ in 0..ROUNDS {
        world.link(repo, id).await?;
        if !settled(world, repo, &[id], &mut BTreeMap::new()).await? {
            continue;
        }
        if !world.content(id).await? {
            supply().await?;
        }
        return Ok(KeepOutcome::Yes);
    }
    Ok(KeepOutcome::Busy)
}

/// Makes content that is there stay. Only what has a link already counts as there.
pub(crate) async fn keep<W: World>(
    world: &W,
    repo: &W::Repo,
    ids: &[W::Id],
) -> io::Result<KeepOutcome<W::Id>> {
    let mut links = BTreeMap::new();
    for id in ids {
        let Some(at) = world.linked(repo, *id).await? else { return Ok(KeepOutcome::Missing(*id)) };
        links.insert(*id, at);
    }
    for _ in 0..ROUNDS {
        let now = world.now().await?;
        for (id, _) in links.iter().filter(|(_, at)| **at + world.grace() / 2 <= now) {
            world.link(repo, *id).await?;
        }
        if settled(world, repo, ids, &mut links).await? {
            for id in ids {
                if !world.content(*id).await? {
                    return Ok(KeepOutcome::Missing(*id));
                }
            }
            return Ok(KeepOutcome::Yes);
        }
    }
    Ok(KeepOutcome::Busy)
}

/// Whether written links are valid. A link proves nothing by itself: its writer may be waiting for
/// a condemnation to be lifted, and the content may be deleted before that.
async fn settled<W: World>(
    world: &W,
    repo: &W::Repo,
    ids: &[W::Id],
    links: &mut BTreeMap<W::Id, Duration>,
) -> io::Result<bool> {
    if world.condemned(ids).await? {
        world.pause().await;
        return Ok(false);
    }
    let mut hold = true;
    for id in ids {
        let at = world.linked(repo, *id).await?;
        hold &= at.is_some();
        links.insert(*id, at.unwrap_or_default());
    }
    Ok(hold)
}

/// Takes a manifest into a repository: what it needs is there and stays, its bytes are there and
/// stay, then it is listed.
pub(crate) async fn admit<W: World, F>(
    world: &W,
    repo: &W::Repo,
    id: W::Id,
    children: &[Child<W::Id>],
    mut supply: impl FnMut() -> F + Send,
) -> io::Result<KeepOutcome<W::Id>>
where
    F: Future<Output = io::Result<()>> + Send,
{
    let ids: Vec<W::Id> = children.iter().map(|child| child.id).collect();
    for _ in 0..ROUNDS {
        let until = world.now().await? + world.grace() / 2;
        let mut kept = present(world, repo, children, &ids).await?;
        if kept == KeepOutcome::Yes {
            kept = acquire(world, repo, id, &mut supply).await?;
        }
        if kept != KeepOutcome::Yes {
            return Ok(kept);
        }
        if world.now().await? >= until {
            // The leases may have run out already.
            continue;
        }
        let before = world.enlisted(repo, id).await?;
        world.enlist(repo, id).await?;
        if world.now().await? < until {
            return Ok(KeepOutcome::Yes);
        }
        // They may have run out before the manifest was listed. Now that it is, what is there and
        // not condemned stays.
        let kept = settle(world, repo, id, children, &ids).await?;
        if matches!(kept, KeepOutcome::Missing(_)) && !before {
            world.delist(repo, id).await?;
        }
        return Ok(kept);
    }
    Ok(KeepOutcome::Busy)
}

async fn settle<W: World>(
    world: &W,
    repo: &W::Repo,
    id: W::Id,
    children: &[Child<W::Id>],
    ids: &[W::Id],
) -> io::Result<KeepOutcome<W::Id>> {
    let all: Vec<W::Id> = ids.iter().copied().chain([id]).collect();
    for _ in 0..ROUNDS {
        if world.condemned(&all).await? {
            world.pause().await;
            continue;
        }
        if !world.enlisted(repo, id).await? || !world.content(id).await? {
            return Ok(KeepOutcome::Busy);
        }
        return present(world, repo, children, ids).await;
    }
    Ok(KeepOutcome::Busy)
}

async fn present<W: World>(
    world: &W,
    repo: &W::Repo,
    children: &[Child<W::Id>],
    ids: &[W::Id],
) -> io::Result<KeepOutcome<W::Id>> {
    let kept = keep(world, repo, ids).await?;
    if kept != KeepOutcome::Yes {
        return Ok(kept);
    }
    for child in children.iter().filter(|child| child.manifest) {
        if !world.enlisted(repo, child.id).await? {
            return Ok(KeepOutcome::Missing(child.id));
        }
    }
    Ok(KeepOutcome::Yes)
}

/// A manifest as a collection sees it.
#[derive(Debug, Clone, Default)]
pub(crate) struct SurveyedManifest<Id> {
    pub(crate) children: Vec<Id>,
    pub(crate) subject: Option<Id>,
    pub(crate) modified: Duration,
}

/// All there is, as it was listed.
#[derive(Debug, Clone)]
pub(crate) struct Survey<Id, Repo> {
    pub(crate) content: BTreeSet<Id>,
    pub(crate) links: BTreeMap<(Id, Repo), Duration>,
    pub(crate) manifests: BTreeMap<(Id, Repo), SurveyedManifest<Id>>,
    pub(crate) tagged: BTreeSet<(Id, Repo)>,
    /// Repositories whose untagged manifests go when nothing needs them.
    pub(crate) tidy: BTreeSet<Repo>,
}

impl<Id, Repo> Default for Survey<Id, Repo> {
    fn default() -> Self {
        Survey {
            content: BTreeSet::new(),
            links: BTreeMap::new(),
            manifests: BTreeMap::new(),
            tagged: BTreeSet::new(),
            tidy: BTreeSet::new(),
        }
    }
}

/// What is to happen to content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict<Id, Repo> {
    pub(crate) id: Id,
    /// Repositories that lose the manifest.
    pub(crate) delist: Vec<Repo>,
    /// Repositories that lose the link.
    pub(crate) unlink: Vec<Repo>,
    /// Whether no one is left.
    pub(crate) erase: bool,
}

impl<Id: Copy + Ord, Repo: Clone + Ord> Survey<Id, Repo> {
    /// What is not needed at `now`.
    pub(crate) fn verdicts(&self, now: Duration, grace: Duration) -> Vec<Verdict<Id, Repo>> {
        let fresh = |at: &Duration| *at + grace > now;
        let leased = |key: &(Id, Repo)| {
            self.links.get(key).is_some_and(fresh)
                || self.manifests.get(key).is_some_and(|listed| fresh(&listed.modified))
        };
        let needed = self.needed(&leased);
        let mut verdicts: BTreeMap<Id, Verdict<Id, Repo>> = BTreeMap::new();
        let mut kept = BTreeSet::new();
        let nothing = |id| Verdict { id, delist: Vec::new(), unlink: Vec::new(), erase: false };
        for key in self.links.keys().chain(self.manifests.keys()).collect::<BTreeSet<_>>() {
            let (id, repo) = key;
            if needed.contains(key) || leased(key) {
                kept.insert(*id);
                continue;
            }
            let verdict = verdicts.entry(*id).or_insert_with(|| nothing(*id));
            if self.manifests.contains_key(key) {
                verdict.delist.push(repo.clone());
            }
            if self.links.contains_key(key) {
                verdict.unlink.push(repo.clone());
            }
        }
        for id in &self.content {
            if !kept.contains(id) {
                verdicts.entry(*id).or_insert_with(|| nothing(*id)).erase = true;
            }
        }
        verdicts.into_values().collect()
    }

    /// What must stay. A listed manifest protects its children even if it goes itself: a client
    /// that uses it again requests the manifest only, so its children go in a later pass.
    fn needed(&self, leased: &impl Fn(&(Id, Repo)) -> bool) -> BTreeSet<(Id, Repo)> {
        let mut needed = BTreeSet::new();
        for (key, listed) in &self.manifests {
            let (_, repo) = key;
            let attached = listed
                .subject
                .is_some_and(|subject| self.manifests.contains_key(&(subject, repo.clone())));
            let kept = self.tagged.contains(key) || !self.tidy.contains(repo) || leased(key);
            if attached || kept {
                needed.insert(key.clone());
            }
            needed.extend(listed.children.iter().map(|child| (*child, repo.clone())));
        }
        needed
    }
}

/// A world in which collections happen.
pub(crate) trait CollectionWorld: World {
    /// Lists all there is. Not one step: what happens meanwhile may be in it or not.
    fn survey(&self) -> impl Future<Output = io::Result<Survey<Self::Id, Self::Repo>>> + Send;
    /// What is condemned: by this collection, or by one that did not live to finish.
    fn sentences(&self) -> impl Future<Output = io::Result<Vec<Self::Id>>> + Send;
    /// Condemns.
    fn condemn(&self, id: Self::Id) -> impl Future<Output = io::Result<()>> + Send;
    /// Lifts a condemnation.
    fn pardon(&self, id: Self::Id) -> impl Future<Output = io::Result<()>> + Send;
    /// Removes a link.
    fn unlink(
        &self,
        repo: &Self::Repo,
        id: Self::Id,
    ) -> impl Future<Output = io::Result<()>> + Send;
    /// Removes content.
    fn erase(&self, id: Self::Id) -> impl Future<Output = io::Result<()>> + Send;
    /// Fails when another collection has taken over.
    fn mine(&self) -> impl Future<Output = io::Result<()>> + Send;
}

/// What a collection did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CollectionReport {
    /// Blobs and manifests that were deleted.
    pub erased: u64,
    /// Links of repositories to blobs they do not need.
    pub unlinked: u64,
    /// Manifests taken out of repositories.
    pub delisted: u64,
    /// What a push asked for while it was condemned.
    pub spared: u64,
    /// Repositories that had nothing any more.
    pub emptied: u64,
}

/// Collects at most `batch` pieces of content.
pub(crate) async fn collect<W: CollectionWorld>(
    world: &W,
    batch: usize,
) -> io::Result<CollectionReport> {
    // Taken first: a link looks rather too young than too old.
    let now = world.now().await?;
    let mut sentences: BTreeSet<W::Id> = world.sentences().await?.into_iter().collect();
    let old = sentences.clone();
    let first = world.survey().await?.verdicts(now, world.grace());
    sentences.extend(first.into_iter().take(batch).map(|verdict| verdict.id));
    if sentences.is_empty() {
        return Ok(CollectionReport::default());
    }
    for id in &sentences {
        if !old.contains(id) {
            world.condemn(*id).await?;
        }
    }
    // Only now, when everybody can see what is condemned, it counts who needs it.
    let verdicts = world.survey().await?.verdicts(now, world.grace());
    let verdicts: BTreeMap<W::Id, _> = verdicts.into_iter().map(|v| (v.id, v)).collect();
    let mut done = CollectionReport::default();
    for id in sentences {
        match verdicts.get(&id) {
            None => done.spared += 1,
            Some(verdict) => {
                world.mine().await?;
                for repo in &verdict.delist {
                    world.delist(repo, id).await?;
                    done.delisted += 1;
                }
                for repo in &verdict.unlink {
                    world.unlink(repo, id).await?;
                    done.unlinked += 1;
                }
                if verdict.erase {
                    world.erase(id).await?;
                    done.erased += 1;
                }
            }
        }
        world.pardon(id).await?;
    }
    Ok(done)
}

#[cfg(test)]
mod model;
