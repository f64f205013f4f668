//! Whiteouts: what a layer takes away from the layers below it, never from itself.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Mode, mknodat, statat};
use rustix::io::Errno;

use super::name::EntryName;
use super::{Unpacker, os, path, refuse};
use crate::root::{list, open_dir, remove};
use crate::tar::Header;
use crate::{Error, Result, Whiteouts};

/// As deep as trees are pruned.
const DEPTH: usize = 2048;

impl Unpacker<'_> {
    /// Applies the whiteout of `hidden`, next to it.
    pub(super) fn whiteout(
        &mut self,
        header: &Header,
        name: &EntryName,
        hidden: &[u8],
    ) -> Result<()> {
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(refuse(&header.path, "a whiteout of nothing"));
        }
        if hidden == b".wh..opq" {
            return self.opaque(name);
        }
        if hidden.starts_with(b".wh.") {
            // AUFS kept its own files under such names.
            self.skip(&header.path, "it is not a whiteout that is known");
            return Ok(());
        }
        let failed = |errno| Error::file("deleting", path(&name.path), errno);
        if self.options.whiteouts == Whiteouts::Delete {
            let Some(dir) = self.existing(name.parent()).map_err(failed)? else { return Ok(()) };
            let gone = self.prune(dir.fd.as_fd(), hidden, 0).map_err(failed);
            self.parents.forget();
            return gone;
        }
        let dir = self.dir(name.parent())?;
        match statat(&dir.fd, os(hidden), AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {
                let none = Mode::empty();
                mknodat(&dir.fd, os(hidden), FileType::CharacterDevice, none, 0).map_err(failed)
            }
            Err(errno) => Err(failed(errno)),
            // The layer brings a directory of its own in place of the deleted one.
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                let fd = open_dir(dir.fd.as_fd(), os(hidden)).map_err(failed)?;
                self.make_opaque(&name.path, fd.as_fd())
            }
            // Whatever else the layer brings hides the deleted one by itself.
            Ok(_) => Ok(()),
        }
    }

    /// Hides everything that lower layers have in a directory.
    fn opaque(&mut self, name: &EntryName) -> Result<()> {
        let failed = |errno| Error::file("emptying", path(name.parent()), errno);
        if self.options.whiteouts == Whiteouts::Overlay {
            let dir = self.dir(name.parent())?;
            return self.make_opaque(name.parent(), dir.fd.as_fd());
        }
        let Some(dir) = self.existing(name.parent()).map_err(failed)? else { return Ok(()) };
        let done = self.prune_all(dir.fd.as_fd(), 0).map_err(failed);
        self.parents.forget();
        done
    }

    /// Removes a name, but nothing that this archive has brought.
    fn prune(&self, dir: BorrowedFd<'_>, name: &[u8], depth: usize) -> Result<(), Errno> {
        let stat = match statat(dir, os(name), AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            other => other?,
        };
        if !self.brought.contains(&(stat.st_dev, stat.st_ino)) {
            return remove(dir, os(name));
        }
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let fd = open_dir(dir, os(name))?;
            return self.prune_all(fd.as_fd(), depth + 1);
        }
        Ok(())
    }

    fn prune_all(&self, dir: BorrowedFd<'_>, depth: usize) -> Result<(), Errno> {
        if depth > DEPTH {
            return Err(Errno::NAMETOOLONG);
        }
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
        let listed =
            rustix::fs::openat(dir, c".", flags | rustix::fs::OFlags::CLOEXEC, Mode::empty())?;
        for entry in list(&listed)? {
            self.prune(dir, entry.name.as_encoded_bytes(), depth)?;
        }
        Ok(())
    }
}
