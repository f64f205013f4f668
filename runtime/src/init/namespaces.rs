//! Which namespaces the container gets, which it joins, and how ids map.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use oci_spec::runtime::{Linux, LinuxNamespaceType, Spec};

use crate::ids::{self, IdMaps};
use crate::stage::{ErrorContext, Step};
use crate::sys::{self, Side};

/// The plan for one container.
#[derive(Debug)]
pub(crate) struct Namespaces {
    /// `CLONE_NEW*` of the new ones, but for the cgroup namespace.
    pub(crate) flags: u64,
    /// Whether a cgroup namespace is made, once the process is in its cgroup.
    pub(crate) cgroup: bool,
    /// Whether a time namespace is made, for the children of this process.
    time: bool,
    /// The existing user namespace that it is in.
    user: Option<OwnedFd>,
    /// Other existing ones.
    joined: Vec<(OwnedFd, libc::c_int)>,
    maps: IdMaps,
}

fn flag(kind: LinuxNamespaceType) -> libc::c_int {
    match kind {
        LinuxNamespaceType::Mount => libc::CLONE_NEWNS,
        LinuxNamespaceType::Cgroup => libc::CLONE_NEWCGROUP,
        LinuxNamespaceType::Uts => libc::CLONE_NEWUTS,
        LinuxNamespaceType::Ipc => libc::CLONE_NEWIPC,
        LinuxNamespaceType::User => libc::CLONE_NEWUSER,
        LinuxNamespaceType::Pid => libc::CLONE_NEWPID,
        LinuxNamespaceType::Network => libc::CLONE_NEWNET,
        LinuxNamespaceType::Time => 0x80,
    }
}

/// Reads the plan from a spec.
pub(crate) fn plan(linux: &Linux) -> Step<Namespaces> {
    let maps = maps(linux);
    let mut plan =
        Namespaces { flags: 0, cgroup: false, time: false, user: None, joined: Vec::new(), maps };
    for namespace in linux.namespaces().as_deref().unwrap_or_default() {
        let kind = namespace.typ();
        match namespace.path() {
            Some(path) => {
                let file = File::open(path).doing("opening namespace", path)?;
                match kind {
                    LinuxNamespaceType::User => plan.user = Some(file.into()),
                    _ => plan.joined.push((file.into(), flag(kind))),
                }
            }
            None if kind == LinuxNamespaceType::Cgroup => plan.cgroup = true,
            None if kind == LinuxNamespaceType::Time => plan.time = true,
            None => plan.flags |= flag(kind) as u64,
        }
    }
    Ok(plan)
}

/// The ids of a container with a user namespace of its own.
pub(crate) fn maps(linux: &Linux) -> IdMaps {
    IdMaps::of(
        linux.uid_mappings().as_deref().unwrap_or_default(),
        linux.gid_mappings().as_deref().unwrap_or_default(),
    )
}

/// `CLONE_NEW*` of all namespaces that a container has of its own or joined.
pub(crate) fn listed(spec: &Spec) -> libc::c_int {
    let linux = spec.linux().as_ref();
    let listed = linux.and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    listed.iter().fold(0, |flags, namespace| flags | flag(namespace.typ()))
}

/// Whether a container has a mount namespace that is neither the machine's nor joined.
pub(crate) fn has_own_mounts(spec: &Spec) -> bool {
    let linux = spec.linux().as_ref();
    let listed = linux.and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    listed.iter().any(|one| one.typ() == LinuxNamespaceType::Mount && one.path().is_none())
}

/// Whether a container has a user namespace of its own.
pub(crate) fn makes_user(spec: &Spec) -> bool {
    listed(spec) & libc::CLONE_NEWUSER != 0
}

impl Namespaces {
    /// Whether the container is in another user namespace than this process.
    pub(crate) fn new_user(&self) -> bool {
        self.flags & libc::CLONE_NEWUSER as u64 != 0 || self.user.is_some()
    }

    /// Makes the container's process in its new namespaces.
    ///
    /// # Safety
    /// As [`sys::fork`].
    pub(crate) unsafe fn fork(&self, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Side> {
        let clone = sys::Clone { namespaces: self.flags, cgroup };
        match &self.user {
            // SAFETY: as the caller promises.
            Some(user) => unsafe { sys::fork_in(user.as_fd(), &clone) },
            // SAFETY: as the caller promises.
            None => unsafe { sys::fork(&clone) },
        }
    }

    /// Whether the container has a mount namespace of its own.
    pub(crate) fn new_mount(&self) -> bool {
        self.flags & libc::CLONE_NEWNS as u64 != 0
    }

    /// Whether the container has a network namespace of its own.
    pub(crate) fn new_network(&self) -> bool {
        self.flags & libc::CLONE_NEWNET as u64 != 0
    }

    /// Makes the time namespace, whose clocks can be set before a process enters it.
    pub(crate) fn make_time(&self, linux: &Linux) -> Step {
        if !self.time {
            return Ok(());
        }
        sys::unshare(flag(LinuxNamespaceType::Time)).doing("making", "a time namespace")?;
        let offsets = linux.time_offsets().iter().flatten().map(|(clock, offset)| {
            let (secs, nanosecs) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
            format!("{clock} {secs} {nanosecs}\n")
        });
        let text: String = offsets.collect();
        if text.is_empty() {
            return Ok(());
        }
        let path = "/proc/self/timens_offsets";
        std::fs::write(path, text).doing("setting", "the clocks of the time namespace")
    }

    /// Enters what the child inherits and could not enter itself: a pid namespace is entered by the
    /// children of the one that joins it, and a child in a user namespace of its own may join none.
    /// Gives what leads back, which is closed to an ordinary user: the machine's namespaces are root's. The
    /// supervisor then stays, which does nothing there.
    pub(crate) fn enter_first(&self) -> Step<Vec<(OwnedFd, libc::c_int)>> {
        let mut back = Vec::new();
        let returns = self.new_user() && !crate::in_user_namespace();
        for (_, kind) in self.joined.iter().filter(|_| returns) {
            let name = match *kind {
                libc::CLONE_NEWNET => "net",
                libc::CLONE_NEWIPC => "ipc",
                libc::CLONE_NEWUTS => "uts",
                libc::CLONE_NEWCGROUP => "cgroup",
                _ => continue,
            };
            let path = format!("/proc/self/ns/{name}");
            back.push((File::open(&path).doing("opening namespace", path)?.into(), *kind));
        }
        let first = |kind| kind == libc::CLONE_NEWPID || self.new_user();
        self.enter(first).map(|()| back)
    }

    /// Enters the other existing namespaces.
    pub(crate) fn enter_others(&self) -> Step {
        if self.new_user() { Ok(()) } else { self.enter(|kind| kind != libc::CLONE_NEWPID) }
    }

    fn enter(&self, wanted: impl Fn(libc::c_int) -> bool) -> Step {
        let wanted: Vec<_> = self.joined.iter().filter(|(_, kind)| wanted(*kind)).collect();
        enter(wanted.into_iter())
    }

    /// Gives pipes to root of the container, who can then give them to its user: in a user namespace
    /// of its own it may not take what is not its own.
    pub(crate) fn give_streams(&self, stdio: &[Option<OwnedFd>; 3]) {
        let Some((uid, gid)) = self.maps.outside(0, 0).filter(|_| self.new_user()) else { return };
        super::exec::give_pipes(stdio, uid, gid);
    }

    /// Parent's side: writes the maps of the child's user namespace and lets it go.
    pub(crate) fn map_ids(&self, pid: u32, mut report: &UnixStream) -> Step {
        if !self.new_user() {
            return Ok(());
        }
        let files = [("uid_map", &self.maps.uids), ("gid_map", &self.maps.gids)];
        for (name, map) in files.into_iter().filter(|_| self.user.is_none()) {
            let path = format!("/proc/{pid}/{name}");
            std::fs::write(&path, ids::text(map)).doing("writing", &path)?;
        }
        report.write_all(b"g").doing("starting", "the container")
    }

    /// Child's side: waits for the maps and becomes root in them.
    pub(crate) fn await_ids(&self, mut report: &UnixStream) -> Step {
        if !self.new_user() {
            return Ok(());
        }
        report.read_exact(&mut [0]).doing("waiting for", "the id maps")?;
        sys::set_ids(0, 0, Some(&[])).doing("becoming", "root of the user namespace")
    }
}

/// Enters existing namespaces.
pub(crate) fn enter<'a>(mut namespaces: impl Iterator<Item = &'a (OwnedFd, libc::c_int)>) -> Step {
    namespaces
        .try_for_each(|(fd, kind)| sys::setns(fd.as_fd(), *kind).doing("joining", "a namespace"))
}

/// As [`Namespaces::give_streams`], for a further process of a container.
pub(crate) fn give_streams(spec: &Spec, stdio: &[Option<OwnedFd>; 3]) {
    let Some(linux) = spec.linux().as_ref().filter(|_| makes_user(spec)) else { return };
    if let Some((uid, gid)) = maps(linux).outside(0, 0) {
        super::exec::give_pipes(stdio, uid, gid);
    }
}
