//! Maps of ids, and user namespaces that do nothing but hold them.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder};
use serde::{Deserialize, Serialize};

use crate::sys::{self, Side};
use crate::{Error, Result};

/// One range of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// The first id inside.
    pub inside: u32,
    /// What it is outside.
    pub outside: u32,
    /// How many ids there are.
    pub count: u32,
}

/// The users and groups of a user namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMaps {
    /// Users.
    pub uids: Vec<IdRange>,
    /// Groups.
    pub gids: Vec<IdRange>,
}

/// The ids of a container with a user namespace of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ids {
    /// So many that no other container has; who makes the container chooses them.
    Auto(u32),
    /// These.
    Maps(IdMaps),
}

impl IdMaps {
    /// What an id inside is outside: user and group.
    pub fn outside(&self, uid: u32, gid: u32) -> Option<(u32, u32)> {
        Some((outside(&self.uids, uid)?, outside(&self.gids, gid)?))
    }

    /// A user namespace with these maps, in which there is no process.
    ///
    /// # Errors
    /// [`Error::System`]: only root may make it; a range is used twice.
    pub fn namespace(&self) -> Result<OwnedFd> {
        namespace(&text(&self.uids), &text(&self.gids))
            .map_err(Error::system("making", "a user namespace"))
    }

    pub(crate) fn of(uids: &[LinuxIdMapping], gids: &[LinuxIdMapping]) -> IdMaps {
        let range = |map: &LinuxIdMapping| IdRange {
            inside: map.container_id(),
            outside: map.host_id(),
            count: map.size(),
        };
        IdMaps { uids: uids.iter().map(range).collect(), gids: gids.iter().map(range).collect() }
    }

    pub(crate) fn documents(&self) -> Result<[Vec<LinuxIdMapping>; 2]> {
        let one = |range: &IdRange| {
            let map = LinuxIdMappingBuilder::default();
            let map = map.container_id(range.inside).host_id(range.outside).size(range.count);
            map.build().map_err(|error| Error::invalid("id maps", error.to_string()))
        };
        let all = |list: &[IdRange]| list.iter().map(one).collect::<Result<Vec<_>>>();
        Ok([all(&self.uids)?, all(&self.gids)?])
    }
}

fn outside(ranges: &[IdRange], id: u32) -> Option<u32> {
    let range = ranges.iter().find(|range| {
        (u64::from(range.inside)..u64::from(range.inside) + u64::from(range.count))
            .contains(&u64::from(id))
    })?;
    range.outside.checked_add(id - range.inside)
}

/// The kernel's text form of a map.
pub(crate) fn text(ranges: &[IdRange]) -> String {
    let line = |range: &IdRange| format!("{} {} {}\n", range.inside, range.outside, range.count);
    ranges.iter().map(line).collect()
}

/// A user namespace with these maps; the process that made it has ended.
fn namespace(uids: &str, gids: &str) -> std::io::Result<OwnedFd> {
    let clone = sys::Clone { namespaces: libc::CLONE_NEWUSER as u64, cgroup: None };
    // SAFETY: the child does nothing but wait for its end, whatever threads this process has.
    match unsafe { sys::fork(&clone) }? {
        Side::Child => sys::wait_to_be_killed(),
        Side::Parent { pid, pidfd } => {
            let write = |file: &str, map: &str| std::fs::write(format!("/proc/{pid}/{file}"), map);
            let opened = write("uid_map", uids)
                .and_then(|()| write("gid_map", gids))
                .and_then(|()| File::open(format!("/proc/{pid}/ns/user")));
            let _ = sys::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
            let id = || rustix::process::WaitId::PidFd(pidfd.as_fd());
            while let Err(rustix::io::Errno::INTR) =
                rustix::process::waitid(id(), rustix::process::WaitIdOptions::EXITED)
            {}
            opened.map(OwnedFd::from)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_inside_have_one_outside_or_none() {
        let range = |inside, outside, count| IdRange { inside, outside, count };
        let maps = IdMaps {
            uids: vec![range(0, 100_000, 10), range(10, 5, 1)],
            gids: vec![range(0, 7, 1)],
        };
        assert_eq!(maps.outside(9, 0), Some((100_009, 7)));
        assert_eq!(maps.outside(10, 0), Some((5, 7)));
        assert_eq!(maps.outside(11, 0), None);
        assert_eq!(maps.outside(0, 1), None);
        assert_eq!(text(&maps.uids), "0 100000 10\n10 5 1\n");
    }
}
