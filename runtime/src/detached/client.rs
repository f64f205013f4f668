//! The user's side of a detached container: attaching, executing, waiting.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use task::Task;

use super::wire::{self, FrameKind, Frames, Request};
use super::{AttachOptions, AttachOutcome, State, Status, record, state};
use crate::descriptors::LentDescriptors;
use crate::stage::{Answer, Answers};
use crate::streams::{Carrier, ProgramPipes, is_readable, write_all};
use crate::terminal::{DetachKeys, KeyInput, Raw, Signals, size};
use crate::{Error, Exec, ExitStatus, Result, Signal, sys};

/// How long to wait between two looks where nothing tells of a change.
const STEP: Duration = Duration::from_millis(20);

/// Three streams that stand in for the standard ones.
pub type Streams3<'a> = [BorrowedFd<'a>; 3];

/// Connects to the monitor. The socket's path may be longer than a name can be.
pub(super) fn connect(dir: &Path) -> Result<UnixStream> {
    let missing = |source| Error::NoContainer { path: dir.to_owned(), source };
    let directory = File::open(dir).map_err(missing)?;
    match UnixStream::connect(format!("/proc/self/fd/{}/socket", directory.as_raw_fd())) {
        Ok(socket) => Ok(socket),
        Err(_) => {
            let state = state(dir)?;
            if state.status == Status::Running && state.monitor == 0 {
                return Err(Error::Lost { process: "monitor" });
            }
            Err(Error::NotRunning { path: dir.to_owned(), state: state.status.as_str() })
        }
    }
}

fn lost<T>(_: T) -> Error {
    Error::Lost { process: "monitor" }
}

/// How long the end of a container takes after that of what runs in it.
const END: Duration = Duration::from_secs(5);

/// What is ready of the things a client waits for.
struct Ready {
    line: bool,
    signals: bool,
    input: bool,
    terminal: bool,
}

fn wait_ready(
    line: &UnixStream,
    signals: &Signals,
    input: Option<BorrowedFd<'_>>,
    terminal: Option<BorrowedFd<'_>>,
) -> Ready {
    let mut fds = vec![PollFd::new(line, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
    fds.extend(input.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
    fds.extend(terminal.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
    if poll(&mut fds, None).is_err() {
        return Ready { line: false, signals: false, input: false, terminal: false };
    }
    let any = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
    let with_input = usize::from(input.is_some());
    Ready {
        line: any(0),
        signals: any(1),
        input: input.is_some() && any(2),
        terminal: terminal.is_some() && any(2 + with_input),
    }
}

/// See [`super::attach`].
pub(super) fn attach(
    dir: &Path,
    options: &AttachOptions,
    streams: Streams3<'_>,
    task: &Task,
) -> Result<AttachOutcome> {
    let mut options = options.clone();
    loop {
        let monitor = state(dir)?.monitor;
        match attach_once(dir, &options, streams, task) {
            // The monitor was killed; what takes over has another number.
            Err(Error::Lost { .. }) if succeeded(dir, monitor)? => {
                task.check()?;
                options.replay = false;
            }
            // It ended before anybody else could say so.
            Err(Error::Lost { .. }) => return ended(dir).map(AttachOutcome::Exited),
            other => return other,
        }
    }
}

/// Whether another monitor than this watches the container by now.
fn succeeded(dir: &Path, monitor: u32) -> Result<bool> {
    loop {
        let state = state(dir)?;
        if state.status != Status::Running || state.monitor == 0 {
            return Ok(false);
        }
        if state.monitor != monitor {
            return Ok(true);
        }
        // Who takes over is about to write it down.
        std::thread::sleep(STEP);
    }
}

fn attach_once(
    dir: &Path,
    options: &AttachOptions,
    streams: Streams3<'_>,
    task: &Task,
) -> Result<AttachOutcome> {
    let terminal = state(dir)?.terminal;
    let socket = connect(dir)?;
    let _hook = cut_on_cancel(&socket, task)?;
    wire::ask(&socket, &Request::Attach { replay: options.replay }).map_err(lost)?;
    let signals = Signals::watch(options.forward_signals, terminal).map_err(lost)?;
    let _raw = (terminal && options.input).then(|| Raw::enter(streams[0]));
    let mut client = Attachment {
        socket,
        frames: Frames::default(),
        keys: DetachKeys::new(&options.detach_keys),
        streams,
        input: options.input,
        terminal,
    };
    client.resize();
    loop {
        let input = client.input.then_some(streams[0]);
        let ready = wait_ready(&client.socket, &signals, input, None);
        task.check()?;
        if ready.signals {
            client.pass_signals(&signals);
        }
        if ready.input && client.pass_input() {
            return Ok(AttachOutcome::Detached);
        }
        if ready.line
            && let Some(status) = client.pass_output()?
        {
            return Ok(AttachOutcome::Exited(status));
        }
    }
}

/// Ends a conversation when the task is cancelled.
fn cut_on_cancel(socket: &UnixStream, task: &Task) -> Result<task::Hook> {
    let copy = socket.try_clone().map_err(lost)?;
    Ok(task.on_cancel(move || drop(copy.shutdown(std::net::Shutdown::Both))))
}

struct Attachment<'a> {
    socket: UnixStream,
    frames: Frames,
    keys: DetachKeys,
    streams: Streams3<'a>,
    input: bool,
    terminal: bool,
}

impl Attachment<'_> {
    /// A monitor that is gone shows when reading from it.
    fn send(&mut self, kind: FrameKind, payload: &[u8]) {
        let _ = self.socket.write_all(&wire::frame(kind, payload));
    }

    fn resize(&mut self) {
        if let (true, Some((rows, columns))) = (self.terminal, size(self.streams)) {
            let [a, b] = rows.to_le_bytes();
            let [c, d] = columns.to_le_bytes();
            self.send(FrameKind::Resize, &[a, b, c, d]);
        }
    }

    fn pass_signals(&mut self, signals: &Signals) {
        for signal in signals.caught() {
            if signal == libc::SIGWINCH {
                self.resize();
            } else if let Ok(number) = u8::try_from(signal) {
                self.send(FrameKind::Signal, &[number]);
            }
        }
    }

    /// Whether the user wants to detach.
    fn pass_input(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        let count = match rustix::io::read(self.streams[0], &mut buffer) {
            Ok(count) => count,
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => return false,
            Err(_) => 0,
        };
        if count == 0 {
            self.input = false;
            self.send(FrameKind::Input, &[]);
            return false;
        }
        let (bytes, detach) = match self.keys.press(&buffer[..count]) {
            KeyInput::Detach(bytes) => (bytes, true),
            KeyInput::Keys(bytes) => (bytes, false),
        };
        if !bytes.is_empty() {
            self.send(FrameKind::Input, &bytes);
        }
        detach
    }

    /// The container's end, if it came.
    fn pass_output(&mut self) -> Result<Option<ExitStatus>> {
        let mut buffer = [0; 32 << 10];
        let count = match self.socket.read(&mut buffer) {
            Ok(0) => return Err(lost(())),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(None),
            other => other.map_err(lost)?,
        };
        self.frames.push(&buffer[..count]);
        while let Some((kind, payload)) = self.frames.next().map_err(lost)? {
            // Who closed our output still wants to know the end.
            match kind {
                FrameKind::Stdout => drop(write_all(self.streams[1], &payload)),
                FrameKind::Stderr => drop(write_all(self.streams[2], &payload)),
                FrameKind::Exit => return serde_json::from_slice(&payload).map(Some).map_err(lost),
                _ => {}
            }
        }
        Ok(None)
    }
}

/// See [`super::exec`].
pub(super) fn exec(
    dir: &Path,
    exec: &Exec,
    options: &AttachOptions,
    streams: Streams3<'_>,
    task: &Task,
) -> Result<AttachOutcome> {
    let first = state(dir)?.pid;
    let socket = connect(dir)?;
    let _hook = cut_on_cancel(&socket, task)?;
    let opened = pipes(exec, streams).map_err(Error::system("opening", "the standard streams"))?;
    let (theirs, carrier) = match opened {
        Some((theirs, carrier)) => (Vec::from(theirs), carrier),
        None => Default::default(),
    };
    let lent = LentDescriptors::new(&exec.descriptors)?;
    let fds: Vec<BorrowedFd<'_>> = theirs.iter().map(AsFd::as_fd).chain(lent.as_fds()).collect();
    let mut request = serde_json::to_vec(&Request::Exec(Box::new(exec.clone()))).map_err(lost)?;
    request.push(b'\n');
    sys::send_fds(&socket, &request, &fds).map_err(lost)?;
    drop((theirs, lent));
    let mut answers = Answers::new(socket);
    let (answer, terminal) = answers.next().ok_or(Error::Lost { process: "exec stage" })?;
    match answer {
        Answer::Failed(failure) => return Err(failure.into()),
        Answer::Exited(status) => return Ok(AttachOutcome::Exited(status)),
        Answer::Started(_) if exec.detach => return Ok(AttachOutcome::Detached),
        Answer::Started(_) => {}
    }
    let options = AttachOptions { input: exec.interactive, ..options.clone() };
    let ended = carrier
        .carry(task, || converse(&mut answers, terminal.as_ref(), &options, streams, task))
        .map_err(Error::system("making", "a pipe"))?;
    match ended {
        // With the container ends what runs in it.
        Err(Error::Lost { .. }) if has_ended(dir, first, task) => {
            Ok(AttachOutcome::Exited(ExitStatus::Signal(libc::SIGKILL)))
        }
        ended => ended,
    }
}

/// Whether the container with this first process has ended, or is just ending.
fn has_ended(dir: &Path, first: u32, task: &Task) -> bool {
    let until = Instant::now() + END;
    loop {
        match state(dir) {
            Ok(now) if now.status == Status::Running && now.pid == first => {}
            _ => return true,
        }
        if Instant::now() > until || task.check().is_err() {
            return false;
        }
        std::thread::sleep(STEP);
    }
}

/// Pipes for a program that has no terminal.
fn pipes(exec: &Exec, streams: Streams3<'_>) -> io::Result<Option<(ProgramPipes, Carrier)>> {
    match (exec.terminal, exec.detach) {
        (Some(_), _) => Ok(None),
        (None, true) => Carrier::null().map(Some),
        (None, false) => {
            let copy = |stream: usize| streams[stream].try_clone_to_owned();
            let input = exec.interactive.then(|| copy(0)).transpose()?;
            Carrier::to_files(input, copy(1)?, copy(2)?).map(Some)
        }
    }
}

/// Stays with a program that a stage watches: passes its terminal, if any, and signals, until it
/// ends.
pub(crate) fn converse(
    answers: &mut Answers,
    terminal: Option<&OwnedFd>,
    options: &AttachOptions,
    streams: Streams3<'_>,
    task: &Task,
) -> Result<AttachOutcome> {
    let signals = Signals::watch(options.forward_signals, terminal.is_some()).map_err(lost)?;
    let _raw = (terminal.is_some() && options.input).then(|| Raw::enter(streams[0]));
    let mut keys = DetachKeys::new(&options.detach_keys);
    let mut input = options.input && terminal.is_some();
    let mut reading = true;
    loop {
        let shown = terminal.filter(|_| reading).map(AsFd::as_fd);
        let ready = wait_ready(answers.line(), &signals, input.then_some(streams[0]), shown);
        task.check()?;
        for signal in if ready.signals { signals.caught() } else { Vec::new() } {
            match (terminal, u8::try_from(signal)) {
                (Some(terminal), _) if signal == libc::SIGWINCH => resize(terminal, streams),
                (_, Ok(number)) => drop(answers.line().write_all(&[number])),
                _ => {}
            }
        }
        if let (true, Some(terminal)) = (ready.terminal, terminal) {
            reading = show(terminal, streams[1]);
        }
        if let (true, Some(terminal)) = (ready.input, terminal) {
            match take(streams[0], &mut keys) {
                None => input = false,
                Some(KeyInput::Detach(bytes)) => {
                    let _ = write_all(terminal.as_fd(), &bytes);
                    return Ok(AttachOutcome::Detached);
                }
                Some(KeyInput::Keys(bytes)) => drop(write_all(terminal.as_fd(), &bytes)),
            }
        }
        if ready.line {
            let answer = answers.next();
            while let (true, Some(terminal)) = (reading, terminal) {
                reading = is_readable(terminal.as_fd()) && show(terminal, streams[1]);
            }
            return match answer {
                Some((Answer::Exited(status), _)) => Ok(AttachOutcome::Exited(status)),
                _ => Err(Error::Lost { process: "exec stage" }),
            };
        }
    }
}

fn resize(terminal: &OwnedFd, streams: Streams3<'_>) {
    if let Some((rows, columns)) = size(streams) {
        let size =
            rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let _ = rustix::termios::tcsetwinsize(terminal, size);
    }
}

/// Forwards the output of the terminal; false when it is closed everywhere.
fn show(terminal: &OwnedFd, to: BorrowedFd<'_>) -> bool {
    let mut buffer = [0; 16 << 10];
    match rustix::io::read(terminal, &mut buffer) {
        Ok(0) => false,
        Ok(count) => {
            let _ = write_all(to, &buffer[..count]);
            true
        }
        Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => true,
        Err(_) => false,
    }
}

/// Reads what the user types; nothing at the end of input.
fn take(from: BorrowedFd<'_>, keys: &mut DetachKeys) -> Option<KeyInput> {
    let mut buffer = [0; 4096];
    match rustix::io::read(from, &mut buffer) {
        Ok(0) => None,
        Ok(count) => Some(keys.press(&buffer[..count])),
        Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => Some(KeyInput::Keys(Vec::new())),
        Err(_) => None,
    }
}

/// See [`super::signal`].
pub(super) fn signal(dir: &Path, signal: Signal) -> Result<()> {
    match connect(dir) {
        Ok(socket) => {
            wire::ask(&socket, &Request::Signal(signal.0)).map_err(lost)?;
            wire::read_frame(&socket).map(drop).map_err(lost)
        }
        Err(error @ (Error::NotRunning { .. } | Error::Lost { .. })) => {
            let state = state(dir)?;
            match open_process(&state) {
                Some(pidfd) => signal_unwatched(&state, &pidfd, signal),
                None => Err(error),
            }
        }
        Err(error) => Err(error),
    }
}

/// The first process of a container without a monitor, if it lives.
fn open_process(state: &State) -> Option<OwnedFd> {
    if state.status != Status::Running || state.monitor != 0 {
        return None;
    }
    let pid = rustix::process::Pid::from_raw(i32::try_from(state.pid).ok()?)?;
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()?;
    // Now the number cannot become another's.
    is_alive(state).then_some(pidfd)
}

/// Whether the first process that a state names is still that one, and lives.
pub(super) fn is_alive(state: &State) -> bool {
    state.birth != 0 && record::birth(state.pid) == Some(state.birth)
}

fn signal_unwatched(state: &State, pidfd: &OwnedFd, signal: Signal) -> Result<()> {
    if signal == Signal::KILL {
        crate::cgroup::end(&state.cgroups);
    }
    match sys::pidfd_send_signal(pidfd.as_fd(), signal.0) {
        Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
            Err(Error::system("signalling", "the container")(error))
        }
        _ => Ok(()),
    }
}

/// Waits for the end of a container without a monitor; whether it has ended.
fn wait_unwatched(
    state: &State,
    pidfd: &OwnedFd,
    until: Option<Instant>,
    task: &Task,
) -> Result<bool> {
    loop {
        task.check()?;
        let left = until.map_or(STEP, |until| until.saturating_duration_since(Instant::now()));
        let step =
            rustix::event::Timespec { tv_sec: 0, tv_nsec: left.min(STEP).subsec_nanos().into() };
        let ended = poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&step));
        if ended.is_ok_and(|count| count > 0) {
            crate::cgroup::remove(&state.cgroups);
            return Ok(true);
        }
        if left.is_zero() {
            return Ok(false);
        }
    }
}

/// Waits for the end, at most this long; nothing if it did not come.
pub(super) fn wait(
    dir: &Path,
    patience: Option<Duration>,
    task: &Task,
) -> Result<Option<ExitStatus>> {
    let patience = patience.filter(|time| !time.is_zero());
    let until = patience.map(|patience| Instant::now() + patience);
    loop {
        let monitor = state(dir)?.monitor;
        let socket = match connect(dir) {
            Err(Error::NotRunning { .. } | Error::Lost { .. }) => {
                let state = state(dir)?;
                return match open_process(&state) {
                    Some(pidfd) if !wait_unwatched(&state, &pidfd, until, task)? => Ok(None),
                    _ => ended(dir).map(Some),
                };
            }
            other => other?,
        };
        let _hook = cut_on_cancel(&socket, task)?;
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(None);
        }
        socket.set_read_timeout(left).map_err(lost)?;
        // A monitor that is just ending hears nothing more, but has written the end down.
        let frame = wire::ask(&socket, &Request::Wait).and_then(|()| wire::read_frame(&socket));
        task.check()?;
        return match frame {
            Ok((FrameKind::Exit, payload)) => {
                serde_json::from_slice(&payload).map(Some).map_err(lost)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            _ if succeeded(dir, monitor)? => continue,
            _ => ended(dir).map(Some),
        };
    }
}

/// See [`super::check_health`].
pub(super) fn check_health(dir: &Path, task: &Task) -> Result<ExitStatus> {
    let socket = connect(dir)?;
    let _hook = cut_on_cancel(&socket, task)?;
    wire::ask(&socket, &Request::Check).map_err(lost)?;
    let frame = wire::read_frame(&socket);
    task.check()?;
    match frame {
        Ok((FrameKind::Exit, payload)) => serde_json::from_slice(&payload).map_err(lost),
        _ => Err(Error::invalid("health check", "the container has none, or ended meanwhile")),
    }
}

/// How a container whose monitor does not answer any more ended.
fn ended(dir: &Path) -> Result<ExitStatus> {
    let missing = |source| Error::NoContainer { path: dir.to_owned(), source };
    let lock = File::open(dir.join("lock")).map_err(missing)?;
    // The monitor holds this to its very end, which is near.
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockShared).map_err(lost)?;
    drop(lock);
    let state = state(dir)?;
    match (state.status, state.exit) {
        (Status::Exited, Some(exit)) => Ok(exit),
        _ => Err(lost(())),
    }
}
