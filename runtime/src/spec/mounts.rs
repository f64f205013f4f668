//! What is mounted in every container, and what the user adds.

use std::path::{Component, Path};

use oci_spec::runtime::{Mount as OciMount, MountBuilder};

use super::{ContainerSpec, Mount, Namespace, Network, Propagation, built};
use crate::{Error, IdMaps, IdRange, Ids, Result};

const SHM_SIZE: u64 = 64 << 20;

fn mount(
    target: impl AsRef<Path>,
    kind: &str,
    source: impl AsRef<Path>,
    options: &[&str],
) -> Result<OciMount> {
    let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
    built(
        MountBuilder::default()
            .destination(target.as_ref())
            .typ(kind)
            .source(source.as_ref())
            .options(options)
            .build(),
    )
}

/// All mounts: parents before what is below them, whatever they come from; what is equally deep
/// stays in the order given. A mount of the user takes the place of our own there and below.
pub(super) fn mounts(spec: &ContainerSpec) -> Result<Vec<OciMount>> {
    let mapped = |mount| own(mount).and_then(|mount| map_ids(mount, spec));
    let mut wanted = spec.files.mounts.iter().map(mapped).collect::<Result<Vec<_>>>()?;
    // Where a device node cannot be made, the host's stands in for it.
    for device in spec.isolation.devices.iter().filter(|_| spec.isolation.in_user_namespace()) {
        wanted.push(mount(
            &device.target,
            "bind",
            &device.source,
            &["bind", "dev", "nosuid", "noexec"],
        )?);
    }
    let mut list = standard(spec)?;
    list.retain(|ours| {
        !wanted.iter().any(|theirs| ours.destination().starts_with(theirs.destination()))
    });
    list.append(&mut wanted);
    parents_first(&mut list);
    Ok(list)
}

/// Sorts mounts so that none covers one below it that came earlier.
fn parents_first(list: &mut [OciMount]) {
    list.sort_by_key(|mount| mount.destination().components().count());
}

/// What every container has.
fn standard(spec: &ContainerSpec) -> Result<Vec<OciMount>> {
    let safe = ["nosuid", "noexec", "nodev"];
    let shm = format!("size={}", spec.limits.shm_size.unwrap_or(SHM_SIZE));
    let mut list = vec![proc(spec)?];
    let mut dev = vec!["nosuid", "strictatime", "mode=755", "size=65536k"];
    if !spec.isolation.device_rules.is_empty() {
        // For nodes that the container makes there.
        dev.push("dev");
    }
    list.push(mount("/dev", "tmpfs", "tmpfs", &dev)?);
    let pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
    list.push(mount("/dev/pts", "devpts", "devpts", &pts)?);
    let shm = ["nosuid", "noexec", "nodev", "mode=1777", &shm];
    if spec.isolation.ipc != Some(Namespace::None) {
        list.push(mount("/dev/shm", "tmpfs", "shm", &shm)?);
    }
    // A file system of queues is that of the ipc namespace it is made in.
    if spec.isolation.host_ipc() && spec.isolation.in_user_namespace() && !spec.isolation.chroot {
        // A machine may have none.
        if Path::new("/dev/mqueue").exists() {
            let options = ["rbind", "nosuid", "noexec", "nodev"];
            list.push(mount("/dev/mqueue", "bind", "/dev/mqueue", &options)?);
        }
    } else if !spec.isolation.chroot {
        list.push(mount("/dev/mqueue", "mqueue", "mqueue", &safe)?);
    }
    let access = if spec.isolation.privileged { "rw" } else { "ro" };
    // Who has no network namespace of its own may not mount its devices in a user namespace.
    let own_network = spec.network.mode() != Network::Host;
    // One with a way out is made outside of the container's user namespace.
    let foreign = spec.isolation.ids.is_some() && spec.network.mode() != Network::None;
    if spec.isolation.chroot || foreign || spec.isolation.user_namespace && !own_network {
        list.push(mount("/sys", "bind", "/sys", &["rbind", "nosuid", "noexec", "nodev", "rro"])?);
        return Ok(list);
    }
    list.push(mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", access])?);
    let cgroup = ["nosuid", "noexec", "nodev", "relatime", access];
    list.push(mount("/sys/fs/cgroup", "cgroup", "cgroup", &cgroup)?);
    Ok(list)
}

/// The container's procfs; the machine's where it shows the machine's processes and none can be
/// made.
fn proc(spec: &ContainerSpec) -> Result<OciMount> {
    if spec.isolation.host_pid() && (spec.isolation.in_user_namespace() || spec.isolation.chroot) {
        return mount("/proc", "bind", "/proc", &["rbind", "nosuid", "noexec", "nodev"]);
    }
    mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"])
}

fn own(wanted: &Mount) -> Result<OciMount> {
    match wanted {
        Mount::Bind { source, target, read_only, recursive, propagation, options } => {
            check("target", target)?;
            check("source", source)?;
            let tree = if *recursive { "rbind" } else { "bind" };
            let access = match (*read_only, *recursive) {
                (true, true) => "rro",
                (true, false) => "ro",
                (false, _) => "rw",
            };
            let ties = match propagation {
                Propagation::Private => "rprivate",
                Propagation::Slave => "rslave",
                Propagation::Shared => "rshared",
            };
            let mut all = vec![tree, access, ties];
            all.extend(options.iter().map(String::as_str));
            mount(target, "bind", source, &all)
        }
        Mount::Devpts { target, options } => {
            check("target", target)?;
            let mut all = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666"];
            all.extend(options.iter().map(String::as_str));
            mount(target, "devpts", "devpts", &all)
        }
        Mount::Tmpfs { target, options } => {
            check("target", target)?;
            let mut all = vec!["nosuid", "nodev", "noexec"];
            all.extend(options.iter().map(String::as_str));
            mount(target, "tmpfs", "tmpfs", &all)
        }
    }
}

/// Reads an option `idmap=uids=…;gids=…` into the maps of the mount. Each is a list of `DISK-ID-COUNT`
/// with `#` between; after an `@` the ids are those in the container.
fn map_ids(mut mount: OciMount, spec: &ContainerSpec) -> Result<OciMount> {
    let Some(mut options) = mount.options().clone() else { return Ok(mount) };
    let Some(at) = options.iter().position(|option| option.starts_with("idmap=")) else {
        return Ok(mount);
    };
    let text = options.remove(at);
    let wrong = || Error::invalid("mounts", format!("{text:?} is not idmap=uids=LIST;gids=LIST"));
    let mut maps = IdMaps::default();
    for part in text.trim_start_matches("idmap=").split(';') {
        match part.split_once('=').ok_or_else(wrong)? {
            ("uids", list) => maps.uids = ranges(list, spec, true).ok_or_else(wrong)?,
            ("gids", list) => maps.gids = ranges(list, spec, false).ok_or_else(wrong)?,
            _ => return Err(wrong()),
        }
    }
    if maps.uids.is_empty() || maps.gids.is_empty() {
        return Err(wrong());
    }
    options.push("idmap".to_owned());
    let [uids, gids] = maps.documents()?;
    mount.set_options(Some(options)).set_uid_mappings(Some(uids)).set_gid_mappings(Some(gids));
    Ok(mount)
}

fn ranges(list: &str, spec: &ContainerSpec, users: bool) -> Option<Vec<IdRange>> {
    let own = match &spec.isolation.ids {
        Some(Ids::Maps(maps)) => Some(maps),
        _ => None,
    };
    let range = |text: &str| {
        let (inner, text) = match text.strip_prefix('@') {
            Some(text) => (own, text),
            None => (None, text),
        };
        let numbers: Vec<u32> =
            text.split('-').map(str::parse).collect::<std::result::Result<_, _>>().ok()?;
        let [inside, id, count] = numbers[..] else { return None };
        let outside = match inner {
            None => id,
            Some(maps) if users => maps.outside(id, 0)?.0,
            Some(maps) => maps.outside(0, id)?.1,
        };
        Some(IdRange { inside, outside, count })
    };
    list.split('#').map(range).collect()
}

fn check(what: &str, path: &Path) -> Result<()> {
    let plain = path.is_absolute() && !path.components().any(|part| part == Component::ParentDir);
    if plain && (path != Path::new("/") || what == "source") {
        return Ok(());
    }
    let reason = format!("the {what} {path:?} is not an absolute path below the root");
    Err(Error::invalid("mounts", reason))
}
