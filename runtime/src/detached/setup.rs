//! The beginning of a monitor: its files, the pipes, the container.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;

use super::guard::{self, Line, Side};
use super::monitor::{Monitor, MonitorState};
use super::{State, Status, record};
use crate::cgroup::Cgroup;
use crate::init::{self, ContainerInputs, Hooks, begin_with};
use crate::stage::{self, Answer, ErrorContext, Failure, Role, StageInput, StartReport, Step};
use crate::sys;

/// How much a pipe of the container holds; see [`super::monitor`] for why it is little.
pub(super) const PIPE: usize = 4096;

/// Becomes the monitor of a container; returns after the container's end, and what the hook does.
pub(crate) fn monitor(mut given: StageInput, hooks: Hooks) -> Step {
    // The starter waits for its child at once; the monitor itself has no parent that waits.
    // SAFETY: a stage has one thread.
    if unsafe { sys::plain_fork() }.doing("starting", "the monitor")? != 0 {
        sys::exit(0);
    }
    rustix::process::setsid().doing("starting", "a session")?;
    let prepared = init::prepare(&mut given)?;
    // Both processes are in it, so that it is the same whichever is the monitor.
    init::close(std::mem::take(&mut given.config.scopes))?;
    let directory = match guard::split()? {
        Side::Guard(monitor) => {
            drop(prepared);
            return guard::stand_by(given, &monitor, hooks);
        }
        Side::Monitor(line) => watch_over(given, prepared, line, hooks)?,
    };
    // Nothing is open any more that was the container's.
    if let Some(directory) = directory {
        (hooks.ended)(&directory);
    }
    Ok(())
}

/// The container's whole life; gives its directory.
fn watch_over(
    mut given: StageInput,
    inputs: ContainerInputs,
    guard: Line,
    hooks: Hooks,
) -> Step<Option<std::path::PathBuf>> {
    let Role::Monitor { interactive, held, .. } = given.config.role else {
        return Err(Failure::invalid("configuration", "it is not for a monitor"));
    };
    let directory = given.take()?;
    let lock =
        record::create(&directory, "lock", rustix::fs::OFlags::empty()).doing("making", "lock")?;
    let exclusive = rustix::fs::FlockOperation::LockExclusive;
    rustix::fs::flock(&lock, exclusive).doing("locking", "the container's directory")?;
    let listener = listen(&directory)?;
    let (mut outputs, mut input) = ([None, None], None);
    if given.config.terminal.is_none() {
        (outputs, input) = pipes(&mut given, interactive)?;
    }
    let mut state = State {
        status: Status::Created,
        pid: 0,
        birth: 0,
        monitor: std::process::id(),
        started: record::now(),
        finished: None,
        exit: None,
        terminal: given.config.terminal.is_some(),
        cgroups: Vec::new(),
    };
    let line = given.line.try_clone().doing("copying", "a socket")?;
    let mut running = begin_with(&mut given, inputs)?;
    if let Some(terminal) = running.terminal.take() {
        outputs[0] = Some(terminal.try_clone().doing("copying", "the terminal")?);
        input = Some(terminal);
    }
    (state.status, state.pid) = (Status::Running, running.pid);
    state.birth = record::birth(running.pid).unwrap_or(0);
    let cgroups = running.cgroup.as_ref().map(Cgroup::directories).unwrap_or_default();
    state.cgroups.clone_from(&cgroups);
    for fd in outputs.iter().flatten().chain(&input) {
        rustix::io::ioctl_fionbio(fd, true).doing("preparing", "the streams")?;
    }
    let pid = running.pid;
    let parts = MonitorState {
        given,
        running,
        listener,
        outputs,
        input,
        directory,
        state,
        guard: Some(guard),
        hooks,
    };
    if let Some(guard) = &parts.guard {
        guard.hand_over(&parts, &lock).doing("preparing", "the guard")?;
    }
    record::write_state(&parts.directory, &parts.state).doing("writing", "state.json")?;
    let monitor = Monitor::new(parts, held, false).doing("preparing", "the monitor")?;
    tracing::debug!(pid, "the program runs");
    // A starter that is gone does not matter any more.
    let _ = stage::answer(&line, &Answer::Started(StartReport { pid, cgroups }), None);
    drop(line);
    let directory = monitor.run();
    drop(lock);
    Ok(directory)
}

/// A socket in the container's directory. Its path may be longer than a socket's name can be, so
/// it is named through the descriptor.
fn listen(directory: &OwnedFd) -> Step<UnixListener> {
    let _ = rustix::fs::unlinkat(directory, "socket", rustix::fs::AtFlags::empty());
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let path = format!("/proc/self/fd/{}/socket", directory.as_raw_fd());
    let listener = UnixListener::bind(path).doing("making", "socket")?;
    listener.set_nonblocking(true).doing("making", "socket")?;
    Ok(listener)
}

type MonitorPipes = ([Option<OwnedFd>; 2], Option<OwnedFd>);

/// Makes the pipes, leaves the container's ends with `given`, and gives ours.
fn pipes(given: &mut StageInput, interactive: bool) -> Step<MonitorPipes> {
    let pipe = || io::pipe().doing("making", "a pipe");
    let mut input = None;
    let theirs: OwnedFd = if interactive {
        let (read, write) = pipe()?;
        input = Some(write.into());
        read.into()
    } else {
        std::fs::File::open("/dev/null").doing("opening", "/dev/null")?.into()
    };
    let (out, out_theirs) = pipe()?;
    let (error, error_theirs) = pipe()?;
    for end in [&out, &error] {
        // A pipe that stays larger is as good but for the order.
        let _ = rustix::pipe::fcntl_setpipe_size(end, PIPE);
    }
    given.fds.extend([theirs, out_theirs.into(), error_theirs.into()]);
    Ok(([Some(out.into()), Some(error.into())], input))
}
