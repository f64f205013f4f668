//! Placing one copied file: its contents, then its owner, mode, attributes and times.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Stat, fchmod, fstat, futimens, openat, statat, utimensat,
};
use rustix::io::Errno;
use task::Task;

use super::{CopyReport, FindOwner, conflict};
use crate::apply::modified;
use crate::root::{chmod_node, remove};
use crate::xattr::At;
use crate::{Error, Result, contents, owner};

/// No more lines than this say what was skipped.
const NOTES: usize = 100;

/// What all threads that copy share.
pub(super) struct Placer<'a> {
    pub(super) owner: Option<(u32, u32)>,
    pub(super) owners: Option<&'a FindOwner<'a>>,
    pub(super) mode: &'a (dyn Fn(u32) -> u32 + Sync),
    pub(super) mtime: Option<(i64, u32)>,
    pub(super) replace: bool,
    pub(super) task: &'a Task,
    pub(super) copied: Mutex<CopyReport>,
}

/// A directory that was made or found for a copy. The last owner that drops it sets its attributes,
/// because making something in it changes its time.
pub(super) struct TargetDirectory {
    pub(super) from: Arc<OwnedFd>,
    pub(super) stat: Stat,
    pub(super) to: OwnedFd,
    /// Relative to the target's root.
    pub(super) target: PathBuf,
    /// Whether its attributes are set at all.
    pub(super) attributes: bool,
}

impl Placer<'_> {
    /// Counts what was copied.
    pub(super) fn count(&self, add: impl FnOnce(&mut CopyReport)) {
        add(&mut self.copied.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Releases a directory.
    pub(super) fn release(&self, dir: Arc<TargetDirectory>) -> Result<()> {
        let Some(dir) = Arc::into_inner(dir).filter(|dir| dir.attributes) else { return Ok(()) };
        let failed = |errno| Error::file("setting attributes of", &dir.target, errno);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat(&dir.to, c".", flags, Mode::empty()).map_err(failed)?;
        self.finish(At::Fd(dir.from.as_fd()), fd.as_fd(), &dir.stat, &dir.target)
    }

    /// Owner, mode, attributes and times of something that is open.
    fn finish(&self, from: At<'_>, to: BorrowedFd<'_>, stat: &Stat, target: &Path) -> Result<()> {
        let failed = |errno| Error::file("setting attributes of", target, errno);
        let (uid, gid) = self.owner(Some(from), stat).map_err(failed)?;
        owner::give(At::Fd(to), uid, gid).map_err(failed)?;
        let mode = (self.mode)(stat.st_mode) & 0o7777;
        fchmod(to, Mode::from_raw_mode(mode)).map_err(failed)?;
        self.xattrs(from, At::Fd(to), target)?;
        futimens(to, &modified(self.time(stat))).map_err(failed)
    }

    fn owner(&self, from: Option<At<'_>>, stat: &Stat) -> Result<(u32, u32), Errno> {
        let owner = match (self.owner, from) {
            (Some(owner), _) => owner,
            (None, Some(from)) => owner::of(from, stat)?,
            (None, None) => (stat.st_uid, stat.st_gid),
        };
        // The kernel's error for an id that has no place in a map.
        self.owners.map_or(Some(owner), |find| find(owner)).ok_or(Errno::OVERFLOW)
    }

    fn time(&self, stat: &Stat) -> (i64, u32) {
        let own = (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0));
        self.mtime.unwrap_or(own)
    }

    fn xattrs(&self, from: At<'_>, to: At<'_>, target: &Path) -> Result<()> {
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

    pub(super) fn skip(&self, path: &Path, what: &str) {
        self.count(|copied| {
            if copied.skipped.len() < NOTES {
                copied.skipped.push(format!("{}: {what}", path.display()));
            }
        });
    }

    pub(super) fn file(
        &self,
        source: CopySource<'_>,
        stat: &Stat,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        target: &Path,
    ) -> Result<()> {
        let from = source.open().map_err(|errno| Error::file("opening", target, errno))?;
        // The inspected and the opened file may differ if files are exchanged meanwhile.
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
        self.count(|copied| {
            copied.files += 1;
            copied.bytes += bytes;
        });
        self.finish(At::Fd(from.as_fd()), to.as_fd(), &now, target)
    }

    /// Owner, attributes and times of a link or a node.
    pub(super) fn finish_name(
        &self,
        source: CopySource<'_>,
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
            chmod_node(dir, name, (self.mode)(stat.st_mode) & 0o7777).map_err(failed)?;
        }
        if let CopySource::Name(from, old) = source {
            self.xattrs(At::Name(from, old), At::Name(dir, name), target)?;
        }
        utimensat(dir, name, &modified(self.time(stat)), no_follow).map_err(failed)
    }

    /// Makes something in place of a file or link that is there.
    pub(super) fn put<T>(
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
        if is_dir && !self.replace {
            return Err(conflict(target, "it is a directory"));
        }
        remove(dir, name).map_err(failed)?;
        make().map_err(failed)
    }
}

/// A file to be copied: by name in an open directory, or held by reference.
#[derive(Clone, Copy)]
pub(super) enum CopySource<'a> {
    Name(BorrowedFd<'a>, &'a OsStr),
    Fd(BorrowedFd<'a>),
}

impl CopySource<'_> {
    pub(super) fn open(&self) -> Result<File, Errno> {
        match self {
            CopySource::Name(dir, name) => contents::open(*dir, name),
            CopySource::Fd(fd) => {
                use std::os::fd::AsRawFd;
                let itself = format!("/proc/self/fd/{}", fd.as_raw_fd());
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
                openat(CWD, itself, flags, Mode::empty()).map(File::from)
            }
        }
    }

    pub(super) fn link(&self) -> Result<OsString, Errno> {
        use std::os::unix::ffi::OsStringExt;
        let target = match self {
            CopySource::Name(dir, name) => rustix::fs::readlinkat(dir, *name, Vec::new())?,
            CopySource::Fd(fd) => rustix::fs::readlinkat(fd, c"", Vec::new())?,
        };
        Ok(OsString::from_vec(target.into_bytes()))
    }
}
