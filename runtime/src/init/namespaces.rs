//! Which namespaces the container gets, which it joins, and how ids map.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType, Spec};

use crate::stage::{Doing, Failure, Step};
use crate::sys;

/// The plan for one container.
#[derive(Debug)]
pub(crate) struct Namespaces {
    /// `CLONE_NEW*` of the new ones, but for the cgroup namespace.
    pub(crate) flags: u64,
    /// Whether a cgroup namespace is made, once the process is in its cgroup.
    pub(crate) cgroup: bool,
    /// Whether a time namespace is made, for the children of this process.
    time: bool,
    /// Existing ones.
    joined: Vec<(OwnedFd, libc::c_int)>,
    uid_map: String,
    gid_map: String,
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
    let mut plan = Namespaces {
        flags: 0,
        cgroup: false,
        time: false,
        joined: Vec::new(),
        uid_map: map_text(linux.uid_mappings().as_deref().unwrap_or_default()),
        gid_map: map_text(linux.gid_mappings().as_deref().unwrap_or_default()),
    };
    for namespace in linux.namespaces().as_deref().unwrap_or_default() {
        let kind = namespace.typ();
        match namespace.path() {
            Some(path) => {
                if matches!(kind, LinuxNamespaceType::Mount | LinuxNamespaceType::User) {
                    let reason = format!("joining a {kind} namespace is not supported");
                    return Err(Failure::invalid("namespaces", reason));
                }
                let file = File::open(path).doing("opening namespace", path)?;
                plan.joined.push((file.into(), flag(kind)));
            }
            None if kind == LinuxNamespaceType::Cgroup => plan.cgroup = true,
            None if kind == LinuxNamespaceType::Time => plan.time = true,
            None => plan.flags |= flag(kind) as u64,
        }
    }
    if plan.flags & libc::CLONE_NEWNS as u64 == 0 {
        return Err(Failure::invalid("namespaces", "an own mount namespace is required"));
    }
    Ok(plan)
}

/// `CLONE_NEW*` of all namespaces that a container has of its own or joined.
pub(crate) fn listed(spec: &Spec) -> libc::c_int {
    let linux = spec.linux().as_ref();
    let listed = linux.and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    listed.iter().fold(0, |flags, namespace| flags | flag(namespace.typ()))
}

/// Whether a container has a user namespace of its own.
pub(crate) fn makes_user(spec: &Spec) -> bool {
    listed(spec) & libc::CLONE_NEWUSER != 0
}

/// The kernel's text form of a map.
fn map_text(mappings: &[LinuxIdMapping]) -> String {
    use std::fmt::Write as _;
    mappings.iter().fold(String::new(), |mut text, map| {
        let _ = writeln!(text, "{} {} {}", map.container_id(), map.host_id(), map.size());
        text
    })
}

impl Namespaces {
    /// Whether the container has a user namespace of its own.
    pub(crate) fn new_user(&self) -> bool {
        self.flags & libc::CLONE_NEWUSER as u64 != 0
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

    /// A pid namespace is entered by the children of the one that joins it.
    pub(crate) fn enter_pid(&self) -> Step {
        self.enter(|kind| kind == libc::CLONE_NEWPID)
    }

    /// Enters the other existing namespaces.
    pub(crate) fn enter_others(&self) -> Step {
        self.enter(|kind| kind != libc::CLONE_NEWPID)
    }

    fn enter(&self, wanted: impl Fn(libc::c_int) -> bool) -> Step {
        for (fd, kind) in self.joined.iter().filter(|(_, kind)| wanted(*kind)) {
            sys::setns(fd.as_fd(), *kind).doing("joining", "a namespace")?;
        }
        Ok(())
    }

    /// Parent's side: writes the maps of the child's user namespace and lets it go.
    pub(crate) fn map_ids(&self, pid: u32, mut report: &UnixStream) -> Step {
        if !self.new_user() {
            return Ok(());
        }
        for (name, map) in [("uid_map", &self.uid_map), ("gid_map", &self.gid_map)] {
            let path = format!("/proc/{pid}/{name}");
            std::fs::write(&path, map).doing("writing", &path)?;
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
