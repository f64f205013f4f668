//! The process that owns a detached container: its streams, its log, its end.
//!
//! One thread, one loop. A client that does not read holds the container's output back, as a
//! terminal that was stopped does; nothing is dropped.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Pid;

use super::clients::{Client, ClientState, Replay};
use super::guard::Line;
use super::health::{self, Checks, Judgement};
use super::record::{self, Log};
use super::setup::PIPE;
use super::wire::{self, FrameKind, Frames, Request};
use super::{HealthStatus, State, Status};
use crate::cgroup::Cgroup;
use crate::init::{self, Hooks, RunningContainer};
use crate::stage::{self, Answer, Failure, MonitorOptions, Role, StageConfig, StageInput};
use crate::{ExitStatus, OnFailure, Signal, sys};

/// More than this is not kept for one client, or for the container's input.
const MAX_BACKLOG: usize = 256 << 10;

/// How long output, and a program's end, wait for the first client of a container that was started
/// to be attached to.
const HOLD: Duration = Duration::from_secs(5);

/// How long an unhealthy container gets to stop, unless it was told otherwise.
const PATIENCE: u32 = 10;

/// There when a container that ends is to be started again at once, whatever its policy says.
pub const RESTART_MARK: &str = "restart-now";

/// What a monitor works with: made by it, or taken over from one that was killed.
pub(super) struct MonitorState {
    pub(super) given: StageInput,
    pub(super) running: RunningContainer,
    pub(super) listener: UnixListener,
    /// Output and errors, or the terminal twice.
    pub(super) outputs: [Option<OwnedFd>; 2],
    pub(super) input: Option<OwnedFd>,
    pub(super) directory: OwnedFd,
    pub(super) state: State,
    /// The process that would take over, if there is one.
    pub(super) guard: Option<Line>,
    pub(super) hooks: Hooks,
}

pub(super) struct Monitor {
    parts: MonitorState,
    watch: MonitorOptions,
    clients: Vec<Client>,
    joined: Vec<Child>,
    /// Where it has taken over: what the monitor before it has left.
    orphans: Option<init::Orphans>,
    /// Processes that call a hook.
    calling: Vec<Pid>,
    to_input: VecDeque<u8>,
    input_ends: bool,
    replay: Replay,
    log: Log,
    checks: Option<Checks>,
    /// Until when the first client is waited for.
    held: Option<Instant>,
    /// When the container is killed.
    kill_at: Option<Instant>,
    /// Whether the program has ended.
    over: bool,
}

/// How much is read of a pipe of the container at a time: the less it is, the nearer to each other
/// stay lines of output and errors that were written one after the other.
const PIECE: usize = 1024;

/// What the loop found ready.
#[derive(Default)]
struct Ready {
    ended: bool,
    connect: bool,
    outputs: [bool; 2],
    input: bool,
    health: bool,
    clients: Vec<(bool, bool)>,
}

impl Monitor {
    /// A monitor without clients. `held`: the first client is waited for.
    pub(super) fn new(parts: MonitorState, held: bool, resumed: bool) -> io::Result<Monitor> {
        let watch = match &parts.given.config.role {
            Role::Monitor { watch, .. } => (**watch).clone(),
            _ => MonitorOptions::default(),
        };
        let now = Instant::now();
        let checks = watch
            .health
            .clone()
            .map(|check| Checks::open(check, parts.directory.try_clone()?, now, resumed));
        let timeout = Some(watch.timeout).filter(|seconds| *seconds > 0);
        Ok(Monitor {
            log: Log::open(&parts.directory, watch.log)?,
            checks: checks.transpose()?,
            kill_at: timeout.map(|seconds| now + Duration::from_secs(seconds.into())),
            parts,
            watch,
            clients: Vec::new(),
            joined: Vec::new(),
            orphans: resumed.then(init::Orphans::watch).transpose()?,
            calling: Vec::new(),
            to_input: VecDeque::new(),
            input_ends: false,
            replay: Replay::default(),
            held: held.then(|| now + HOLD),
            over: false,
        })
    }

    /// The container's life to its end; gives its directory.
    pub(super) fn run(mut self) -> Option<PathBuf> {
        let exit = self.watch();
        let state = &mut self.parts.state;
        state.finished = Some(record::now());
        (state.status, state.pid, state.monitor, state.exit) = (Status::Exited, 0, 0, Some(exit));
        // A full disk costs the record of the end; waiting clients get it all the same.
        let _ = record::write_state(&self.parts.directory, &self.parts.state);
        let _ = rustix::fs::unlinkat(&self.parts.directory, "socket", rustix::fs::AtFlags::empty());
        self.farewell(exit);
        if let Some(guard) = self.parts.guard.take() {
            guard.release();
        }
        record::path(&self.parts.directory)
    }

    /// Serves until the container has ended and its output is read.
    fn watch(&mut self) -> ExitStatus {
        loop {
            let ready = self.wait();
            if ready.connect
                && let Ok((socket, _)) = self.parts.listener.accept()
                && socket.set_nonblocking(true).is_ok()
            {
                self.clients.push(Client::new(socket));
            }
            for stream in (0..2).filter(|stream| ready.outputs[*stream]) {
                self.read_once(stream);
            }
            if ready.input {
                self.write_input();
            }
            for (index, (readable, writable)) in ready.clients.into_iter().enumerate() {
                if readable {
                    self.serve(index);
                }
                if writable {
                    self.clients[index].send(&[]);
                }
            }
            self.clients.retain(|client| !client.gone);
            self.joined.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
            self.calling.retain(|pid| {
                let waited =
                    rustix::process::waitpid(Some(*pid), rustix::process::WaitOptions::NOHANG);
                matches!(waited, Ok(None))
            });
            self.collect_orphans();
            self.over |= ready.ended;
            if self.held.is_some_and(|until| Instant::now() >= until) {
                self.held = None;
            }
            if !self.over {
                self.keep_time(ready.health);
            }
            // Who started it to attach to it may come just after a short program.
            if self.over && self.held.is_none() {
                return self.end();
            }
        }
    }

    fn collect_orphans(&self) {
        let Some(orphans) = &self.orphans else { return };
        let joined = self.joined.iter().map(Child::id).chain([self.parts.state.pid]);
        let joined = joined.filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        orphans.collect(&joined.chain(self.calling.iter().copied()).collect::<Vec<_>>());
    }

    /// Finds out how the program ended, and reads what it has left in the pipes.
    fn end(&mut self) -> ExitStatus {
        let known = self.parts.state.exit;
        let exit = known.unwrap_or_else(|| init::outcome(&self.parts.running));
        // Once it is collected it can no longer be read.
        self.parts.state.exit = Some(exit);
        tracing::debug!(pid = self.parts.state.pid, ?exit, "the program ended");
        let _ = record::write_state(&self.parts.directory, &self.parts.state);
        init::release(&self.parts.running);
        // Every writer is gone or killed; what they wrote is still there.
        while self.read_once(0) | self.read_once(1) {}
        self.log.finish();
        exit
    }

    /// What is done at certain times, and the checks of health.
    fn keep_time(&mut self, health: bool) {
        let now = Instant::now();
        if self.kill_at.is_some_and(|at| now >= at) {
            self.kill_at = None;
            tracing::debug!("killing the container: its time is over");
            self.parts.running.kill();
        }
        let Some(mut checks) = self.checks.take() else { return };
        if checks.is_due(now) {
            let started = self.start_check(checks.command());
            checks.started(started, now);
        }
        if let Some(verdict) = checks.turn(now, health) {
            self.heed(&verdict);
        }
        self.checks = Some(checks);
    }

    /// When the next of these is due.
    fn deadline(&self) -> Option<Instant> {
        let check = self.checks.as_ref().and_then(Checks::deadline).filter(|_| !self.over);
        [self.held, self.kill_at.filter(|_| !self.over), check].into_iter().flatten().min()
    }

    /// Does what a check that ended asks for.
    fn heed(&mut self, verdict: &Judgement) {
        let told = serde_json::to_vec(&ExitStatus::Code(verdict.code)).unwrap_or_default();
        for client in &mut self.clients {
            if matches!(client.state, ClientState::Checking) {
                client.send(&wire::frame(FrameKind::Exit, &told));
                client.state = ClientState::Waiting;
            }
        }
        let Some(status) = verdict.changed else { return };
        tracing::debug!(status = status.as_str(), "the health has changed");
        self.call(status);
        if status != HealthStatus::Unhealthy {
            return;
        }
        match self.watch.health.as_ref().map(|check| check.on_failure).unwrap_or_default() {
            OnFailure::None => {}
            OnFailure::Kill => self.parts.running.kill(),
            OnFailure::Stop => self.stop(),
            OnFailure::Restart => {
                let flags = rustix::fs::OFlags::TRUNC;
                let _ = record::create(&self.parts.directory, RESTART_MARK, flags);
                self.stop();
            }
        }
    }

    /// Asks the container to stop; kills it after a while.
    fn stop(&mut self) {
        self.signal(self.watch.stop_signal.unwrap_or(Signal::TERM).0);
        let patience = self.watch.stop_timeout.unwrap_or(PATIENCE);
        let at = Instant::now() + Duration::from_secs(patience.into());
        self.kill_at = Some(self.kill_at.map_or(at, |other| other.min(at)));
    }

    /// Calls the hook for a change of health in a process of its own: what it needs of memory goes
    /// with it.
    fn call(&mut self, status: HealthStatus) {
        let Some(directory) = record::path(&self.parts.directory) else { return };
        // SAFETY: a monitor has one thread.
        match unsafe { sys::plain_fork() } {
            Ok(0) => {
                (self.parts.hooks.health)(&directory, status);
                sys::exit(0)
            }
            Ok(pid) => {
                let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
                self.calling.extend(pid);
            }
            Err(error) => tracing::debug!(%error, "a change of health is not told"),
        }
    }

    /// Starts the program that checks, with a pipe for what it says.
    fn start_check(&mut self, command: &[String]) -> io::Result<health::RunningCheck> {
        let (ours, theirs) = UnixStream::pair()?;
        let (output, writer) = io::pipe()?;
        let null = std::fs::File::open("/dev/null")?;
        let streams = [OwnedFd::from(null), writer.try_clone()?.into(), writer.into()];
        let exec = crate::Exec { args: command.to_vec(), ..crate::Exec::default() };
        self.join(&theirs, &streams, Box::new(exec));
        Ok(health::RunningCheck::new(ours, output.into()))
    }

    fn wait(&mut self) -> Ready {
        let backlogged = self.clients.iter().any(|client| client.backlog.len() > MAX_BACKLOG);
        let reading = self.held.is_none() && !backlogged;
        let timeout = self.deadline().map(|at| {
            // A little later is never too early.
            let left = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        let ends = if self.over { PollFlags::empty() } else { PollFlags::IN };
        let mut fds = vec![
            PollFd::new(&self.parts.running.pidfd, ends),
            PollFd::new(&self.parts.listener, PollFlags::IN),
        ];
        let mut outputs = [None, None];
        for (stream, output) in self.parts.outputs.iter().enumerate() {
            if let (Some(output), true) = (output, reading) {
                outputs[stream] = Some(fds.len());
                fds.push(PollFd::from_borrowed_fd(output.as_fd(), PollFlags::IN));
            }
        }
        let input = match &self.parts.input {
            Some(input) if !self.to_input.is_empty() => {
                fds.push(PollFd::from_borrowed_fd(input.as_fd(), PollFlags::OUT));
                Some(fds.len() - 1)
            }
            _ => None,
        };
        if let Some(orphans) = &self.orphans {
            fds.push(PollFd::new(orphans, PollFlags::IN));
        }
        let checks = fds.len();
        for fd in self.checks.iter().flat_map(Checks::fds) {
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
        }
        let first = fds.len();
        let full = self.to_input.len() > MAX_BACKLOG;
        for client in &self.clients {
            let mut wanted = if full { PollFlags::empty() } else { PollFlags::IN };
            if !client.backlog.is_empty() {
                wanted |= PollFlags::OUT;
            }
            fds.push(PollFd::from_borrowed_fd(client.socket.as_fd(), wanted));
        }
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(_) => return Ready::default(),
        }
        let any = |index: usize| !fds[index].revents().is_empty();
        let readable = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
        Ready {
            ended: any(0),
            connect: any(1),
            outputs: outputs.map(|index| index.is_some_and(any)),
            input: input.is_some_and(any),
            health: (checks..first).any(any),
            clients: fds[first..]
                .iter()
                .map(|fd| {
                    (fd.revents().intersects(readable), fd.revents().contains(PollFlags::OUT))
                })
                .collect(),
        }
    }

    /// Reads a piece of a stream, for the log and everybody attached; false where there is none.
    fn read_once(&mut self, stream: usize) -> bool {
        let mut buffer = [0; PIPE];
        let Some(output) = &self.parts.outputs[stream] else { return false };
        let size = if self.parts.outputs.iter().all(Option::is_some) { PIECE } else { PIPE };
        match rustix::io::read(output, &mut buffer[..size]) {
            Ok(count) if count > 0 => self.spread(stream, &buffer[..count]),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return false,
            // The end of a pipe; a terminal answers EIO when no process has it open.
            Ok(_) | Err(_) => self.parts.outputs[stream] = None,
        }
        true
    }

    fn spread(&mut self, stream: usize, bytes: &[u8]) {
        self.log.write(stream, bytes);
        let kind = [FrameKind::Stdout, FrameKind::Stderr][stream];
        let frame = wire::frame(kind, bytes);
        for client in self
            .clients
            .iter_mut()
            .filter(|client| matches!(client.state, ClientState::Attached(_)))
        {
            client.send(&frame);
        }
        self.replay.push(stream, bytes);
    }

    fn write_input(&mut self) {
        let Some(input) = &self.parts.input else { return self.to_input.clear() };
        while !self.to_input.is_empty() {
            match rustix::io::write(input, self.to_input.as_slices().0) {
                Ok(count) => drop(self.to_input.drain(..count)),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return,
                Err(_) => {
                    self.to_input.clear();
                    self.parts.input = None;
                    return;
                }
            }
        }
        // The end of a terminal's input is a key; that of a pipe is its closing.
        if self.input_ends && self.parts.given.config.terminal.is_none() {
            self.parts.input = None;
            if let Some(guard) = &self.parts.guard {
                guard.close_input();
            }
        }
    }

    /// Reads from a client and does what it says.
    fn serve(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let mut buffer = [0; 16 << 10];
        let bytes = match sys::receive_fds(&client.socket, &mut buffer) {
            Ok((0, _)) => return client.gone = true,
            Ok((count, fds)) => {
                client.fds.extend(fds);
                client.fds.truncate(sys::MAX_FDS);
                &buffer[..count]
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => return client.gone = true,
        };
        match &mut client.state {
            ClientState::Waiting | ClientState::Checking => {}
            ClientState::Asking(incoming) => match incoming.push(bytes) {
                Ok(None) => {}
                Ok(Some((request, rest))) => self.answer(index, request, &rest),
                Err(_) => client.gone = true,
            },
            ClientState::Attached(frames) => {
                frames.push(bytes);
                self.obey(index);
            }
        }
    }

    fn answer(&mut self, index: usize, request: Request, rest: &[u8]) {
        match request {
            Request::Wait => self.clients[index].state = ClientState::Waiting,
            Request::Signal(number) => {
                self.signal(number);
                self.clients[index].send(&wire::frame(FrameKind::Ok, &[]));
                self.clients[index].state = ClientState::Waiting;
            }
            Request::Attach { replay } => {
                self.held = None;
                let mut frames = Frames::default();
                frames.push(rest);
                let client = &mut self.clients[index];
                client.state = ClientState::Attached(frames);
                for (stream, bytes) in self.replay.pieces.iter().filter(|_| replay) {
                    client
                        .send(&wire::frame([FrameKind::Stdout, FrameKind::Stderr][*stream], bytes));
                }
                self.obey(index);
            }
            Request::Check => match &mut self.checks {
                None => self.clients[index].gone = true,
                Some(checks) => {
                    checks.ask();
                    self.clients[index].state = ClientState::Checking;
                }
            },
            Request::Exec(exec) => {
                let client = &mut self.clients[index];
                client.gone = true;
                let socket = client.socket.try_clone();
                let fds = std::mem::take(&mut client.fds);
                if let Ok(socket) = socket {
                    self.join(&socket, &fds, exec);
                }
            }
        }
    }

    /// Starts one more program; its stage talks to the client itself.
    fn join(&mut self, socket: &UnixStream, streams: &[OwnedFd], exec: Box<crate::Exec>) {
        let _ = socket.set_nonblocking(false);
        let ours = &self.parts.given.config;
        let config = StageConfig {
            spec: ours.spec.clone(),
            id: ours.id.clone(),
            init: false,
            filter_flags: ours.filter_flags,
            owners: false,
            user_namespace: ours.user_namespace,
            scopes: 0,
            terminal: exec.terminal,
            descriptors: exec.descriptors.clone(),
            other: None,
            role: Role::Join {
                exec,
                cgroups: self
                    .parts
                    .running
                    .cgroup
                    .as_ref()
                    .map(Cgroup::directories)
                    .unwrap_or_default(),
            },
        };
        let mut fds = vec![self.parts.running.pidfd.as_fd(), socket.as_fd()];
        fds.extend(streams.iter().map(AsFd::as_fd));
        match stage::spawn(&config, &self.parts.given.filter, &fds, Stdio::null()) {
            Ok(stage) => self.joined.push(stage.process),
            Err(error) => {
                let failure = Failure::invalid("exec", error.to_string());
                let _ = stage::answer(socket, &Answer::Failed(failure), None);
            }
        }
    }

    /// Does what the frames of an attached client say.
    fn obey(&mut self, index: usize) {
        loop {
            let client = &mut self.clients[index];
            let ClientState::Attached(frames) = &mut client.state else { return };
            match frames.next() {
                Ok(None) => return,
                Ok(Some((FrameKind::Input, bytes))) if bytes.is_empty() => {
                    self.input_ends = true;
                    self.write_input();
                }
                Ok(Some((FrameKind::Input, bytes))) => {
                    if self.parts.input.is_some() {
                        self.to_input.extend(bytes);
                        self.write_input();
                    }
                }
                Ok(Some((FrameKind::Resize, bytes))) => self.resize(&bytes),
                Ok(Some((FrameKind::Signal, bytes))) => {
                    self.signal(bytes.first().map_or(0, |byte| i32::from(*byte)));
                }
                Ok(Some(_)) | Err(_) => return client.gone = true,
            }
        }
    }

    fn signal(&self, number: i32) {
        if number == libc::SIGKILL {
            self.parts.running.kill();
        } else {
            // The only way to fail that matters is that it has ended.
            let _ = self.parts.running.signal(Signal(number));
        }
    }

    fn resize(&self, bytes: &[u8]) {
        if let (Some(terminal), [a, b, c, d]) = (&self.parts.input, bytes) {
            let size = rustix::termios::Winsize {
                ws_row: u16::from_le_bytes([*a, *b]),
                ws_col: u16::from_le_bytes([*c, *d]),
                ws_xpixel: 0,
                ws_ypixel: 0,
            };
            let _ = rustix::termios::tcsetwinsize(terminal, size);
        }
    }

    /// Tells everybody the end, and gives them time to hear it.
    fn farewell(&mut self, exit: ExitStatus) {
        let json = serde_json::to_vec(&exit).unwrap_or_default();
        for client in &mut self.clients {
            let _ = client.socket.set_nonblocking(false);
            let _ = client.socket.set_write_timeout(Some(std::time::Duration::from_secs(5)));
            client.backlog.extend(wire::frame(FrameKind::Exit, &json));
            let backlog = client.backlog.make_contiguous();
            let _ = client.socket.write_all(backlog);
        }
    }
}
