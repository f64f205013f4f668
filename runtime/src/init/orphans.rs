//! What a process that adopts is left with: children that ended, which somebody must collect.
//!
//! The first process of a process namespace ends only when all others of it are collected. One that
//! joined has its parent outside; where that is killed first, the process that adopts it is the
//! only one that can.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::process::{Pid, WaitOptions, waitpid};

use super::borders::children;

/// Tells when a child has ended. SIGCHLD is blocked as long as this lives.
pub(crate) struct Orphans {
    ended: OwnedFd,
    before: libc::sigset_t,
}

impl Orphans {
    /// Begins to watch.
    pub(crate) fn watch() -> io::Result<Orphans> {
        // SAFETY: sets on the stack that live across the calls; the descriptor is new and ours.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            let mut before: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, libc::SIGCHLD);
            let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            let ended = OwnedFd::from_raw_fd(fd);
            libc::sigprocmask(libc::SIG_BLOCK, &raw const set, &raw mut before);
            Ok(Orphans { ended, before })
        }
    }

    /// Collects children that have ended, but for `own`: others wait for those.
    pub(crate) fn collect(&self, own: &[Pid]) {
        let mut told = [0; 512];
        while rustix::io::read(&self.ended, &mut told).is_ok_and(|count| count > 0) {}
        for child in children().into_iter().filter(|child| !own.contains(child)) {
            let _ = waitpid(Some(child), WaitOptions::NOHANG);
        }
    }
}

impl AsFd for Orphans {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }
}

impl Drop for Orphans {
    fn drop(&mut self) {
        // SAFETY: a set that was filled in by the kernel.
        unsafe {
            libc::sigprocmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut());
        }
    }
}
