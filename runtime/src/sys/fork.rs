//! New processes, in namespaces of their own.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::{check, exit, receive_fds, send_fds, set_ids, setns};

/// The namespaces and the cgroup of a new process.
#[derive(Debug, Default)]
pub(crate) struct Clone<'a> {
    /// `CLONE_NEW*`
    pub(crate) namespaces: u64,
    /// A cgroup v2 directory to start in.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
}

/// Which side of a [`fork`] this is.
#[derive(Debug)]
pub(crate) enum Side {
    Parent { pid: u32, pidfd: OwnedFd },
    Child,
}

/// Makes a new process.
///
/// # Safety
/// This process has no other threads, so that the child may run any code.
pub(crate) unsafe fn fork(clone: &Clone<'_>) -> io::Result<Side> {
    // SAFETY: as the caller promises.
    let made = unsafe { clone3(clone.namespaces, libc::SIGCHLD as u64, clone.cgroup) }?;
    Ok(made.map_or(Side::Child, |(pid, pidfd)| Side::Parent { pid, pidfd }))
}

/// Makes a new process in an existing user namespace, which owns its new namespaces. The caller
/// stays outside: a helper process joins the user namespace, and makes the new process as a child of
/// the caller (`CLONE_PARENT`).
///
/// # Safety
/// As [`fork`].
pub(crate) unsafe fn fork_in(user: BorrowedFd<'_>, clone: &Clone<'_>) -> io::Result<Side> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    let helper = Clone { namespaces: 0, cgroup: clone.cgroup };
    // SAFETY: as the caller promises.
    let forked = unsafe { fork(&helper) }?;
    let Side::Parent { pid, .. } = forked else {
        drop(ours);
        let made = setns(user, libc::CLONE_NEWUSER)
            .and_then(|()| set_ids(0, 0, Some(&[])))
            // SAFETY: the helper has one thread too.
            .and_then(|()| unsafe { clone3(clone.namespaces | CLONE_PARENT, 0, None) });
        let sent = match made {
            Ok(None) => return Ok(Side::Child),
            Ok(Some((_, pidfd))) => send_fds(&theirs, &[0; 4], &[pidfd.as_fd()]),
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EINVAL);
                send_fds(&theirs, &errno.to_ne_bytes(), &[])
            }
        };
        exit(i32::from(sent.is_err()))
    };
    drop(theirs);
    let mut errno = [0; 4];
    let received = receive_fds(&ours, &mut errno);
    let helper = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    let _ = rustix::process::waitpid(helper, rustix::process::WaitOptions::empty());
    match received?.1.pop() {
        Some(pidfd) => Ok(Side::Parent { pid: pid_of(&pidfd)?, pidfd }),
        None => Err(io::Error::from_raw_os_error(i32::from_ne_bytes(errno))),
    }
}

/// `clone(2)`
const CLONE_PARENT: u64 = libc::CLONE_PARENT as u64;

/// The number of a process as this one sees it.
fn pid_of(pidfd: &OwnedFd) -> io::Result<u32> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pid:"));
    line.and_then(|pid| pid.trim().parse().ok()).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Calls `clone3(2)`: the number and the pidfd of the child, `None` in the child itself.
///
/// # Safety
/// As [`fork`].
unsafe fn clone3(
    flags: u64,
    exit_signal: u64,
    cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<Option<(u32, OwnedFd)>> {
    #[repr(C, align(8))]
    #[derive(Default)]
    struct Args {
        flags: u64,
        pidfd: u64,
        child_tid: u64,
        parent_tid: u64,
        exit_signal: u64,
        stack: u64,
        stack_size: u64,
        tls: u64,
        set_tid: u64,
        set_tid_size: u64,
        cgroup: u64,
    }
    let mut pidfd: RawFd = -1;
    let mut args = Args {
        flags: flags | libc::CLONE_PIDFD as u64,
        pidfd: &raw mut pidfd as u64,
        exit_signal,
        ..Args::default()
    };
    if let Some(cgroup) = cgroup {
        args.flags |= 0x2_0000_0000; // CLONE_INTO_CGROUP
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM this is a fork: the child gets a copy of this single-threaded
    // process; `args` lives across the call and `pidfd` is written by the kernel.
    let pid = check(unsafe {
        libc::syscall(libc::SYS_clone3, &raw mut args, std::mem::size_of::<Args>())
    })?;
    if pid == 0 {
        return Ok(None);
    }
    // SAFETY: the kernel has just given us this descriptor.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Some((pid as u32, pidfd)))
}
