//! Making files, directories, links and devices.

use std::fs::File;
use std::io::{BufRead, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::rc::Rc;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, fstat, linkat, makedev, mkdirat, mknodat, openat,
    statat, symlinkat,
};
use rustix::io::Errno;

use super::name::EntryName;
use super::parents::Dir;
use super::{Unpacker, os, path, refuse};
use crate::root::{open_dir, remove};
use crate::tar::{Header, Reader, TypeFlag};
use crate::xattr::{At, overlay};
use crate::{Error, Result, Whiteouts};

/// What the path of an entry had before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PriorEntry {
    /// Nothing that matters, or something that is gone now.
    Free,
    /// A whiteout of this layer: a directory in its place hides what is below it.
    Whiteout,
}

impl Unpacker<'_> {
    /// The entry for the root itself, or one without a name: only its attributes count, and only a
    /// directory's.
    pub(super) fn root_entry(&mut self, header: &Header) -> Result<()> {
        // What is added to an existing directory does not change that directory.
        if self.options.whiteouts == Whiteouts::Literal {
            if header.kind != TypeFlag::Directory {
                self.skip(b"/", "an entry that is no directory has no name");
            }
            return Ok(());
        }
        if header.kind != TypeFlag::Directory {
            return Err(refuse(&header.path, "the root itself can only be a directory"));
        }
        self.implied.remove(&b""[..]);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let fd = self
            .root
            .lookup(path(b""), flags, Mode::empty())
            .map_err(|errno| Error::file("opening", path(&header.path), errno))?;
        let dir = self.finish_dir(header, b"", fd.as_fd(), None)?;
        self.parents.put(b"", dir);
        Ok(())
    }

    pub(super) fn file(
        &mut self,
        header: &Header,
        name: &EntryName,
        reader: &mut Reader<impl BufRead>,
    ) -> Result<()> {
        let size = header.sparse.as_ref().map_or(header.size, |sparse| sparse.size);
        if size > self.options.limits.file {
            return Err(Error::Limit {
                what: "bytes in one file",
                limit: self.options.limits.file,
            });
        }
        let dir = self.dir(name.parent())?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = if self.exact { header.mode & 0o777 } else { 0o600 };
        let fd = self.create(&dir, name, "creating", |dir, name| {
            openat(&dir.fd, os(name), flags, Mode::from_raw_mode(mode))
        })?;
        let mut file = File::from(fd);
        let failed = |error| Error::file("writing", path(&header.path), error);
        match &header.sparse {
            None => copy_contents(&mut file, reader, u64::MAX).map_err(failed)??,
            Some(sparse) => {
                for (offset, length) in &sparse.pieces {
                    file.seek(SeekFrom::Start(*offset)).map_err(failed)?;
                    copy_contents(&mut file, reader, *length).map_err(failed)??;
                }
                file.set_len(sparse.size).map_err(failed)?;
            }
        }
        self.finish_file(header, &dir, file.as_fd())?;
        if self.options.whiteouts == Whiteouts::Delete {
            self.bring(&fstat(&file).map_err(|errno| failed(errno.into()))?);
        }
        Ok(())
    }

    pub(super) fn directory(&mut self, header: &Header, name: &EntryName) -> Result<()> {
        let dir = self.dir(name.parent())?;
        let mode = if self.exact { header.mode & 0o1777 } else { 0o700 };
        let mut made = true;
        let mut hides = PriorEntry::Free;
        let make = |dir: &Dir| mkdirat(&dir.fd, os(name.last()), Mode::from_raw_mode(mode));
        let failed = |errno| Error::file("creating directory", path(&name.path), errno);
        match make(&dir) {
            Ok(()) => {}
            Err(Errno::EXIST) if self.is_dir(&dir, name.last()).map_err(failed)? => made = false,
            Err(Errno::EXIST) => {
                hides = self.clear(&dir, name.last()).map_err(failed)?;
                make(&dir).map_err(failed)?;
            }
            Err(errno) => return Err(failed(errno)),
        }
        let fd = open_dir(dir.fd.as_fd(), os(name.last())).map_err(failed)?;
        if hides == PriorEntry::Whiteout {
            self.make_opaque(&name.path, fd.as_fd())?;
        }
        self.implied.remove(&name.path);
        let new = self.finish_dir(header, &name.path, fd.as_fd(), made.then_some(&*dir))?;
        self.parents.put(&name.path, new);
        Ok(())
    }

    pub(super) fn symlink(&mut self, header: &Header, name: &EntryName) -> Result<()> {
        let dir = self.dir(name.parent())?;
        self.create(&dir, name, "creating link", |dir, name| {
            symlinkat(os(&header.link), &dir.fd, os(name))
        })?;
        self.finish_name(header, &dir, name.last())?;
        self.bring_name(&dir, name)
    }

    pub(super) fn hard_link(&mut self, header: &Header, name: &EntryName) -> Result<()> {
        let target = EntryName::new(&header.link)
            .map_err(|_| refuse(&header.path, "the target of a hard link has a `..` in it"))?;
        let hidden = target.leads_through_whiteout() || target.last().starts_with(b".wh.");
        if hidden && self.options.whiteouts != Whiteouts::Literal {
            return Err(refuse(&header.path, "a hard link to a whiteout"));
        }
        if self.missing.contains(&target.path) {
            self.remember(&name.path, &[])?;
            self.missing.insert(name.path.clone());
            self.skip(&name.path, "it is a link to a device that cannot be made here");
            return Ok(());
        }
        let missing = || Error::LinkTarget {
            path: path(&name.path).to_owned(),
            target: path(&target.path).to_owned(),
        };
        let failed = |errno| Error::file("creating hard link", path(&name.path), errno);
        let from = match self.existing(target.parent()) {
            Ok(Some(from)) => from,
            Ok(None) => return Err(missing()),
            Err(errno) => return Err(failed(errno)),
        };
        let stat = match statat(&from.fd, os(target.last()), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if is_whiteout(&stat) => return Err(missing()),
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                return Err(refuse(&header.path, "a hard link to a directory"));
            }
            Ok(stat) => stat,
            Err(Errno::NOENT | Errno::NOTDIR) => return Err(missing()),
            Err(errno) => return Err(failed(errno)),
        };
        let dir = self.dir(name.parent())?;
        let link = |dir: &Dir| {
            let (old, new) = (os(target.last()), os(name.last()));
            linkat(&from.fd, old, &dir.fd, new, AtFlags::empty())
        };
        match link(&dir) {
            Err(Errno::EXIST) => {}
            other => return other.map_err(failed),
        }
        let there = statat(&dir.fd, os(name.last()), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        if (there.st_dev, there.st_ino) == (stat.st_dev, stat.st_ino) {
            return Ok(());
        }
        self.clear(&dir, name.last()).map_err(failed)?;
        match link(&dir) {
            // The target was below what had to go.
            Err(Errno::NOENT) => Err(missing()),
            other => other.map_err(failed),
        }
    }

    pub(super) fn node(&mut self, header: &Header, name: &EntryName) -> Result<()> {
        let kind = match header.kind {
            TypeFlag::Char => FileType::CharacterDevice,
            TypeFlag::Block => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        if header.kind == TypeFlag::Char && header.device == (0, 0) {
            return Err(refuse(&header.path, "the device 0, 0 is the overlay's own whiteout"));
        }
        let dir = self.dir(name.parent())?;
        let device = match kind {
            FileType::Fifo => 0,
            _ => makedev(header.device.0, header.device.1),
        };
        let mode = if self.exact { header.mode & 0o777 } else { 0o600 };
        let made = self.create(&dir, name, "creating device", |dir, name| {
            match mknodat(&dir.fd, os(name), kind, Mode::from_raw_mode(mode), device) {
                Err(Errno::PERM) => Ok(false),
                other => other.map(|()| true),
            }
        })?;
        if !made {
            self.remember(&name.path, &[])?;
            self.missing.insert(name.path.clone());
            self.skip(&name.path, "the device cannot be made here");
            return Ok(());
        }
        self.finish_name(header, &dir, name.last())?;
        self.bring_name(&dir, name)
    }

    /// Makes something in place of whatever is there.
    fn create<T>(
        &mut self,
        dir: &Dir,
        name: &EntryName,
        action: &'static str,
        make: impl Fn(&Dir, &[u8]) -> Result<T, Errno>,
    ) -> Result<T> {
        let failed = |errno| Error::file(action, path(&name.path), errno);
        match make(dir, name.last()) {
            Err(Errno::EXIST) => {
                self.clear(dir, name.last()).map_err(failed)?;
                make(dir, name.last()).map_err(failed)
            }
            other => other.map_err(failed),
        }
    }

    /// Takes away what stands where something else goes.
    fn clear(&mut self, dir: &Dir, name: &[u8]) -> Result<PriorEntry, Errno> {
        let stat = match statat(&dir.fd, os(name), AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(PriorEntry::Free),
            other => other?,
        };
        remove(dir.fd.as_fd(), os(name))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory | FileType::Symlink => self.parents.forget(),
            FileType::CharacterDevice
                if is_whiteout(&stat) && self.options.whiteouts == Whiteouts::Overlay =>
            {
                return Ok(PriorEntry::Whiteout);
            }
            _ => {}
        }
        Ok(PriorEntry::Free)
    }

    fn is_dir(&self, dir: &Dir, name: &[u8]) -> Result<bool, Errno> {
        let stat = statat(&dir.fd, os(name), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    }

    /// The directory that entries of this name go into, made if it is missing.
    pub(super) fn dir(&mut self, name: &[u8]) -> Result<Rc<Dir>> {
        if let Some(dir) = self.parents.get(name) {
            return Ok(dir);
        }
        let failed = |errno| Error::file("opening directory", path(name), errno);
        match self.existing(name) {
            Ok(Some(dir)) => return Ok(dir),
            Ok(None) => {}
            Err(errno) => return Err(failed(errno)),
        }
        let overlay = self.options.whiteouts == Whiteouts::Overlay;
        let (mut implied, mut hiding) = (Vec::new(), Vec::new());
        let root = self.root;
        let fd = root
            .make_dirs(path(name), &mut |missing| {
                if missing.in_the_way.is_some_and(|stat| !overlay || !is_whiteout(stat)) {
                    return Err(Errno::NOTDIR);
                }
                if missing.in_the_way.is_some() {
                    remove(missing.dir, missing.name)?;
                    hiding.push(missing.path.clone());
                }
                crate::root::make_dir(missing.dir, missing.name, 0o755, self.options.owner)?;
                implied.push(missing.path.clone());
                Ok(())
            })
            .map_err(failed)?;
        for made in hiding {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let fd = root.lookup(&made, flags, Mode::empty()).map_err(failed)?;
            self.make_opaque(made.as_os_str().as_encoded_bytes(), fd.as_fd())?;
        }
        for made in implied {
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let fd = root.lookup(&made, flags, Mode::empty()).map_err(failed)?;
            self.bring(&fstat(fd).map_err(failed)?);
            let made = made.into_os_string().into_encoded_bytes();
            self.remember(&made, &[])?;
            self.implied.insert(made);
        }
        self.hold(name, fd).map_err(failed)
    }

    /// The directory of this name, if there is one.
    pub(super) fn existing(&mut self, name: &[u8]) -> Result<Option<Rc<Dir>>, Errno> {
        if let Some(dir) = self.parents.get(name) {
            return Ok(Some(dir));
        }
        match self.root.lookup(path(name), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()) {
            Ok(fd) => self.hold(name, fd).map(Some),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    fn hold(&mut self, name: &[u8], fd: rustix::fd::OwnedFd) -> Result<Rc<Dir>, Errno> {
        let stat = fstat(&fd)?;
        let setgid = stat.st_mode & 0o2000 != 0;
        Ok(self.parents.put(name, Dir { fd, gid: stat.st_gid, setgid }))
    }

    pub(super) fn make_opaque(
        &mut self,
        name: &[u8],
        fd: rustix::fd::BorrowedFd<'_>,
    ) -> Result<()> {
        // The attribute cannot be set through a reference, which is what parents are held by.
        let fd =
            openat(fd, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|errno| Error::file("opening", path(name), errno))?;
        At::Fd(fd.as_fd())
            .set(overlay(self.options.user_xattr, "opaque").as_bytes(), b"y")
            .map_err(|errno| Error::file("making opaque", path(name), errno))
    }

    /// Remembers that this archive brought a file.
    pub(super) fn bring(&mut self, stat: &Stat) {
        if self.options.whiteouts == Whiteouts::Delete {
            self.brought.insert((stat.st_dev, stat.st_ino));
        }
    }

    fn bring_name(&mut self, dir: &Dir, name: &EntryName) -> Result<()> {
        if self.options.whiteouts == Whiteouts::Delete {
            let stat = statat(&dir.fd, os(name.last()), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|errno| Error::file("examining", path(&name.path), errno))?;
            self.bring(&stat);
        }
        Ok(())
    }
}

/// Whether this is how the overlay marks what is deleted.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Copies contents, at most `limit` bytes, straight from the stream's buffer. The outer error is
/// the file's, the inner one the archive's.
fn copy_contents(
    file: &mut File,
    reader: &mut Reader<impl BufRead>,
    mut limit: u64,
) -> std::io::Result<Result<()>> {
    while limit > 0 {
        let bytes = match reader.fill() {
            Ok(bytes) => bytes,
            Err(error) => return Ok(Err(error)),
        };
        let length = bytes.len().min(usize::try_from(limit).unwrap_or(usize::MAX));
        if length == 0 {
            break;
        }
        file.write_all(&bytes[..length])?;
        reader.consume(length);
        limit -= length as u64;
    }
    Ok(Ok(()))
}
