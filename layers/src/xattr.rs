//! Extended attributes by descriptor, and which of them belong to the overlay.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{
    XattrFlags, fgetxattr, flistxattr, fremovexattr, fsetxattr, lgetxattr, llistxattr,
    lremovexattr, lsetxattr,
};
use rustix::io::Errno;

use crate::tar::Xattrs;

/// The kernel's own bound on a list of names and on one value.
const LARGEST: usize = 64 * 1024;

/// Whether an attribute is the overlay's own.
pub(crate) fn is_overlay(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

/// An overlay attribute's full name.
pub(crate) fn overlay(user_xattr: bool, name: &str) -> String {
    format!("{}.overlay.{name}", if user_xattr { "user" } else { "trusted" })
}

/// Whether a layer contains an attribute. Labels and measurements of this machine's security
/// modules are not part of a tree.
pub(crate) fn is_kept(name: &[u8]) -> bool {
    let foreign = name.starts_with(b"security.") && name != b"security.capability";
    !foreign && !is_overlay(name) && !name.starts_with(b"system.nfs") && name != crate::owner::NAME
}

/// Where attributes are: on an open file, or on a name in an open directory. A link in place of
/// the name is not followed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum At<'a> {
    Fd(BorrowedFd<'a>),
    Name(BorrowedFd<'a>, &'a OsStr),
}

impl At<'_> {
    /// A path that leads through the directory's descriptor to the name.
    fn path(&self) -> Option<CString> {
        match self {
            At::Fd(_) => None,
            At::Name(dir, name) => {
                let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
                path.extend_from_slice(name.as_bytes());
                CString::new(path).ok()
            }
        }
    }

    pub(crate) fn set(&self, name: &[u8], value: &[u8]) -> Result<(), Errno> {
        match (self, self.path()) {
            (At::Fd(fd), _) => fsetxattr(fd, name, value, XattrFlags::empty()),
            (_, Some(path)) => lsetxattr(&path, name, value, XattrFlags::empty()),
            _ => Err(Errno::INVAL),
        }
    }

    /// Takes an attribute away, if it is there.
    pub(crate) fn unset(&self, name: &[u8]) -> Result<(), Errno> {
        let done = match (self, self.path()) {
            (At::Fd(fd), _) => fremovexattr(fd, name),
            (_, Some(path)) => lremovexattr(&path, name),
            _ => Err(Errno::INVAL),
        };
        match done {
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM) => Ok(()),
            other => other,
        }
    }

    /// One attribute; `None` if it is not there or the file system has none.
    pub(crate) fn get(&self, name: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
        let path = self.path();
        let read = |buffer: &mut Vec<u8>| match (self, &path) {
            (At::Fd(fd), _) => fgetxattr(fd, name, rustix::buffer::spare_capacity(buffer)),
            (_, Some(path)) => lgetxattr(path, name, rustix::buffer::spare_capacity(buffer)),
            _ => Err(Errno::INVAL),
        };
        match grow(read) {
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
            other => other.map(Some),
        }
    }

    /// The names of all attributes.
    pub(crate) fn names(&self) -> Result<Vec<Vec<u8>>, Errno> {
        let path = self.path();
        let read = |buffer: &mut Vec<u8>| match (self, &path) {
            (At::Fd(fd), _) => flistxattr(fd, rustix::buffer::spare_capacity(buffer)),
            (_, Some(path)) => llistxattr(path, rustix::buffer::spare_capacity(buffer)),
            _ => Err(Errno::INVAL),
        };
        let list = match grow(read) {
            Err(Errno::OPNOTSUPP) => Vec::new(),
            other => other?,
        };
        let names = list.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        Ok(names.map(<[u8]>::to_vec).collect())
    }

    /// The attributes a layer carries, sorted.
    pub(crate) fn kept(&self) -> Result<Xattrs, Errno> {
        let mut kept = Vec::new();
        for name in self.names()? {
            if is_kept(&name)
                && let Some(value) = self.get(&name)?
            {
                kept.push((name, value));
            }
        }
        kept.sort();
        Ok(kept)
    }
}

/// Reads into a buffer that fits.
fn grow(mut read: impl FnMut(&mut Vec<u8>) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = Vec::with_capacity(512);
    loop {
        match read(&mut buffer) {
            Ok(_) => return Ok(buffer),
            Err(Errno::RANGE) if buffer.capacity() < LARGEST => {
                buffer = Vec::with_capacity(LARGEST);
            }
            Err(errno) => return Err(errno),
        }
    }
}

/// Whether the mark of an opaque directory is set.
pub(crate) fn is_opaque(fd: impl AsFd, user_xattr: bool) -> Result<bool, Errno> {
    let value = At::Fd(fd.as_fd()).get(overlay(user_xattr, "opaque").as_bytes())?;
    Ok(value.as_deref() == Some(b"y"))
}
