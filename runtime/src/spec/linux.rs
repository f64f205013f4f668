//! The Linux part of the spec: namespaces, limits, what is hidden, the filter.

use std::collections::BTreeSet;

use oci_spec::runtime::{
    Linux, LinuxBlockIo, LinuxBlockIoBuilder, LinuxBuilder, LinuxCpuBuilder, LinuxDevice,
    LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
    LinuxMemoryBuilder, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType,
    LinuxPersonality, LinuxPersonalityBuilder, LinuxPersonalityDomain, LinuxPidsBuilder,
    LinuxResources, LinuxResourcesBuilder, LinuxThrottleDeviceBuilder, LinuxWeightDeviceBuilder,
};

use super::{BlockLimits, ContainerSpec, Join, Limits, Namespace, Network, Rate, Seccomp, built};
use crate::{Error, Ids, Result, seccomp};

/// Docker's list of what is hidden.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Docker's list of what may only be read.
const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The paths of a list that are not taken out of it: by their name, by that of a directory they
/// are in, or with `*` at the end, or all.
fn still(list: &[&str], unmask: &[String]) -> Vec<String> {
    let out = |path: &str| {
        unmask.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => {
                let below = path.strip_prefix(pattern.trim_end_matches('/'));
                pattern == "ALL"
                    || below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
        })
    };
    list.iter().filter(|path| !out(path)).map(|path| (*path).to_owned()).collect()
}

/// The whole section.
pub(super) fn linux(spec: &ContainerSpec, capabilities: &BTreeSet<&str>) -> Result<Linux> {
    let profile = match spec.isolation.seccomp.as_ref().unwrap_or(&Seccomp::Default) {
        Seccomp::Unconfined => None,
        Seccomp::Default if spec.isolation.privileged => None,
        Seccomp::Default => Some(seccomp::resolve(None, capabilities)?),
        Seccomp::Profile(profile) => Some(seccomp::resolve(Some(profile), capabilities)?),
    };
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces(spec)?)
        .resources(resources(spec)?)
        .sysctl(sysctls(spec)?);
    // The masks of a shared /proc or /sys would hide the host's.
    if !spec.isolation.privileged {
        let mut masked = still(&MASKED, &spec.isolation.unmask);
        for path in &spec.isolation.mask {
            if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
                return Err(Error::invalid("masks", format!("{path:?} is not an absolute path")));
            }
            masked.push(path.clone());
        }
        linux =
            linux.masked_paths(masked).readonly_paths(still(&READ_ONLY, &spec.isolation.unmask));
    }
    if !spec.isolation.in_user_namespace() {
        linux = linux.devices(devices(spec)?);
    }
    if let Some(parent) = &spec.limits.cgroup_parent {
        if parent.split('/').any(|part| part == "..") {
            return Err(Error::invalid("cgroup parent", format!("{parent:?} climbs")));
        }
        linux = linux.cgroups_path(parent);
    }
    match &spec.isolation.ids {
        None => {}
        // Those of the namespace are read where it is joined.
        _ if spec.isolation.user.is_some() => {}
        Some(Ids::Maps(maps)) => {
            let [uids, gids] = maps.documents()?;
            linux = linux.uid_mappings(uids).gid_mappings(gids);
        }
        Some(Ids::Auto(_) | Ids::Join(_)) => {
            return Err(Error::invalid("ids", "they are not chosen yet"));
        }
    }
    if let Some(name) = &spec.isolation.personality {
        linux = linux.personality(personality(name)?);
    }
    let mut linux = built(linux.build())?;
    if spec.isolation.privileged {
        linux.set_masked_paths(None).set_readonly_paths(None);
    }
    linux.set_seccomp(profile);
    Ok(linux)
}

/// What `uname` says of the machine, by podman's names.
fn personality(name: &str) -> Result<LinuxPersonality> {
    let domain = match name {
        "LINUX" => LinuxPersonalityDomain::PerLinux,
        "LINUX32" => LinuxPersonalityDomain::PerLinux32,
        other => {
            let reason = format!("{other:?} is neither LINUX nor LINUX32");
            return Err(Error::invalid("personality", reason));
        }
    };
    built(LinuxPersonalityBuilder::default().domain(domain).build())
}

fn namespaces(spec: &ContainerSpec) -> Result<Vec<LinuxNamespace>> {
    let isolation = &spec.isolation;
    let user = isolation.user.clone().map(|path| Namespace::Join(Join::Path(path)));
    let kinds = [
        (LinuxNamespaceType::Mount, true, None),
        (LinuxNamespaceType::Pid, !isolation.host_pid(), isolation.pid.as_ref()),
        (LinuxNamespaceType::Ipc, !isolation.host_ipc(), isolation.ipc.as_ref()),
        (LinuxNamespaceType::Uts, !isolation.host_uts(), isolation.uts.as_ref()),
        (LinuxNamespaceType::Network, spec.network.mode() != Network::Host, None),
        (LinuxNamespaceType::Cgroup, !isolation.host_cgroup(), isolation.cgroup.as_ref()),
        (LinuxNamespaceType::User, isolation.ids.is_some(), user.as_ref()),
    ];
    let listed = kinds.into_iter().filter(|(_, listed, _)| *listed);
    listed.map(|(kind, _, wanted)| namespace(kind, wanted)).collect()
}

/// A namespace of the container's own, or the one that it joins.
fn namespace(kind: LinuxNamespaceType, wanted: Option<&Namespace>) -> Result<LinuxNamespace> {
    let builder = LinuxNamespaceBuilder::default().typ(kind);
    built(match wanted {
        Some(Namespace::Join(Join::Path(path))) => builder.path(path).build(),
        Some(Namespace::Join(Join::Container(name))) => {
            let reason = format!("the {kind} namespace of container {name} is not found yet");
            return Err(Error::invalid("namespaces", reason));
        }
        _ => builder.build(),
    })
}

/// Whether a kernel parameter belongs to the ipc namespace.
pub(crate) fn is_ipc_parameter(key: &str) -> bool {
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    IPC.contains(&key) || key.starts_with("fs.mqueue.")
}

/// Kernel parameters that belong to the container's own namespaces, and nothing else.
fn sysctls(spec: &ContainerSpec) -> Result<std::collections::HashMap<String, String>> {
    let allowed = |key: &str| {
        let shape = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
        let ipc = is_ipc_parameter(key);
        let network = key.starts_with("net.");
        shape
            && !key.split('.').any(str::is_empty)
            && (ipc && spec.isolation.owns_ipc() || network && spec.network.mode() != Network::Host)
    };
    if let Some(key) = spec.isolation.sysctls.keys().find(|key| !allowed(key)) {
        let reason = format!("{key:?} does not belong to a namespace of the container");
        return Err(Error::invalid("kernel parameters", reason));
    }
    Ok(spec.isolation.sysctls.clone().into_iter().collect())
}

fn devices(spec: &ContainerSpec) -> Result<Vec<LinuxDevice>> {
    let device = |device: &super::Device| {
        let kind = if device.block { LinuxDeviceType::B } else { LinuxDeviceType::C };
        built(
            LinuxDeviceBuilder::default()
                .path(device.target.clone())
                .typ(kind)
                .major(i64::from(device.major))
                .minor(i64::from(device.minor))
                .file_mode(0o666u32)
                .build(),
        )
    };
    spec.isolation.devices.iter().map(device).collect()
}

fn device_rules(spec: &ContainerSpec) -> Result<Vec<LinuxDeviceCgroup>> {
    let rule = |allow| LinuxDeviceCgroupBuilder::default().allow(allow);
    let part = |device: &&super::Device| !['r', 'w'].iter().all(|c| device.access.contains(*c));
    let isolation = &spec.isolation;
    if let Some(device) = isolation.devices.iter().find(part).filter(|_| isolation.user_namespace) {
        let reason = format!("only root can limit access to {}", device.source.display());
        return Err(Error::invalid("devices", reason));
    }
    let mut rules = vec![built(rule(spec.isolation.privileged).access("rwm").build())?];
    for device in &spec.isolation.devices {
        let kind = if device.block { LinuxDeviceType::B } else { LinuxDeviceType::C };
        let numbers =
            rule(true).typ(kind).major(i64::from(device.major)).minor(i64::from(device.minor));
        rules.push(built(numbers.access(device.access.clone()).build())?);
    }
    if let (true, Some(rule)) = (isolation.user_namespace, isolation.device_rules.first()) {
        let reason = format!("the rule `{rule}` needs root");
        return Err(Error::invalid("devices", reason));
    }
    for wanted in &isolation.device_rules {
        let kind = match wanted.block {
            None => LinuxDeviceType::A,
            Some(true) => LinuxDeviceType::B,
            Some(false) => LinuxDeviceType::C,
        };
        let mut allowed = rule(true).typ(kind).access(wanted.access.clone());
        if let Some(major) = wanted.major {
            allowed = allowed.major(i64::from(major));
        }
        if let Some(minor) = wanted.minor {
            allowed = allowed.minor(i64::from(minor));
        }
        rules.push(built(allowed.build())?);
    }
    Ok(rules)
}

fn resources(spec: &ContainerSpec) -> Result<LinuxResources> {
    let mut resources = resources_of(&spec.limits)?;
    resources.set_devices(Some(device_rules(spec)?));
    Ok(resources)
}

/// The limits alone.
pub(crate) fn resources_of(limits: &Limits) -> Result<LinuxResources> {
    let signed = |what: &str, bytes: u64| {
        i64::try_from(bytes).map_err(|_| Error::invalid(what, format!("{bytes} is too much")))
    };
    let mut resources = LinuxResourcesBuilder::default();
    let mut memory = LinuxMemoryBuilder::default();
    if let Some(bytes) = limits.memory {
        memory = memory.limit(signed("memory", bytes)?);
    }
    if let Some(bytes) = limits.memory_swap {
        memory = memory.swap(bytes);
    }
    if let Some(bytes) = limits.memory_reservation {
        memory = memory.reservation(signed("memory", bytes)?);
    }
    if let Some(readiness) = limits.memory_swappiness {
        memory = memory.swappiness(readiness);
    }
    if limits.oom_kill_disable {
        memory = memory.disable_oom_killer(true);
    }
    if limits.memory.is_some()
        || limits.memory_swap.is_some()
        || limits.memory_reservation.is_some()
        || limits.memory_swappiness.is_some()
        || limits.oom_kill_disable
    {
        resources = resources.memory(built(memory.build())?);
    }
    if limits.block != BlockLimits::default() {
        resources = resources.block_io(block(&limits.block)?);
    }
    if !limits.unified.is_empty() {
        let own: std::collections::HashMap<_, _> = limits.unified.clone().into_iter().collect();
        resources = resources.unified(own);
    }
    if let Some(cpu) = cpu(limits)? {
        resources = resources.cpu(cpu);
    }
    if let Some(limit) = limits.pids_limit {
        let limit = if limit <= 0 { -1 } else { limit };
        resources = resources.pids(built(LinuxPidsBuilder::default().limit(limit).build())?);
    }
    built(resources.build())
}

/// Limits of block devices.
fn block(limits: &BlockLimits) -> Result<LinuxBlockIo> {
    let rates = |list: &[Rate]| {
        let one = |rate: &Rate| {
            let numbers = LinuxThrottleDeviceBuilder::default()
                .major(i64::from(rate.device.major))
                .minor(i64::from(rate.device.minor));
            built(numbers.rate(rate.rate).build())
        };
        list.iter().map(one).collect::<Result<Vec<_>>>()
    };
    let weights = limits.weights.iter().map(|weight| {
        let value = u16::try_from(weight.rate).ok().filter(|value| (10..=1000).contains(value));
        let value = value.ok_or_else(|| {
            Error::invalid("block weight", format!("{} is not between 10 and 1000", weight.rate))
        })?;
        let numbers = LinuxWeightDeviceBuilder::default()
            .major(i64::from(weight.device.major))
            .minor(i64::from(weight.device.minor));
        built(numbers.weight(value).build())
    });
    let mut disks = LinuxBlockIoBuilder::default()
        .weight_device(weights.collect::<Result<Vec<_>>>()?)
        .throttle_read_bps_device(rates(&limits.read_bytes)?)
        .throttle_write_bps_device(rates(&limits.write_bytes)?)
        .throttle_read_iops_device(rates(&limits.reads)?)
        .throttle_write_iops_device(rates(&limits.writes)?);
    if let Some(weight) = limits.weight {
        disks = disks.weight(weight);
    }
    built(disks.build())
}

fn cpu(limits: &Limits) -> Result<Option<oci_spec::runtime::LinuxCpu>> {
    const PERIOD: u64 = 100_000;
    let mut quota = (limits.cpu_quota, limits.cpu_period);
    if let Some(cpus) = limits.cpus {
        if quota != (None, None) {
            return Err(Error::invalid("cpus", "it cannot be combined with a quota or period"));
        }
        if !(0.01..=100_000.0).contains(&cpus) {
            return Err(Error::invalid("cpus", format!("{cpus} is not between 0.01 and 100000")));
        }
        quota = (Some((cpus * PERIOD as f64).round() as i64), Some(PERIOD));
    }
    let mut cpu = LinuxCpuBuilder::default();
    let mut any = false;
    if let Some(quota) = quota.0 {
        (cpu, any) = (cpu.quota(quota), true);
    }
    if let Some(period) = quota.1 {
        (cpu, any) = (cpu.period(period), true);
    }
    if let Some(shares) = limits.cpu_shares {
        (cpu, any) = (cpu.shares(shares), true);
    }
    if let Some(cpus) = &limits.cpuset_cpus {
        (cpu, any) = (cpu.cpus(cpus.clone()), true);
    }
    if let Some(mems) = &limits.cpuset_mems {
        (cpu, any) = (cpu.mems(mems.clone()), true);
    }
    if let Some(period) = limits.cpu_realtime.0 {
        (cpu, any) = (cpu.realtime_period(period), true);
    }
    if let Some(runtime) = limits.cpu_realtime.1 {
        (cpu, any) = (cpu.realtime_runtime(runtime), true);
    }
    if any { built(cpu.build()).map(Some) } else { Ok(None) }
}
