//! System call filters: the default profile, and a compiler from profiles to BPF programs.
//!
//! The rules of one system call are tried in the order of the profile; the first that matches
//! decides. Numbers above the largest one a profile knows are answered with ENOSYS, so that
//! programs newer than the profile fall back; names that an architecture does not have are left
//! out there.

mod compile;
mod profile;
mod tables;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use oci_spec::runtime::{Arch, LinuxSeccomp};

use crate::Result;
use crate::sys::Instruction;

pub use profile::SeccompProfile;

/// The calling convention of this program.
pub(crate) fn native() -> Arch {
    if cfg!(target_arch = "aarch64") { Arch::ScmpArchAarch64 } else { Arch::ScmpArchX86_64 }
}

/// The rules of a profile, or of the default one, for a container with these capabilities.
pub(crate) fn resolve(
    profile: Option<&SeccompProfile>,
    capabilities: &BTreeSet<&str>,
) -> Result<LinuxSeccomp> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let machine = profile::Machine { capabilities, kernel: profile::kernel(&release)? };
    match profile {
        Some(profile) => profile.resolve(&machine),
        None => SeccompProfile::standard()?.resolve(&machine),
    }
}

/// How many compiled profiles are remembered.
const MEMORY: usize = 8;

type CompiledFilter = (LinuxSeccomp, Arc<[Instruction]>);

/// The program of a profile, compiled once per process.
pub(crate) fn compiled(profile: &LinuxSeccomp) -> Result<Arc<[Instruction]>> {
    static KNOWN: Mutex<Vec<CompiledFilter>> = Mutex::new(Vec::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, program)) = known.iter().find(|(known, _)| known == profile) {
        return Ok(Arc::clone(program));
    }
    let program: Arc<[Instruction]> = compile::compile(profile, false)?.into();
    if known.len() >= MEMORY {
        known.remove(0);
    }
    known.push((profile.clone(), Arc::clone(&program)));
    Ok(program)
}

/// The program of a profile that an engine gives, which may ask its agent.
pub(crate) fn compiled_for_engine(profile: &LinuxSeccomp) -> Result<Vec<Instruction>> {
    let listens = profile.listener_path().is_some();
    let mut profile = profile.clone();
    profile.set_listener_path(None);
    compile::compile(&profile, listens)
}

/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`.
pub(crate) const NEW_LISTENER: u32 = 8;

/// System calls by which files change their owners.
const OWNERS: [&str; 7] =
    ["chown", "chown32", "fchown", "fchown32", "fchownat", "lchown", "lchown32"];

/// System calls by which processes change theirs.
const IDS: [&str; 18] = [
    "setfsgid",
    "setfsgid32",
    "setfsuid",
    "setfsuid32",
    "setgid",
    "setgid32",
    "setgroups",
    "setgroups32",
    "setregid",
    "setregid32",
    "setresgid",
    "setresgid32",
    "setresuid",
    "setresuid32",
    "setreuid",
    "setreuid32",
    "setuid",
    "setuid32",
];

/// The program of a profile, or of none, for a container with a single id: the supervisor answers
/// calls that change the owner of a file, and calls that change the user succeed without effect.
pub(crate) fn compiled_with_owners(profile: Option<&LinuxSeccomp>) -> Result<Arc<[Instruction]>> {
    use oci_spec::runtime::{LinuxSeccompAction as Action, LinuxSyscall};
    let mut profile = match profile {
        Some(profile) => {
            // Only our own rules may ask.
            compile::compile(profile, false)?;
            profile.clone()
        }
        None => {
            let mut open = LinuxSeccomp::default();
            open.set_default_action(Action::ScmpActAllow);
            open
        }
    };
    let rule = |names: &[&str], action: Action, errno: Option<u32>| {
        let mut rule = LinuxSyscall::default();
        rule.set_names(names.iter().map(ToString::to_string).collect());
        rule.set_action(action).set_errno_ret(errno);
        rule
    };
    let mut rules =
        vec![rule(&OWNERS, Action::ScmpActNotify, None), rule(&IDS, Action::ScmpActErrno, Some(0))];
    rules.extend(profile.syscalls().clone().unwrap_or_default());
    profile.set_syscalls(Some(rules));
    Ok(compile::compile(&profile, true)?.into())
}

/// `SECCOMP_FILTER_FLAG_*` of a profile.
pub(crate) fn flags(profile: &LinuxSeccomp) -> u32 {
    use oci_spec::runtime::LinuxSeccompFilterFlag as Flag;
    let flags = profile.flags().as_deref().unwrap_or_default();
    flags.iter().fold(0, |bits, flag| {
        bits | match flag {
            // One thread is all there is to synchronise.
            Flag::SeccompFilterFlagTsync | Flag::SeccompFilterFlagWaitKillableRecv => 0,
            Flag::SeccompFilterFlagLog => 2,
            Flag::SeccompFilterFlagSpecAllow => 4,
        }
    })
}

#[cfg(all(test, target_arch = "x86_64"))]
mod kernel_tests;
#[cfg(test)]
mod tests;
