//! What every container gets from us, in a file system in memory.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use layers::{Root, Stack};
use rustix::fs::{Mode, OFlags, mkdirat, symlinkat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_string,
    fsmount, fsopen, open_tree,
};

/// Directories that a container mounts on, above before below.
const PLACES: [&str; 5] = ["dev", "etc", "proc", "run", "sys"];

/// What programs that look for mounts in `/etc` are led to, and from where.
const MOUNTS: (&str, &str) = ("/proc/mounts", "etc/mtab");

/// Leads programs that look for mounts in `/etc` to them, in a container without a ground, where its image
/// does not.
pub(crate) fn link_mounts(root: &Root) {
    if let Ok(etc) = root.open_at(Path::new("etc"), OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
        && let Err(error) = symlinkat(MOUNTS.0, etc, "mtab")
    {
        // Mostly, it is there.
        tracing::debug!(%error, "the container has no /etc/mtab of ours");
    }
}

/// How much it may hold: three small files.
const SIZE: &str = "4m";

/// How many layers a stack may have for one more to fit.
const ROOM: usize = 400;

/// A file system in memory, attached nowhere, for a container that keeps nothing: `etc/hosts` and the
/// like, each at its place. It is also the lowest layer of the container, so that the files are mounted on
/// themselves, and nothing has to be made on the disk for that, and removed again.
#[derive(Debug)]
pub(crate) struct TmpfsLayer(OwnedFd);

impl TmpfsLayer {
    /// Makes one; `None` where the kernel cannot copy mounts that are attached nowhere (before Linux
    /// 6.15).
    pub(crate) fn new() -> Option<TmpfsLayer> {
        match make() {
            Ok(ground) => Some(ground),
            Err(errno) => {
                tracing::debug!(%errno, "files of the container go to the disk");
                None
            }
        }
    }

    /// Where it is, for this process and those it starts.
    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()).into()
    }

    /// Lays a stack on it, if there is room.
    pub(crate) fn below(&self, mut stack: Stack) -> Stack {
        if (1..ROOM).contains(&stack.lower.len()) {
            stack.lower.push(self.path());
        }
        stack
    }
}

fn make() -> Result<TmpfsLayer, Errno> {
    let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(fs.as_fd(), "mode", "755")?;
    fsconfig_set_string(fs.as_fd(), "size", SIZE)?;
    fsconfig_create(fs.as_fd())?;
    let flags = MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID;
    let mount = fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags)?;
    for place in PLACES {
        mkdirat(&mount, place, Mode::from_raw_mode(0o755))?;
    }
    symlinkat(MOUNTS.0, &mount, MOUNTS.1)?;
    let copy = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(&mount, "etc", copy)?;
    Ok(TmpfsLayer(mount))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_stacks_of_some_layers_have_it_below() {
        let fd = std::fs::File::open("/").unwrap();
        let ground = TmpfsLayer(fd.into());
        for (layers, more) in [(0, 0), (1, 1), (399, 1), (400, 0), (500, 0)] {
            let stack = Stack { lower: vec!["/".into(); layers], ..Stack::default() };
            assert_eq!(ground.below(stack).lower.len(), layers + more, "{layers}");
        }
        assert_eq!(ground.path().canonicalize().unwrap(), std::path::Path::new("/"));
    }
}
