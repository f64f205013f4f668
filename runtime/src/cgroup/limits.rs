//! What is to be limited, and how each kind of cgroup tree spells it. Pure.

use oci_spec::runtime::{LinuxCpu, LinuxResources};

use crate::stage::{Failure, Step};

/// A file of a cgroup and what to write to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) controller: &'static str,
    pub(crate) file: String,
    pub(crate) value: String,
    /// Whether the kernel may lack the file: the user did not ask for this limit explicitly.
    pub(crate) optional: bool,
}

/// The limits of a container, in the units of the runtime-spec.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    memory: Option<i64>,
    swap: Option<i64>,
    reservation: Option<i64>,
    shares: Option<u64>,
    quota: Option<i64>,
    period: Option<u64>,
    cpus: Option<String>,
    mems: Option<String>,
    pids: Option<i64>,
    swappiness: Option<u64>,
    never_killed: bool,
    idle: Option<i64>,
    burst: Option<u64>,
    realtime: (Option<u64>, Option<i64>),
    tcp: Option<i64>,
    /// The class of packets, and the priorities of devices.
    packets: (Option<u32>, Vec<(String, u32)>),
    /// Limits by device.
    devices: Vec<ByDevice>,
    own: Vec<(String, String)>,
}

/// Whose a file of the unified tree is.
fn controller_of(file: &str) -> &'static str {
    let names = ["memory", "cpuset", "cpu", "pids", "io", "hugetlb", "rdma"];
    let own = |name: &&str| file.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
    names.into_iter().find(|name| own(name)).unwrap_or("")
}

/// The name of a file that a kind of tree does not have.
pub(crate) const NOT_THERE: &str = "";

/// A controller, and the file and value of the older trees and of the unified one.
type ByDevice = (&'static str, [(String, String); 2]);

/// Limits by device: of disks, huge pages and RDMA.
fn by_device(resources: &LinuxResources) -> Step<Vec<ByDevice>> {
    let mut list = Vec::new();
    let same = |controller, files: [&str; 2], value: &str| {
        (controller, files.map(|file| (file.to_owned(), value.to_owned())))
    };
    if let Some(disks) = resources.block_io() {
        if disks.leaf_weight().is_some_and(|weight| weight > 0) {
            let field = "linux.resources.blockIO.leafWeight";
            return Err(Failure::invalid(field, "it is not supported"));
        }
        if let Some(weight) = disks.weight().filter(|weight| *weight > 0) {
            list.push(same("io", ["blkio.bfq.weight", "io.bfq.weight"], &weight.to_string()));
        }
        for device in disks.weight_device().iter().flatten() {
            let weight = device.weight().unwrap_or(0);
            let value = format!("{}:{} {weight}", device.major(), device.minor());
            list.push(same("io", ["blkio.bfq.weight_device", "io.bfq.weight"], &value));
        }
        let throttles = [
            (disks.throttle_read_bps_device(), "blkio.throttle.read_bps_device", "rbps"),
            (disks.throttle_write_bps_device(), "blkio.throttle.write_bps_device", "wbps"),
            (disks.throttle_read_iops_device(), "blkio.throttle.read_iops_device", "riops"),
            (disks.throttle_write_iops_device(), "blkio.throttle.write_iops_device", "wiops"),
        ];
        for (devices, file, key) in throttles {
            for device in devices.iter().flatten() {
                let (major, minor, rate) = (device.major(), device.minor(), device.rate());
                let old = (file.to_owned(), format!("{major}:{minor} {rate}"));
                let new = ("io.max".to_owned(), format!("{major}:{minor} {key}={rate}"));
                list.push(("io", [old, new]));
            }
        }
    }
    for pages in resources.hugepage_limits().iter().flatten() {
        let size = pages.page_size();
        let (old, new) = (format!("hugetlb.{size}.limit_in_bytes"), format!("hugetlb.{size}.max"));
        list.push(same("hugetlb", [&old, &new], &pages.limit().to_string()));
    }
    for (device, limits) in resources.rdma().iter().flatten() {
        let part = |key: &str, limit: Option<u32>| limit.map(|limit| format!(" {key}={limit}"));
        let handles = part("hca_handle", limits.hca_handles()).unwrap_or_default();
        let objects = part("hca_object", limits.hca_objects()).unwrap_or_default();
        list.push(same("rdma", ["rdma.max"; 2], &format!("{device}{handles}{objects}")));
    }
    Ok(list)
}

/// The class of packets, and the priority for each device.
fn packets(resources: &LinuxResources) -> (Option<u32>, Vec<(String, u32)>) {
    let Some(network) = resources.network() else { return (None, Vec::new()) };
    let priorities = network.priorities().iter().flatten();
    let priorities = priorities.map(|one| (one.name().clone(), one.priority()));
    (network.class_id(), priorities.collect())
}

/// `max` for what has no limit.
fn or_max(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

impl Limits {
    /// Reads the section of a spec.
    pub(crate) fn new(resources: &LinuxResources) -> Step<Limits> {
        let (memory, cpu) = (resources.memory(), resources.cpu().as_ref());
        let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let mut own: Vec<_> = resources.unified().clone().unwrap_or_default().into_iter().collect();
        own.sort();
        Ok(Limits {
            memory: memory.and_then(|memory| memory.limit()),
            swap: memory.and_then(|memory| memory.swap()),
            reservation: memory.and_then(|memory| memory.reservation()),
            shares: cpu.and_then(LinuxCpu::shares),
            quota: cpu.and_then(LinuxCpu::quota),
            period: cpu.and_then(LinuxCpu::period),
            cpus: cpu.and_then(|cpu| text(cpu.cpus())),
            mems: cpu.and_then(|cpu| text(cpu.mems())),
            pids: resources.pids().map(|pids| pids.limit()),
            swappiness: memory.and_then(|memory| memory.swappiness()),
            never_killed: memory.and_then(|memory| memory.disable_oom_killer()) == Some(true),
            idle: cpu.and_then(LinuxCpu::idle),
            burst: cpu.and_then(LinuxCpu::burst),
            realtime: (
                cpu.and_then(LinuxCpu::realtime_period).filter(|period| *period > 0),
                cpu.and_then(LinuxCpu::realtime_runtime).filter(|runtime| *runtime > 0),
            ),
            tcp: memory.and_then(|memory| memory.kernel_tcp()).filter(|limit| *limit > 0),
            packets: packets(resources),
            devices: by_device(resources)?,
            own,
        })
    }

    /// Whether nothing is limited.
    pub(crate) fn is_empty(&self) -> bool {
        self.controllers().is_empty()
    }

    /// The controllers that are needed, each once.
    pub(crate) fn controllers(&self) -> Vec<&'static str> {
        let mut needed: Vec<_> = self.unified().iter().map(|setting| setting.controller).collect();
        needed.sort_unstable();
        needed.dedup();
        needed
    }

    /// The files of the unified tree, in the order of writing.
    pub(crate) fn unified(&self) -> Vec<Setting> {
        let mut settings = Settings::default();
        if let Some(limit) = self.memory {
            settings.add("memory", "memory.max", or_max(limit));
        }
        match (self.swap, self.memory) {
            (Some(swap), Some(limit)) if swap >= 0 && limit >= 0 => {
                settings.add("memory", "memory.swap.max", (swap - limit).max(0).to_string());
            }
            (Some(swap), _) => settings.add("memory", "memory.swap.max", or_max(swap)),
            // As much swap as memory, as docker has it.
            (None, Some(limit)) if limit > 0 => settings.maybe("memory", "memory.swap.max", limit),
            (None, _) => {}
        }
        if let Some(low) = self.reservation {
            settings.add("memory", "memory.low", or_max(low));
        }
        if let Some(shares) = self.shares.filter(|shares| *shares > 0) {
            let weight = 1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142;
            settings.add("cpu", "cpu.weight", weight.to_string());
        }
        if self.quota.is_some() || self.period.is_some() {
            let quota = self
                .quota
                .filter(|quota| *quota > 0)
                .map_or("max".to_owned(), |quota| quota.to_string());
            let period = self.period.unwrap_or(100_000);
            settings.add("cpu", "cpu.max", format!("{quota} {period}"));
        }
        self.shared(&mut settings);
        if let Some(burst) = self.burst {
            settings.add("cpu", "cpu.max.burst", burst.to_string());
        }
        self.only(&mut settings, 1);
        for (file, value) in &self.own {
            settings.add(controller_of(file), file, value.clone());
        }
        settings.0
    }

    /// The files that both kinds of tree have under one name.
    fn shared(&self, settings: &mut Settings) {
        if let Some(cpus) = &self.cpus {
            settings.add("cpuset", "cpuset.cpus", cpus.clone());
        }
        if let Some(mems) = &self.mems {
            settings.add("cpuset", "cpuset.mems", mems.clone());
        }
        if let Some(pids) = self.pids {
            settings.add("pids", "pids.max", or_max(pids));
        }
        if let Some(idle) = self.idle {
            settings.add("cpu", "cpu.idle", idle.to_string());
        }
    }

    /// The files of the older trees, in the order of writing.
    pub(crate) fn legacy(&self) -> Vec<Setting> {
        let mut settings = Settings::default();
        if let Some(limit) = self.memory {
            settings.add("memory", "memory.limit_in_bytes", limit.to_string());
        }
        match (self.swap, self.memory) {
            (Some(swap), _) => {
                settings.add("memory", "memory.memsw.limit_in_bytes", swap.to_string());
            }
            (None, Some(limit)) if limit > 0 => {
                settings.maybe("memory", "memory.memsw.limit_in_bytes", limit.saturating_mul(2));
            }
            (None, _) => {}
        }
        if let Some(low) = self.reservation {
            settings.add("memory", "memory.soft_limit_in_bytes", low.to_string());
        }
        if let Some(shares) = self.shares.filter(|shares| *shares > 0) {
            settings.add("cpu", "cpu.shares", shares.to_string());
        }
        if let Some(period) = self.period {
            settings.add("cpu", "cpu.cfs_period_us", period.to_string());
        }
        if let Some(quota) = self.quota {
            settings.add("cpu", "cpu.cfs_quota_us", quota.to_string());
        }
        self.shared(&mut settings);
        if let Some(burst) = self.burst {
            settings.add("cpu", "cpu.cfs_burst_us", burst.to_string());
        }
        self.only(&mut settings, 0);
        settings.0
    }

    /// What one kind of tree has and the other has not, or calls otherwise. A file without a name is
    /// one that this kind does not have; writing it fails by its controller.
    fn only(&self, settings: &mut Settings, kind: usize) {
        let legacy = kind == 0;
        for (file, value) in self.own.iter().filter(|_| legacy) {
            settings.add(controller_of(file), NOT_THERE, format!("{file} {value}"));
        }
        let name = |file: &'static str| if legacy { file } else { NOT_THERE };
        if let Some(swappiness) = self.swappiness {
            settings.add("memory", name("memory.swappiness"), swappiness.to_string());
        }
        if self.never_killed {
            settings.add("memory", name("memory.oom_control"), "1".to_owned());
        }
        if let Some(period) = self.realtime.0 {
            settings.add("cpu", name("cpu.rt_period_us"), period.to_string());
        }
        if let Some(runtime) = self.realtime.1 {
            settings.add("cpu", name("cpu.rt_runtime_us"), runtime.to_string());
        }
        if let Some(limit) = self.tcp {
            let file = name("memory.kmem.tcp.limit_in_bytes");
            settings.add("memory", file, limit.to_string());
        }
        if let Some(class) = self.packets.0 {
            settings.add("net_cls", name("net_cls.classid"), class.to_string());
        }
        for (device, priority) in &self.packets.1 {
            settings.add("net_prio", name("net_prio.ifpriomap"), format!("{device} {priority}"));
        }
        for (controller, files) in &self.devices {
            let (file, value) = &files[kind];
            settings.add(controller, file, value.clone());
        }
    }
}

#[derive(Default)]
struct Settings(Vec<Setting>);

impl Settings {
    fn add(&mut self, controller: &'static str, file: &str, value: String) {
        self.0.push(Setting { controller, file: file.to_owned(), value, optional: false });
    }

    fn maybe(&mut self, controller: &'static str, file: &str, value: i64) {
        let (file, value) = (file.to_owned(), value.to_string());
        self.0.push(Setting { controller, file, value, optional: true });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(limits: &Limits, unified: &str, legacy: &str) {
        let text = |settings: Vec<Setting>| {
            let one = |setting: Setting| {
                format!(
                    "{}={}{}",
                    setting.file,
                    setting.value,
                    if setting.optional { "?" } else { "" }
                )
            };
            settings.into_iter().map(one).collect::<Vec<_>>().join("; ")
        };
        assert_eq!(text(limits.unified()), unified);
        assert_eq!(text(limits.legacy()), legacy);
    }

    #[test]
    fn files_of_both_trees() {
        let none = Limits::default();
        check(&none, "", "");
        assert!(none.is_empty());
        check(
            &Limits { memory: Some(100), ..Limits::default() },
            "memory.max=100; memory.swap.max=100?",
            "memory.limit_in_bytes=100; memory.memsw.limit_in_bytes=200?",
        );
        check(
            &Limits {
                memory: Some(100),
                swap: Some(150),
                reservation: Some(50),
                ..Limits::default()
            },
            "memory.max=100; memory.swap.max=50; memory.low=50",
            "memory.limit_in_bytes=100; memory.memsw.limit_in_bytes=150; memory.soft_limit_in_bytes=50",
        );
        check(
            &Limits { memory: Some(100), swap: Some(-1), ..Limits::default() },
            "memory.max=100; memory.swap.max=max",
            "memory.limit_in_bytes=100; memory.memsw.limit_in_bytes=-1",
        );
        let cpu = Limits {
            quota: Some(150_000),
            period: Some(100_000),
            shares: Some(1024),
            ..Limits::default()
        };
        check(
            &cpu,
            "cpu.weight=39; cpu.max=150000 100000",
            "cpu.shares=1024; cpu.cfs_period_us=100000; cpu.cfs_quota_us=150000",
        );
        assert_eq!(cpu.controllers(), ["cpu"]);
        let rest = Limits {
            cpus: Some("0-1".into()),
            mems: Some("0".into()),
            pids: Some(-1),
            ..Limits::default()
        };
        check(
            &rest,
            "cpuset.cpus=0-1; cpuset.mems=0; pids.max=max",
            "cpuset.cpus=0-1; cpuset.mems=0; pids.max=max",
        );
        assert_eq!(rest.controllers(), ["cpuset", "pids"]);
        for (shares, weight) in [(1, "1"), (2, "1"), (262_144, "10000"), (u64::MAX, "10000")] {
            let limits = Limits { shares: Some(shares), ..Limits::default() };
            assert_eq!(limits.unified()[0].value, weight);
        }
    }
}
