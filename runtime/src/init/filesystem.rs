//! The container's view of files: its root, its mounts, its devices, and what is hidden from it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::{Mount, Spec};
use rustix::fs::{CWD, FileType, Mode, OFlags};

use super::mounts::{self, MountOptions};
use super::tree::{self, Make};
use super::{copy_up, devices, namespaces};
use crate::engine::hooks::{self, Moment};
use crate::ids::IdMaps;
use crate::stage::{ErrorContext, Failure, Role, StageConfig, Step};
use crate::{cgroup, engine, sys};

/// `PROC_SUPER_MAGIC`
const PROC_MAGIC: i64 = 0x9fa0;

/// What comes from the host's file system, opened before the container leaves it.
#[derive(Debug)]
pub(crate) struct Sources {
    rootfs: OwnedFd,
    /// One for each mount of the spec; `None` for mounts that are not bind mounts.
    binds: Vec<Option<OwnedFd>>,
    /// Devices by path in the container, where nodes cannot be made.
    devices: Vec<devices::Node>,
    /// Lines of `/proc/self/cgroup`.
    cgroups: String,
}

/// Opens what the container gets from the host. `own` says whether it has an own mount namespace.
pub(crate) fn open_sources(config: &StageConfig, rootfs: OwnedFd, own: bool) -> Step<Sources> {
    // A detached mount cannot be copied before Linux 6.15, and need not be.
    let rootfs = sys::open_tree(rootfs.as_fd(), c"", true).unwrap_or(rootfs);
    let mut binds = Vec::new();
    for mount in config.spec.mounts().as_deref().unwrap_or_default() {
        let later = opens_later(config, own) && !is_mapped(mount);
        binds.push(if later { None } else { open_bind(config, mount)? });
    }
    let devices = devices::of_host(config)?;
    let cgroups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    Ok(Sources { rootfs, binds, devices, cgroups })
}

/// Whether bind mounts are made together with the other mounts, so that the kernel lists all of them
/// in the order of the bundle. Who has another user namespace, or another view of files, cannot.
fn opens_later(config: &StageConfig, own: bool) -> bool {
    matches!(config.role, Role::Create(_)) && own && !config.user_namespace
}

/// Whether the ids of a mount are mapped.
fn is_mapped(mount: &Mount) -> bool {
    let options = mounts::parse(mount.options().as_deref().unwrap_or_default());
    let listed = |list: &Option<Vec<_>>| list.as_ref().is_some_and(|list| !list.is_empty());
    options.mapped.is_some() || listed(mount.uid_mappings()) || listed(mount.gid_mappings())
}

/// The maps of a mount: its own, else those of the container.
fn maps_of(config: &StageConfig, mount: &Mount) -> Step<IdMaps> {
    let own = IdMaps::of(
        mount.uid_mappings().as_deref().unwrap_or_default(),
        mount.gid_mappings().as_deref().unwrap_or_default(),
    );
    let maps = match config.spec.linux() {
        Some(linux) if own == IdMaps::default() => namespaces::maps(linux),
        _ => own,
    };
    if maps.uids.is_empty() || maps.gids.is_empty() {
        let place = mount.destination().display();
        let reason = format!(
            "{place} has idmap, but neither the mount nor the container maps users and groups"
        );
        return Err(Failure::invalid("mounts", reason));
    }
    Ok(maps)
}

fn open_bind(config: &StageConfig, mount: &Mount) -> Step<Option<OwnedFd>> {
    let options = mounts::parse(mount.options().as_deref().unwrap_or_default());
    let recursive = match (mount.typ().as_deref(), options.bind) {
        (_, Some(recursive)) => recursive,
        (Some("bind"), None) => true,
        _ => return Ok(None),
    };
    let source = mount.source().as_deref().unwrap_or(Path::new(""));
    if !source.is_absolute() {
        let reason =
            format!("the source of {} is not an absolute path", mount.destination().display());
        return Err(Failure::invalid("mounts", reason));
    }
    let name = sys::c_string(source.as_os_str().as_encoded_bytes()).doing("opening", source)?;
    let opened = sys::open_tree(CWD, &name, recursive).doing("opening", source)?;
    if is_mapped(mount) {
        let namespace = maps_of(config, mount)?.namespace().map_err(engine::failed)?;
        let tree = options.mapped.unwrap_or(recursive);
        sys::map_mount(opened.as_fd(), tree, namespace.as_fd()).map_err(|error| Failure {
            action: "mapping the ids of".to_owned(),
            subject: format!("{}, which its file system may not be able to", source.display()),
            errno: error.raw_os_error().unwrap_or(libc::EINVAL),
            reason: crate::stage::Reason::Setup,
        })?;
    }
    Ok(Some(opened))
}

/// One thing to attach, made while the host was still in view.
enum PreparedMount {
    One(OwnedFd),
    /// A directory with a mount for each name.
    Cgroups(OwnedFd, Vec<(String, OwnedFd)>),
}

/// The container's root file system after `pivot_root`.
#[derive(Debug)]
pub(crate) struct EnteredRoot {
    pub(crate) root: OwnedFd,
    /// The container's own procfs.
    pub(crate) proc: OwnedFd,
}

/// Adds the SELinux label of the container's mounts to a file system that takes one.
fn label(spec: &Spec, mount: &Mount, options: &mut MountOptions) {
    let label = spec.linux().as_ref().and_then(|linux| linux.mount_label().as_deref());
    let takes = matches!(mount.typ().as_deref(), Some("tmpfs" | "mqueue" | "devpts"));
    if let Some(label) = label.filter(|label| takes && !label.is_empty()) {
        options.data.push(("context".to_owned(), Some(label.to_owned())));
    }
}

/// Leaves the host's file system for the container's, with everything mounted that the spec names.
///
/// Where it has no mount namespace of its `own`, nothing is attached in the one it shares: its mounts
/// are on a root that is attached nowhere, which Linux 6.15 can.
pub(crate) fn enter(
    config: &StageConfig,
    mut sources: Sources,
    pid: u32,
    own: bool,
) -> Step<EnteredRoot> {
    let private =
        rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
    if own {
        rustix::mount::mount_change("/", private).doing("separating", "/")?;
    } else if let Role::Create(waits) = &config.role {
        // The kernel attaches only to what was opened in the namespace of who does it.
        let path = &waits.rootfs;
        let name = sys::c_string(path.as_os_str().as_encoded_bytes()).doing("opening", path)?;
        sources.rootfs = sys::open_tree(CWD, &name, true).doing("opening", path)?;
    }
    let list = config.spec.mounts().as_deref().unwrap_or_default();
    let any_device = devices::unrestricted(&config.spec);
    let mut made = Vec::with_capacity(list.len());
    let mut proc = None;
    for (mount, bind) in list.iter().zip(std::mem::take(&mut sources.binds)) {
        let mut options = mounts::parse(mount.options().as_deref().unwrap_or_default());
        // Nothing can be made in a devpts; its terminals must open.
        let terminals = mount.typ().as_deref() == Some("devpts");
        if !any_device && !terminals && options.clear & sys::MOUNT_ATTR_NODEV == 0 {
            options.set |= sys::MOUNT_ATTR_NODEV;
        }
        label(&config.spec, mount, &mut options);
        let bind = match bind {
            None if opens_later(config, own) => open_bind(config, mount)?,
            bind => bind,
        };
        let one = make(mount, bind, options, &sources)?;
        // Where no procfs can be made the machine's is given to the container.
        let given = proc.is_none() && mount.destination() == Path::new("/proc");
        if let (Some("proc" | "bind"), PreparedMount::One(fd)) = (mount.typ().as_deref(), &one)
            && (mount.typ().as_deref() == Some("proc") || given && is_proc(fd))
        {
            proc = Some(fd.try_clone().doing("opening", "/proc")?);
        }
        made.push(one);
    }
    let nodes = match std::mem::take(&mut sources.devices) {
        made if config.user_namespace => made,
        _ => devices::make(&config.spec)?,
    };
    if !any_device {
        let set = sys::MOUNT_ATTR_NODEV;
        sys::mount_setattr(sources.rootfs.as_fd(), true, set, 0, 0).doing("mounting", "/")?;
    }
    let proc = match proc {
        Some(proc) => proc,
        None => mounts::make("proc", "proc", &MountOptions::default()).doing("mounting", "proc")?,
    };
    let root = sources.rootfs.as_fd();
    let hooked = place_of_hooks(config);
    match hooked {
        _ if !own => {}
        Some(path) => attach_root(root, path)?,
        None => {
            attach_root(root, Path::new("/"))?;
            pivot(&sources.rootfs)?;
        }
    }
    for (mount, made) in list.iter().zip(made) {
        let target = mount.destination();
        attach(root, mount, made, own).map_err(|failure| match failure.errno {
            libc::ELOOP => {
                Failure::invalid("mounts", format!("{} is a link in the image", target.display()))
            }
            _ => failure,
        })?;
    }
    devices::fill(&config.spec, root, &nodes)?;
    if hooked.is_some() {
        engine::hooks_inside(config, Moment::CreateContainer, pid)?;
    }
    match own {
        true if hooked.is_some() => pivot(&sources.rootfs)?,
        true => {}
        false => change_root(&sources.rootfs)?,
    }
    Ok(EnteredRoot { root: sources.rootfs, proc })
}

/// Where hooks expect the root file system that run when it is complete, but the machine's files
/// are still in sight.
fn place_of_hooks(config: &StageConfig) -> Option<&Path> {
    match &config.role {
        Role::Create(waits) if !hooks::at(&config.spec, Moment::CreateContainer).is_empty() => {
            Some(&waits.rootfs)
        }
        _ => None,
    }
}

/// Shows the root file system at a place of the machine's.
fn attach_root(root: BorrowedFd<'_>, path: &Path) -> Step {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let place = rustix::fs::open(path, flags, Mode::empty()).doing("opening", path)?;
    sys::attach_mount(root, place.as_fd()).doing("mounting", "the root file system")
}

/// Whether it is the kernel's own, and not a directory that someone mounts in its place.
fn is_proc(fd: &OwnedFd) -> bool {
    rustix::fs::fstatfs(fd).is_ok_and(|stat| stat.f_type == PROC_MAGIC)
}

fn make(
    mount: &Mount,
    bind: Option<OwnedFd>,
    options: MountOptions,
    sources: &Sources,
) -> Step<PreparedMount> {
    let target = mount.destination();
    let mut options = options;
    if options.copies {
        // Until it is filled.
        options.set &= !sys::MOUNT_ATTR_RDONLY;
    }
    if let Some(bind) = bind {
        mounts::adjust(bind.as_fd(), &options).doing("mounting", target)?;
        return Ok(PreparedMount::One(bind));
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
                mounts::make(kind, source, &options)
                    .doing("mounting", target)
                    .map(PreparedMount::One)
            }
            other => other.doing("mounting", target).map(PreparedMount::One),
        },
        _ => mounts::make(kind, source, &options).doing("mounting", target).map(PreparedMount::One),
    }
}

/// The container's view of its cgroups: the unified tree, or a directory with the older ones.
fn make_cgroups(options: &MountOptions, lines: &str) -> io::Result<PreparedMount> {
    let with = |data: &[(&str, Option<&str>)]| MountOptions {
        set: options.set,
        data: data
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned)))
            .collect(),
        ..MountOptions::default()
    };
    let hierarchies = cgroup::hierarchies(lines);
    if hierarchies.iter().all(|hierarchy| hierarchy.is_empty()) {
        return mounts::make("cgroup2", "cgroup", &with(&[])).map(PreparedMount::One);
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
    Ok(PreparedMount::Cgroups(directory, made))
}

/// Makes the root that of this process alone.
fn change_root(rootfs: &OwnedFd) -> Step {
    rustix::process::fchdir(rootfs).doing("entering", "the root file system")?;
    rustix::process::chroot(".").doing("changing root to", "the root file system")?;
    rustix::process::chdir("/").doing("entering", "/")
}

/// Makes the root the only thing in view.
fn pivot(rootfs: &OwnedFd) -> Step {
    rustix::process::fchdir(rootfs).doing("entering", "the root file system")?;
    rustix::process::pivot_root(".", ".").doing("pivoting to", "the root file system")?;
    // The host's root now lies on ours, perhaps under more that was mounted on it. All of it has
    // to go: what is left would be found behind "/..".
    let own = mount_id(rootfs.as_fd())?;
    while mount_id(open_parent()?.as_fd())? != own {
        rustix::mount::unmount(".", rustix::mount::UnmountFlags::DETACH)
            .doing("leaving", "the host's files")?;
    }
    rustix::process::chdir("/").doing("entering", "/")
}

fn open_parent() -> Step<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open("..", flags, Mode::empty()).doing("opening", "/..")
}

fn mount_id(fd: BorrowedFd<'_>) -> Step<u64> {
    let flags = rustix::fs::AtFlags::EMPTY_PATH;
    let stat = rustix::fs::statx(fd, "", flags, rustix::fs::StatxFlags::MNT_ID)
        .doing("looking at", "/")?;
    Ok(stat.stx_mnt_id)
}

fn attach(root: BorrowedFd<'_>, mount: &Mount, made: PreparedMount, own: bool) -> Step {
    let target = mount.destination();
    let (fd, inner) = match made {
        PreparedMount::One(fd) => (fd, Vec::new()),
        PreparedMount::Cgroups(fd, inner) => (fd, inner),
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
    let options = mounts::parse(mount.options().as_deref().unwrap_or_default());
    if options.copies {
        copy_up::copy(place.as_fd(), fd.as_fd()).doing("copying to", target)?;
        if options.set & sys::MOUNT_ATTR_RDONLY != 0 {
            let set = sys::MOUNT_ATTR_RDONLY;
            sys::mount_setattr(fd.as_fd(), false, set, 0, 0).doing("making read-only", target)?;
        }
    }
    // In a tree that is attached nowhere a mount can be changed only before it is in it.
    if own {
        sys::attach_mount(fd.as_fd(), place.as_fd()).doing("mounting", target)?;
    }
    for (name, mount) in &inner {
        let place = tree::ensure(fd.as_fd(), Path::new(name), Make::Directory)
            .doing("making", target.join(name))?;
        sys::attach_mount(mount.as_fd(), place.as_fd()).doing("mounting", target.join(name))?;
    }
    if !inner.is_empty() {
        let set = sys::MOUNT_ATTR_RDONLY;
        sys::mount_setattr(fd.as_fd(), false, set, 0, 0).doing("making read-only", target)?;
    }
    if !own {
        sys::attach_mount(fd.as_fd(), place.as_fd()).doing("mounting", target)?;
    }
    Ok(())
}

/// Hides and protects what the spec says, last of all: nothing can be mounted there afterwards.
pub(crate) fn protect(config: &StageConfig, root: BorrowedFd<'_>) -> Step {
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
    match linux.rootfs_propagation().as_deref() {
        None | Some("") => Ok(()),
        Some(name) => propagate(root, name),
    }
}

/// How mounts made on one side of the root file system reach the other.
fn propagate(root: BorrowedFd<'_>, name: &str) -> Step {
    let options = mounts::parse(&[name.to_owned()]);
    if options.propagation == 0 {
        return Err(Failure::invalid("linux.rootfsPropagation", format!("{name:?} is not known")));
    }
    let recursive = name.starts_with('r');
    sys::mount_setattr(root, recursive, 0, 0, options.propagation).doing("tying", "/")
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
    let options = MountOptions {
        set: sys::MOUNT_ATTR_RDONLY
            | sys::MOUNT_ATTR_NOSUID
            | sys::MOUNT_ATTR_NODEV
            | sys::MOUNT_ATTR_NOEXEC,
        data: vec![
            ("size".to_owned(), Some("0".to_owned())),
            ("mode".to_owned(), Some("555".to_owned())),
        ],
        ..MountOptions::default()
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

/// Sets kernel parameters through the container's own procfs.
pub(crate) fn sysctls(config: &StageConfig, proc: BorrowedFd<'_>) -> Step {
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
