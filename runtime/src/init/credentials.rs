//! What the program may do: ids, capabilities, limits, and the system call filter.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::{Capabilities, PosixRlimitType, Process};
use rustix::process::{Resource, Rlimit};

use super::exec::Filter;
use super::filesystem::write_proc;
use crate::stage::{ErrorContext, Step};
use crate::sys;

/// Every capability, at the place of its number.
pub(crate) const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

fn bits(set: Option<&Capabilities>) -> u64 {
    let names = set.into_iter().flatten().map(ToString::to_string);
    names.fold(0, |bits, name| match CAPABILITIES.iter().position(|known| *known == name) {
        Some(number) => bits | 1 << number,
        None => bits,
    })
}

/// Sets the kind of machine this process sees.
pub(crate) fn personality(linux: &oci_spec::runtime::Linux) -> Step {
    use oci_spec::runtime::LinuxPersonalityDomain as Domain;
    let Some(personality) = linux.personality() else { return Ok(()) };
    let domain = match personality.domain() {
        Domain::PerLinux => 0,
        Domain::PerLinux32 => 8,
    };
    sys::personality(domain).doing("setting", "the personality")
}

/// Sets this process's share of CPUs and disks.
fn scheduling(process: &Process) -> Step {
    use oci_spec::runtime::{
        IOPriorityClass, LinuxSchedulerFlag as Flag, LinuxSchedulerPolicy as Policy,
    };
    if let Some(priority) = process.io_priority() {
        let class = match priority.class() {
            IOPriorityClass::IoprioClassRt => 1,
            IOPriorityClass::IoprioClassBe => 2,
            IOPriorityClass::IoprioClassIdle => 3,
        };
        let level = u32::try_from(priority.priority()).unwrap_or(8);
        sys::io_priority(class, level).doing("setting", "the io priority")?;
    }
    let Some(wanted) = process.scheduler() else { return Ok(()) };
    let policy = match wanted.policy() {
        Policy::SchedOther => 0,
        Policy::SchedFifo => 1,
        Policy::SchedRr => 2,
        Policy::SchedBatch => 3,
        Policy::SchedIso => 4,
        Policy::SchedIdle => 5,
        Policy::SchedDeadline => 6,
    };
    let bit = |flag: &Flag| match flag {
        Flag::SchedResetOnFork => 1,
        Flag::SchedFlagReclaim => 2,
        Flag::SchedFlagDLOverrun => 4,
        Flag::SchedFlagKeepPolicy => 8,
        Flag::SchedFlagKeepParams => 0x10,
        Flag::SchedFlagUtilClampMin => 0x20,
        Flag::SchedFlagUtilClampMax => 0x40,
    };
    let scheduling = sys::SchedAttr {
        policy,
        flags: wanted.flags().iter().flatten().fold(0, |bits, flag| bits | bit(flag)),
        nice: wanted.nice().unwrap_or(0),
        priority: wanted.priority().and_then(|one| u32::try_from(one).ok()).unwrap_or(0),
        runtime: wanted.runtime().unwrap_or(0),
        deadline: wanted.deadline().unwrap_or(0),
        period: wanted.period().unwrap_or(0),
        ..sys::SchedAttr::default()
    };
    sys::schedule(scheduling).doing("setting", "the scheduler")
}

/// Sets resource limits and the likelihood of being killed for memory.
pub(crate) fn limits(process: &Process, proc: BorrowedFd<'_>) -> Step {
    scheduling(process)?;
    if let Some(score) = process.oom_score_adj() {
        let path = Path::new("self/oom_score_adj");
        write_proc(proc, path, &score.to_string()).doing("setting", "the oom score")?;
    }
    for limit in process.rlimits().as_deref().unwrap_or_default() {
        let value = |value: u64| (value != u64::MAX).then_some(value);
        let rlimit = Rlimit { current: value(limit.soft()), maximum: value(limit.hard()) };
        rustix::process::setrlimit(resource(limit.typ()), rlimit)
            .doing("setting limit", limit.typ().to_string().to_lowercase())?;
    }
    Ok(())
}

fn resource(kind: PosixRlimitType) -> Resource {
    match kind {
        PosixRlimitType::RlimitCpu => Resource::Cpu,
        PosixRlimitType::RlimitFsize => Resource::Fsize,
        PosixRlimitType::RlimitData => Resource::Data,
        PosixRlimitType::RlimitStack => Resource::Stack,
        PosixRlimitType::RlimitCore => Resource::Core,
        PosixRlimitType::RlimitRss => Resource::Rss,
        PosixRlimitType::RlimitNproc => Resource::Nproc,
        PosixRlimitType::RlimitNofile => Resource::Nofile,
        PosixRlimitType::RlimitMemlock => Resource::Memlock,
        PosixRlimitType::RlimitAs => Resource::As,
        PosixRlimitType::RlimitLocks => Resource::Locks,
        PosixRlimitType::RlimitSigpending => Resource::Sigpending,
        PosixRlimitType::RlimitMsgqueue => Resource::Msgqueue,
        PosixRlimitType::RlimitNice => Resource::Nice,
        PosixRlimitType::RlimitRtprio => Resource::Rtprio,
        PosixRlimitType::RlimitRttime => Resource::Rttime,
    }
}

/// Becomes the user with exactly the capabilities of the spec, and under the filter.
///
/// Without no_new_privs the kernel takes a filter only from an administrator, so it comes first
/// then, and last otherwise. Gives the descriptor at which the filter asks, if it does.
pub(crate) fn become_user(
    process: &Process,
    filter: Filter<'_>,
    single_group: bool,
) -> Step<Option<OwnedFd>> {
    let restricted = process.no_new_privileges() == Some(true);
    let mut listener = None;
    if !restricted {
        listener = install(filter)?;
    }
    let have = sys::permitted().doing("reading", "capabilities")?;
    let wanted = process.capabilities().as_ref();
    let of = |get: fn(&oci_spec::runtime::LinuxCapabilities) -> &Option<Capabilities>| {
        bits(wanted.and_then(|wanted| get(wanted).as_ref())) & have
    };
    let bounding = of(oci_spec::runtime::LinuxCapabilities::bounding);
    for number in (0..64).filter(|number| bounding & (1 << number) == 0) {
        match sys::prctl(libc::PR_CAPBSET_DROP, number, 0) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            other => other.doing("dropping", "capabilities")?,
        }
    }
    sys::prctl(libc::PR_SET_KEEPCAPS, 1, 0).doing("keeping", "capabilities")?;
    let user = process.user();
    let groups = user.additional_gids().clone().unwrap_or_default();
    let further = groups.iter().any(|group| *group != user.gid());
    let groups = (!single_group || further).then_some(&groups[..]);
    sys::set_ids(user.uid(), user.gid(), groups)
        .doing("becoming", format!("user {}:{}", user.uid(), user.gid()))?;
    let permitted = of(oci_spec::runtime::LinuxCapabilities::permitted);
    let effective = of(oci_spec::runtime::LinuxCapabilities::effective) & permitted;
    let inheritable = of(oci_spec::runtime::LinuxCapabilities::inheritable);
    sys::capset(effective, permitted, inheritable).doing("setting", "capabilities")?;
    let ambient = of(oci_spec::runtime::LinuxCapabilities::ambient) & permitted & inheritable;
    let clear = libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong;
    sys::prctl(libc::PR_CAP_AMBIENT, clear, 0).doing("clearing", "ambient capabilities")?;
    for number in (0..64).filter(|number| ambient & (1 << number) != 0) {
        let raise = libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong;
        sys::prctl(libc::PR_CAP_AMBIENT, raise, number).doing("raising", "ambient capabilities")?;
    }
    if restricted {
        sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).doing("setting", "no_new_privs")?;
        listener = install(filter)?;
    }
    Ok(listener)
}

fn install((filter, flags): Filter<'_>) -> Step<Option<OwnedFd>> {
    if filter.is_empty() {
        return Ok(None);
    }
    sys::seccomp_filter(filter, flags).doing("installing", "the system call filter")
}
