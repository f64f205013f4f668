//! On which nodes of a NUMA machine a container's memory is.

use oci_spec::runtime::{
    Linux, LinuxMemoryPolicy, MemoryPolicyFlagType as Flag, MemoryPolicyModeType as Mode,
};

use crate::stage::{ErrorContext, Failure, Step};
use crate::sys;

/// The kernel knows no more nodes.
const NODES: usize = 1024;

/// A set of nodes, as the kernel takes it.
pub(crate) type Nodes = [u64; NODES / 64];

/// The policy of a container for this process and what it starts (`memoryPolicy` of the runtime-spec
/// 1.3).
pub(crate) fn policy(linux: &Linux) -> Step {
    let Some(policy) = linux.memory_policy() else { return Ok(()) };
    let list = policy.nodes().as_deref().unwrap_or_default();
    let nodes = nodes(list).ok_or_else(|| {
        Failure::invalid("linux.memoryPolicy", format!("{list:?} is no list of nodes"))
    })?;
    sys::set_memory_policy(mode(policy), &nodes).doing("setting", "the memory policy")
}

/// The kernel's number for a mode with its flags.
fn mode(policy: &LinuxMemoryPolicy) -> libc::c_int {
    let mode = match policy.mode() {
        Mode::MpolDefault => 0,
        Mode::MpolPreferred => 1,
        Mode::MpolBind => 2,
        Mode::MpolInterleave => 3,
        Mode::MpolLocal => 4,
        Mode::MpolPreferredMany => 5,
        Mode::MpolWeightedInterleave => 6,
    };
    policy.flags().iter().flatten().fold(mode, |mode, flag| {
        mode | match flag {
            Flag::MpolFStaticNodes => 1 << 15,
            Flag::MpolFRelativeNodes => 1 << 14,
            Flag::MpolFNumaBalancing => 1 << 13,
        }
    })
}

/// The nodes of a list such as `0-3,7`; none of an empty one.
pub(crate) fn nodes(list: &str) -> Option<Nodes> {
    let mut nodes = [0; NODES / 64];
    for part in list.split(',').filter(|_| !list.is_empty()) {
        let (first, last) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= NODES {
            return None;
        }
        (first..=last).for_each(|node| nodes[node / 64] |= 1 << (node % 64));
    }
    Some(nodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_nodes_are_sets() {
        assert_eq!(nodes("0-2,64").unwrap()[..2], [7, 1]);
        assert_eq!(nodes(""), Some([0; NODES / 64]));
        for wrong in ["a", "1-", "2-1", "1024", "0,,1", "-1"] {
            assert_eq!(nodes(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn flags_are_added_to_the_mode() {
        let policy = r#"{"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}"#;
        assert_eq!(mode(&serde_json::from_str(policy).unwrap()), 2 | 1 << 15);
    }
}
