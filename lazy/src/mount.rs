//! The mount, and the threads behind it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use crate::serve::Server;
use crate::{Error, LazyImage, Result};

/// Threads that answer: as many reads can wait for a registry at the same time.
const THREADS: usize = 16;

/// The files of an image, mounted nowhere.
///
/// They can be read as long as this process lives and somebody holds the mount.
#[derive(Debug)]
pub struct LazyMount {
    root: OwnedFd,
}

impl LazyMount {
    /// A path that leads to the root while this lives, for this process.
    pub fn path(&self) -> std::path::PathBuf {
        format!("/proc/self/fd/{}", self.root.as_raw_fd()).into()
    }
}

impl AsFd for LazyMount {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

pub(crate) fn mount(image: &Arc<LazyImage>) -> Result<LazyMount> {
    let failed = |action: &'static str| {
        move |errno: rustix::io::Errno| Error::Mount { action, source: errno.into() }
    };
    let device = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed("opening /dev/fuse"))?;
    let fs = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(failed("opening the FUSE file system of the kernel"))?;
    let setting = failed("setting an option of FUSE");
    let id = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    for (key, value) in [
        ("source", "rbuild".to_owned()),
        ("fd", device.as_raw_fd().to_string()),
        ("rootmode", "40755".to_owned()),
        ("user_id", id.0.to_string()),
        ("group_id", id.1.to_string()),
    ] {
        fsconfig_set_string(&fs, key, value.as_str()).map_err(setting)?;
    }
    // Who is who in the container is the kernel's to check.
    for flag in ["default_permissions", "allow_other", "ro"] {
        fsconfig_set_flag(&fs, flag).map_err(setting)?;
    }
    fsconfig_create(&fs).map_err(failed("making a FUSE file system"))?;
    let root = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)
        .map_err(failed("mounting a FUSE file system"))?;
    let mut config = fuser::Config::default();
    config.n_threads = Some(THREADS);
    let starting = |source| Error::Mount { action: "starting to serve FUSE", source };
    let acl = fuser::SessionACL::All;
    let server = Server::new(Arc::clone(image));
    let session = fuser::Session::from_fd(server, device, acl, config).map_err(starting)?;
    let thread = std::thread::Builder::new().name("fuse".to_owned());
    let serve = move || {
        if let Err(error) = session.run() {
            tracing::debug!(%error, "the files of an image are no longer served");
        }
    };
    thread.spawn(serve).map_err(starting)?;
    Ok(LazyMount { root })
}
