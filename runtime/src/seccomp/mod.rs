//! System call filters: the default profile, and a compiler from profiles to BPF programs.
//!
//! The rules of one system call are tried in the order of the profile; the first that matches
//! decides. Numbers above the largest one a profile knows are answered with ENOSYS, so that
//! programs newer than the profile fall back; names that an architecture does not have are left
//! out there.

mod compile;
mod default;
mod tables;

use std::sync::{Arc, Mutex, PoisonError};

use oci_spec::runtime::LinuxSeccomp;

use crate::Result;
use crate::sys::Instruction;

pub(crate) use default::default_profile;

/// How many compiled profiles are remembered.
const MEMORY: usize = 8;

type Compiled = (LinuxSeccomp, Arc<[Instruction]>);

/// The program of a profile, compiled once per process.
pub(crate) fn compiled(profile: &LinuxSeccomp) -> Result<Arc<[Instruction]>> {
    static KNOWN: Mutex<Vec<Compiled>> = Mutex::new(Vec::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, program)) = known.iter().find(|(known, _)| known == profile) {
        return Ok(Arc::clone(program));
    }
    let program: Arc<[Instruction]> = compile::compile(profile)?.into();
    if known.len() >= MEMORY {
        known.remove(0);
    }
    known.push((profile.clone(), Arc::clone(&program)));
    Ok(program)
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

#[cfg(test)]
mod tests;
