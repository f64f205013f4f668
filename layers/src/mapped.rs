//! Mounts whose files have other owners than on the disk.

use std::ffi::c_void;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::thread::{capabilities, set_capabilities};

/// `MOUNT_ATTR_IDMAP`
const IDMAP: u64 = 0x10_0000;

/// How the owners of files are mapped: an id on the disk is shown as the id outside of a user
/// namespace that has it inside.
#[derive(Debug, Clone)]
pub struct IdMap {
    /// The user namespace.
    pub namespace: Arc<OwnedFd>,
    /// What 0 is outside: user and group.
    pub root: (u32, u32),
}

impl PartialEq for IdMap {
    fn eq(&self, other: &IdMap) -> bool {
        Arc::ptr_eq(&self.namespace, &other.namespace)
    }
}

impl Eq for IdMap {}

impl IdMap {
    /// A mount of a directory with its ids mapped, attached nowhere.
    pub(crate) fn mount(&self, directory: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH;
        let mount = open_tree(directory, c"", flags)?;
        let userns = self.namespace.as_raw_fd() as u64;
        set_attributes(&mount, MountAttr { set: IDMAP, clear: 0, propagation: 0, userns })?;
        Ok(mount)
    }

    /// Runs something with the mapped root as owner of new files. An overlay makes files of its own
    /// as who mounted it, and 0 has no place in its mapped layers.
    pub(crate) fn as_root<T>(&self, body: impl FnOnce() -> T) -> Result<T, Errno> {
        let held = capabilities(None)?;
        set_file_owner(self.root);
        // Who changes the owner of new files loses what root may do with files.
        let value = set_capabilities(None, held).map(|()| body());
        set_file_owner((0, 0));
        set_capabilities(None, held)?;
        value
    }
}

/// Sets the owner of new files of this thread.
fn set_file_owner((uid, gid): (u32, u32)) {
    // SAFETY: both take a number, and concern this thread alone.
    unsafe {
        libc::setfsgid(gid);
        libc::setfsuid(uid);
    }
}

/// `struct mount_attr` of `mount_setattr(2)`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct MountAttr {
    pub(crate) set: u64,
    pub(crate) clear: u64,
    pub(crate) propagation: u64,
    pub(crate) userns: u64,
}

pub(crate) fn set_attributes(mount: &OwnedFd, attributes: MountAttr) -> Result<(), Errno> {
    // SAFETY: the path is an empty C string, the structure outlives the call and its true size
    // is passed.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            std::ptr::from_ref(&attributes).cast::<c_void>(),
            size_of::<MountAttr>(),
        )
    };
    if done == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    Err(Errno::from_io_error(&error).unwrap_or(Errno::IO))
}
