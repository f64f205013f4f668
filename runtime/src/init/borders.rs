//! What keeps a container that shares namespaces of the machine away from the machine's processes.
//!
//! A container on the machine's network could reach every abstract socket of the machine. One that
//! shares its process ids could look into processes through `/proc/PID/root`, and leave some
//! behind. A Landlock domain prevents the first two. The supervisor adopts what is left, which
//! prevents the third.

use std::path::Path;

use oci_spec::runtime::{Capability, LinuxNamespaceType, Spec};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};

use crate::stage::{ErrorContext, Step};
use crate::sys;

/// The first version of Landlock that has scopes (Linux 6.12).
const SCOPES: libc::c_long = 6;

/// The scopes of a container's Landlock domain, none if it needs no domain. Pure.
///
/// A container that administers the machine (`--privileged` without a user namespace), or may trace
/// the processes it shares, was given what the domain would take away.
pub(crate) fn scopes(spec: &Spec, user_namespace: bool) -> u64 {
    let shares = |kind| shares(spec, kind);
    let processes = shares(LinuxNamespaceType::Pid);
    let has = |capability| has(spec, capability);
    let trusted =
        has(Capability::SysAdmin) && !user_namespace || processes && has(Capability::SysPtrace);
    if trusted || !processes && !shares(LinuxNamespaceType::Network) {
        return 0;
    }
    // Who shares everything there is a namespace for is isolated by its root only.
    let chroot = processes && shares(LinuxNamespaceType::Ipc) && shares(LinuxNamespaceType::Uts);
    sys::SCOPE_ABSTRACT_SOCKETS | if chroot { sys::SCOPE_SIGNALS } else { 0 }
}

/// Whether a container has no namespace of this kind of its own.
pub(crate) fn shares(spec: &Spec, kind: LinuxNamespaceType) -> bool {
    let linux = spec.linux().as_ref();
    let listed = linux.and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    !listed.iter().any(|namespace| namespace.typ() == kind)
}

/// Whether a container has no process id namespace, neither of its own nor joined.
pub(crate) fn shares_processes(spec: &Spec) -> bool {
    shares(spec, LinuxNamespaceType::Pid)
}

fn has(spec: &Spec, capability: Capability) -> bool {
    let sets = spec.process().as_ref().and_then(|process| process.capabilities().as_ref());
    let bounding = sets.and_then(|sets| sets.bounding().as_ref());
    bounding.is_some_and(|set| set.contains(&capability))
}

/// Puts this process, and so all of the container, in a domain of its own, where the kernel has
/// such.
pub(crate) fn close(scopes: u64) -> Step {
    if scopes == 0 || sys::landlock_version() < SCOPES {
        return Ok(());
    }
    sys::landlock_scope(scopes).doing("closing", "the machine's sockets")
}

/// Makes this process the parent of everything that outlives its own parent below it.
pub(crate) fn adopt() -> Step {
    sys::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0).doing("adopting", "the container's processes")
}

/// Kills all children of this process, and the children they leave, until there are none.
pub(crate) fn end_adopted() {
    loop {
        for child in children() {
            // Gone already is as good.
            let _ = kill_process(child, Signal::KILL);
        }
        match wait(WaitOptions::empty()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// Those whose parent this process is.
pub(super) fn children() -> Vec<Pid> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let listed = std::fs::read_to_string(format!("/proc/self/task/{own}/children"));
    let numbers = listed.map_or_else(
        |_| by_parent(own),
        |text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect(),
    );
    numbers.into_iter().filter_map(Pid::from_raw).collect()
}

/// The same, where the kernel keeps no such list.
fn by_parent(parent: i32) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

fn parent_of(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    // The name in parentheses may hold anything.
    stat.ok()?.rsplit(") ").next()?.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ContainerSpec, Namespace, Network};

    #[test]
    fn a_domain_for_who_shares_and_is_not_trusted() {
        const BOTH: u64 = sys::SCOPE_ABSTRACT_SOCKETS | sys::SCOPE_SIGNALS;
        let mut plain = ContainerSpec::default();
        plain.process.command = vec!["x".to_owned()];
        let with = |change: &dyn Fn(&mut ContainerSpec)| {
            let mut spec = plain.clone();
            change(&mut spec);
            spec
        };
        let host = with(&|spec| spec.network.mode = Some(Network::Host));
        let pid = with(&|spec| spec.isolation.pid = Some(Namespace::Host));
        let chroot = with(&|spec| spec.isolation.chroot = true);
        let add = |name: &str, to: &ContainerSpec| {
            let mut spec = to.clone();
            spec.isolation.cap_add = vec![name.to_owned()];
            spec
        };
        for (wanted, user_namespace, expected) in [
            (plain.clone(), false, 0),
            (host.clone(), false, sys::SCOPE_ABSTRACT_SOCKETS),
            (pid.clone(), false, sys::SCOPE_ABSTRACT_SOCKETS),
            (chroot, false, BOTH),
            (add("SYS_PTRACE", &pid), false, 0),
            (add("SYS_PTRACE", &host), false, sys::SCOPE_ABSTRACT_SOCKETS),
            (add("SYS_ADMIN", &host), false, 0),
            (add("SYS_ADMIN", &host), true, sys::SCOPE_ABSTRACT_SOCKETS),
        ] {
            let config = image::ContainerConfig::default();
            let spec = crate::spec(&config, &wanted, &|_| Ok(None)).unwrap();
            assert_eq!(scopes(&spec, user_namespace), expected, "{wanted:?}");
        }
    }

    #[test]
    fn children_are_found_in_both_ways() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        let found = by_parent(own).contains(&pid);
        let parent = parent_of(pid);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found);
        assert_eq!(parent, Some(own));
    }
}
