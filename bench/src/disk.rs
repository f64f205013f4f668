//! A file system of the benchmark's own, so that neither the machine's other writers nor files that
//! were deleted a moment ago count: an ext4 without a journal takes several times as long to make
//! files in the minute after many were removed.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::UnmountFlags;

use crate::failure::{Result, check, context};

/// Journaled ext4 in a sparse file, mounted in this process's mount namespace until dropped.
pub(crate) struct Disk {
    point: PathBuf,
    _directory: tempfile::TempDir,
}

impl Disk {
    /// Makes and mounts it; 64 GB at most, of which only what is written is taken.
    pub(crate) fn new() -> Result<Disk> {
        let directory = context("making a temporary directory", tempfile::tempdir_in("/var/tmp"))?;
        let (file, point) = (directory.path().join("disk"), directory.path().join("mounted"));
        context("making a disk", std::fs::create_dir(&point))?;
        check(Command::new("truncate").args(["--size", "64G"]).arg(&file))?;
        check(Command::new("mkfs.ext4").args(["-q", "-F", "-i", "8192"]).arg(&file))?;
        let mut mount = Command::new("mount");
        check(mount.args(["-o", "loop,noinit_itable"]).args([&file, &point]))?;
        Ok(Disk { point, _directory: directory })
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.point
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.point, UnmountFlags::DETACH);
    }
}
