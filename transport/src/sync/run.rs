//! One run of a mirror: list, compare, copy, delete.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use copy::ResolvedSource;
use futures::{StreamExt, stream};
use image::{Descriptor, Digest, Reference, Tag};
use task::{Cause, Fault, Kind, Task};

use super::ends::{DestinationBlobs, RepositorySink};
use super::referrers::{self, DigestTags, ReferrerCache};
use super::state::TagState;
use super::{
    Line, MirrorDestination, MirrorOptions, MirrorSource, MirrorState, Name, Outcome, Report, Set,
    delete,
};
use crate::at::{Directory, LayoutImage, Registry};
use crate::{Error, ImageSelector, Result, Select, Side, Sink, Source};

/// Repositories listed at a time.
const LISTS: usize = 8;

/// A set with the names that were listed for it.
pub(super) struct SetListing<'s> {
    pub(super) set: &'s Set,
    /// The tags to mirror.
    pub(super) tags: Vec<String>,
    /// The tags the destination has, where that is known.
    pub(super) there: Option<BTreeSet<String>>,
    /// The source's derived tags, if they were listed.
    digest_tags: Option<Arc<DigestTags>>,
}

/// One image to mirror.
struct Item<'s> {
    set: &'s Set,
    name: Name,
    /// Whether the destination has the name, where that is known.
    there: Option<bool>,
    digest_tags: Option<Arc<DigestTags>>,
}

/// Brings the destination of every set to the state of its source.
///
/// `state` is what an earlier run left; it is changed to what this one leaves.
///
/// # Errors
/// None by itself: what failed is in the report. With [`MirrorOptions::keep_going`] that is everything
/// that failed, without it the first, and what was under way then.
pub async fn mirror(
    sets: &[Set],
    state: &mut MirrorState,
    options: &MirrorOptions<'_>,
    task: &Task,
) -> Report {
    let run = Run {
        options,
        task,
        state: Mutex::new(state),
        blobs: Arc::default(),
        referrers: ReferrerCache::default(),
        report: Mutex::default(),
        stopping: AtomicBool::new(false),
    };
    let listing = sets.iter().map(|set| run.list(set));
    let listed: Vec<Option<SetListing<'_>>> = stream::iter(listing).buffered(LISTS).collect().await;
    let items = listed.iter().flatten().flat_map(|listed| run.items(listed));
    let work = stream::iter(items.map(|item| run.one(item)));
    work.buffer_unordered(options.parallel.max(1)).collect::<()>().await;
    if options.delete.is_some() && !run.stopped() {
        delete::dropped(&run, sets, &listed).await;
    }
    let mut report = run.report.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.stopped = run.stopping.load(Ordering::Relaxed);
    report
}

pub(super) struct Run<'a> {
    pub(super) options: &'a MirrorOptions<'a>,
    pub(super) task: &'a Task,
    state: Mutex<&'a mut MirrorState>,
    blobs: Arc<DestinationBlobs>,
    referrers: ReferrerCache,
    report: Mutex<Report>,
    stopping: AtomicBool,
}

impl<'a> Run<'a> {
    pub(super) fn stopped(&self) -> bool {
        self.stopping.load(Ordering::Relaxed) || self.task.check().is_err()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, &'a mut MirrorState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down what became of a name; a failure ends the run unless it is to go on.
    pub(super) fn tell(
        &self,
        source: Option<String>,
        target: String,
        result: Result<(Outcome, Option<Digest>)>,
    ) {
        let (outcome, digest, error) = match result {
            Ok((outcome, digest)) => (outcome, digest, None),
            Err(error) if error.kind() == Kind::Cancelled => {
                (Outcome::Cancelled, None, Some(error))
            }
            Err(error) => (Outcome::Failed, None, Some(error)),
        };
        if let Some(error) = &error
            && (!self.options.keep_going || error.kind() == Kind::Cancelled)
        {
            self.stopping.store(true, Ordering::Relaxed);
        }
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.lines.push(Line { source, target, outcome, digest, error });
    }

    pub(super) fn forget(&self, name: &str) {
        self.state().forget(name);
    }

    async fn list<'s>(&self, set: &'s Set) -> Option<SetListing<'s>> {
        if self.stopped() {
            return None;
        }
        match self.lists(set).await {
            Ok(listed) => Some(listed),
            Err(error) => {
                self.tell(None, set.from.to_string(), Err(error));
                None
            }
        }
    }

    async fn lists<'s>(&self, set: &'s Set) -> Result<SetListing<'s>> {
        let tags = async {
            match &set.from {
                MirrorSource::Directory { name: Name::Tag(tag), .. } => {
                    Ok((vec![tag.to_string()], None))
                }
                MirrorSource::Directory { .. } => Ok((Vec::new(), None)),
                MirrorSource::Repository { tags: super::Tags::These(tags), .. } => {
                    Ok((tags.clone(), None))
                }
                MirrorSource::Repository { client, repository, tags, .. } => {
                    let listed = client.repo(repository).tags(None).await;
                    let at = Error::at("listing the tags", Side::Source);
                    let mut listed = listed.map_err(|error| at(Cause::new(error)))?;
                    let digest_tags = Arc::new(referrers::digest_tags(&listed, tags));
                    listed.retain(|tag| tags.takes(tag));
                    Ok((listed, Some(digest_tags)))
                }
            }
        };
        let there = async {
            let MirrorDestination::Repository { client, repository } = &set.to else {
                return Ok(None);
            };
            match client.repo(repository).tags(None).await {
                Ok(tags) => Ok(Some(tags.into_iter().collect())),
                Err(error) if error.kind() == Kind::NotFound => Ok(Some(BTreeSet::new())),
                // Who may not list may still push; both ends are asked about every tag then.
                Err(error) if self.options.delete.is_none() && !set.missing_only => {
                    tracing::debug!(%error, %repository, "the destination does not list its tags");
                    Ok(None)
                }
                Err(error) => {
                    Err(Error::at("listing the tags", Side::Destination)(Cause::new(error)))
                }
            }
        };
        let ((tags, digest_tags), there) = futures::try_join!(tags, there)?;
        Ok(SetListing { set, tags, there, digest_tags })
    }

    fn items<'s>(&self, listed: &SetListing<'s>) -> Vec<Item<'s>> {
        let set = listed.set;
        let mut items = Vec::new();
        for tag in &listed.tags {
            let target = format!("{tag}{}", set.suffix);
            let there = listed.there.as_ref().map(|there| there.contains(&target));
            match tag.parse::<Tag>() {
                Ok(tag) => {
                    let digest_tags = listed.digest_tags.clone();
                    items.push(Item { set, name: Name::Tag(tag), there, digest_tags });
                }
                Err(error) => {
                    let name = format!("{}:{tag}", set.from);
                    self.tell(None, name, Err(Error::Content(error)));
                }
            }
        }
        let digests = match &set.from {
            MirrorSource::Repository { digests, .. } => &digests[..],
            MirrorSource::Directory { name: Name::Digest(digest), .. } => {
                std::slice::from_ref(digest)
            }
            MirrorSource::Directory { .. } => &[],
        };
        let names = digests.iter().map(|digest| Name::Digest(*digest));
        items.extend(names.map(|name| Item { set, name, there: None, digest_tags: None }));
        items.retain(|item| self.options.shard.owns(&item.target()));
        items
    }

    async fn one(&self, item: Item<'_>) {
        if self.stopped() {
            self.stopping.store(true, Ordering::Relaxed);
            return;
        }
        let target = item.target();
        let task = self.task.child(target.clone());
        let result = self.bring(&item, &target, &task).await;
        match &result {
            Ok((Outcome::Unchanged, _)) => task.reused(),
            Ok(_) => task.done(),
            Err(error) => {
                if self.options.keep_going && error.kind() != Kind::Cancelled {
                    self.task.warn(format!("{target}: {}", task::chain(error).join(": ")));
                }
                drop(task);
            }
        }
        self.tell(Some(item.source_name()), target, result);
    }

    async fn bring(
        &self,
        item: &Item<'_>,
        target: &str,
        task: &Task,
    ) -> Result<(Outcome, Option<Digest>)> {
        let set = item.set;
        if item.there == Some(true) && (set.missing_only || item.never_changes()) {
            return Ok((Outcome::Unchanged, None));
        }
        let source = item.source();
        let named = source.resolve().await;
        let named = named.map_err(Error::resolve)?;
        let how = how(set);
        let mut attached = None;
        if let Some(entry) = self.known(item, target, &named, &how) {
            attached = self.attached(item, named.digest).await?;
            if attached.is_none_or(|now| now == entry.attached.unwrap_or(referrers::nothing())) {
                return Ok((Outcome::Unchanged, Some(entry.copy)));
            }
            if self.options.dry_run {
                return Ok((Outcome::WouldCopy, Some(entry.copy)));
            }
        }
        let current = item.current().await?;
        let source = ResolvedSource::new(&*source, named.clone());
        let copy = &set.copy;
        let plain = named.media_type.is_manifest() || copy.select == Select::All;
        let same = plain && copy.format.is_none() && !copy.referrers;
        let (outcome, digest) = match (same, current) {
            (true, Some(current)) if current == named.digest => (Outcome::Unchanged, current),
            _ if self.options.dry_run => {
                let root = match plain && copy.format.is_none() {
                    true => named.digest,
                    false => crate::Plan::new(&source, copy, task).await?.root().digest,
                };
                let outcome = match current == Some(root) {
                    true => Outcome::Unchanged,
                    false => Outcome::WouldCopy,
                };
                (outcome, root)
            }
            _ => self.copy(item, &source, current, task).await?,
        };
        if outcome != Outcome::WouldCopy {
            let (source, seen) = (named.digest, self.options.now);
            let entry = TagState { source, copy: digest, how, attached, seen };
            self.state().keep(target.to_owned(), entry);
        }
        Ok((outcome, Some(digest)))
    }

    /// What an earlier run did with the name, if it has seen it there not long ago and the source
    /// is what it was.
    fn known(
        &self,
        item: &Item<'_>,
        target: &str,
        named: &Descriptor,
        how: &str,
    ) -> Option<TagState> {
        let state = self.state();
        let entry = state.entry(target)?;
        let fresh = (0..self.options.recheck).contains(&(self.options.now - entry.seen));
        let same = entry.source == named.digest && entry.how == how;
        (item.there == Some(true) && fresh && same).then(|| entry.clone())
    }

    /// The value for everything attached to an image at the source; `None` if that is not copied or
    /// not known.
    async fn attached(&self, item: &Item<'_>, image: Digest) -> Result<Option<Digest>> {
        let MirrorSource::Repository { client, repository, .. } = &item.set.from else {
            return Ok(None);
        };
        if !item.set.copy.referrers {
            return Ok(None);
        }
        let tags = item.digest_tags.as_deref();
        let mark = self.referrers.of((client, repository), image, tags).await;
        let at = Error::at(format!("listing referrers of {image}"), Side::Source);
        mark.map(Some).map_err(|error| at(Cause::new(error)))
    }

    async fn copy(
        &self,
        item: &Item<'_>,
        source: &ResolvedSource<'_>,
        current: Option<Digest>,
        task: &Task,
    ) -> Result<(Outcome, Digest)> {
        let gate = self.options.gate;
        let options = &item.set.copy;
        let inner = item.sink();
        let root = match &item.set.to {
            MirrorDestination::Directories(_) | MirrorDestination::Layout(_) => {
                crate::copy(source, &*inner, gate, options, task).await?
            }
            MirrorDestination::Repository { repository, .. } => {
                let sink = RepositorySink {
                    inner,
                    repository: repository.clone(),
                    blobs: Arc::clone(&self.blobs),
                    mine: Mutex::default(),
                    published: AtomicBool::new(false),
                    referred: AtomicBool::new(false),
                };
                let root = crate::copy(source, &sink, gate, options, task).await?;
                if sink.referred.load(Ordering::Relaxed) {
                    return Ok((Outcome::Copied, root.digest));
                }
                if !sink.published.load(Ordering::Relaxed) {
                    return Ok((Outcome::Unchanged, root.digest));
                }
                root
            }
        };
        let outcome = match current == Some(root.digest) {
            true => Outcome::Unchanged,
            false => Outcome::Copied,
        };
        Ok((outcome, root.digest))
    }
}

/// What of an image is copied, and how: another answer makes the state of an earlier run void.
fn how(set: &Set) -> String {
    let copy = &set.copy;
    let select = match &copy.select {
        Select::One(platform) => format!("one {platform}"),
        Select::All => "all".to_owned(),
        Select::List(platforms) => {
            let names: Vec<String> = platforms.iter().map(ToString::to_string).collect();
            format!("list {}", names.join(" "))
        }
        Select::IndexOnly => "index".to_owned(),
    };
    let format = copy.format.map(|format| format!("{format:?}")).unwrap_or_default();
    format!("{select} {format} {} {}", copy.referrers, copy.digest_tags)
}

impl Item<'_> {
    fn behind(&self, suffix: &str) -> String {
        match &self.name {
            Name::Tag(tag) => format!(":{tag}{suffix}"),
            Name::Digest(digest) => format!("@{digest}"),
        }
    }

    fn source_name(&self) -> String {
        match &self.set.from {
            MirrorSource::Directory { .. } => self.set.from.to_string(),
            MirrorSource::Repository { .. } => format!("{}{}", self.set.from, self.behind("")),
        }
    }

    fn target(&self) -> String {
        format!("{}{}", self.set.to, self.behind(&self.set.suffix))
    }

    fn never_changes(&self) -> bool {
        match (&self.name, &self.set.immutable) {
            (Name::Tag(tag), Some(pattern)) => pattern.is_match(tag.as_str()),
            _ => false,
        }
    }

    fn source(&self) -> Box<dyn Source> {
        match &self.set.from {
            MirrorSource::Directory { path, .. } => {
                Box::new(Directory::new(&crate::real_path(path)))
            }
            MirrorSource::Repository { client, repository, .. } => {
                let reference = self.reference(repository, "");
                Box::new(Registry::new(client, &reference))
            }
        }
    }

    fn reference(&self, repository: &image::Repository, suffix: &str) -> Reference {
        match &self.name {
            Name::Digest(digest) => repository.pinned(*digest),
            Name::Tag(tag) if suffix.is_empty() => repository.tagged(tag.clone()),
            Name::Tag(tag) => match format!("{tag}{suffix}").parse::<Tag>() {
                Ok(tag) => repository.tagged(tag),
                // Checked before the run; the registry says what is wrong with it otherwise.
                Err(_) => repository.tagged(tag.clone()),
            },
        }
    }

    fn path(&self, base: &Path) -> PathBuf {
        let mut path = base.as_os_str().to_owned();
        path.push(self.behind(&self.set.suffix));
        PathBuf::from(path)
    }

    fn in_layout(&self, path: &Path) -> LayoutImage {
        let name = match &self.name {
            Name::Tag(tag) => format!("{tag}{}", self.set.suffix),
            Name::Digest(digest) => digest.to_string(),
        };
        LayoutImage::new(path, ImageSelector::Name(name))
    }

    fn sink(&self) -> Box<dyn Sink> {
        match &self.set.to {
            MirrorDestination::Directories(base) => Box::new(Directory::new(&self.path(base))),
            MirrorDestination::Layout(path) => Box::new(self.in_layout(path)),
            MirrorDestination::Repository { client, repository } => {
                let reference = self.reference(repository, &self.set.suffix);
                Box::new(Registry::new(client, &reference))
            }
        }
    }

    /// What the destination's name points at now.
    async fn current(&self) -> Result<Option<Digest>> {
        if self.there == Some(false) {
            return Ok(None);
        }
        let found = match &self.set.to {
            MirrorDestination::Repository { .. } => {
                let current = self.sink().current().await;
                return Ok(current.map_err(Error::resolve)?.map(|found| found.digest));
            }
            MirrorDestination::Directories(base) => {
                Directory::new(&self.path(base)).resolve().await
            }
            MirrorDestination::Layout(path) => self.in_layout(path).resolve().await,
        };
        let current = match found {
            Ok(found) => Ok(Some(found)),
            // Broken or missing content is written again.
            Err(cause) if cause.kind() == Kind::Cancelled => Err(cause),
            Err(_) => Ok(None),
        };
        Ok(current.map_err(Error::resolve)?.map(|found| found.digest))
    }
}

impl std::fmt::Display for MirrorSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            MirrorSource::Repository { repository, .. } => write!(f, "docker://{repository}"),
            MirrorSource::Directory { path, .. } => write!(f, "dir:{}", path.display()),
        }
    }
}

impl std::fmt::Display for MirrorDestination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            MirrorDestination::Repository { repository, .. } => write!(f, "docker://{repository}"),
            MirrorDestination::Directories(path) => write!(f, "dir:{}", path.display()),
            MirrorDestination::Layout(path) => write!(f, "oci:{}", path.display()),
        }
    }
}
