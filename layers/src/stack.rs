use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, open_tree,
};

use crate::mapped::{IdMap, MountAttr, set_attributes};
use crate::xattr::is_opaque;
use crate::{Error, Result, Root};

/// The kernel's own bound on lower directories.
const LAYERS: usize = 500;

/// Directories laid over each other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stack {
    /// The read-only directories, topmost first.
    pub lower: Vec<PathBuf>,
    /// Where changes go; without it the whole is read-only.
    pub top: Option<Top>,
    /// Whether overlay keeps its attributes under `user.overlay.` (in a user namespace).
    pub user_xattr: bool,
    /// Whose the files are that belong to others on the disk; each directory's own owners if not
    /// given. What is made in the stack is mapped back: on the disk it has the ids of inside.
    pub ids: Option<IdMap>,
}

/// The writable layer of a [`Stack`]: two directories on one file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Top {
    /// What the layer holds.
    pub upper: PathBuf,
    /// An empty directory for the kernel's own use.
    pub work: PathBuf,
}

impl Stack {
    /// Mounts the stack, attached nowhere: it is gone when the last descriptor on it is closed.
    ///
    /// What lies below a directory whose root is opaque does not show. A writable stack without
    /// lower directories is the upper directory itself; an empty one without a top is empty.
    ///
    /// # Errors
    /// [`Error::TooManyLayers`] beyond 500 directories, [`Error::Mount`] when the kernel refuses.
    pub fn mount(&self) -> Result<Root> {
        self.mount_with(false)
    }

    /// The same, for a tree that is thrown away if the machine stops: the kernel does not write
    /// it back on `fsync` and when it is unmounted.
    ///
    /// # Errors
    /// As [`Stack::mount`].
    pub fn mount_volatile(&self) -> Result<Root> {
        self.mount_with(true)
    }

    fn mount_with(&self, volatile: bool) -> Result<Root> {
        let lower = self.visible()?;
        if lower.len() > LAYERS {
            return Err(Error::TooManyLayers { layers: lower.len(), limit: LAYERS });
        }
        match (&lower[..], &self.top) {
            ([], None) => nothing(),
            ([], Some(top)) => self.itself(&open(&top.upper)?, &top.upper, false),
            ([one], None) => self.itself(one, &self.lower[0], true),
            (lower, top) => self.overlay(lower, top.as_ref(), volatile),
        }
    }

    /// The lower directories down to the first opaque one.
    fn visible(&self) -> Result<Vec<OwnedFd>> {
        let mut visible = Vec::with_capacity(self.lower.len().min(LAYERS));
        for path in &self.lower {
            if visible.len() > LAYERS {
                return Err(Error::TooManyLayers { layers: self.lower.len(), limit: LAYERS });
            }
            let fd = open(path)?;
            let opaque = is_opaque(&fd, self.user_xattr)
                .map_err(|errno| Error::file("examining", path, errno))?;
            visible.push(fd);
            if opaque {
                break;
            }
        }
        Ok(visible)
    }

    fn overlay(&self, lower: &[OwnedFd], top: Option<&Top>, volatile: bool) -> Result<Root> {
        let failed = |action: &str, errno: Errno| Error::Mount {
            action: action.to_owned(),
            source: errno.into(),
        };
        let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
            .map_err(|errno| failed("opening the overlay file system", errno))?;
        let set = |key: &str, value: &str| {
            fsconfig_set_string(&fs, key, value)
                .map_err(|errno| failed(&format!("setting {key} to {value}"), errno))
        };
        set("source", "overlay")?;
        // Directories are named by their descriptors: paths may be longer than an option, and
        // are looked up once only.
        // They must live until the overlay is made.
        let mut mapped = Vec::new();
        for (index, fd) in lower.iter().enumerate() {
            let fd = match &self.ids {
                None => fd,
                Some(ids) => {
                    mapped.push(map(ids, fd, &self.lower[index])?);
                    mapped.last().unwrap_or(fd)
                }
            };
            fsconfig_set_string(&fs, "lowerdir+", itself_path(fd))
                .map_err(|errno| failed(&format!("adding layer {}", index + 1), errno))?;
        }
        if let Some(top) = top {
            if volatile {
                forget_volatile(&top.work);
            }
            let (upper, work, mount) = top.open(self.ids.as_ref())?;
            mapped.extend(mount);
            set("upperdir", &itself_path(&upper))?;
            set("workdir", &itself_path(&work))?;
            set("index", "off")?;
            set("xino", "off")?;
            if volatile {
                fsconfig_set_flag(&fs, "volatile")
                    .map_err(|errno| failed("setting volatile", errno))?;
            }
        }
        set("metacopy", "off")?;
        if self.user_xattr {
            fsconfig_set_flag(&fs, "userxattr")
                .map_err(|errno| failed("setting userxattr", errno))?;
        } else {
            // With userxattr this is the only choice, and not accepted as an option.
            set("redirect_dir", "nofollow")?;
        }
        let created = match &self.ids {
            None => fsconfig_create(&fs),
            Some(ids) => ids
                .as_root(|| fsconfig_create(&fs))
                .map_err(|errno| failed("becoming the mapped root", errno))?,
        };
        created.map_err(|errno| {
            let said = messages(&fs);
            failed(&format!("stacking {} directories{said}", lower.len()), errno)
        })?;
        let attributes = match top {
            Some(_) => MountAttrFlags::empty(),
            None => MountAttrFlags::MOUNT_ATTR_RDONLY,
        };
        fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .map(Root::from_fd)
            .map_err(|errno| failed("mounting the overlay", errno))
    }
}

impl Top {
    /// Both directories, and the mount they are in if they are mapped: the kernel wants one for both.
    fn open(&self, ids: Option<&IdMap>) -> Result<(OwnedFd, OwnedFd, Option<OwnedFd>)> {
        let Some(ids) = ids else { return Ok((open(&self.upper)?, open(&self.work)?, None)) };
        let place = self.upper.parent().filter(|place| self.work.parent() == Some(place));
        let place = place.ok_or_else(|| Error::Mount {
            action: format!("mapping the ids of {}", self.upper.display()),
            source: std::io::ErrorKind::CrossesDevices.into(),
        })?;
        let mount = map(ids, &open(place)?, place)?;
        let inside = |path: &Path| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            openat(&mount, path.file_name().unwrap_or_default(), flags, Mode::empty())
                .map_err(|errno| Error::file("opening layer", path, errno))
        };
        Ok((inside(&self.upper)?, inside(&self.work)?, Some(mount)))
    }
}

/// A mount of a directory with its ids mapped.
fn map(ids: &IdMap, fd: &OwnedFd, path: &Path) -> Result<OwnedFd> {
    ids.mount(fd.as_fd()).map_err(|errno| Error::Mount {
        action: format!(
            "mapping the ids of {}, which its file system or the kernel may not be able to",
            path.display()
        ),
        source: errno.into(),
    })
}

fn open(path: &Path) -> Result<OwnedFd> {
    openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| Error::file("opening layer", path, errno))
}

fn itself_path(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// What the kernel wrote about a failed configuration.
fn messages(fs: &OwnedFd) -> String {
    let mut said = String::new();
    let mut buffer = [0; 512];
    while let Ok(n) = rustix::io::read(fs, &mut buffer) {
        // One message: `e `, `w ` or `i ` and text.
        let text = String::from_utf8_lossy(buffer.get(2..n).unwrap_or_default());
        said.push_str(": ");
        said.push_str(text.trim_end());
        if n == 0 || said.len() > 2048 {
            break;
        }
    }
    said
}

impl Stack {
    /// A directory as a mount of its own, mapped as the stack is.
    fn itself(&self, fd: &OwnedFd, path: &Path, read_only: bool) -> Result<Root> {
        let Some(ids) = &self.ids else { return itself(fd, path, read_only) };
        let mount = map(ids, fd, path)?;
        if read_only {
            set_read_only(&mount).map_err(|errno| Error::Mount {
                action: format!("cloning {}", path.display()),
                source: errno.into(),
            })?;
        }
        Ok(Root::from_fd(mount))
    }
}

/// A directory as a mount of its own; without the right to mount, the directory itself: callers
/// that want it read-only do not write to it.
fn itself(fd: &OwnedFd, path: &Path, read_only: bool) -> Result<Root> {
    let failed = |errno: Errno| Error::Mount {
        action: format!("cloning {}", path.display()),
        source: errno.into(),
    };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let mount = match open_tree(fd.as_fd(), c"", flags) {
        Err(Errno::PERM) => {
            return Ok(Root::from_fd(rustix::io::fcntl_dupfd_cloexec(fd, 0).map_err(failed)?));
        }
        mount => mount.map_err(failed)?,
    };
    if read_only {
        set_read_only(&mount).map_err(failed)?;
    }
    Ok(Root::from_fd(mount))
}

/// An empty, read-only file system.
fn nothing() -> Result<Root> {
    let failed = |errno: Errno| Error::Mount {
        action: "making an empty file system".to_owned(),
        source: errno.into(),
    };
    let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed)?;
    fsconfig_set_string(&fs, "mode", "0755").map_err(failed)?;
    fsconfig_create(&fs).map_err(failed)?;
    let read_only = MountAttrFlags::MOUNT_ATTR_RDONLY;
    let mount = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, read_only).map_err(failed)?;
    Ok(Root::from_fd(mount))
}

/// The kernel does not mount a volatile overlay twice unless its mark is taken away. Whether the
/// tree can be trusted after a crash is the caller's affair, not the mark's.
fn forget_volatile(work: &Path) {
    if let Ok(root) = Root::open(work) {
        // If it cannot be removed, the mount fails and says why.
        let _ = root.remove_all(Path::new("work/incompat/volatile"));
    }
}

fn set_read_only(mount: &OwnedFd) -> Result<(), Errno> {
    let attributes =
        MountAttr { set: libc::MOUNT_ATTR_RDONLY, clear: 0, propagation: 0, userns: 0 };
    set_attributes(mount, attributes)
}
