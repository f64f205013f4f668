//! The built-in pid 1 of `--init`: reaps orphans and forwards signals.

use rustix::process::{Pid, WaitOptions};

use crate::stage::{ErrorContext, Step};
use crate::sys;

/// Gives every signal its default meaning and blocks none, as a fresh program expects it.
pub(crate) fn default_signals() {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL for any number; numbers that cannot be changed fail without effect.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    mask(libc::SIG_SETMASK, false);
}

fn mask(how: libc::c_int, full: bool) -> libc::sigset_t {
    // SAFETY: both sets are plain memory, initialised before they are used.
    unsafe {
        let mut set = std::mem::zeroed();
        if full {
            libc::sigfillset(&raw mut set)
        } else {
            libc::sigemptyset(&raw mut set)
        };
        libc::sigprocmask(how, &raw const set, std::ptr::null_mut());
        set
    }
}

/// Splits this process: the child returns to become the program, the parent stays as pid 1 until
/// the program ends, and ends with its code.
pub(crate) fn split() -> Step {
    let all = mask(libc::SIG_SETMASK, true);
    // The parent closes all that it holds, and with it the end of this pipe: the program starts
    // after that, or it could open what pid 1 still holds through /proc/1/fd.
    let (closed, held) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .doing("making", "a pipe to pid 1")?;
    // SAFETY: the first process of a container has one thread.
    match unsafe { sys::plain_fork() }.doing("starting", "the program below pid 1")? {
        0 => {
            drop(held);
            while rustix::io::read(&closed, &mut [0_u8; 1]) == Err(rustix::io::Errno::INTR) {}
            let own = rustix::process::setpgid(None, None);
            // With a terminal, the program is in its foreground.
            if own.is_ok() {
                let _ =
                    rustix::termios::tcsetpgrp(rustix::stdio::stdin(), rustix::process::getpgrp());
            }
            mask(libc::SIG_SETMASK, false);
            Ok(())
        }
        pid => {
            // SAFETY: takes numbers only; nothing of this process is used through a descriptor
            // any more.
            unsafe { libc::syscall(libc::SYS_close_range, 0u32, u32::MAX, 0u32) };
            stay(pid, &all)
        }
    }
}

fn stay(program: u32, all: &libc::sigset_t) -> ! {
    loop {
        // SAFETY: a set that lives across the call, and no siginfo wanted.
        let signal = unsafe { libc::sigwaitinfo(all, std::ptr::null_mut()) };
        match signal {
            libc::SIGCHLD => reap(program),
            1.. => {
                // SAFETY: takes numbers only.
                unsafe { libc::kill(program as libc::pid_t, signal) };
            }
            _ => {}
        }
    }
}

fn reap(program: u32) {
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if Pid::as_raw(Some(pid)) as u32 == program {
            let code =
                status.exit_status().or(status.terminating_signal().map(|signal| 128 + signal));
            sys::exit(code.unwrap_or(125));
        }
    }
}
