//! Commands with a deadline and a record of the resources they used.

use std::io::{Read, Seek};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::{Ran, ran};

/// Longer than this no command may take, whatever is done to it.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Runs a command to its end, kills it and fails if it takes longer than [`LIMIT`], and fails if it
/// panicked.
#[track_caller]
pub fn guarded(command: &mut Command) -> Ran {
    measured(command).0
}

/// As [`guarded`]; also gives the most memory one process of it held at once, in KiB.
#[track_caller]
pub fn measured(command: &mut Command) -> (Ran, u64) {
    let line = format!("{command:?}");
    let mut out = tempfile::tempfile().expect("a file");
    let mut err = tempfile::tempfile().expect("a file");
    let copy = |file: &std::fs::File| file.try_clone().expect("a descriptor");
    command.stdin(Stdio::null()).stdout(copy(&out)).stderr(copy(&err)).process_group(0);
    #[allow(clippy::zombie_processes, reason = "wait4 below waits for it, and tells its usage")]
    let child = command.spawn().unwrap_or_else(|error| panic!("{line}: {error}"));
    let pid = i32::try_from(child.id()).expect("a pid");
    let (ended, end) = mpsc::channel::<()>();
    let guard = std::thread::spawn(move || {
        let late = end.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout);
        if late {
            let group = Pid::from_raw(pid).expect("a pid");
            // Gone already is as good.
            let _ = kill_process_group(group, Signal::KILL);
        }
        late
    });
    let (status, memory) = wait(pid);
    let _ = ended.send(());
    let late = guard.join().expect("a guard");
    let text = |file: &mut std::fs::File| {
        let mut bytes = Vec::new();
        file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("a file");
        bytes
    };
    let output = Output { status, stdout: text(&mut out), stderr: text(&mut err) };
    let ran = ran(line, &output);
    assert!(!late, "it did not end within {LIMIT:?}: {}", ran.told());
    assert!(!ran.stderr.contains("panicked"), "{}", ran.told());
    (ran, memory)
}

/// Waits for a process of ours and says how it ended and what it used.
fn wait(pid: i32) -> (ExitStatus, u64) {
    let mut status = 0;
    // SAFETY: `rusage` is plain numbers, for which all zeroes are a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to values of ours that outlive the call.
        let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
        if waited == pid {
            return (ExitStatus::from_raw(status), u64::try_from(usage.ru_maxrss).unwrap_or(0));
        }
        let error = std::io::Error::last_os_error();
        assert_eq!(error.kind(), std::io::ErrorKind::Interrupted, "waiting for {pid}: {error}");
    }
}
