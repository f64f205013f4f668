//! What a user says of how much of the machine a container may use.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Ulimit;
use super::lists::both;

/// How much of the machine a container may use.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes of memory and swap together; -1 is unlimited.
    pub memory_swap: Option<i64>,
    /// Bytes of memory below which the kernel reclaims only under pressure.
    pub memory_reservation: Option<u64>,
    /// How many CPUs, in parts.
    pub cpus: Option<f64>,
    /// Microseconds per period.
    pub cpu_quota: Option<i64>,
    /// Microseconds.
    pub cpu_period: Option<u64>,
    /// Relative weight, 2 to 262144, 1024 is normal.
    pub cpu_shares: Option<u64>,
    /// Which CPUs, as `0-3,7`.
    pub cpuset_cpus: Option<String>,
    /// Which memory nodes, as `0-1`.
    pub cpuset_mems: Option<String>,
    /// How many processes; 0 or less is unlimited.
    pub pids_limit: Option<i64>,
    /// Resource limits of the process.
    pub ulimits: Vec<Ulimit>,
    /// -1000 (never killed) to 1000.
    pub oom_score_adj: Option<i32>,
    /// Bytes of `/dev/shm`; 64 MiB if not given.
    pub shm_size: Option<u64>,
    /// The cgroup below which the container's is made, relative to the mount.
    pub cgroup_parent: Option<String>,
    /// Block devices.
    pub block: BlockLimits,
    /// How readily memory is swapped out, 0 to 100 (cgroup v1).
    pub memory_swappiness: Option<u64>,
    /// Whether processes wait where memory runs out, in place of one being killed (cgroup v1).
    pub oom_kill_disable: bool,
    /// Period and time of real-time processes, in microseconds (cgroup v1).
    pub cpu_realtime: (Option<u64>, Option<i64>),
    /// Files of the cgroup and what is written to them (cgroup v2).
    pub unified: BTreeMap<String, String>,
}

/// How much of block devices a container may use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlockLimits {
    /// Relative weight, 10 to 1000.
    pub weight: Option<u16>,
    /// Relative weights by device.
    pub weights: Vec<Rate>,
    /// Bytes per second.
    pub read_bytes: Vec<Rate>,
    /// Bytes per second.
    pub write_bytes: Vec<Rate>,
    /// Reads per second.
    pub reads: Vec<Rate>,
    /// Writes per second.
    pub writes: Vec<Rate>,
}

/// A number for one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Which device.
    pub device: DeviceNumber,
    /// The number.
    pub rate: u64,
}

/// How the kernel names a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNumber {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

impl BlockLimits {
    fn merge(self, now: BlockLimits) -> BlockLimits {
        let BlockLimits { weight, weights, read_bytes, write_bytes, reads, writes } = self;
        BlockLimits {
            weight: now.weight.or(weight),
            weights: both(weights, now.weights),
            read_bytes: both(read_bytes, now.read_bytes),
            write_bytes: both(write_bytes, now.write_bytes),
            reads: both(reads, now.reads),
            writes: both(writes, now.writes),
        }
    }
}

impl Limits {
    /// Whether there are limits that a container gets when it starts, and not later.
    pub fn needs_start(&self) -> bool {
        let Limits { ulimits, oom_score_adj, shm_size, cgroup_parent, .. } = self;
        let later = ulimits.is_empty() && oom_score_adj.is_none() && shm_size.is_none();
        !later || cgroup_parent.is_some()
    }

    pub(super) fn merge(self, now: Limits) -> Limits {
        let Limits {
            memory,
            memory_swap,
            memory_reservation,
            cpus,
            cpu_quota,
            cpu_period,
            cpu_shares,
            cpuset_cpus,
            cpuset_mems,
            pids_limit,
            ulimits,
            oom_score_adj,
            shm_size,
            cgroup_parent,
            block,
            memory_swappiness,
            oom_kill_disable,
            cpu_realtime,
            unified,
        } = self;
        // A number of CPUs and a quota are two ways to say one thing: the later one counts.
        let by_quota = now.cpu_quota.is_some() || now.cpu_period.is_some();
        let by_number = now.cpus.is_some();
        Limits {
            memory: now.memory.or(memory),
            memory_swap: now.memory_swap.or(memory_swap),
            memory_reservation: now.memory_reservation.or(memory_reservation),
            cpus: now.cpus.or(cpus.filter(|_| !by_quota)),
            cpu_quota: now.cpu_quota.or(cpu_quota.filter(|_| !by_number)),
            cpu_period: now.cpu_period.or(cpu_period.filter(|_| !by_number)),
            cpu_shares: now.cpu_shares.or(cpu_shares),
            cpuset_cpus: now.cpuset_cpus.or(cpuset_cpus),
            cpuset_mems: now.cpuset_mems.or(cpuset_mems),
            pids_limit: now.pids_limit.or(pids_limit),
            ulimits: both(ulimits, now.ulimits),
            oom_score_adj: now.oom_score_adj.or(oom_score_adj),
            shm_size: now.shm_size.or(shm_size),
            cgroup_parent: now.cgroup_parent.or(cgroup_parent),
            block: block.merge(now.block),
            memory_swappiness: now.memory_swappiness.or(memory_swappiness),
            oom_kill_disable: oom_kill_disable || now.oom_kill_disable,
            cpu_realtime: (
                now.cpu_realtime.0.or(cpu_realtime.0),
                now.cpu_realtime.1.or(cpu_realtime.1),
            ),
            unified: both(unified, now.unified),
        }
    }
}
