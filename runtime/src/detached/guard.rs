//! The process above a monitor. Should the monitor be killed, it takes over.
//!
//! It adopts what its child leaves, so the container becomes its child, and it finds out how the
//! container ends as the monitor would have. It holds copies of the monitor's descriptors, the lock
//! among them: no client sees the container without a monitor, and nothing in the pipes is lost. Who
//! was attached attaches again. What takes over has no guard of its own.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, WaitOptions, waitpid};
use serde::{Deserialize, Serialize};

use super::monitor::{Monitor, MonitorState};
use super::{State, Status, record};
use crate::init::{self, Hooks, RunningContainer};
use crate::stage::{ErrorContext, StageInput, Step};
use crate::sys;

/// The input has ended: our copy would keep it open.
const INPUT_ENDS: u8 = b'I';
/// The container has ended.
const DONE: u8 = b'D';

/// No handover is larger.
const MAX_HANDOVER: usize = 64 << 10;

/// Which process this is after [`split`].
pub(super) enum Side {
    Guard(WatchedMonitor),
    Monitor(Line),
}

/// The monitor, as its guard sees it.
pub(super) struct WatchedMonitor {
    pid: Option<Pid>,
    line: UnixStream,
}

/// The line of a monitor to its guard. The guard takes over when it closes early.
pub(super) struct Line(UnixStream);

/// What goes over it first, with the descriptors.
#[derive(Serialize, Deserialize)]
struct Handover {
    state: State,
    outputs: [bool; 2],
    input: bool,
}

/// Splits this process into a guard and a monitor below it.
pub(super) fn split() -> Step<Side> {
    init::adopt()?;
    let (ours, theirs) = UnixStream::pair().doing("making", "a socket")?;
    // SAFETY: a stage has one thread.
    match unsafe { sys::plain_fork() }.doing("starting", "the monitor")? {
        0 => {
            drop(ours);
            rustix::process::setsid().doing("starting", "a session")?;
            Ok(Side::Monitor(Line(theirs)))
        }
        pid => {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            Ok(Side::Guard(WatchedMonitor { pid, line: ours }))
        }
    }
}

impl Line {
    /// Gives the guard what it needs to take over.
    pub(super) fn hand_over(&self, parts: &MonitorState, lock: &std::fs::File) -> io::Result<()> {
        let handover = Handover {
            state: parts.state.clone(),
            outputs: [parts.outputs[0].is_some(), parts.outputs[1].is_some()],
            input: parts.input.is_some(),
        };
        let mut bytes = serde_json::to_vec(&handover)?;
        bytes.push(b'\n');
        let mut fds: Vec<BorrowedFd<'_>> =
            vec![parts.running.pidfd.as_fd(), lock.as_fd(), parts.listener.as_fd()];
        fds.extend(parts.outputs.iter().flatten().chain(&parts.input).map(AsFd::as_fd));
        sys::send_fds(&self.0, &bytes, &fds)
    }

    /// Tells the guard that the input has ended.
    pub(super) fn close_input(&self) {
        // A guard that was killed keeps nothing open.
        let _ = (&self.0).write_all(&[INPUT_ENDS]);
    }

    /// Has the guard let go of everything, and waits until it has.
    pub(super) fn release(self) {
        let _ = (&self.0).write_all(&[DONE]);
        let _ = (&self.0).read(&mut [0]);
    }
}

impl WatchedMonitor {
    /// Whether it was killed.
    fn killed(&self) -> bool {
        loop {
            match waitpid(self.pid, WaitOptions::empty()) {
                Err(rustix::io::Errno::INTR) => {}
                other => {
                    let status = other.ok().flatten();
                    return status.is_none_or(|(_, status)| status.exit_status().is_none());
                }
            }
        }
    }
}

/// Waits as long as the monitor lives.
pub(super) fn stand_by(mut given: StageInput, monitor: &WatchedMonitor, hooks: Hooks) -> Step {
    drop(std::mem::take(&mut given.passed));
    let directory = given.take()?;
    let mut bytes = vec![0; MAX_HANDOVER];
    let (count, fds) = sys::receive_fds(&monitor.line, &mut bytes).unwrap_or_default();
    let handover = bytes[..count].strip_suffix(b"\n");
    let handover = handover.and_then(|json| serde_json::from_slice::<Handover>(json).ok());
    let Some(handover) = handover else {
        // There is no container yet, or half of one.
        monitor.killed();
        init::end_adopted();
        return Ok(());
    };
    drop(bytes);
    let mut held = Copies::new(handover, fds);
    let orphans = init::Orphans::watch().doing("watching", "the monitor's children")?;
    let over = loop {
        let mut byte = [0];
        let line = PollFd::new(&monitor.line, PollFlags::IN);
        let mut fds = [line, PollFd::new(&orphans, PollFlags::IN)];
        if poll(&mut fds, None).is_err() {
            continue;
        }
        if !fds[1].revents().is_empty() {
            orphans.collect(monitor.pid.as_slice());
        }
        if fds[0].revents().is_empty() {
            continue;
        }
        match (&monitor.line).read(&mut byte) {
            Ok(1) if byte[0] == INPUT_ENDS => held.input = None,
            Ok(1) if byte[0] == DONE => break true,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => break false,
        }
    };
    drop(orphans);
    let path = record::path(&directory);
    if !over {
        monitor.killed();
        let path = take_over(given, held, directory, hooks)?;
        path.iter().for_each(|path| (hooks.ended)(path));
        return Ok(());
    }
    drop((held, directory, given));
    // It hears that everything is let go of when the line closes.
    let _ = monitor.line.shutdown(std::net::Shutdown::Both);
    if monitor.killed() {
        path.iter().for_each(|path| (hooks.ended)(path));
    }
    Ok(())
}

/// Copies of what the monitor holds.
struct Copies {
    state: State,
    pidfd: Option<OwnedFd>,
    lock: Option<OwnedFd>,
    listener: Option<OwnedFd>,
    outputs: [Option<OwnedFd>; 2],
    input: Option<OwnedFd>,
}

impl Copies {
    fn new(handover: Handover, fds: Vec<OwnedFd>) -> Copies {
        let mut fds = fds.into_iter();
        let mut next = |there: bool| if there { fds.next() } else { None };
        Copies {
            pidfd: next(true),
            lock: next(true),
            listener: next(true),
            outputs: handover.outputs.map(&mut next),
            input: next(handover.input),
            state: handover.state,
        }
    }
}

/// Becomes the monitor of a container that runs, or has just ended.
fn take_over(
    given: StageInput,
    held: Copies,
    directory: OwnedFd,
    hooks: Hooks,
) -> Step<Option<std::path::PathBuf>> {
    let Copies { state, pidfd, lock, listener, outputs, input } = held;
    let missing = || crate::stage::Failure::invalid("monitor", "descriptors are missing");
    let pidfd = pidfd.ok_or_else(missing)?;
    let listener = UnixListener::from(listener.ok_or_else(missing)?);
    let path = record::path(&directory);
    let now = path.as_deref().and_then(read_state);
    if now.as_ref().is_some_and(|now| now.status == Status::Exited) {
        return Ok(path);
    }
    let adopts = init::shares_processes(&given.config.spec);
    let running = RunningContainer::inherited(state.pid, pidfd, &state.cgroups, adopts);
    let known = now.and_then(|now| now.exit);
    let state = State { monitor: std::process::id(), exit: known, ..state };
    record::write_state(&directory, &state).doing("writing", "state.json")?;
    let parts = MonitorState {
        given,
        running,
        listener,
        outputs,
        input,
        directory,
        state,
        guard: None,
        hooks,
    };
    let monitor = Monitor::new(parts, false, true).doing("preparing", "the monitor")?;
    let path = monitor.run();
    drop(lock);
    Ok(path)
}

fn read_state(directory: &Path) -> Option<State> {
    serde_json::from_slice(&std::fs::read(directory.join("state.json")).ok()?).ok()
}
