//! The process between the starter and the container: it makes the container, waits for it, and
//! ends it when the starter is gone.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use oci_spec::runtime::LinuxNamespaceType;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, WaitIdOptions, WaitIdStatus, WaitOptions, waitid};

use super::exec::Launch;
use super::other::{self, ForeignContainer};
use super::{borders, filesystem, namespaces};
use crate::cgroup::Cgroup;
use crate::stage::{
    self, Answer, ErrorContext, Failure, Reason, Role, StageInput, StartReport, Step,
};
use crate::sys::{self, Side};
use crate::{ExitStatus, Signal};

/// A container that runs.
#[derive(Debug)]
pub(crate) struct RunningContainer {
    pub(crate) pid: u32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) terminal: Option<OwnedFd>,
    /// Where the filter asks about owners.
    listener: Option<OwnedFd>,
    pub(crate) cgroup: Option<Cgroup>,
    /// Whether what it leaves behind becomes ours, and ends with it: it has no pid namespace whose
    /// end is that of everything in it.
    adopts: bool,
    /// For an engine: our end of the terminal, and that at which the filter asks.
    pub(crate) descriptors: Vec<OwnedFd>,
    /// The runtime that made it, if that is not this one.
    pub(super) other: Option<ForeignContainer>,
}

/// The namespaces and the mount sources of a container, opened.
#[derive(Debug)]
pub(crate) struct ContainerInputs {
    namespaces: namespaces::Namespaces,
    sources: filesystem::Sources,
}

/// Opens what the container is made of. It may be in the hands of the starter (`/proc/PID/fd/N`), which
/// is out of reach from inside the container's domain.
pub(crate) fn prepare(given: &mut StageInput) -> Step<ContainerInputs> {
    let rootfs = given.take()?;
    let linux = given.config.spec.linux().as_ref();
    let linux = linux.ok_or_else(|| Failure::invalid("spec", "it has no linux section"))?;
    let namespaces = namespaces::plan(linux)?;
    let sources = filesystem::open_sources(&given.config, rootfs, namespaces.new_mount())?;
    Ok(ContainerInputs { namespaces, sources })
}

/// Makes the container and waits until its program runs.
pub(crate) fn begin(given: &mut StageInput) -> Step<RunningContainer> {
    if let Some(runtime) = given.config.other.take() {
        return other::begin(given, runtime);
    }
    let prepared = prepare(given)?;
    begin_with(given, prepared)
}

/// As [`begin`], for a container of an engine.
pub(crate) fn begin_for_engine(
    given: &mut StageInput,
    device: super::MoveDevice,
) -> Step<RunningContainer> {
    let prepared = prepare(given)?;
    begin_and_attend(given, prepared, Some(device))
}

/// As [`begin`], of what was opened before.
pub(crate) fn begin_with(
    given: &mut StageInput,
    prepared: ContainerInputs,
) -> Step<RunningContainer> {
    begin_and_attend(given, prepared, None)
}

fn begin_and_attend(
    given: &mut StageInput,
    prepared: ContainerInputs,
    device: Option<super::MoveDevice>,
) -> Step<RunningContainer> {
    let ContainerInputs { namespaces, sources } = prepared;
    let created = matches!(given.config.role, Role::Create(_));
    let gate = created.then(|| given.take()).transpose()?;
    let mut stdio = [None, None, None];
    if given.config.terminal.is_none() {
        for stream in &mut stdio {
            *stream = Some(given.take()?);
        }
    }
    let linux = given.config.spec.linux().as_ref();
    let linux = linux.ok_or_else(|| Failure::invalid("spec", "it has no linux section"))?;
    let adopts = borders::shares(&given.config.spec, LinuxNamespaceType::Pid);
    borders::close(given.config.scopes)?;
    namespaces.make_time(linux)?;
    let adopts = adopts && !created;
    if adopts {
        borders::adopt()?;
    }
    let cgroup = Cgroup::create(&given.config)?;
    if let Some(path) = cgroup.as_ref().and_then(|cgroup| cgroup.directories().pop()) {
        tracing::debug!(path = %path.display(), "made the cgroup");
    }
    let (ours, theirs) = UnixStream::pair().doing("making", "a socket")?;
    namespaces.give_streams(&stdio);
    let back = namespaces.enter_first()?;
    // SAFETY: a stage has one thread; that of the owners comes later.
    let forked = unsafe { namespaces.fork(cgroup.as_ref().and_then(Cgroup::unified)) };
    let forked = match forked {
        Err(error) => {
            cgroup.iter().for_each(Cgroup::remove);
            return Err(error).doing("making", "the container's process");
        }
        Ok(forked) => forked,
    };
    match forked {
        Side::Child => {
            drop(ours);
            let launch = Launch { given, stdio, sources, cgroup, namespaces, gate, report: theirs };
            super::exec::child(launch)
        }
        Side::Parent { pid, pidfd } => {
            drop((theirs, stdio, sources, std::mem::take(&mut given.passed)));
            drop(gate);
            tracing::debug!(pid, "made the process and its namespaces");
            let mut running =
                RunningContainer { cgroup, adopts, ..RunningContainer::joined(pid, pidfd) };
            let place = running.cgroup.as_ref().filter(|_| namespaces.new_user());
            let ready = namespaces::enter(back.iter())
                .and_then(|()| place.map_or(Ok(()), |cgroup| cgroup.join(pid)))
                .and_then(|()| namespaces.map_ids(pid, &ours))
                .and_then(|()| crate::engine::accompany(&given.config, pid, &ours, device))
                .and_then(|()| wait_ready(&ours));
            match ready {
                Ok(fds) if created => {
                    running.descriptors = fds;
                    Ok(running)
                }
                Ok(mut fds) => {
                    running.listener = if given.config.owners { fds.pop() } else { None };
                    running.terminal = fds.pop();
                    Ok(running)
                }
                Err(failure) => {
                    let _ = running.signal(Signal::KILL);
                    let status = ended(&running);
                    Err(if failure.reason == Reason::Lost { lost(status) } else { failure })
                }
            }
        }
    }
}

/// Says how the container's process ended before its program ran.
pub(crate) fn lost(status: ExitStatus) -> Failure {
    let how = match status {
        ExitStatus::Code(code) => format!("it exited with code {code}"),
        ExitStatus::Signal(signal) => format!("signal {signal} killed it"),
        ExitStatus::OutOfMemory(_) => "it ran out of memory".to_owned(),
    };
    Failure { action: String::new(), subject: how, errno: 0, reason: Reason::Lost }
}

/// Waits until the report of the child says that the program runs: `R`, then the end of the line
/// (the exec closed it). Gives its end of the terminal and of the filter, if there are such. `F` and a document is a failure, anything else a lost child.
pub(crate) fn wait_ready(mut report: &UnixStream) -> Step<Vec<OwnedFd>> {
    let mut bytes = [0; 1];
    let (count, fds) =
        sys::receive_fds(report, &mut bytes).doing("waiting for", "the container")?;
    let mut rest = Vec::new();
    report.read_to_end(&mut rest).doing("waiting for", "the container")?;
    let failure = match (count, bytes[0]) {
        (1, b'R') if rest.is_empty() => return Ok(fds),
        (1, b'R') => rest.get(1..),
        (1, b'F') => Some(&rest[..]),
        _ => None,
    };
    match failure.and_then(|json| serde_json::from_slice(json).ok()) {
        Some(failure) => Err(failure),
        None => Err(Failure { reason: Reason::Lost, ..Failure::invalid("", "nothing is known") }),
    }
}

impl RunningContainer {
    /// A container that another process has made, and left to this one.
    pub(crate) fn inherited(
        pid: u32,
        pidfd: OwnedFd,
        cgroups: &[PathBuf],
        adopts: bool,
    ) -> RunningContainer {
        let cgroup = Cgroup::inherit(cgroups);
        RunningContainer { cgroup, adopts, ..RunningContainer::joined(pid, pidfd) }
    }

    /// A program that joined a container.
    pub(crate) fn joined(pid: u32, pidfd: OwnedFd) -> RunningContainer {
        RunningContainer {
            pid,
            pidfd,
            terminal: None,
            listener: None,
            cgroup: None,
            adopts: false,
            descriptors: Vec::new(),
            other: None,
        }
    }

    pub(crate) fn signal(&self, signal: Signal) -> std::io::Result<()> {
        sys::pidfd_send_signal(self.pidfd.as_fd(), signal.0)
    }

    /// Ends every process of the container.
    pub(crate) fn kill(&self) {
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
        let _ = self.signal(Signal::KILL);
    }
}

/// Waits for the end of a container, finds out why, and removes its cgroup.
pub(crate) fn ended(container: &RunningContainer) -> ExitStatus {
    let status = outcome(container);
    release(container);
    status
}

fn wait_for(container: &RunningContainer, options: WaitIdOptions) -> Option<WaitIdStatus> {
    loop {
        match waitid(rustix::process::WaitId::PidFd(container.pidfd.as_fd()), options) {
            Err(rustix::io::Errno::INTR) => {}
            other => return other.ok().flatten(),
        }
    }
}

/// Waits for the end of a container and finds out why. What is left of it stays until [`release`].
pub(crate) fn outcome(container: &RunningContainer) -> ExitStatus {
    let status = wait_for(container, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
    let status = status.map_or(ExitStatus::Signal(libc::SIGKILL), read_status);
    let short = || container.cgroup.as_ref().is_some_and(Cgroup::out_of_memory);
    if !status.success() && short() { ExitStatus::OutOfMemory(status.code()) } else { status }
}

/// Collects what is left of a container that has ended, and removes its cgroup.
pub(crate) fn release(container: &RunningContainer) {
    wait_for(container, WaitIdOptions::EXITED);
    if container.adopts {
        borders::end_adopted();
    }
    if let Some(cgroup) = &container.cgroup {
        cgroup.kill();
        cgroup.remove();
    }
    if let Some(other) = &container.other {
        other.remove();
    }
}

pub(crate) fn read_status(status: WaitIdStatus) -> ExitStatus {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => ExitStatus::Code(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
        (_, Some(signal)) => ExitStatus::Signal(signal),
        _ => ExitStatus::Signal(libc::SIGKILL),
    }
}

/// Runs a container for a starter that waits on the line: bytes from it are signals, its end is
/// ours.
pub(crate) fn supervise(mut given: StageInput) -> Step {
    if borders::shares_processes(&given.config.spec) {
        guard()?;
    }
    let line = given.line.try_clone().doing("copying", "a socket")?;
    let mut running = begin(&mut given)?;
    if let Some(listener) = running.listener.take()
        && let Err(failure) = super::owners::answer(listener)
    {
        running.kill();
        ended(&running);
        return Err(failure);
    }
    let cgroups = running.cgroup.as_ref().map(Cgroup::directories).unwrap_or_default();
    let started = Answer::Started(StartReport { pid: running.pid, cgroups });
    let terminal = running.terminal.take();
    let told = stage::answer(&line, &started, terminal.as_ref().map(AsFd::as_fd));
    drop(terminal);
    if told.is_err() {
        running.kill();
    }
    tracing::debug!(pid = running.pid, "the program runs");
    follow(&running, &line, true);
    let status = ended(&running);
    tracing::debug!(pid = running.pid, ?status, "the program ended");
    let _ = stage::answer(&line, &Answer::Exited(status), None);
    Ok(())
}

/// Puts a process above this one that ends what a killed supervisor leaves: there is no pid namespace
/// whose end would do it. It keeps the line to the starter open until it has.
fn guard() -> Step {
    borders::adopt()?;
    // SAFETY: a stage has one thread.
    let supervisor = unsafe { sys::plain_fork() }.doing("starting", "the supervisor")?;
    if supervisor == 0 {
        // Who kills the one by its process group misses the other.
        return rustix::process::setpgid(None, None).doing("starting", "a process group");
    }
    let pid = i32::try_from(supervisor).ok().and_then(Pid::from_raw);
    let code = loop {
        match rustix::process::waitpid(pid, WaitOptions::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other.ok().flatten().and_then(|(_, status)| status.exit_status()),
        }
    };
    if code.is_none() {
        borders::end_adopted();
    }
    sys::exit(code.unwrap_or(125))
}

/// Passes signals on until the program ends. When the starter is gone the program is killed, if it
/// is `bound` to it.
pub(crate) fn follow(container: &RunningContainer, mut line: &UnixStream, bound: bool) {
    let mut listening = true;
    loop {
        let mut fds = vec![PollFd::new(&container.pidfd, PollFlags::IN)];
        if listening {
            fds.push(PollFd::from_borrowed_fd(line.as_fd(), PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return container.kill(),
        }
        if !fds[0].revents().is_empty() {
            return;
        }
        if fds.get(1).is_some_and(|fd| !fd.revents().is_empty()) {
            let mut signal = [0];
            match line.read(&mut signal) {
                Ok(1) if i32::from(signal[0]) == libc::SIGKILL => container.kill(),
                Ok(1) => drop(container.signal(Signal(signal[0].into()))),
                Ok(_) | Err(_) => {
                    listening = false;
                    if bound {
                        container.kill();
                    }
                }
            }
        }
    }
}
