//! The process above a holder. If the holder is killed while the container runs, it makes another one,
//! which takes over the networks of the container.

use std::io::{self, BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, WaitOptions, pidfd_open, waitpid};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{sys, wire};

/// How long it waits before it makes another one: a program that kills one may kill more.
const PAUSE: Duration = Duration::from_millis(50);

/// A line from a holder to its guard.
pub(crate) struct Notes(UnixStream);

/// A container whose holder was killed, with the holder's notes.
pub(crate) struct HolderRemnant<T> {
    /// The first process of the container.
    pub(crate) container: OwnedFd,
    /// Its number.
    pub(crate) pid: u32,
    /// What the holder has noted last.
    pub(crate) known: T,
}

impl Notes {
    /// Notes what another holder needs to take over from this one.
    pub(crate) fn note(&self, pid: u32, known: &impl Serialize) {
        // A guard that is killed is not replaced.
        let _ = wire::send(&self.0, &(pid, known), None);
    }
}

/// Does `work` in a process below this one, and again with what is left when that is killed. In the
/// guard `shut` closes what only the first holder needs. Gives the exit status of this process, as does
/// `work`.
pub(crate) fn guarded<T: DeserializeOwned>(
    work: impl Fn(Option<HolderRemnant<T>>, Notes) -> bool,
    shut: impl Fn(),
) -> bool {
    let mut left = None;
    loop {
        let Ok((ours, theirs)) = UnixStream::pair() else { return false };
        match sys::fork() {
            Ok(None) => {
                drop(ours);
                return work(left, Notes(theirs));
            }
            // It works without a guard.
            Err(_) => return work(left, Notes(theirs)),
            Ok(Some(pid)) => {
                drop(theirs);
                shut();
                left = listen(&ours);
                if !killed(pid) {
                    return true;
                }
            }
        }
        match &left {
            Some(left) if !is_over(&left.container) => std::thread::sleep(PAUSE),
            _ => return true,
        }
    }
}

/// Reads notes until the holder has ended; gives the last one.
fn listen<T: DeserializeOwned>(line: &UnixStream) -> Option<HolderRemnant<T>> {
    let mut last: Option<HolderRemnant<T>> = None;
    // Several notes may come at once.
    for text in BufReader::new(line).split(b'\n').map_while(Result::ok) {
        let Ok((pid, known)) = serde_json::from_slice::<(u32, T)>(&text) else { continue };
        last = match last {
            Some(before) if before.pid == pid => Some(HolderRemnant { known, ..before }),
            _ => open(pid).ok().map(|container| HolderRemnant { container, pid, known }),
        };
    }
    last
}

fn open(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    Ok(pidfd_open(pid.ok_or(io::ErrorKind::InvalidInput)?, PidfdFlags::empty())?)
}

/// Waits for the end of a holder; whether it was killed.
fn killed(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    loop {
        match waitpid(pid, WaitOptions::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(Some((_, status))) => return status.exit_status().is_none(),
            Ok(None) | Err(_) => return false,
        }
    }
}

/// Whether a process or a connection has ended.
pub(crate) fn is_over(fd: &impl std::os::fd::AsFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&now)) != Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_several_notes_is_known_when_a_holder_ends() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (notes, pid) = (Notes(theirs), std::process::id());
        for number in 0..3 {
            notes.note(pid, &vec![number]);
        }
        drop(notes);
        let remnant: HolderRemnant<Vec<u32>> = listen(&ours).unwrap();
        assert_eq!((remnant.pid, remnant.known), (pid, vec![2]));
        assert!(!is_over(&remnant.container));
    }
}
