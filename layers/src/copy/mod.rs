//! Copying files from one root to another: COPY and ADD.

mod place;
mod pool;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, fstat, futimens, linkat, mkdirat, mknodat, statat,
    symlinkat,
};
use rustix::io::Errno;
use task::Task;

use self::place::{CopySource, Placer, TargetDirectory};
use self::pool::{BATCH, Batch, Pool, RegularFile};
use crate::apply::modified;
use crate::root::{Entry, list, make_dir, open_dir, remove};
use crate::xattr::At;
use crate::{Error, Result, Root};

/// What to do with one path of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Copy it, and ask again for what is below it.
    Yes,
    /// Leave it and everything below it out.
    No,
    /// A directory that is only copied if something below it is.
    Descend,
}

/// Gives the owner (user and group) of a copy for that of its source; nothing if there can be none.
pub type FindOwner<'a> = dyn Fn((u32, u32)) -> Option<(u32, u32)> + Sync + 'a;

/// How to copy.
#[derive(Clone, Copy)]
pub struct CopyOptions<'a> {
    /// Everything belongs to this user and group instead of the source's.
    pub owner: Option<(u32, u32)>,
    /// The owner of a copy, given that of its source; nothing if there can be none.
    pub owners: Option<&'a FindOwner<'a>>,
    /// The permission bits (07777) of a copy, given the `st_mode` (kind and bits) of the source.
    pub mode: &'a (dyn Fn(u32) -> u32 + Sync),
    /// The modification time (seconds and nanoseconds since 1970) of every copy instead of the
    /// source's.
    pub mtime: Option<(i64, u32)>,
    /// Asked for every path below the source (relative to it; an empty path for the source
    /// itself) and whether it is a directory.
    pub keep: &'a dyn Fn(&Path, bool) -> Keep,
    /// Whether the source's final component is followed when it is a symbolic link.
    pub follow: bool,
    /// Owner and permission bits of the parents of the target that have to be made: user, group
    /// and bits. Their time is `mtime`, or the moment when that is `None`.
    pub parents: (u32, u32, u32),
    /// Whether a file may take the place of a directory and the other way round; otherwise that
    /// is [`Error::Conflict`].
    pub replace: bool,
    /// How many threads copy the files of a tree; with one it is the caller's.
    pub threads: usize,
}

impl Default for CopyOptions<'_> {
    fn default() -> Self {
        CopyOptions {
            owner: None,
            owners: None,
            mode: &|mode| mode & 0o7777,
            mtime: None,
            keep: &|_, _| Keep::Yes,
            follow: false,
            parents: (0, 0, 0o755),
            replace: false,
            threads: 1,
        }
    }
}

impl fmt::Debug for CopyOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyOptions").field("owner", &self.owner).finish_non_exhaustive()
    }
}

/// What a copy of files did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CopyReport {
    /// Files of every kind, directories included.
    pub files: u64,
    /// Bytes of contents.
    pub bytes: u64,
    /// What could not be kept: one line each, at most a hundred.
    pub skipped: Vec<String>,
}

/// Copies the file or tree `source` to `target`, which becomes the copy itself: to copy into a
/// directory, name the file in it. Parents of the target are made.
///
/// Where the target has a directory (or a link to one, followed within its root) a directory is
/// merged into it; it keeps its own attributes at the top, directories below take the source's.
/// Files and links are put in the place of others. Links in the source are copied as links.
/// Bytes count on `task`.
///
/// # Errors
/// When one of the roots cannot be read or written, or kinds are in conflict.
pub fn copy(
    from: &Root,
    source: &Path,
    to: &Root,
    target: &Path,
    options: &CopyOptions<'_>,
    task: &Task,
) -> Result<CopyReport> {
    let placer = Placer {
        owner: options.owner,
        owners: options.owners,
        mode: options.mode,
        mtime: options.mtime,
        replace: options.replace,
        task,
        copied: Mutex::default(),
    };
    let walk = |pool: Option<&Pool<'_>>| {
        let links = HashMap::new();
        let mut walker = Walker { to, options, placer: &placer, pool, links, parents: Vec::new() };
        walker.run(from, source, target)?;
        Ok(walker.parents)
    };
    let parents = match options.threads {
        0 | 1 => walk(None)?,
        threads => Pool::during(&placer, threads, |pool| walk(Some(pool)))?,
    };
    finish_parents(to, &parents, options.mtime)?;
    let mut copied = placer.copied.into_inner().unwrap_or_else(PoisonError::into_inner);
    copied.skipped.sort();
    Ok(copied)
}

/// The extended attributes that a copy of this name in an open directory takes along, sorted by
/// name; none if there is nothing of this name. A link is not followed; an empty name is what the
/// descriptor is open on.
///
/// # Errors
/// When they may not be read.
pub fn attributes(dir: BorrowedFd<'_>, name: &OsStr) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let at = if name.is_empty() { At::Fd(dir) } else { At::Name(dir, name) };
    match at.kept() {
        Err(Errno::NOENT) => Ok(Vec::new()),
        other => {
            other.map_err(|errno| Error::file("reading the attributes of", Path::new(name), errno))
        }
    }
}

/// As many levels of directories are held open at once on each side.
const DEPTH: usize = 256;

struct Walker<'a> {
    to: &'a Root,
    options: &'a CopyOptions<'a>,
    placer: &'a Placer<'a>,
    /// Who copies the files; without it they are copied on the way.
    pool: Option<&'a Pool<'a>>,
    /// Where files with several names went: directory and name.
    links: HashMap<(u64, u64), PathBuf>,
    /// Parents of the target that were made.
    parents: Vec<PathBuf>,
}

/// A directory being copied.
struct Level {
    /// Relative to the source.
    path: PathBuf,
    from: Arc<OwnedFd>,
    stat: Stat,
    /// Relative to the target's root.
    target: PathBuf,
    top: bool,
    /// Made only if something goes into it.
    made: Option<Arc<TargetDirectory>>,
    /// To be copied by others.
    files: Vec<RegularFile>,
    entries: std::vec::IntoIter<Entry>,
}

impl Walker<'_> {
    fn run(&mut self, from: &Root, source: &Path, target: &Path) -> Result<()> {
        let mut flags = OFlags::PATH;
        if !self.options.follow {
            flags |= OFlags::NOFOLLOW;
        }
        let fd = from.open_at(source, flags, Mode::empty())?;
        let stat = fstat(&fd).map_err(|errno| Error::file("examining", source, errno))?;
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let keep = (self.options.keep)(Path::new(""), is_dir);
        if keep == Keep::No || (keep == Keep::Descend && !is_dir) {
            return Ok(());
        }
        if is_dir {
            let fd = from.open_at(source, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
            return self.tree(fd, target, keep);
        }
        let Some(name) = target.file_name() else {
            return Err(conflict(target, "a file cannot take the place of the root"));
        };
        let dir = self.parents(target.parent().unwrap_or(Path::new("")))?;
        // The source again, by the directory it lies in: links have been followed above.
        let itself = CopySource::Fd(fd.as_fd());
        self.leaf(itself, &stat, dir.as_fd(), name, target)
    }

    /// The directory of this path in the target, made if it is missing.
    fn parents(&mut self, path: &Path) -> Result<OwnedFd> {
        let ((uid, gid, mode), made) = (self.options.parents, &mut self.parents);
        self.to
            .make_dirs(path, &mut |missing| {
                if missing.in_the_way.is_some() {
                    return Err(Errno::NOTDIR);
                }
                made.push(missing.path.clone());
                make_dir(missing.dir, missing.name, mode, Some((uid, gid)))
            })
            .map_err(|errno| match errno {
                Errno::NOTDIR => conflict(path, "it is not a directory"),
                errno => Error::file("creating directory", path, errno),
            })
    }

    fn tree(&mut self, from: OwnedFd, target: &Path, keep: Keep) -> Result<()> {
        let top = self.level(PathBuf::new(), from, target.to_owned(), true)?;
        let mut levels = vec![top];
        if keep == Keep::Yes {
            self.make(&mut levels)?;
        }
        while let Some(level) = levels.last_mut() {
            self.placer.task.check()?;
            let Some(entry) = level.entries.next() else {
                if let Some(mut level) = levels.pop() {
                    self.hand_on(&mut level)?;
                    level.made.map_or(Ok(()), |made| self.placer.release(made))?;
                }
                continue;
            };
            let path = level.path.join(&entry.name);
            let failed = |errno| Error::file("reading", &path, errno);
            let stat =
                statat(&level.from, &entry.name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
            let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            let keep = (self.options.keep)(&path, is_dir);
            if keep == Keep::No || (keep == Keep::Descend && !is_dir) {
                continue;
            }
            let target = level.target.join(&entry.name);
            if is_dir {
                let from = open_dir(level.from.as_fd(), &entry.name).map_err(failed)?;
                if levels.len() > DEPTH {
                    return Err(failed(Errno::NAMETOOLONG));
                }
                let below = self.level(path, from, target, false)?;
                levels.push(below);
                if keep == Keep::Yes {
                    self.make(&mut levels)?;
                }
                continue;
            }
            self.make(&mut levels)?;
            let Some(level) = levels.last_mut() else { continue };
            let plain = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
            if self.pool.is_some() && plain && stat.st_nlink == 1 {
                level.files.push(RegularFile { name: entry.name, stat });
                if level.files.len() == BATCH {
                    self.hand_on(level)?;
                }
                continue;
            }
            let Some(made) = level.made.as_ref() else { continue };
            let source = CopySource::Name(made.from.as_fd(), &entry.name);
            let made = Arc::clone(made);
            self.leaf(source, &stat, made.to.as_fd(), &entry.name, &target)?;
        }
        Ok(())
    }

    /// Gives the files of a directory to those who copy them.
    fn hand_on(&self, level: &mut Level) -> Result<()> {
        let files = std::mem::take(&mut level.files);
        match (self.pool, &level.made) {
            (Some(pool), Some(made)) if !files.is_empty() => {
                pool.add(Batch { dir: Arc::clone(made), files })
            }
            _ => Ok(()),
        }
    }

    fn level(&self, path: PathBuf, from: OwnedFd, target: PathBuf, top: bool) -> Result<Level> {
        let failed = |errno| Error::file("reading", &path, errno);
        let stat = fstat(&from).map_err(failed)?;
        let entries = list(&from).map_err(failed)?.into_iter();
        Ok(Level {
            path,
            from: Arc::new(from),
            stat,
            target,
            top,
            made: None,
            files: Vec::new(),
            entries,
        })
    }

    /// Makes the innermost directory and those around it that were waiting.
    fn make(&mut self, levels: &mut [Level]) -> Result<()> {
        for index in 0..levels.len() {
            let (outer, rest) = levels.split_at_mut(index);
            let Some(level) = rest.first_mut().filter(|level| level.made.is_none()) else {
                continue;
            };
            let (to, new) = match outer.last().and_then(|outer| outer.made.as_ref()) {
                Some(parent) => self.make_in(parent.to.as_fd(), &level.target)?,
                None => match (level.target.parent(), level.target.file_name()) {
                    (Some(parent), Some(_)) => {
                        let parent = self.parents(parent)?;
                        self.make_in(parent.as_fd(), &level.target)?
                    }
                    _ => (self.parents(&level.target)?, false),
                },
            };
            level.made = Some(Arc::new(TargetDirectory {
                from: Arc::clone(&level.from),
                stat: level.stat,
                to,
                target: level.target.clone(),
                attributes: new || !level.top,
            }));
            self.placer.count(|copied| copied.files += 1);
        }
        Ok(())
    }

    /// Makes a directory, or finds the one that is there; says whether it was made.
    fn make_in(&self, parent: BorrowedFd<'_>, target: &Path) -> Result<(OwnedFd, bool)> {
        let name = target.file_name().unwrap_or_default();
        let failed = |errno| Error::file("creating directory", target, errno);
        let make = || mkdirat(parent, name, Mode::from_raw_mode(0o700));
        match make() {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let flags = OFlags::PATH | OFlags::DIRECTORY;
                match self.to.lookup(target, flags, Mode::empty()) {
                    Ok(fd) => return Ok((fd, false)),
                    Err(Errno::NOTDIR | Errno::NOENT | Errno::LOOP) if self.options.replace => {
                        remove(parent, name).map_err(failed)?;
                        make().map_err(failed)?;
                    }
                    Err(Errno::NOTDIR | Errno::NOENT | Errno::LOOP) => {
                        return Err(conflict(target, "it is not a directory"));
                    }
                    Err(errno) => return Err(failed(errno)),
                }
            }
            Err(errno) => return Err(failed(errno)),
        }
        open_dir(parent, name).map(|fd| (fd, true)).map_err(failed)
    }

    /// Copies anything but a directory.
    fn leaf(
        &mut self,
        source: CopySource<'_>,
        stat: &Stat,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        target: &Path,
    ) -> Result<()> {
        if stat.st_nlink > 1 && self.link(stat, dir, name, target)? {
            self.placer.count(|copied| copied.files += 1);
            return Ok(());
        }
        let kind = FileType::from_raw_mode(stat.st_mode);
        match kind {
            FileType::RegularFile => self.placer.file(source, stat, dir, name, target)?,
            FileType::Symlink => {
                let link = source.link().map_err(|e| Error::file("reading link", target, e))?;
                self.placer.put(dir, name, target, &|| symlinkat(&link, dir, name))?;
                self.placer.finish_name(source, stat, dir, name, target)?;
            }
            FileType::Socket => {
                self.placer.skip(target, "a socket cannot be copied");
                return Ok(());
            }
            _ => {
                let mode = Mode::from_raw_mode(0o600);
                let made = self.placer.put(dir, name, target, &|| match mknodat(
                    dir,
                    name,
                    kind,
                    mode,
                    stat.st_rdev,
                ) {
                    Err(Errno::PERM) => Ok(false),
                    other => other.map(|()| true),
                })?;
                if !made {
                    self.placer.skip(target, "the device cannot be made here");
                    return Ok(());
                }
                self.placer.finish_name(source, stat, dir, name, target)?;
            }
        }
        if kind != FileType::RegularFile {
            self.placer.count(|copied| copied.files += 1);
        }
        if stat.st_nlink > 1 {
            self.links.insert((stat.st_dev, stat.st_ino), target.to_owned());
        }
        Ok(())
    }

    /// Links to the copy of the same file, if there is one already.
    fn link(&self, stat: &Stat, dir: BorrowedFd<'_>, name: &OsStr, target: &Path) -> Result<bool> {
        let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) else { return Ok(false) };
        let failed = |errno| Error::file("creating hard link", target, errno);
        let Some((from, old)) = self.to.parent(first).map_err(failed)? else { return Ok(false) };
        self.placer.put(dir, name, target, &|| linkat(&from, &old, dir, name, AtFlags::empty()))?;
        Ok(true)
    }
}

fn conflict(path: &Path, reason: &'static str) -> Error {
    Error::Conflict { path: path.to_owned(), reason }
}

/// Sets the times of the parents, which making something in them has changed.
fn finish_parents(to: &Root, parents: &[PathBuf], mtime: Option<(i64, u32)>) -> Result<()> {
    let Some(mtime) = mtime else { return Ok(()) };
    for path in parents {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let fd = to.open_at(path, flags, Mode::empty())?;
        futimens(fd, &modified(mtime))
            .map_err(|errno| Error::file("setting the times of", path, errno))?;
    }
    Ok(())
}
