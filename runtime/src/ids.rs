//! Maps of ids, and user namespaces that do nothing but hold them.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespaceType, Spec};
use serde::{Deserialize, Serialize};

use crate::sys::{self, Side};
use crate::{Error, Join, Result};

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
    /// Those of the user namespace of a running container, or of that at a path. The starter finds them.
    Join(Join),
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

    /// Those of a user namespace that exists, by its path, with the ids outside as this process has them.
    ///
    /// # Errors
    /// [`Error::System`]: only root may enter it; it is that of this process.
    pub fn of_namespace(path: &Path) -> Result<IdMaps> {
        let failed = |error| Error::system("entering", path)(error);
        let file = File::open(path).map_err(Error::system("opening", path))?;
        let [uids, gids] = read_maps(&file).map_err(failed)?;
        let maps = IdMaps { uids: ranges(&uids), gids: ranges(&gids) };
        match maps.uids.is_empty() || maps.gids.is_empty() {
            true => Err(Error::invalid("user namespace", "it has no ids")),
            false => Ok(maps),
        }
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

/// Gives a container that joins a user namespace the maps of that.
pub(crate) fn join(spec: &mut Spec) -> Result<()> {
    let Some(linux) = spec.linux_mut() else { return Ok(()) };
    let listed = linux.namespaces().as_deref().unwrap_or_default();
    let user = listed.iter().find(|one| one.typ() == LinuxNamespaceType::User);
    if let Some(path) = user.and_then(|user| user.path().clone()) {
        let [uids, gids] = IdMaps::of_namespace(&path)?.documents()?;
        linux.set_uid_mappings(Some(uids)).set_gid_mappings(Some(gids));
    }
    Ok(())
}

/// Ranges of the kernel's text form.
fn ranges(text: &str) -> Vec<IdRange> {
    let range = |line: &str| {
        let mut numbers = line.split_whitespace().map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(IdRange { inside: next()?, outside: next()?, count: next()? })
    };
    text.lines().filter_map(range).collect()
}

/// The maps of a user namespace: of a process that enters it for them.
fn read_maps(namespace: &File) -> io::Result<[String; 2]> {
    let (mut entered, enters) = io::pipe()?;
    let parent = std::process::id();
    // SAFETY: the child makes plain system calls alone, whatever threads this process has.
    match unsafe { sys::fork(&sys::Clone::default()) }? {
        Side::Child => {
            let error = match sys::setns(namespace.as_fd(), libc::CLONE_NEWUSER) {
                Ok(()) => 0,
                Err(error) => error.raw_os_error().unwrap_or(libc::EINVAL),
            };
            let _ = rustix::io::write(&enters, &error.to_ne_bytes());
            sys::wait_to_be_killed(parent)
        }
        Side::Parent { pid, pidfd } => {
            drop(enters);
            let mut errno = [0; 4];
            let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}"));
            let maps =
                entered.read_exact(&mut errno).and_then(|()| match i32::from_ne_bytes(errno) {
                    0 => Ok([read("uid_map")?, read("gid_map")?]),
                    errno => Err(io::Error::from_raw_os_error(errno)),
                });
            end(&pidfd);
            maps
        }
    }
}

/// Ends a process of ours that waits for it.
fn end(pidfd: &OwnedFd) {
    let _ = sys::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
    let id = || rustix::process::WaitId::PidFd(pidfd.as_fd());
    while let Err(rustix::io::Errno::INTR) =
        rustix::process::waitid(id(), rustix::process::WaitIdOptions::EXITED)
    {}
}

/// Does work whose new files belong to this user and group of the machine, with the rights of this process:
/// a file that is made in a mount with mapped ids needs an owner that has an id there.
pub fn making_files_of<T: Send>((uid, gid): (u32, u32), work: impl FnOnce() -> T + Send) -> T {
    let work = move || {
        // Where this process may not, it finds out when it makes a file.
        let _ = sys::set_file_ids(uid, gid);
        work()
    };
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic),
    })
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
    let parent = std::process::id();
    // SAFETY: the child does nothing but wait for its end, whatever threads this process has.
    match unsafe { sys::fork(&clone) }? {
        Side::Child => sys::wait_to_be_killed(parent),
        Side::Parent { pid, pidfd } => {
            let write = |file: &str, map: &str| std::fs::write(format!("/proc/{pid}/{file}"), map);
            let opened = write("uid_map", uids)
                .and_then(|()| write("gid_map", gids))
                .and_then(|()| File::open(format!("/proc/{pid}/ns/user")));
            end(&pidfd);
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
