//! What belongs to another process.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{CWD, Mode, mkdirat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsmount, fsopen,
    move_mount,
};

use crate::{Error, Result, sys};

/// A directory that is mounted for another process.
#[derive(Debug)]
pub struct OthersMount(OwnedFd);

/// Its name in a file system of its own.
const NAME: &CStr = c"it";

impl OthersMount {
    /// What is mounted at a path for another process. It is resolved as that process would.
    ///
    /// # Errors
    /// [`Error::System`]: this process may not enter the other's mounts; there is no such directory;
    /// before Linux 6.15.
    pub fn of(pid: u32, path: &'static CStr) -> Result<OthersMount> {
        let name = format!("/proc/{pid}/ns/mnt");
        let mounts =
            File::open(&name).map_err(Error::system("opening", "the mounts of a process"))?;
        // A thread that shares its root and current directory with others may not enter; this one ends.
        let enter = move || {
            sys::unshare(libc::CLONE_FS)?;
            sys::setns(mounts.as_fd(), libc::CLONE_NEWNS)?;
            sys::open_tree(CWD, path, false)
        };
        let opened = match std::thread::spawn(enter).join() {
            Ok(opened) => opened.map_err(Error::system("opening", "a mount of another process"))?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        let place = adopt(&opened).map_err(std::io::Error::from);
        place.map(OthersMount).map_err(Error::system("moving", "a mount of another process"))
    }

    /// A path that is good as long as this lives.
    pub fn path(&self) -> PathBuf {
        let (pid, fd) = (std::process::id(), self.0.as_raw_fd());
        format!("/proc/{pid}/fd/{fd}/{}", NAME.to_string_lossy()).into()
    }
}

/// Attaches a mount from another namespace to a file system that is attached nowhere: the kernel
/// copies only what was opened in the namespace of who does it.
fn adopt(mount: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    let context = fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(context.as_fd())?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    let place = fsmount(context.as_fd(), flags, MountAttrFlags::empty())?;
    mkdirat(&place, NAME, Mode::RWXU)?;
    move_mount(mount, c"", &place, NAME, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(place)
}
