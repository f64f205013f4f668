//! What is to be limited, and how each kind of cgroup tree spells it. Pure.

use oci_spec::runtime::LinuxResources;

/// A file of a cgroup and what to write to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) controller: &'static str,
    pub(crate) file: String,
    pub(crate) value: String,
    /// Whether the kernel may lack the file: nobody asked for this in so many words.
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
    own: Vec<(String, String)>,
}

/// `max` for what has no limit.
fn or_max(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

impl Limits {
    /// Reads the section of a spec.
    pub(crate) fn new(resources: &LinuxResources) -> Limits {
        let (memory, cpu) = (resources.memory(), resources.cpu().as_ref());
        let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let mut own: Vec<_> = resources.unified().clone().unwrap_or_default().into_iter().collect();
        own.sort();
        Limits {
            memory: memory.and_then(|memory| memory.limit()),
            swap: memory.and_then(|memory| memory.swap()),
            reservation: memory.and_then(|memory| memory.reservation()),
            shares: cpu.and_then(oci_spec::runtime::LinuxCpu::shares),
            quota: cpu.and_then(oci_spec::runtime::LinuxCpu::quota),
            period: cpu.and_then(oci_spec::runtime::LinuxCpu::period),
            cpus: cpu.and_then(|cpu| text(cpu.cpus())),
            mems: cpu.and_then(|cpu| text(cpu.mems())),
            pids: resources.pids().map(|pids| pids.limit()),
            own,
        }
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
        if let Some(cpus) = &self.cpus {
            settings.add("cpuset", "cpuset.cpus", cpus.clone());
        }
        if let Some(mems) = &self.mems {
            settings.add("cpuset", "cpuset.mems", mems.clone());
        }
        if let Some(pids) = self.pids {
            settings.add("pids", "pids.max", or_max(pids));
        }
        for (file, value) in &self.own {
            let controller = ["memory", "cpuset", "cpu", "pids", "io", "hugetlb", "rdma"]
                .into_iter()
                .find(|name| file.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')));
            settings.add(controller.unwrap_or(""), file, value.clone());
        }
        settings.0
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
        if let Some(cpus) = &self.cpus {
            settings.add("cpuset", "cpuset.cpus", cpus.clone());
        }
        if let Some(mems) = &self.mems {
            settings.add("cpuset", "cpuset.mems", mems.clone());
        }
        if let Some(pids) = self.pids {
            settings.add("pids", "pids.max", or_max(pids));
        }
        settings.0
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
