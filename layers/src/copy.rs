//! Copying files from one root to another: COPY and ADD.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Stat, fchmod, fstat, futimens, linkat, mkdirat, mknodat,
    openat, statat, symlinkat, utimensat,
};
use rustix::io::Errno;
use task::Task;

use crate::apply::modified;
use crate::owner;
use crate::root::{Entry, chmod_node, list, make_dir, open_dir, remove};
use crate::xattr::At;
use crate::{Error, Result, Root, contents};

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

/// How to copy.
#[derive(Clone, Copy)]
pub struct CopyOptions<'a> {
    /// Everything belongs to this user and group instead of the source's.
    pub owner: Option<(u32, u32)>,
    /// The permission bits (07777) of a copy, given the `st_mode` (kind and bits) of the source.
    pub mode: &'a dyn Fn(u32) -> u32,
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
}

impl Default for CopyOptions<'_> {
    fn default() -> Self {
        CopyOptions {
            owner: None,
            mode: &|mode| mode & 0o7777,
            mtime: None,
            keep: &|_, _| Keep::Yes,
            follow: false,
            parents: (0, 0, 0o755),
            replace: false,
        }
    }
}

impl fmt::Debug for CopyOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyOptions").field("owner", &self.owner).finish_non_exhaustive()
    }
}

/// What was copied.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Copied {
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
) -> Result<Copied> {
    let mut copier = Copier {
        to,
        options,
        task,
        links: HashMap::new(),
        parents: Vec::new(),
        copied: Copied::default(),
    };
    copier.run(from, source, target)?;
    copier.finish_parents()?;
    Ok(copier.copied)
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
/// No more lines than this say what was skipped.
const NOTES: usize = 100;

struct Copier<'a> {
    to: &'a Root,
    options: &'a CopyOptions<'a>,
    task: &'a Task,
    /// Where files with several names went: directory and name.
    links: HashMap<(u64, u64), PathBuf>,
    /// Parents of the target that were made.
    parents: Vec<PathBuf>,
    copied: Copied,
}

/// A directory being copied.
struct Level {
    /// Relative to the source.
    path: PathBuf,
    from: OwnedFd,
    stat: Stat,
    /// Relative to the target's root.
    target: PathBuf,
    /// Open once it was made; until then it is only made if something goes into it.
    to: Option<OwnedFd>,
    /// Whether its attributes are set on leaving.
    attributes: bool,
    entries: std::vec::IntoIter<Entry>,
}

impl Copier<'_> {
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
        let itself = Source::Fd(fd.as_fd());
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
                Errno::NOTDIR => conflict(path, "it is no directory"),
                errno => Error::file("creating directory", path, errno),
            })
    }

    /// Sets the times of the parents, which making something in them has changed.
    fn finish_parents(&self) -> Result<()> {
        let Some(mtime) = self.options.mtime else { return Ok(()) };
        for path in &self.parents {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let fd = self.to.open_at(path, flags, Mode::empty())?;
            futimens(fd, &modified(mtime))
                .map_err(|errno| Error::file("setting the times of", path, errno))?;
        }
        Ok(())
    }

    fn tree(&mut self, from: OwnedFd, target: &Path, keep: Keep) -> Result<()> {
        let top = self.level(PathBuf::new(), from, target.to_owned(), true)?;
        let mut levels = vec![top];
        if keep == Keep::Yes {
            self.make(&mut levels)?;
        }
        while let Some(level) = levels.last_mut() {
            self.task.check()?;
            let Some(entry) = level.entries.next() else {
                if let Some(level) = levels.pop() {
                    self.leave(&level)?;
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
            let Some(Level { from, to: Some(to), .. }) = levels.last() else { continue };
            let source = Source::Name(from.as_fd(), &entry.name);
            self.leaf(source, &stat, to.as_fd(), &entry.name, &target)?;
        }
        Ok(())
    }

    fn level(&self, path: PathBuf, from: OwnedFd, target: PathBuf, top: bool) -> Result<Level> {
        let failed = |errno| Error::file("reading", &path, errno);
        let stat = fstat(&from).map_err(failed)?;
        let entries = list(&from).map_err(failed)?.into_iter();
        Ok(Level { path, from, stat, target, to: None, attributes: !top, entries })
    }

    /// Makes the innermost directory and those around it that were waiting.
    fn make(&mut self, levels: &mut [Level]) -> Result<()> {
        for index in 0..levels.len() {
            let (outer, rest) = levels.split_at_mut(index);
            let Some(level) = rest.first_mut().filter(|level| level.to.is_none()) else { continue };
            let (fd, made) = match outer.last().and_then(|outer| outer.to.as_ref()) {
                Some(parent) => self.make_in(parent.as_fd(), &level.target)?,
                None => match (level.target.parent(), level.target.file_name()) {
                    (Some(parent), Some(_)) => {
                        let parent = self.parents(parent)?;
                        self.make_in(parent.as_fd(), &level.target)?
                    }
                    _ => (self.parents(&level.target)?, false),
                },
            };
            level.attributes |= made;
            level.to = Some(fd);
            self.copied.files += 1;
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
                        return Err(conflict(target, "it is no directory"));
                    }
                    Err(errno) => return Err(failed(errno)),
                }
            }
            Err(errno) => return Err(failed(errno)),
        }
        open_dir(parent, name).map(|fd| (fd, true)).map_err(failed)
    }

    /// Sets a directory's attributes, after everything in it was made.
    fn leave(&mut self, level: &Level) -> Result<()> {
        let (Some(to), true) = (&level.to, level.attributes) else { return Ok(()) };
        let failed = |errno| Error::file("setting attributes of", &level.target, errno);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat(to, c".", flags, Mode::empty()).map_err(failed)?;
        self.finish(At::Fd(level.from.as_fd()), fd.as_fd(), &level.stat, &level.target)
    }

    /// Owner, mode, attributes and times of something that is open.
    fn finish(
        &mut self,
        from: At<'_>,
        to: BorrowedFd<'_>,
        stat: &Stat,
        target: &Path,
    ) -> Result<()> {
        let failed = |errno| Error::file("setting attributes of", target, errno);
        let (uid, gid) = self.owner(Some(from), stat).map_err(failed)?;
        owner::give(At::Fd(to), uid, gid).map_err(failed)?;
        let mode = (self.options.mode)(stat.st_mode) & 0o7777;
        fchmod(to, Mode::from_raw_mode(mode)).map_err(failed)?;
        self.xattrs(from, At::Fd(to), target)?;
        futimens(to, &modified(self.time(stat))).map_err(failed)
    }

    fn owner(&self, from: Option<At<'_>>, stat: &Stat) -> Result<(u32, u32), Errno> {
        match (self.options.owner, from) {
            (Some(owner), _) => Ok(owner),
            (None, Some(from)) => owner::of(from, stat),
            (None, None) => Ok((stat.st_uid, stat.st_gid)),
        }
    }

    fn time(&self, stat: &Stat) -> (i64, u32) {
        let own = (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0));
        self.options.mtime.unwrap_or(own)
    }

    fn xattrs(&mut self, from: At<'_>, to: At<'_>, target: &Path) -> Result<()> {
        let failed = |errno| Error::file("copying the attributes of", target, errno);
        for (name, value) in from.kept().map_err(failed)? {
            match to.set(&name, &value) {
                Ok(()) => {}
                Err(Errno::PERM | Errno::OPNOTSUPP | Errno::INVAL | Errno::ACCESS) => {
                    let name = String::from_utf8_lossy(&name);
                    self.skip(target, &format!("its attribute {name} cannot be set here"));
                }
                Err(errno) => return Err(failed(errno)),
            }
        }
        Ok(())
    }

    fn skip(&mut self, path: &Path, what: &str) {
        if self.copied.skipped.len() < NOTES {
            self.copied.skipped.push(format!("{}: {what}", path.display()));
        }
    }

    /// Copies anything but a directory.
    fn leaf(
        &mut self,
        source: Source<'_>,
        stat: &Stat,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        target: &Path,
    ) -> Result<()> {
        if stat.st_nlink > 1 && self.link(stat, dir, name, target)? {
            self.copied.files += 1;
            return Ok(());
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => self.file(source, stat, dir, name, target)?,
            FileType::Symlink => {
                let link = source.link().map_err(|e| Error::file("reading link", target, e))?;
                self.put(dir, name, target, &|| symlinkat(&link, dir, name))?;
                self.finish_name(source, stat, dir, name, target)?;
            }
            FileType::Socket => {
                self.skip(target, "a socket cannot be copied");
                return Ok(());
            }
            kind => {
                let mode = Mode::from_raw_mode(0o600);
                let made = self.put(dir, name, target, &|| match mknodat(
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
                    self.skip(target, "the device cannot be made here");
                    return Ok(());
                }
                self.finish_name(source, stat, dir, name, target)?;
            }
        }
        self.copied.files += 1;
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
        self.put(dir, name, target, &|| linkat(&from, &old, dir, name, AtFlags::empty()))?;
        Ok(true)
    }

    fn file(
        &mut self,
        source: Source<'_>,
        stat: &Stat,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        target: &Path,
    ) -> Result<()> {
        let from = source.open().map_err(|errno| Error::file("opening", target, errno))?;
        // What was looked at and what was opened may differ if somebody exchanges files.
        let now = fstat(&from).map_err(|errno| Error::file("examining", target, errno))?;
        if (now.st_dev, now.st_ino) != (stat.st_dev, stat.st_ino) {
            return Err(Error::Changed { path: target.to_owned() });
        }
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        let to = File::from(self.put(dir, name, target, &|| openat(dir, name, flags, mode))?);
        let size = u64::try_from(now.st_size).unwrap_or(0);
        let sparse = u64::try_from(now.st_blocks).unwrap_or(0).saturating_mul(512) < size;
        let task = self.task;
        let bytes = contents::copy(&from, &to, size, sparse, &mut |n| {
            task.advance(n);
            task.check().map_err(std::io::Error::other)
        })
        .map_err(|error| match Error::read(error) {
            Error::Read { source } => Error::file("copying to", target, source),
            other => other,
        })?;
        self.copied.bytes += bytes;
        self.finish(At::Fd(from.as_fd()), to.as_fd(), &now, target)
    }

    /// Owner, attributes and times of a link or a node.
    fn finish_name(
        &mut self,
        source: Source<'_>,
        stat: &Stat,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        target: &Path,
    ) -> Result<()> {
        let failed = |errno| Error::file("setting attributes of", target, errno);
        let (uid, gid) = self.owner(None, stat).map_err(failed)?;
        let no_follow = AtFlags::SYMLINK_NOFOLLOW;
        match owner::give(At::Name(dir, name), uid, gid) {
            // Where only one id exists links and nodes are root's: there is no place to keep more.
            Ok(_) | Err(Errno::PERM | Errno::OPNOTSUPP) if owner::single() => {}
            given => drop(given.map_err(failed)?),
        }
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Symlink {
            chmod_node(dir, name, (self.options.mode)(stat.st_mode) & 0o7777).map_err(failed)?;
        }
        if let Source::Name(from, old) = source {
            self.xattrs(At::Name(from, old), At::Name(dir, name), target)?;
        }
        utimensat(dir, name, &modified(self.time(stat)), no_follow).map_err(failed)
    }

    /// Makes something in place of a file or link that is there.
    fn put<T>(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        target: &Path,
        make: &dyn Fn() -> Result<T, Errno>,
    ) -> Result<T> {
        let failed = |errno| Error::file("creating", target, errno);
        match make() {
            Err(Errno::EXIST) => {}
            other => return other.map_err(failed),
        }
        let there = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        let is_dir = FileType::from_raw_mode(there.st_mode) == FileType::Directory;
        if is_dir && !self.options.replace {
            return Err(conflict(target, "it is a directory"));
        }
        remove(dir, name).map_err(failed)?;
        make().map_err(failed)
    }
}

/// A file to be copied: by name in an open directory, or held by reference.
#[derive(Clone, Copy)]
enum Source<'a> {
    Name(BorrowedFd<'a>, &'a OsStr),
    Fd(BorrowedFd<'a>),
}

impl Source<'_> {
    fn open(&self) -> Result<File, Errno> {
        match self {
            Source::Name(dir, name) => contents::open(*dir, name),
            Source::Fd(fd) => {
                use std::os::fd::AsRawFd;
                let itself = format!("/proc/self/fd/{}", fd.as_raw_fd());
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
                openat(CWD, itself, flags, Mode::empty()).map(File::from)
            }
        }
    }

    fn link(&self) -> Result<OsString, Errno> {
        use std::os::unix::ffi::OsStringExt;
        let target = match self {
            Source::Name(dir, name) => rustix::fs::readlinkat(dir, *name, Vec::new())?,
            Source::Fd(fd) => rustix::fs::readlinkat(fd, c"", Vec::new())?,
        };
        Ok(OsString::from_vec(target.into_bytes()))
    }
}

fn conflict(path: &Path, reason: &'static str) -> Error {
    Error::Conflict { path: path.to_owned(), reason }
}
