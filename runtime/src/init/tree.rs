//! Making places in the container's file system to mount on.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use crate::sys;

/// What to make where nothing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Make {
    Directory,
    File,
}

/// How many links one path may have.
const MAX_LINKS: usize = 40;

/// Opens `path` as seen from inside `root`, and makes what is missing. Links are followed inside
/// the root only, each component on the descriptor of the one before, so nothing outside can be
/// reached or made, whatever else changes the tree meanwhile.
pub(crate) fn ensure(root: BorrowedFd<'_>, path: &Path, make: Make) -> io::Result<OwnedFd> {
    match sys::open_in(root, path, OFlags::PATH) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => walk(root, path, make),
        other => other,
    }
}

fn walk(root: BorrowedFd<'_>, path: &Path, make: Make) -> io::Result<OwnedFd> {
    let mut above: Vec<OwnedFd> = Vec::new();
    let mut here = root.try_clone_to_owned()?;
    let mut rest = components(path.as_os_str());
    let mut links = 0;
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            if let Some(parent) = above.pop() {
                here = parent;
            }
            continue;
        }
        let next = step(here.as_fd(), &name, if rest.is_empty() { make } else { Make::Directory })?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&next)?.st_mode);
        if kind == FileType::Symlink {
            links += 1;
            if links > MAX_LINKS {
                return Err(io::Error::from_raw_os_error(libc::ELOOP));
            }
            let target = rustix::fs::readlinkat(&next, "", Vec::new())?;
            let target = OsString::from_vec(target.into_bytes());
            if target.as_bytes().first() == Some(&b'/') {
                above.clear();
                here = root.try_clone_to_owned()?;
            }
            for name in components(&target).into_iter().rev() {
                rest.push_front(name);
            }
            continue;
        }
        above.push(std::mem::replace(&mut here, next));
    }
    Ok(here)
}

fn components(path: &OsStr) -> VecDeque<OsString> {
    let parts = path.as_bytes().split(|byte| *byte == b'/');
    let named = parts.filter(|part| !part.is_empty() && *part != b".");
    named.map(|part| OsStr::from_bytes(part).to_owned()).collect()
}

/// Opens one name in a directory, making it if it is missing.
fn step(directory: BorrowedFd<'_>, name: &OsStr, make: Make) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || rustix::fs::openat(directory, name, flags, Mode::empty());
    match open() {
        Err(rustix::io::Errno::NOENT) => {}
        other => return other.map_err(io::Error::from),
    }
    let made = match make {
        Make::Directory => rustix::fs::mkdirat(directory, name, Mode::from_raw_mode(0o755)),
        Make::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o644)).map(drop)
        }
    };
    match made {
        Ok(()) | Err(rustix::io::Errno::EXIST) => open().map_err(io::Error::from),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether a descriptor is of a directory.
pub(crate) fn is_directory(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let stat = rustix::fs::statat(fd, "", AtFlags::EMPTY_PATH)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_is_made_is_made_inside() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("root");
        fs::create_dir_all(root.join("run")).unwrap();
        fs::create_dir_all(root.join("etc")).unwrap();
        symlink("../../../../outside/x", root.join("etc/up")).unwrap();
        symlink("/run/missing/deep", root.join("etc/absolute")).unwrap();
        symlink("loop", root.join("etc/loop")).unwrap();
        let fd = OwnedFd::from(fs::File::open(&root).unwrap());
        for (path, make, lands) in [
            ("/etc/up", Make::File, "outside/x"),
            ("/etc/absolute", Make::File, "run/missing/deep"),
            ("/a/b/../c", Make::Directory, "a/c"),
            ("/../../d", Make::Directory, "d"),
        ] {
            ensure(fd.as_fd(), Path::new(path), make).unwrap();
            assert!(root.join(lands).exists(), "{path}");
        }
        assert!(!outer.path().join("outside").exists());
        assert!(ensure(fd.as_fd(), Path::new("/etc/loop"), Make::File).is_err());
    }
}
