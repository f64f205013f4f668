//! The container's `/dev`: its nodes, its links, its terminal.
//!
//! Everything in a container but its device nodes is mounted `nodev`, and each node is a mount of
//! its own, so that a node the container makes opens nothing, whatever cgroups there are.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, Spec};
use rustix::fs::{CWD, FileType, Mode, OFlags};

use super::mounts::{self, MountOptions};
use super::tree::{self, Make};
use crate::stage::{ErrorContext, Failure, StageConfig, Step};
use crate::sys;

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

/// A mount of one device, and where it goes.
pub(super) type Node = (PathBuf, OwnedFd);

/// Devices that the spec adds to the standard ones.
fn own_devices(spec: &Spec) -> impl Iterator<Item = &LinuxDevice> {
    let devices = spec.linux().as_ref().and_then(|linux| linux.devices().as_ref());
    devices.into_iter().flatten().filter(|device| {
        !DEVICES.iter().any(|(name, ..)| device.path() == &Path::new("/dev").join(name))
    })
}

fn own_dev(spec: &Spec) -> bool {
    spec.mounts().as_deref().unwrap_or_default().iter().any(|mount| {
        mount.destination() == Path::new("/dev") && mount.typ().as_deref() == Some("tmpfs")
    })
}

/// Whether device nodes work wherever they are: only where the spec allows all devices.
pub(super) fn unrestricted(spec: &Spec) -> bool {
    crate::cgroup::all_devices(spec)
}

/// The host's devices, for a user namespace, where no nodes can be made.
pub(super) fn of_host(config: &StageConfig) -> Step<Vec<Node>> {
    if !config.user_namespace {
        return Ok(Vec::new());
    }
    let standard = DEVICES.iter().map(|(name, ..)| Path::new("/dev").join(name));
    let own = own_devices(&config.spec).map(|device| device.path().clone());
    let open = |path: PathBuf| {
        let name = sys::c_string(path.as_os_str().as_encoded_bytes()).doing("opening", &path)?;
        let device = sys::open_tree(CWD, &name, false).doing("opening device", &path)?;
        Ok((path, device))
    };
    standard.chain(own).map(open).collect()
}

/// Makes device nodes in a place of their own, which only their mounts survive.
pub(super) fn make(spec: &Spec) -> Step<Vec<Node>> {
    if !own_dev(spec) {
        return Ok(Vec::new());
    }
    let options = MountOptions {
        set: sys::MOUNT_ATTR_NOSUID | sys::MOUNT_ATTR_NOEXEC,
        data: vec![("mode".to_owned(), Some("700".to_owned()))],
        ..MountOptions::default()
    };
    let place = mounts::make("tmpfs", "devices", &options).doing("mounting", "the devices")?;
    let mut attached = false;
    let mut nodes = Vec::new();
    for (name, major, minor) in DEVICES {
        let path = Path::new("/dev").join(name);
        let kind = FileType::CharacterDevice;
        make_node(place.as_fd(), &path, kind, 0o666, (major, minor))?;
        let node = mount_node(place.as_fd(), &path, &mut attached)?;
        nodes.push((path, node));
    }
    for device in own_devices(spec) {
        let kind = match device.typ() {
            LinuxDeviceType::B => FileType::BlockDevice,
            LinuxDeviceType::P => FileType::Fifo,
            _ => FileType::CharacterDevice,
        };
        let number = |number: i64| u32::try_from(number).unwrap_or(0);
        let numbers = (number(device.major()), number(device.minor()));
        let mode = device.file_mode().unwrap_or(0o666);
        make_node(place.as_fd(), device.path(), kind, mode, numbers)?;
        let node = mount_node(place.as_fd(), device.path(), &mut attached)?;
        let owner = (
            device.uid().map(rustix::fs::Uid::from_raw),
            device.gid().map(rustix::fs::Gid::from_raw),
        );
        let flags = rustix::fs::AtFlags::EMPTY_PATH;
        rustix::fs::chownat(&node, "", owner.0, owner.1, flags).doing("owning", device.path())?;
        nodes.push((device.path().clone(), node));
    }
    if attached {
        rustix::mount::unmount("/", rustix::mount::UnmountFlags::DETACH)
            .doing("unmounting", "the devices")?;
    }
    Ok(nodes)
}

/// The name under which each node is made.
const NODE: &std::ffi::CStr = c"node";

/// Makes one node.
fn make_node(
    place: BorrowedFd<'_>,
    path: &Path,
    kind: FileType,
    mode: u32,
    (major, minor): (u32, u32),
) -> Step {
    let device = rustix::fs::makedev(major, minor);
    rustix::fs::mknodat(place, NODE, kind, Mode::from_raw_mode(mode), device)
        .doing("making device", path)
}

/// A mount of the node made last. Before Linux 6.15 a mount can be copied only where it is attached.
fn mount_node(place: BorrowedFd<'_>, path: &Path, attached: &mut bool) -> Step<OwnedFd> {
    let open = || sys::open_tree(place, NODE, false);
    let node = match open() {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) && !*attached => {
            let top = open_top()?;
            sys::attach_mount(place, top.as_fd()).doing("mounting", "the devices")?;
            *attached = true;
            open()
        }
        node => node,
    };
    let node = node.doing("making device", path)?;
    let other = path.as_os_str().to_string_lossy().replace('/', "_");
    rustix::fs::renameat(place, NODE, place, other).doing("making device", path)?;
    Ok(node)
}

pub(super) fn open_top() -> Step<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open("/", flags, Mode::empty()).doing("opening", "/")
}

/// Fills `/dev`, if the spec mounts one.
pub(super) fn fill(spec: &Spec, root: BorrowedFd<'_>, nodes: &[Node]) -> Step {
    if !own_dev(spec) {
        return Ok(());
    }
    let dev = Path::new("/dev");
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let directory = sys::open_plain(root, dev, flags).doing("opening", dev)?;
    for (name, target) in LINKS {
        rustix::fs::symlinkat(target, &directory, name).doing("linking", dev.join(name))?;
    }
    for (path, node) in nodes {
        let Ok(inside) = path.strip_prefix(dev) else {
            let reason = format!("{} is not below /dev", path.display());
            return Err(Failure::invalid("devices", reason));
        };
        let place = tree::ensure(directory.as_fd(), inside, Make::File).doing("making", path)?;
        sys::attach_mount(node.as_fd(), place.as_fd()).doing("mounting", path)?;
    }
    Ok(())
}

/// Makes a terminal in the container and gives both ends of it.
pub(crate) fn terminal(
    root: BorrowedFd<'_>,
    (rows, columns): (u16, u16),
    uid: u32,
) -> Step<(OwnedFd, OwnedFd)> {
    let (path, flags) = (Path::new("/dev/pts/ptmx"), OFlags::RDWR | OFlags::NOCTTY);
    let ours = sys::open_plain(root, path, flags).doing("opening", path)?;
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
    let console = Path::new("/dev/console");
    let place =
        tree::ensure(dev.as_fd(), Path::new("console"), Make::File).doing("making", console)?;
    let copy = sys::open_tree(theirs, c"", false).doing("copying", "the terminal")?;
    sys::attach_mount(copy.as_fd(), place.as_fd()).doing("mounting", console)
}
