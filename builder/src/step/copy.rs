//! `COPY` and `ADD`: from selected files to files in the image.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dockerfile::Ignore;
use layers::copy::{CopyOptions, copy};
use layers::{ApplyOptions, FileType, Mode, OFlags, Root, Whiteouts};
use rustix::fs::{Timespec, Timestamps, futimens};
use store::Store;
use task::Task;

use super::select::{Item, select};
use crate::context::git::{Commit, Surroundings};
use crate::context::http::Download;
use crate::context::scan::{self, Filter, is};
use crate::context::{Tree, archive};
use crate::error::ErrorContext;
use crate::plan::key::KeyBuilder;
use crate::plan::{CopyOp, CopySource};
use crate::{Error, Result};

/// A source of `ADD` that is in no context.
#[derive(Clone)]
pub(crate) enum Remote {
    /// A downloaded file.
    File(Download),
    /// A commit, which is not fetched yet.
    Commit(Box<Commit>),
}

/// What a step copies, found and ready.
pub(crate) struct Selection {
    parts: Vec<Part>,
    /// Repositories that are not fetched yet, and before which part they belong.
    commits: Vec<(usize, Commit)>,
    exclude: Option<Ignore>,
    /// Whether owners of the source are kept.
    keep_owners: bool,
    /// Patterns that match nothing, each with where they were looked for.
    unmatched: Vec<String>,
}

struct Part {
    tree: Arc<Tree>,
    item: Item,
    /// Permission bits and time instead of the source's.
    download: Option<Download>,
    inline: bool,
}

/// Finds everything the step copies. `tree` is where its paths are looked up.
pub(crate) fn prepare(
    op: &CopyOp,
    tree: &Arc<Tree>,
    remotes: &[Remote],
    store: &Store,
) -> Result<Selection> {
    let mut parts = Vec::new();
    let mut commits = Vec::new();
    let mut unmatched = Vec::new();
    let mut remotes = remotes.iter();
    for source in &op.sources {
        match source {
            CopySource::Path(path) => {
                let items = select(tree, path, op.parents)?;
                if items.is_empty() && op.strict {
                    return Err(Error::NoMatch { pattern: path.clone(), place: tree.name.clone() });
                }
                if items.is_empty() {
                    unmatched.push(format!("{path:?} matches nothing in {}", tree.name));
                }
                parts.extend(items.into_iter().map(|item| Part {
                    tree: Arc::clone(tree),
                    item,
                    download: None,
                    inline: false,
                }));
            }
            CopySource::Inline { name, content } => parts.push(inline(name, content, store)?),
            CopySource::Http { .. } | CopySource::Git { .. } => match remotes.next() {
                Some(Remote::File(download)) => parts.push(downloaded(download, op, store)?),
                Some(Remote::Commit(commit)) => commits.push((parts.len(), (**commit).clone())),
                None => return Err(Error::internal("each remote source was fetched")),
            },
        }
    }
    let exclude = (!op.exclude.is_empty()).then(|| Ignore::parse(&op.exclude.join("\n")).0);
    let keep_owners = op.chown.is_none() && !tree.foreign;
    Ok(Selection { parts, commits, exclude, keep_owners, unmatched })
}

/// Everything below one path of a tree, as a mount takes it.
pub(crate) fn whole(tree: &Arc<Tree>, path: &str) -> Result<Selection> {
    let items = select(tree, path, false)?;
    let parts = items.into_iter().map(|item| Part {
        tree: Arc::clone(tree),
        item,
        download: None,
        inline: false,
    });
    let (parts, commits) = (parts.collect(), Vec::new());
    let (keep_owners, unmatched) = (!tree.foreign, Vec::new());
    Ok(Selection { parts, commits, exclude: None, keep_owners, unmatched })
}

fn inline(name: &str, content: &str, store: &Store) -> Result<Part> {
    let active = store.begin().during("writing a here-document")?;
    let path = active.dir().join("fs").join("content");
    std::fs::write(&path, content).map_err(Error::file("writing", &path))?;
    set_mode(&path, 0o644)?;
    let root = active.root().during("writing a here-document")?;
    let item = Item {
        source: PathBuf::from("content"),
        directory: false,
        prefix: PathBuf::new(),
        name: PathBuf::from(name),
    };
    Ok(Part { tree: Arc::new(Tree::own(root, active)), item, download: None, inline: true })
}

pub(crate) fn set_mode(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(Error::file("setting the mode of", path))
}

fn downloaded(download: &Download, op: &CopyOp, store: &Store) -> Result<Part> {
    if download.name.is_none() && op.destination.ends_with('/') {
        return Err(Error::Nameless);
    }
    let path = store.blob_path(download.digest);
    let directory = path.parent().unwrap_or(Path::new("/"));
    let root = Root::open(directory).during("opening a downloaded file")?;
    let item = Item {
        source: path.file_name().map(PathBuf::from).unwrap_or_default(),
        directory: false,
        prefix: PathBuf::new(),
        name: PathBuf::from(download.name.as_deref().unwrap_or("download")),
    };
    let tree = Arc::new(Tree::of_step(root, "the downloads".to_owned()));
    Ok(Part { tree, item, download: Some(download.clone()), inline: false })
}

impl Part {
    /// The directories that `--parents` makes on the way, the first one first: where below the
    /// destination, and which of the tree they are.
    fn way(&self) -> Vec<(&Path, &Path)> {
        let mut from = match self.item.directory {
            true => Some(self.item.source.as_path()),
            false => self.item.source.parent(),
        };
        let mut at = Some(self.item.prefix.as_path());
        let mut way = Vec::new();
        while let (Some(path), Some(source)) = (at, from)
            && !path.as_os_str().is_empty()
        {
            way.push((path, source));
            (at, from) = (path.parent(), source.parent());
        }
        way.reverse();
        way
    }
}

impl Selection {
    fn filter<'a>(&'a self, part: &'a Part, base: &'a str, prefix: &'a str) -> Filter<'a> {
        let (ignore, exclude) = (part.tree.ignore.as_ref(), self.exclude.as_ref());
        Filter { ignore, base, exclude, prefix }
    }

    /// Whether `--exclude` leaves out something that is copied by itself. Patterns are matched
    /// against where it is below the source's parent, with `--parents` below the pivot.
    fn excludes(&self, item: &Item) -> bool {
        let Some(exclude) = &self.exclude else { return false };
        match item.directory {
            // The contents of a directory are copied, under no name of its own.
            true => {
                let path = item.prefix.to_string_lossy();
                let below = exclude.may_include_below(&path);
                !path.is_empty() && exclude.excluded(&path, true) && !below
            }
            false => exclude.excluded(&item.prefix.join(&item.name).to_string_lossy(), false),
        }
    }

    /// Fetches the repositories.
    pub(crate) fn fetch(&mut self, git: &Surroundings, store: &Store, task: &Task) -> Result<()> {
        for (at, commit) in std::mem::take(&mut self.commits).into_iter().rev() {
            let fetched = commit.fetch(git, store, task)?;
            let tree = Tree::of_fetched(Arc::new(fetched), commit.url.to_string())?;
            let item = Item {
                source: PathBuf::new(),
                directory: true,
                prefix: PathBuf::new(),
                name: PathBuf::new(),
            };
            let part = Part { tree: Arc::new(tree), item, download: None, inline: false };
            self.parts.insert(at, part);
        }
        Ok(())
    }

    /// Adds to `key` what the copies will look like, except what the step's definition says.
    pub(crate) fn digest(&self, threads: usize, key: &mut KeyBuilder, task: &Task) -> Result<()> {
        for (_, commit) in &self.commits {
            commit.identify(key);
        }
        for part in self.parts.iter().filter(|part| !self.excludes(&part.item)) {
            key.part(part.item.name.as_os_str().as_encoded_bytes());
            key.part(part.item.prefix.as_os_str().as_encoded_bytes());
            for (_, source) in part.way() {
                let stat = part.tree.root.metadata(source).ok();
                let owner = stat.filter(|_| self.keep_owners).map(|s| (s.st_uid, s.st_gid));
                key.part(format!("{:?} {owner:?}", stat.map(|s| s.st_mode)).as_bytes());
            }
            if let Some(download) = &part.download {
                key.part(download.digest.as_bytes());
                key.part(&download.modified.unwrap_or(0).to_le_bytes());
                continue;
            }
            if part.inline {
                // The content is in the definition.
                continue;
            }
            let base = part.item.source.to_string_lossy();
            let prefix = part.item.prefix.to_string_lossy();
            let filter = self.filter(part, &base, &prefix);
            let source = &part.item.source;
            scan::digest(&part.tree, source, &filter, self.keep_owners, threads, key, task)?;
        }
        Ok(())
    }

    /// Whether all there is to copy are directories.
    pub(crate) fn is_directories(&self) -> bool {
        self.parts.iter().all(|part| part.item.directory)
    }

    /// Whether everything goes into the destination, which is a directory then.
    pub(crate) fn fills(&self, op: &CopyOp) -> bool {
        let directories = || self.parts.iter().all(|part| part.item.directory);
        op.destination.ends_with('/') || op.parents || (!self.parts.is_empty() && directories())
    }

    /// Copies everything to `destination` in `to`.
    pub(crate) fn work(
        &self,
        op: &CopyOp,
        to: &Root,
        destination: &Path,
        placing: CopySettings,
        task: &Task,
    ) -> Result<()> {
        let CopySettings { owner, epoch, dated, threads, made } = placing;
        let made = destination.ancestors().take(made).map(Path::to_owned).collect();
        for unmatched in &self.unmatched {
            task.warn(unmatched.clone());
        }
        let made = RefCell::new(made);
        let copies = Copies { selection: self, op, to, owner, epoch, dated, threads, made, task };
        if self.parts.is_empty() && op.destination.ends_with('/') {
            copies.directory(destination)?;
        }
        let mut files = 0;
        for part in &self.parts {
            let there = to.metadata(destination).is_ok_and(|stat| is(&stat, FileType::Directory));
            let directory = op.destination.ends_with('/') || there || op.parents;
            copies.one(part, destination, directory)?;
            files += usize::from(!directory && !part.item.directory);
        }
        if files > 1 {
            let to = &op.destination;
            task.warn(format!(
                "{to} is the last of {files} files; write \"{to}/\" to copy them into a directory"
            ));
        }
        copies.settle()
    }

    /// When the newest of what is copied was changed, seconds and nanoseconds since 1970.
    fn newest(&self) -> Option<(i64, i64)> {
        let time = |part: &Part| {
            let known = part.download.as_ref().and_then(|download| download.modified);
            match known.or_else(|| part.tree.modified()) {
                Some(seconds) => Some((seconds, 0)),
                None if part.inline => None,
                None => {
                    let stat = part.tree.root.metadata(&part.item.source).ok()?;
                    #[allow(clippy::unnecessary_cast, reason = "not everywhere of one type")]
                    Some((stat.st_mtime as i64, stat.st_mtime_nsec as i64))
                }
            }
        };
        self.parts.iter().filter_map(time).max()
    }
}

/// The owner, the times and the threads of a copy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CopySettings {
    /// Everything gets this user and group; otherwise root, or the owner at the source.
    pub(crate) owner: Option<(u32, u32)>,
    /// The time of files that come from elsewhere, seconds since 1970.
    pub(crate) epoch: Option<i64>,
    /// Whether every copy gets that time, wherever it comes from.
    pub(crate) dated: bool,
    /// How many threads copy files.
    pub(crate) threads: usize,
    /// How many of the last directories of the destination were made for this.
    pub(crate) made: usize,
}

struct Copies<'a> {
    selection: &'a Selection,
    op: &'a CopyOp,
    to: &'a Root,
    owner: Option<(u32, u32)>,
    epoch: Option<i64>,
    dated: bool,
    threads: usize,
    /// The directories that were made on the way to what is copied.
    made: RefCell<BTreeSet<PathBuf>>,
    task: &'a Task,
}

impl Copies<'_> {
    /// Notes those directories of a path that are not there yet.
    fn missing(&self, path: &Path) {
        let missing = path.ancestors().take_while(|path| self.to.metadata(path).is_err());
        self.made.borrow_mut().extend(missing.map(Path::to_owned));
    }

    /// Gives the directories that were made a time that does not depend on the moment, so that
    /// the same copy is the same layer every time.
    fn settle(&self) -> Result<()> {
        let newest = || self.selection.newest();
        let Some((seconds, nanos)) = self.epoch.map(|epoch| (epoch, 0)).or_else(newest) else {
            return Ok(());
        };
        let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
        let times = Timestamps { last_access: time, last_modification: time };
        // The deepest first: making one changes the one above it.
        for path in self.made.borrow().iter().rev() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let Ok(fd) = self.to.open_at(path, flags, Mode::empty()) else { continue };
            futimens(fd, &times)
                .map_err(|errno| Error::file("setting the time of", path)(errno.into()))?;
        }
        Ok(())
    }

    fn directory(&self, path: &Path) -> Result<()> {
        self.missing(path);
        self.to
            .create_dir_all(path, 0o755, Some(self.owner.unwrap_or((0, 0))))
            .during(format!("making {}", path.display()))
    }

    /// Makes a directory on the way to a copy as it is in the tree.
    fn parent(&self, part: &Part, target: &Path, source: &Path) -> Result<()> {
        if let Some(above) = target.parent() {
            self.directory(above)?;
        }
        let stat = part.tree.root.metadata(source).ok();
        let mode = stat.map_or(0o755, |stat| part.tree.mode(stat.st_mode) & 0o7777);
        let own = stat.filter(|_| self.selection.keep_owners).map(|s| (s.st_uid, s.st_gid));
        let owner = self.owner.or(own).unwrap_or((0, 0));
        self.missing(target);
        self.to
            .create_dir_all(target, mode, Some(owner))
            .during(format!("making {}", target.display()))
    }

    fn one(&self, part: &Part, destination: &Path, into: bool) -> Result<()> {
        let item = &part.item;
        let target = destination.join(&item.prefix);
        if self.selection.excludes(item) {
            return Ok(());
        }
        for (path, source) in part.way() {
            self.parent(part, &destination.join(path), source)?;
        }
        if self.op.add && !item.directory && self.unpacks(part)? {
            return self.unpack(part, &target);
        }
        let base = item.source.to_string_lossy();
        let prefix = item.prefix.to_string_lossy();
        let filter = self.selection.filter(part, &base, &prefix);
        let target = if item.directory || !into { target } else { target.join(&item.name) };
        if item.directory {
            self.directory(&target)?;
        } else if let Some(parent) = target.parent() {
            self.missing(parent);
        }
        let keep_owners = self.selection.keep_owners && part.download.is_none() && !part.inline;
        let fixed = part.download.as_ref().map(|_| 0o600);
        let mode = |mode: u32| {
            let mode = fixed.map_or(mode, |bits| mode & !0o7777 | bits);
            let mode = part.tree.mode(mode);
            self.op.chmod.as_ref().map_or(mode & 0o7777, |chmod| chmod.apply(mode))
        };
        let modified = part.download.as_ref().and_then(|download| download.modified);
        let modified = modified.or_else(|| part.tree.modified());
        let foreign = part.tree.foreign || part.inline || self.dated;
        let (uid, gid) = self.owner.unwrap_or((0, 0));
        let options = CopyOptions {
            owner: self.owner.or((!keep_owners).then_some((0, 0))),
            mode: &mode,
            mtime: match (self.epoch, modified) {
                (Some(epoch), _) if foreign => Some((epoch, 0)),
                (_, Some(modified)) => Some((modified, 0)),
                _ => None,
            },
            keep: &|path, is_dir| filter.keep(path, is_dir),
            follow: true,
            parents: (uid, gid, 0o755),
            threads: self.threads,
            ..CopyOptions::default()
        };
        let copied = copy(&part.tree.root, &item.source, self.to, &target, &options, self.task)
            .during(format!("copying to {}", target.display()))?;
        for skipped in copied.skipped {
            self.task.warn(skipped);
        }
        Ok(())
    }

    /// Whether `ADD` unpacks this file: decided by its content, not by its name.
    fn unpacks(&self, part: &Part) -> Result<bool> {
        let wanted = self.op.unpack.unwrap_or(part.download.is_none());
        if !wanted || part.inline {
            return Ok(false);
        }
        let stat = part.tree.root.metadata(&part.item.source).during("reading an archive")?;
        if !is(&stat, FileType::RegularFile) {
            return Ok(false);
        }
        Ok(archive::holds(open(part)?))
    }

    fn unpack(&self, part: &Part, target: &Path) -> Result<()> {
        if self.dated && self.epoch.is_some() {
            let what = format!("the time of {}", part.item.name.display());
            return Err(Error::malformed(
                what,
                "the files of an archive keep their own times".to_owned(),
            ));
        }
        self.directory(target)?;
        let into = self.to.sub(target).during(format!("opening {}", target.display()))?;
        let options = ApplyOptions {
            whiteouts: Whiteouts::Literal,
            owner: self.owner,
            ..ApplyOptions::default()
        };
        let archive = self.task.reading(open(part)?);
        let applied = layers::apply(archive, &into, &options)
            .during(format!("unpacking {}", part.item.name.display()))?;
        for skipped in applied.skipped {
            self.task.warn(skipped);
        }
        Ok(())
    }
}

fn open(part: &Part) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = part.tree.root.open_at(&part.item.source, flags, Mode::empty());
    Ok(File::from(fd.during(format!("opening {}", part.item.name.display()))?))
}
