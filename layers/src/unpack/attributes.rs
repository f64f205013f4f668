//! Owners, modes, times and attributes: set on the thing just made, never by a path.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Mode, OFlags, fchmod, fstat, futimens, utimensat};
use rustix::io::Errno;

use super::parents::Dir;
use super::{DeferredAttributes, UnpackReport, Unpacker, os, owned, path};
use crate::apply::modified;
use crate::owner::{self, Ownership};
use crate::root::chmod_node;
use crate::tar::{Header, TypeFlag};
use crate::xattr::At;
use crate::{Error, Result, Whiteouts};

impl Unpacker<'_> {
    /// Sets the owner of a new file if it has another one; says whether it was set.
    fn chown(&mut self, header: &Header, dir: &Dir, at: At<'_>) -> Result<bool> {
        let (uid, gid) = self.owner(header);
        if !dir.setgid && (uid, gid) == self.me && dir.gid == gid {
            return Ok(false);
        }
        self.chown_always(header, at)
    }

    pub(super) fn chown_always(&mut self, header: &Header, at: At<'_>) -> Result<bool> {
        let (uid, gid) = self.owner(header);
        match owner::give(at, uid, gid) {
            Ok(given) => Ok(given == Ownership::Really),
            // Not mapped into this user namespace, or not ours to give, and not to be kept either.
            Err(Errno::INVAL | Errno::PERM | Errno::OPNOTSUPP) => {
                self.skip(&header.path, &format!("its owner {uid}:{gid} cannot be set here"));
                Ok(false)
            }
            Err(errno) => Err(Error::file("setting the owner of", path(&header.path), errno)),
        }
    }

    /// Everything about a plain file that was just written.
    pub(super) fn finish_file(
        &mut self,
        header: &Header,
        dir: &Dir,
        fd: BorrowedFd<'_>,
    ) -> Result<()> {
        self.chown(header, dir, At::Fd(fd))?;
        // Changing the owner takes the special bits away, so they come after.
        if !self.exact || header.mode & 0o7000 != 0 {
            fchmod(fd, Mode::from_raw_mode(header.mode))
                .map_err(|errno| Error::file("setting the mode of", path(&header.path), errno))?;
        }
        self.set_xattrs(&header.path, &header.xattrs, At::Fd(fd))?;
        futimens(fd, &modified(header.mtime)).map_err(|e| times(&header.path, e))
    }

    /// Everything about a link or a node that was just made and cannot be opened.
    pub(super) fn finish_name(&mut self, header: &Header, dir: &Dir, name: &[u8]) -> Result<()> {
        let at = At::Name(dir.fd.as_fd(), os(name));
        self.chown(header, dir, at)?;
        if header.kind != TypeFlag::Symlink && (!self.exact || header.mode & 0o7000 != 0) {
            chmod_node(dir.fd.as_fd(), os(name), header.mode)
                .map_err(|errno| Error::file("setting the mode of", path(&header.path), errno))?;
        }
        self.set_xattrs(&header.path, &header.xattrs, at)?;
        utimensat(&dir.fd, os(name), &modified(header.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| times(&header.path, errno))
    }

    /// The owner and mode of a directory, held open; its times and attributes come at the end.
    /// `made` says in which directory it was just made.
    pub(super) fn finish_dir(
        &mut self,
        header: &Header,
        name: &[u8],
        fd: BorrowedFd<'_>,
        made: Option<&Dir>,
    ) -> Result<Dir> {
        let changed = match made {
            Some(parent) => self.chown(header, parent, At::Fd(fd))?,
            None => self.chown_always(header, At::Fd(fd))?,
        };
        let inherits = made.is_some_and(|parent| parent.setgid);
        if made.is_none() || !self.exact || changed || inherits || header.mode & 0o6000 != 0 {
            fchmod(fd, Mode::from_raw_mode(header.mode))
                .map_err(|errno| Error::file("setting the mode of", path(&header.path), errno))?;
        }
        let stat = fstat(fd).map_err(|e| Error::file("examining", path(&header.path), e))?;
        self.bring(&stat);
        self.remember(name, &header.xattrs)?;
        // One that is there costs the archive nothing to name again.
        if made.is_none() {
            self.remembered += 2 * size_of::<DeferredAttributes>() as u64;
        }
        self.deferred.push(DeferredAttributes {
            path: name.to_vec(),
            inode: stat.st_ino,
            mtime: header.mtime,
            xattrs: header.xattrs.clone(),
        });
        let fd = fd
            .try_clone_to_owned()
            .map_err(|error| Error::file("opening", path(&header.path), error))?;
        Ok(Dir { fd, gid: stat.st_gid, setgid: stat.st_mode & 0o2000 != 0 })
    }

    fn set_xattrs(
        &mut self,
        entry: &[u8],
        xattrs: &[(Vec<u8>, Vec<u8>)],
        at: At<'_>,
    ) -> Result<()> {
        for (name, value) in xattrs.iter().filter(|(name, _)| name != owner::NAME) {
            match at.set(name, value) {
                Ok(()) => {}
                Err(Errno::PERM | Errno::OPNOTSUPP | Errno::INVAL | Errno::ACCESS) => {
                    let name = String::from_utf8_lossy(name);
                    self.skip(entry, &format!("its attribute {name} cannot be set here"));
                }
                Err(errno) => {
                    return Err(Error::file("setting an attribute of", path(entry), errno));
                }
            }
        }
        Ok(())
    }

    /// Sets the times of directories, which are last because every file made in one changes them.
    pub(super) fn finish(mut self) -> Result<UnpackReport> {
        for later in std::mem::take(&mut self.deferred) {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let Ok(fd) = self.root.lookup(path(&later.path), flags, Mode::empty()) else {
                // Replaced by a later entry.
                continue;
            };
            let stat = fstat(&fd).map_err(|e| Error::file("examining", path(&later.path), e))?;
            if stat.st_ino == later.inode {
                self.set_xattrs(&later.path, &later.xattrs, At::Fd(fd.as_fd()))?;
                futimens(&fd, &modified(later.mtime)).map_err(|e| times(&later.path, e))?;
            }
        }
        let mut implied = Vec::with_capacity(self.implied.len());
        for name in std::mem::take(&mut self.implied) {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let Ok(fd) = self.root.lookup(path(&name), flags, Mode::empty()) else { continue };
            if self.options.whiteouts == Whiteouts::Overlay {
                // A time that does not depend on when the layer was unpacked.
                futimens(&fd, &modified((0, 0))).map_err(|e| times(&name, e))?;
            }
            implied.push(owned(name));
        }
        Ok(UnpackReport { implied, entries: self.entries, skipped: self.skipped })
    }
}

fn times(name: &[u8], errno: Errno) -> Error {
    Error::file("setting the times of", path(name), errno)
}
