//! The container's view of files: its root, its mounts, its devices, and what is hidden from it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDeviceType, Mount, Spec};
use rustix::fs::{CWD, FileType, Mode, OFlags};

use super::mounts::{self, Options};
use super::tree::{self, Make};
use crate::stage::{Config, Doing, Failure, Step};
use crate::{cgroup, sys};

/// Character devices every container has: name, major, minor.
const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// Links every container has in `/dev`.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// What comes from the host's file system, opened before the container leaves it.
#[derive(Debug)]
pub(crate) struct Sources {
    rootfs: OwnedFd,
    /// One for each mount of the spec; those that are no bind mounts have none.
    binds: Vec<Option<OwnedFd>>,
    /// Devices by path in the container, where nodes cannot be made.
    devices: Vec<(PathBuf, OwnedFd)>,
    /// Lines of `/proc/self/cgroup`.
    cgroups: String,
}

/// Opens what the container gets from the host.
pub(crate) fn open_sources(config: &Config, rootfs: OwnedFd) -> Step<Sources> {
    // A detached mount cannot be copied before Linux 6.15, and need not be.
    let rootfs = sys::open_tree(rootfs.as_fd(), c"", true).unwrap_or(rootfs);
    let mut binds = Vec::new();
    for mount in config.spec.mounts().as_deref().unwrap_or_default() {
        binds.push(open_bind(mount)?);
    }
    let mut devices = Vec::new();
    if config.user_namespace {
        let standard = DEVICES.iter().map(|(name, ..)| Path::new("/dev").join(name));
        for path in standard.chain(own_devices(&config.spec).map(|device| device.path().clone())) {
            let name =
                sys::c_string(path.as_os_str().as_encoded_bytes()).doing("opening", &path)?;
            let device = sys::open_tree(CWD, &name, false).doing("opening device", &path)?;
            devices.push((path, device));
        }
    }
    let cgroups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    Ok(Sources { rootfs, binds, devices, cgroups })
}

fn own_devices(spec: &Spec) -> impl Iterator<Item = &oci_spec::runtime::LinuxDevice> {
    let devices = spec.linux().as_ref().and_then(|linux| linux.devices().as_ref());
    devices.into_iter().flatten().filter(|device| {
        !DEVICES.iter().any(|(name, ..)| device.path() == &Path::new("/dev").join(name))
    })
}

fn open_bind(mount: &Mount) -> Step<Option<OwnedFd>> {
    let options = mounts::parse(mount.options().as_deref().unwrap_or_default());
    let recursive = match (mount.typ().as_deref(), options.bind) {
        (_, Some(recursive)) => recursive,
        (Some("bind"), None) => true,
        _ => return Ok(None),
    };
    let source = mount.source().as_deref().unwrap_or(Path::new(""));
    if !source.is_absolute() {
        let reason = format!("the source of {} is no absolute path", mount.destination().display());
        return Err(Failure::invalid("mounts", reason));
    }
    let name = sys::c_string(source.as_os_str().as_encoded_bytes()).doing("opening", source)?;
    sys::open_tree(CWD, &name, recursive).doing("opening", source).map(Some)
}

/// One thing to attach, made while the host was still in view.
enum Made {
    One(OwnedFd),
    /// A directory with a mount for each name.
    Cgroups(OwnedFd, Vec<(String, OwnedFd)>),
}

/// The container's file system, with this process in it.
#[derive(Debug)]
pub(crate) struct Entered {
    pub(crate) root: OwnedFd,
    /// The container's own procfs.
    pub(crate) proc: OwnedFd,
}

/// Leaves the host's file system for the container's, with everything mounted that the spec names.
pub(crate) fn enter(config: &Config, mut sources: Sources) -> Step<Entered> {
    let private =
        rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).doing("separating", "/")?;
    let list = config.spec.mounts().as_deref().unwrap_or_default();
    let mut made = Vec::with_capacity(list.len());
    let mut proc = None;
    for (mount, bind) in list.iter().zip(std::mem::take(&mut sources.binds)) {
        let options = mounts::parse(mount.options().as_deref().unwrap_or_default());
        let one = make(mount, bind, options, &sources)?;
        if let (Some("proc"), Made::One(fd)) = (mount.typ().as_deref(), &one) {
            proc = Some(fd.try_clone().doing("opening", "/proc")?);
        }
        made.push(one);
    }
    let proc = match proc {
        Some(proc) => proc,
        None => mounts::make("proc", "proc", &Options::default()).doing("mounting", "proc")?,
    };
    pivot(&sources.rootfs)?;
    let root = sources.rootfs.as_fd();
    for (mount, made) in list.iter().zip(made) {
        let target = mount.destination();
        attach(root, mount, made).map_err(|failure| match failure.errno {
            libc::ELOOP => {
                Failure::invalid("mounts", format!("{} is a link in the image", target.display()))
            }
            _ => failure,
        })?;
    }
    devices(config, root, &sources)?;
    Ok(Entered { root: sources.rootfs, proc })
}

fn make(mount: &Mount, bind: Option<OwnedFd>, options: Options, sources: &Sources) -> Step<Made> {
    let target = mount.destination();
    if let Some(bind) = bind {
        mounts::adjust(bind.as_fd(), &options).doing("mounting", target)?;
        return Ok(Made::One(bind));
    }
    let kind = mount.typ().as_deref().unwrap_or("none");
    let source = mount.source().as_deref().and_then(Path::to_str).unwrap_or(kind);
    match kind {
        "cgroup" | "cgroup2" => make_cgroups(&options, &sources.cgroups).doing("mounting", target),
        "devpts" => match mounts::make(kind, source, &options) {
            // The group of terminals is not among the ids of a small user namespace.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                let mut options = options;
                options.data.retain(|(key, _)| key != "gid");
                mounts::make(kind, source, &options).doing("mounting", target).map(Made::One)
            }
            other => other.doing("mounting", target).map(Made::One),
        },
        _ => mounts::make(kind, source, &options).doing("mounting", target).map(Made::One),
    }
}

/// The container's view of its cgroups: the unified tree, or a directory with the older ones.
fn make_cgroups(options: &Options, lines: &str) -> io::Result<Made> {
    let with = |data: &[(&str, Option<&str>)]| Options {
        set: options.set,
        data: data
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned)))
            .collect(),
        ..Options::default()
    };
    let hierarchies = cgroup::hierarchies(lines);
    if hierarchies.iter().all(|hierarchy| hierarchy.is_empty()) {
        return mounts::make("cgroup2", "cgroup", &with(&[])).map(Made::One);
    }
    let size = [("mode", Some("755")), ("size", Some("64k"))];
    let mut directory = with(&size);
    directory.set &= !sys::MOUNT_ATTR_RDONLY;
    let directory = mounts::make("tmpfs", "tmpfs", &directory)?;
    let mut made = Vec::new();
    for name in hierarchies {
        let mount = match name.split_once('=') {
            None if name.is_empty() => mounts::make("cgroup2", "cgroup", &with(&[])),
            Some((_, title)) => {
                mounts::make("cgroup", "cgroup", &with(&[("none", None), ("name", Some(title))]))
            }
            None => {
                let controllers: Vec<_> = name.split(',').map(|name| (name, None)).collect();
                mounts::make("cgroup", "cgroup", &with(&controllers))
            }
        };
        let place = if name.is_empty() { "unified" } else { name.trim_start_matches("name=") };
        // A hierarchy that cannot be shown is left out: it is a view only.
        if let Ok(mount) = mount {
            made.push((place.to_owned(), mount));
        }
    }
    Ok(Made::Cgroups(directory, made))
}

/// Makes the root the only thing in view.
fn pivot(rootfs: &OwnedFd) -> Step {
    let top =
        rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .doing("opening", "/")?;
    sys::attach_mount(rootfs.as_fd(), top.as_fd()).doing("mounting", "the root file system")?;
    rustix::process::fchdir(rootfs).doing("entering", "the root file system")?;
    rustix::process::pivot_root(".", ".").doing("pivoting to", "the root file system")?;
    rustix::mount::unmount(".", rustix::mount::UnmountFlags::DETACH)
        .doing("leaving", "the host's files")?;
    rustix::process::chdir("/").doing("entering", "/")
}

fn attach(root: BorrowedFd<'_>, mount: &Mount, made: Made) -> Step {
    let target = mount.destination();
    let (fd, inner) = match made {
        Made::One(fd) => (fd, Vec::new()),
        Made::Cgroups(fd, inner) => (fd, inner),
    };
    let directory = tree::is_directory(fd.as_fd()).doing("mounting", target)?;
    let make = if directory { Make::Directory } else { Make::File };
    // The kernel's own file systems must be where everybody expects them, not where a link of the
    // image points.
    let kernel = matches!(
        mount.typ().as_deref(),
        Some("proc" | "sysfs" | "cgroup" | "cgroup2" | "devpts" | "mqueue")
    ) || ["/dev", "/proc", "/sys"].iter().any(|place| target == Path::new(place));
    let place = match sys::open_plain(root, target, OFlags::PATH) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => tree::ensure(root, target, make),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) && !kernel => {
            tree::ensure(root, target, make)
        }
        other => other,
    };
    let place = place.doing("making a place for", target)?;
    sys::attach_mount(fd.as_fd(), place.as_fd()).doing("mounting", target)?;
    for (name, mount) in &inner {
        let place = tree::ensure(fd.as_fd(), Path::new(name), Make::Directory)
            .doing("making", target.join(name))?;
        sys::attach_mount(mount.as_fd(), place.as_fd()).doing("mounting", target.join(name))?;
    }
    if !inner.is_empty() {
        let set = sys::MOUNT_ATTR_RDONLY;
        sys::mount_setattr(fd.as_fd(), false, set, 0, 0).doing("making read-only", target)?;
    }
    Ok(())
}

/// Fills `/dev`, if the spec mounts one.
fn devices(config: &Config, root: BorrowedFd<'_>, sources: &Sources) -> Step {
    let list = config.spec.mounts().as_deref().unwrap_or_default();
    let own = list.iter().any(|mount| {
        mount.destination() == Path::new("/dev") && mount.typ().as_deref() == Some("tmpfs")
    });
    if !own {
        return Ok(());
    }
    let dev = sys::open_plain(root, Path::new("/dev"), OFlags::PATH | OFlags::DIRECTORY)
        .doing("opening", "/dev")?;
    for (name, target) in LINKS {
        rustix::fs::symlinkat(target, &dev, name).doing("linking", Path::new("/dev").join(name))?;
    }
    for (path, device) in &sources.devices {
        let place = tree::ensure(root, path, Make::File).doing("making", path)?;
        sys::attach_mount(device.as_fd(), place.as_fd()).doing("mounting", path)?;
    }
    if !sources.devices.is_empty() {
        return Ok(());
    }
    for (name, major, minor) in DEVICES {
        node(dev.as_fd(), Path::new(name), FileType::CharacterDevice, 0o666, (major, minor))?;
    }
    for device in own_devices(&config.spec) {
        let kind = match device.typ() {
            LinuxDeviceType::B => FileType::BlockDevice,
            LinuxDeviceType::P => FileType::Fifo,
            _ => FileType::CharacterDevice,
        };
        let number = |number: i64| u32::try_from(number).unwrap_or(0);
        let numbers = (number(device.major()), number(device.minor()));
        let Ok(inside) = device.path().strip_prefix("/dev") else {
            return Err(Failure::invalid(
                "devices",
                format!("{} is not below /dev", device.path().display()),
            ));
        };
        let parent = inside.parent().unwrap_or(Path::new(""));
        let parent = tree::ensure(dev.as_fd(), parent.as_ref_or_dot(), Make::Directory)
            .doing("making", device.path())?;
        let name = Path::new(inside.file_name().unwrap_or_default());
        node(parent.as_fd(), name, kind, device.file_mode().unwrap_or(0o666), numbers)?;
        let (uid, gid) = (device.uid().unwrap_or(0), device.gid().unwrap_or(0));
        if (uid, gid) != (0, 0) {
            let owner = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
            let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::chownat(&parent, name, Some(owner.0), Some(owner.1), flags)
                .doing("owning", device.path())?;
        }
    }
    Ok(())
}

/// The empty path opens nothing; the dot opens the directory itself.
trait OrDot {
    fn as_ref_or_dot(&self) -> &Path;
}

impl OrDot for Path {
    fn as_ref_or_dot(&self) -> &Path {
        if self.as_os_str().is_empty() { Path::new(".") } else { self }
    }
}

fn node(
    dir: BorrowedFd<'_>,
    name: &Path,
    kind: FileType,
    mode: u32,
    (major, minor): (u32, u32),
) -> Step {
    let device = rustix::fs::makedev(major, minor);
    rustix::fs::mknodat(dir, name, kind, Mode::from_raw_mode(mode), device)
        .doing("making device", Path::new("/dev").join(name))
}

/// Hides and protects what the spec says, last of all: nothing can be mounted there afterwards.
pub(crate) fn protect(config: &Config, root: BorrowedFd<'_>) -> Step {
    let Some(linux) = config.spec.linux() else { return Ok(()) };
    for path in linux.readonly_paths().as_deref().unwrap_or_default() {
        if let Some((place, _)) = existing(root, path)? {
            let copy = sys::open_tree(place.as_fd(), c"", true).doing("protecting", path)?;
            sys::mount_setattr(copy.as_fd(), false, sys::MOUNT_ATTR_RDONLY, 0, 0)
                .doing("protecting", path)?;
            sys::attach_mount(copy.as_fd(), place.as_fd()).doing("protecting", path)?;
        }
    }
    for path in linux.masked_paths().as_deref().unwrap_or_default() {
        if let Some((place, directory)) = existing(root, path)? {
            let cover = if directory { empty_directory() } else { null_device(root) };
            let cover = cover.doing("hiding", path)?;
            sys::attach_mount(cover.as_fd(), place.as_fd()).doing("hiding", path)?;
        }
    }
    if config.spec.root().as_ref().and_then(oci_spec::runtime::Root::readonly) == Some(true) {
        sys::mount_setattr(root, false, sys::MOUNT_ATTR_RDONLY, 0, 0)
            .doing("making read-only", "/")?;
    }
    Ok(())
}

/// A path to protect, if it exists; a link is an attempt to protect something else instead.
fn existing(root: BorrowedFd<'_>, path: &str) -> Step<Option<(OwnedFd, bool)>> {
    match sys::open_plain(root, Path::new(path), OFlags::PATH) {
        Ok(place) => {
            let directory = tree::is_directory(place.as_fd()).doing("looking at", path)?;
            Ok(Some((place, directory)))
        }
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        Err(error) => Err(error).doing("protecting", path),
    }
}

fn empty_directory() -> io::Result<OwnedFd> {
    let options = Options {
        set: sys::MOUNT_ATTR_RDONLY
            | sys::MOUNT_ATTR_NOSUID
            | sys::MOUNT_ATTR_NODEV
            | sys::MOUNT_ATTR_NOEXEC,
        data: vec![
            ("size".to_owned(), Some("0".to_owned())),
            ("mode".to_owned(), Some("555".to_owned())),
        ],
        ..Options::default()
    };
    mounts::make("tmpfs", "tmpfs", &options)
}

/// A copy of the container's null device, checked to be one (CVE-2025-31133).
fn null_device(root: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let null = sys::open_plain(root, Path::new("/dev/null"), OFlags::PATH)?;
    let stat = rustix::fs::statat(&null, "", rustix::fs::AtFlags::EMPTY_PATH)?;
    let is_null = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == rustix::fs::makedev(1, 3);
    if !is_null {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    sys::open_tree(null.as_fd(), c"", false)
}

/// Makes a terminal in the container and gives both ends of it; its other name is `/dev/console`.
pub(crate) fn terminal(
    root: BorrowedFd<'_>,
    (rows, columns): (u16, u16),
    uid: u32,
) -> Step<(OwnedFd, OwnedFd)> {
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let ours = sys::open_plain(root, Path::new("/dev/pts/ptmx"), flags)
        .doing("opening", "/dev/pts/ptmx")?;
    rustix::pty::unlockpt(&ours).doing("unlocking", "the terminal")?;
    let theirs = sys::terminal_peer(ours.as_fd()).doing("opening", "the terminal")?;
    let size =
        rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&theirs, size).doing("sizing", "the terminal")?;
    rustix::fs::fchown(&theirs, Some(rustix::fs::Uid::from_raw(uid)), None)
        .doing("owning", "the terminal")?;
    Ok((ours, theirs))
}

/// Shows the terminal as `/dev/console`.
pub(crate) fn console(root: BorrowedFd<'_>, theirs: BorrowedFd<'_>) -> Step {
    let dev = sys::open_plain(root, Path::new("/dev"), OFlags::PATH).doing("opening", "/dev")?;
    let place = tree::ensure(dev.as_fd(), Path::new("console"), Make::File)
        .doing("making", "/dev/console")?;
    let copy = sys::open_tree(theirs, c"", false).doing("copying", "the terminal")?;
    sys::attach_mount(copy.as_fd(), place.as_fd()).doing("mounting", "/dev/console")
}

/// Sets kernel parameters through the container's own procfs.
pub(crate) fn sysctls(config: &Config, proc: BorrowedFd<'_>) -> Step {
    let Some(sysctls) = config.spec.linux().as_ref().and_then(|linux| linux.sysctl().as_ref())
    else {
        return Ok(());
    };
    for (key, value) in sysctls {
        let path = Path::new("sys").join(key.replace('.', "/"));
        write_proc(proc, &path, value).doing("setting kernel parameter", key)?;
    }
    Ok(())
}

/// Writes a file of the container's own procfs, following no link out of it.
pub(crate) fn write_proc(proc: BorrowedFd<'_>, path: &Path, text: &str) -> io::Result<()> {
    let resolve = rustix::fs::ResolveFlags::BENEATH
        | rustix::fs::ResolveFlags::NO_MAGICLINKS
        | rustix::fs::ResolveFlags::NO_XDEV;
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat2(proc, path, flags, Mode::empty(), resolve)?;
    rustix::io::write(file, text.as_bytes())?;
    Ok(())
}
