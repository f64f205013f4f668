//! The user namespace that the commands and containers of an ordinary user share, so that a container can
//! join the namespaces of another one. Nothing holds it but the processes in it.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use super::Maps;
use crate::{stage, sys};

/// Enters the namespace of a command or container of this user with the same ids, if there is one.
pub(super) fn enter_existing(maps: &Maps, uid: u32, gid: u32) -> bool {
    let (uids, gids) = match maps {
        Maps::Helpers { uids, gids, .. } => (uids.clone(), gids.clone()),
        Maps::Single => (vec![[0, uid, 1]], vec![[0, gid, 1]]),
        Maps::Same => return false,
    };
    let Ok(processes) = fs::read_dir("/proc") else { return false };
    let ours = processes.flatten().filter(|entry| {
        let numeric = entry.file_name().as_bytes().iter().all(u8::is_ascii_digit);
        numeric && entry.metadata().is_ok_and(|data| data.uid() == uid)
    });
    ours.map(|entry| entry.path()).any(|process| {
        is_of_this_program(&process)
            && lines(&process.join("uid_map")) == uids
            && lines(&process.join("gid_map")) == gids
            && enter(&process.join("ns/user")).is_some()
    })
}

/// Whether it may be a command or a monitor. Only a namespace below ours is entered, so a container gains
/// nothing by a name.
fn is_of_this_program(process: &Path) -> bool {
    let mut start = Vec::new();
    let read = File::open(process.join("cmdline")).map(|file| file.take(4096));
    if read.and_then(|mut file| file.read_to_end(&mut start)).is_err() {
        return false;
    }
    let own = std::env::args_os().next().unwrap_or_default();
    let first = start.split(|byte| *byte == 0).next().unwrap_or_default();
    !first.is_empty() && (first == stage::MARK.as_bytes() || first == own.as_bytes())
}

/// The numbers of a map, as this process sees the ids.
fn lines(path: &Path) -> Vec<[u32; 3]> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = |line: &str| {
        let mut numbers = line.split_whitespace().map(str::parse);
        Some([numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?])
    };
    text.lines().filter_map(line).collect()
}

/// Enters a user namespace that is directly below the one of this process: what a container made inside
/// of its own is the container's.
fn enter(path: &Path) -> Option<()> {
    let namespace = File::open(path).ok()?;
    let parent = File::from(sys::parent_namespace(namespace.as_fd()).ok()?).metadata().ok()?;
    let own = fs::metadata("/proc/self/ns/user").ok()?;
    if (parent.dev(), parent.ino()) != (own.dev(), own.ino()) {
        return None;
    }
    sys::setns(namespace.as_fd(), libc::CLONE_NEWUSER).ok()
}

/// Keeps other commands of this user from making a namespace of their own at the same moment; nothing
/// where that is not possible, or takes too long.
pub(super) fn lock(uid: u32) -> Option<File> {
    let own = format!("/run/user/{uid}");
    let own = Path::new(&own);
    let path = match own.metadata().is_ok_and(|data| data.uid() == uid) {
        true => own.join("rbuild-user-namespace"),
        false => format!("/tmp/.rbuild-user-namespace-{uid}").into(),
    };
    let mut options = File::options();
    options.create(true).truncate(false).write(true).mode(0o600);
    options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = options.open(path).ok()?;
    if file.metadata().ok()?.uid() != uid {
        return None;
    }
    // A command that was stopped in between must not stop all others.
    for _ in 0..100 {
        let exclusive = rustix::fs::FlockOperation::NonBlockingLockExclusive;
        if rustix::fs::flock(&file, exclusive).is_ok() {
            return Some(file);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    None
}
