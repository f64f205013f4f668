//! What a container uses, as its cgroups count it.

use std::path::{Path, PathBuf};

/// Numbers of the kernel; what a tree does not count is not given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Nanoseconds of CPU time.
    pub cpu: Option<u64>,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes of memory it may use.
    pub memory_limit: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// How many it may have.
    pub pids_limit: Option<u64>,
}

impl Usage {
    pub(super) fn read(cgroups: &[PathBuf]) -> Usage {
        let first = |files: &[&str]| {
            let all =
                cgroups.iter().flat_map(|directory| files.iter().map(|file| directory.join(file)));
            all.filter_map(|path| number(&path)).next()
        };
        let stat = cgroups.iter().find_map(|directory| usage_usec(&directory.join("cpu.stat")));
        Usage {
            cpu: first(&["cpuacct.usage"]).or(stat),
            memory: first(&["memory.usage_in_bytes", "memory.current"]),
            memory_limit: first(&["memory.limit_in_bytes", "memory.max"]),
            pids: first(&["pids.current"]),
            pids_limit: first(&["pids.max"]),
        }
    }
}

fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn usage_usec(path: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
    line.parse::<u64>().ok()?.checked_mul(1000)
}
