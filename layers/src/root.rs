use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, Stat, chmodat, mkdirat, openat, openat2,
    readlinkat, statat, unlinkat,
};
use rustix::io::Errno;

use crate::{Error, Result};

/// How often a lookup is tried again when something else renames directories meanwhile.
const RACES: usize = 64;
/// As many links are followed in one lookup as the kernel would.
const LINKS: usize = 40;

/// A confined root directory: every path given to it is resolved below it, as if after `chroot`.
///
/// Absolute paths, `..` and symbolic links never lead out of it; links of `/proc` are not followed.
#[derive(Debug)]
pub struct Root(OwnedFd);

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub name: OsString,
    /// What it names; [`FileType::Unknown`] where the file system does not say.
    pub kind: FileType,
}

impl Root {
    /// Opens a directory as a root. The path itself is looked up as usual.
    ///
    /// # Errors
    /// The path is not a directory or cannot be opened.
    pub fn open(path: &Path) -> Result<Root> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(rustix::fs::CWD, path, flags, Mode::empty())
            .map(Root)
            .map_err(|errno| Error::file("opening", path, errno))
    }

    /// Takes a descriptor of a directory (`O_PATH` and detached mounts too) as a root.
    pub fn from_fd(fd: OwnedFd) -> Root {
        Root(fd)
    }

    /// The descriptor of the root directory.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Gives the descriptor away; if it is a detached mount, the mount lives as long as it.
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Another handle on the same root.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn try_clone(&self) -> Result<Root> {
        let fd = self.0.try_clone();
        fd.map(Root).map_err(|error| Error::file("opening", Path::new("/"), error))
    }

    /// `openat2` in this root; `O_CLOEXEC` is implied, an empty path is the root itself.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open_at(&self, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
        self.lookup(path, flags, mode).map_err(|errno| Error::file("opening", path, errno))
    }

    pub(crate) fn lookup(&self, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..RACES {
            match openat2(&self.0, path, flags | OFlags::CLOEXEC, mode, resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }

    /// What `path` is, links followed within the root.
    ///
    /// # Errors
    /// When it does not exist or may not be looked at.
    pub fn metadata(&self, path: &Path) -> Result<Stat> {
        let fd = self.open_at(path, OFlags::PATH, Mode::empty())?;
        rustix::fs::fstat(fd).map_err(|errno| Error::file("examining", path, errno))
    }

    /// What `path` is; a link in its last component is not followed.
    ///
    /// # Errors
    /// When it does not exist or may not be looked at.
    pub fn symlink_metadata(&self, path: &Path) -> Result<Stat> {
        let fd = self.open_at(path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?;
        rustix::fs::fstat(fd).map_err(|errno| Error::file("examining", path, errno))
    }

    /// The contents of a plain file, links followed within the root. Never waits for a pipe.
    ///
    /// # Errors
    /// [`Error::Limit`] beyond `limit` bytes; [`Error::NotAFile`] for anything but a plain file.
    pub fn read(&self, path: &Path, limit: u64) -> Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        // Opened by reference first: opening a device for reading may already act on it.
        let stat = self.metadata(path)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::NotAFile { path: path.to_owned() });
        }
        let fd = self.open_at(path, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd).map_err(|e| Error::file("examining", path, e))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::NotAFile { path: path.to_owned() });
        }
        let mut bytes = Vec::new();
        File::from(fd)
            .take(limit.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|error| Error::file("reading", path, error))?;
        if bytes.len() as u64 > limit {
            return Err(Error::Limit { what: "bytes in a file", limit });
        }
        Ok(bytes)
    }

    /// Where the link in the last component of `path` points.
    ///
    /// # Errors
    /// It is not a symbolic link.
    pub fn read_link(&self, path: &Path) -> Result<PathBuf> {
        let fd = self.open_at(path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?;
        read_link_of(&fd, OsStr::new("")).map_err(|errno| Error::file("reading link", path, errno))
    }

    /// Makes a directory and its parents as far as they are missing; links are followed within
    /// the root, also to directories that do not exist yet. What is made gets the permission bits
    /// `mode` (the umask does not matter) and, when given, the user and group `owner`.
    ///
    /// # Errors
    /// A file that is not a directory is in the way.
    pub fn create_dir_all(&self, path: &Path, mode: u32, owner: Option<(u32, u32)>) -> Result<()> {
        self.make_dirs(path, &mut |missing| match missing.in_the_way {
            Some(_) => Err(Errno::NOTDIR),
            None => make_dir(missing.dir, missing.name, mode, owner),
        })
        .map_err(|errno| Error::file("creating directory", path, errno))
        .map(drop)
    }

    /// Walks down `path` from the root; `make` is called for each directory that is missing, and
    /// for each that has something else in its place.
    pub(crate) fn make_dirs(
        &self,
        path: &Path,
        make: &mut dyn FnMut(MissingDirectory<'_>) -> Result<(), Errno>,
    ) -> Result<OwnedFd, Errno> {
        let open = |path: &Path| self.lookup(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty());
        match open(path) {
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            other => return other,
        }
        // Where we are, without links: they are replaced by their targets as they come.
        let mut at = PathBuf::new();
        let mut rest: Vec<OsString> = parts(path);
        rest.reverse();
        let mut links = 0;
        while let Some(name) = rest.pop() {
            if name == ".." {
                at.pop();
                continue;
            }
            let parent = open(&at)?;
            let stat = match statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => Some(stat),
                Err(Errno::NOENT) => None,
                Err(errno) => return Err(errno),
            };
            let kind = stat.as_ref().map(|stat| FileType::from_raw_mode(stat.st_mode));
            if kind == Some(FileType::Symlink) {
                links += 1;
                if links > LINKS {
                    return Err(Errno::LOOP);
                }
                let target = read_link_of(&parent, &name)?;
                if target.is_absolute() {
                    at = PathBuf::new();
                }
                rest.extend(parts(&target).into_iter().rev());
                continue;
            }
            at.push(&name);
            if kind != Some(FileType::Directory) {
                let (dir, name, path) = (parent.as_fd(), name.as_os_str(), &at);
                match make(MissingDirectory { dir, name, path, in_the_way: stat.as_ref() }) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(errno),
                }
            }
        }
        open(&at)
    }

    /// The names in a directory, sorted, without `.` and `..`.
    ///
    /// # Errors
    /// It is not a directory or cannot be read.
    pub fn entries(&self, path: &Path) -> Result<Vec<Entry>> {
        let fd = self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        list(fd).map_err(|errno| Error::file("listing", path, errno))
    }

    /// A directory of this root as a root of its own.
    ///
    /// # Errors
    /// It is not a directory.
    pub fn sub(&self, path: &Path) -> Result<Root> {
        self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).map(Root)
    }

    /// Removes a file, or a directory with everything below it; a link in the last component is
    /// removed itself. What does not exist is removed already. The root itself is only emptied.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove_all(&self, path: &Path) -> Result<()> {
        let fail = |errno| Error::file("removing", path, errno);
        let (parent, name) = match self.parent(path) {
            Ok(Some(found)) => found,
            Ok(None) => {
                let fd = self.lookup(Path::new(""), OFlags::RDONLY, Mode::empty()).map_err(fail)?;
                return empty(fd).map_err(fail);
            }
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(fail(errno)),
        };
        remove(parent.as_fd(), &name).map_err(fail)
    }

    /// The directory that `path` lies in and its name there; `None` for the root itself. Only
    /// the parents are looked up.
    pub(crate) fn parent(&self, path: &Path) -> Result<Option<(OwnedFd, OsString)>, Errno> {
        let mut parents = parts(path);
        let Some(name) = parents.pop() else { return Ok(None) };
        if name == ".." {
            return Err(Errno::INVAL);
        }
        let parents: PathBuf = parents.into_iter().collect();
        let fd = self.lookup(&parents, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
        Ok(Some((fd, name)))
    }
}

/// A directory that is not there.
#[derive(Debug)]
pub(crate) struct MissingDirectory<'a> {
    /// What it should lie in.
    pub(crate) dir: BorrowedFd<'a>,
    /// Its name there.
    pub(crate) name: &'a OsStr,
    /// Where it is, links resolved, relative to the root.
    pub(crate) path: &'a PathBuf,
    /// An existing file that is not a directory.
    pub(crate) in_the_way: Option<&'a Stat>,
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The components of a path that mean something: names and `..`.
fn parts(path: &Path) -> Vec<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            _ => None,
        })
        .collect()
}

/// Makes one directory with exactly these permission bits.
pub(crate) fn make_dir(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    mode: u32,
    owner: Option<(u32, u32)>,
) -> Result<(), Errno> {
    mkdirat(dir, name, Mode::from_raw_mode(0o700))?;
    // A user who may exchange the directory that we just made could have made it: the tree has
    // one writer. A link in its place is still not followed.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = openat(dir, name, flags, Mode::empty())?;
    if let Some((uid, gid)) = owner {
        crate::owner::give(crate::xattr::At::Name(dir, name), uid, gid)?;
    }
    chmodat(&made, c".", Mode::from_raw_mode(mode & 0o7777), AtFlags::empty())
}

/// Sets the mode of a device or pipe by a reference that is not followed.
pub(crate) fn chmod_node(dir: BorrowedFd<'_>, name: &OsStr, mode: u32) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let node = openat(dir, name, flags, Mode::empty())?;
    if FileType::from_raw_mode(rustix::fs::fstat(&node)?.st_mode) == FileType::Symlink {
        return Err(Errno::LOOP);
    }
    let itself = format!("/proc/self/fd/{}", node.as_raw_fd());
    chmodat(rustix::fs::CWD, itself, Mode::from_raw_mode(mode), AtFlags::empty())
}

fn read_link_of(dir: impl AsFd, name: &OsStr) -> Result<PathBuf, Errno> {
    let target = readlinkat(dir, name, Vec::with_capacity(256))?;
    Ok(PathBuf::from(OsString::from_vec(target.into_bytes())))
}

/// The names in an open directory, sorted.
pub(crate) fn list(fd: impl AsFd) -> Result<Vec<Entry>, Errno> {
    let mut buffer = Vec::with_capacity(64 * 1024);
    let mut names = RawDir::new(fd, buffer.spare_capacity_mut());
    let mut entries = Vec::new();
    while let Some(entry) = names.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            let name = OsStr::from_bytes(name).to_owned();
            entries.push(Entry { name, kind: entry.file_type() });
        }
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// Removes a name and, if it is a directory, everything below it.
pub(crate) fn remove(parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // What Linux and what POSIX say of a directory.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    empty(open_dir(parent, name)?)?;
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

/// Opens a directory for listing, without following a link in its place.
pub(crate) fn open_dir(parent: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

/// Removes everything below an open directory, however deep, with two descriptors.
fn empty(top: OwnedFd) -> Result<(), Errno> {
    // The way down: each directory's identity, its name in its parent, what is left in it.
    let mut stack: Vec<((u64, u64), OsString, Vec<Entry>)> = Vec::new();
    let mut at = top;
    stack.push((identity(&at)?, OsString::new(), list(&at)?));
    while let Some((_, _, entries)) = stack.last_mut() {
        let Some(entry) = entries.pop() else {
            let Some((_, name, _)) = stack.pop() else { break };
            if let Some((expected, _, _)) = stack.last() {
                at = openat(
                    &at,
                    c"..",
                    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
                    Mode::empty(),
                )?;
                if identity(&at)? != *expected {
                    // The directory was moved away while we were in it.
                    return Err(Errno::BUSY);
                }
                match unlinkat(&at, &name, AtFlags::REMOVEDIR) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(errno) => return Err(errno),
                }
            }
            continue;
        };
        if entry.kind != FileType::Directory {
            match unlinkat(&at, &entry.name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::ISDIR | Errno::PERM) => {}
                Err(errno) => return Err(errno),
            }
        }
        at = open_dir(at.as_fd(), &entry.name)?;
        stack.push((identity(&at)?, entry.name, list(&at)?));
    }
    Ok(())
}

fn identity(fd: impl AsFd) -> Result<(u64, u64), Errno> {
    rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino))
}
