//! The process that owns a detached container: its streams, its log, its end.
//!
//! One thread, one loop. A client that does not read holds the container's output back, as a
//! terminal that was stopped does; nothing is dropped.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::record::{self, Log};
use super::wire::{self, Frames, Incoming, Kind, Request};
use super::{State, Status};
use crate::cgroup::Cgroup;
use crate::init::{Running, begin, ended};
use crate::stage::{self, Answer, Config, Doing, Failure, Given, Role, Started, Step};
use crate::{ExitStatus, Signal, sys};

/// More than this is not kept for one client, or for the container's input.
const MAX_BACKLOG: usize = 256 << 10;

/// How much of the latest output a new client can be shown.
const MAX_REPLAY: usize = 256 << 10;

/// How much of it is one piece at most; a piece makes one frame.
const MAX_PIECE: usize = 32 << 10;

/// How long output, and a program's end, wait for the first client of a container that was started
/// to be attached to.
const HOLD: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// One connection.
struct Client {
    socket: UnixStream,
    state: ClientState,
    /// Bytes on their way to it.
    backlog: VecDeque<u8>,
    fds: Vec<OwnedFd>,
    gone: bool,
}

enum ClientState {
    Asking(Incoming),
    Waiting,
    Attached(Frames),
}

struct Monitor {
    given: Given,
    running: Running,
    listener: UnixListener,
    clients: Vec<Client>,
    joined: Vec<Child>,
    /// Output and errors, or the terminal twice.
    outputs: [Option<OwnedFd>; 2],
    input: Option<OwnedFd>,
    to_input: VecDeque<u8>,
    input_ends: bool,
    replay: Replay,
    log: Log,
    /// Whether the first client is waited for.
    held: bool,
    /// Whether the program has ended.
    over: bool,
}

/// How much a pipe of the container holds, and how much is read of it at a time: the less it is,
/// the nearer to each other stay lines of output and errors that were written one after the other.
const PIPE: usize = 4096;
const PIECE: usize = 1024;

/// Becomes the monitor of a container; returns after the container's end, and what `after` does.
pub(crate) fn monitor(given: Given, after: fn(&std::path::Path)) -> Step {
    let directory = watch_over(given)?;
    // Nothing is open any more that was the container's.
    if let Some(directory) = directory {
        after(&directory);
    }
    Ok(())
}

/// The container's whole life; gives its directory.
fn watch_over(mut given: Given) -> Step<Option<std::path::PathBuf>> {
    // The starter waits for its child at once; the monitor itself has no parent.
    // SAFETY: a stage has one thread.
    if unsafe { sys::plain_fork() }.doing("starting", "the monitor")? != 0 {
        sys::exit(0);
    }
    rustix::process::setsid().doing("starting", "a session")?;
    let Role::Monitor { interactive, held } = given.config.role else {
        return Err(Failure::invalid("configuration", "it is not for a monitor"));
    };
    let rootfs = given.take()?;
    let directory = given.take()?;
    let lock =
        record::create(&directory, "lock", rustix::fs::OFlags::empty()).doing("making", "lock")?;
    let exclusive = rustix::fs::FlockOperation::LockExclusive;
    rustix::fs::flock(&lock, exclusive).doing("locking", "the container's directory")?;
    let listener = listen(&directory)?;
    let log = Log::open(&directory).doing("making", "log")?;
    let (mut outputs, mut input) = ([None, None], None);
    given.fds.push_back(rootfs);
    if given.config.terminal.is_none() {
        (outputs, input) = pipes(&mut given, interactive)?;
    }
    let mut state = State {
        status: Status::Created,
        pid: 0,
        monitor: std::process::id(),
        started: record::now(),
        finished: None,
        exit: None,
        terminal: given.config.terminal.is_some(),
        cgroups: Vec::new(),
    };
    let line = given.line.try_clone().doing("copying", "a socket")?;
    let mut running = begin(&mut given)?;
    if let Some(terminal) = running.terminal.take() {
        outputs[0] = Some(terminal.try_clone().doing("copying", "the terminal")?);
        input = Some(terminal);
    }
    (state.status, state.pid) = (Status::Running, running.pid);
    let cgroups = running.cgroup.as_ref().map(Cgroup::directories).unwrap_or_default();
    state.cgroups.clone_from(&cgroups);
    record::write_state(&directory, &state).doing("writing", "state.json")?;
    // A starter that is gone does not matter any more.
    let _ = stage::answer(&line, &Answer::Started(Started { pid: running.pid, cgroups }), None);
    drop(line);
    for fd in outputs.iter().flatten().chain(&input) {
        rustix::io::ioctl_fionbio(fd, true).doing("preparing", "the streams")?;
    }
    let mut monitor = Monitor {
        given,
        running,
        listener,
        clients: Vec::new(),
        joined: Vec::new(),
        outputs,
        input,
        to_input: VecDeque::new(),
        input_ends: false,
        replay: Replay::default(),
        log,
        held,
        over: false,
    };
    let exit = monitor.watch();
    state.finished = Some(record::now());
    (state.status, state.pid, state.monitor, state.exit) = (Status::Exited, 0, 0, Some(exit));
    record::write_state(&directory, &state).doing("writing", "state.json")?;
    let _ = rustix::fs::unlinkat(&directory, "socket", rustix::fs::AtFlags::empty());
    monitor.farewell(exit);
    drop(lock);
    Ok(std::fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd())).ok())
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

type Ends = ([Option<OwnedFd>; 2], Option<OwnedFd>);

/// Makes the pipes, leaves the container's ends with `given`, and gives ours.
fn pipes(given: &mut Given, interactive: bool) -> Step<Ends> {
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

/// What the loop found ready.
#[derive(Default)]
struct Ready {
    ended: bool,
    connect: bool,
    outputs: [bool; 2],
    input: bool,
    clients: Vec<(bool, bool)>,
}

impl Monitor {
    /// Serves until the container has ended and its output is read.
    fn watch(&mut self) -> ExitStatus {
        loop {
            let ready = self.wait();
            if ready.connect
                && let Ok((socket, _)) = self.listener.accept()
                && socket.set_nonblocking(true).is_ok()
            {
                let state = ClientState::Asking(Incoming::default());
                let (backlog, fds) = (VecDeque::new(), Vec::new());
                self.clients.push(Client { socket, state, backlog, fds, gone: false });
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
            self.over |= ready.ended;
            // Who started it to attach to it may come just after a short program.
            if self.over && !self.held {
                let exit = ended(&self.running);
                // Every writer is gone or killed; what they wrote is still there.
                while self.read_once(0) | self.read_once(1) {}
                self.log.finish();
                return exit;
            }
        }
    }

    fn wait(&mut self) -> Ready {
        let backlogged = self.clients.iter().any(|client| client.backlog.len() > MAX_BACKLOG);
        let reading = !self.held && !backlogged;
        let ends = if self.over { PollFlags::empty() } else { PollFlags::IN };
        let mut fds = vec![
            PollFd::new(&self.running.pidfd, ends),
            PollFd::new(&self.listener, PollFlags::IN),
        ];
        let mut outputs = [None, None];
        for (stream, output) in self.outputs.iter().enumerate() {
            if let (Some(output), true) = (output, reading) {
                outputs[stream] = Some(fds.len());
                fds.push(PollFd::from_borrowed_fd(output.as_fd(), PollFlags::IN));
            }
        }
        let input = match &self.input {
            Some(input) if !self.to_input.is_empty() => {
                fds.push(PollFd::from_borrowed_fd(input.as_fd(), PollFlags::OUT));
                Some(fds.len() - 1)
            }
            _ => None,
        };
        let first = fds.len();
        let full = self.to_input.len() > MAX_BACKLOG;
        for client in &self.clients {
            let mut wanted = if full { PollFlags::empty() } else { PollFlags::IN };
            if !client.backlog.is_empty() {
                wanted |= PollFlags::OUT;
            }
            fds.push(PollFd::from_borrowed_fd(client.socket.as_fd(), wanted));
        }
        let timeout = self.held.then_some(&HOLD);
        match poll(&mut fds, timeout) {
            Ok(0) => self.held = false,
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
        let Some(output) = &self.outputs[stream] else { return false };
        let size = if self.outputs.iter().all(Option::is_some) { PIECE } else { PIPE };
        match rustix::io::read(output, &mut buffer[..size]) {
            Ok(count) if count > 0 => self.spread(stream, &buffer[..count]),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return false,
            // The end of a pipe; a terminal answers EIO when it is closed everywhere.
            Ok(_) | Err(_) => self.outputs[stream] = None,
        }
        true
    }

    fn spread(&mut self, stream: usize, bytes: &[u8]) {
        self.log.write(stream, bytes);
        let kind = [Kind::Stdout, Kind::Stderr][stream];
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
        let Some(input) = &self.input else { return self.to_input.clear() };
        while !self.to_input.is_empty() {
            match rustix::io::write(input, self.to_input.as_slices().0) {
                Ok(count) => drop(self.to_input.drain(..count)),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return,
                Err(_) => {
                    self.to_input.clear();
                    self.input = None;
                    return;
                }
            }
        }
        // The end of a terminal's input is a key; that of a pipe is its closing.
        if self.input_ends && self.given.config.terminal.is_none() {
            self.input = None;
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
            ClientState::Waiting => {}
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
                self.clients[index].send(&wire::frame(Kind::Ok, &[]));
                self.clients[index].state = ClientState::Waiting;
            }
            Request::Attach { replay } => {
                self.held = false;
                let mut frames = Frames::default();
                frames.push(rest);
                let client = &mut self.clients[index];
                client.state = ClientState::Attached(frames);
                for (stream, bytes) in self.replay.pieces.iter().filter(|_| replay) {
                    client.send(&wire::frame([Kind::Stdout, Kind::Stderr][*stream], bytes));
                }
                self.obey(index);
            }
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
        let ours = &self.given.config;
        let config = Config {
            spec: ours.spec.clone(),
            id: ours.id.clone(),
            init: false,
            filter_flags: ours.filter_flags,
            owners: false,
            user_namespace: ours.user_namespace,
            scopes: 0,
            terminal: exec.terminal,
            role: Role::Join {
                exec,
                cgroups: self.running.cgroup.as_ref().map(Cgroup::directories).unwrap_or_default(),
            },
        };
        let mut fds = vec![self.running.pidfd.as_fd(), socket.as_fd()];
        fds.extend(streams.iter().map(AsFd::as_fd));
        match stage::spawn(&config, &self.given.filter, &fds, Stdio::null()) {
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
                Ok(Some((Kind::Input, bytes))) if bytes.is_empty() => {
                    self.input_ends = true;
                    self.write_input();
                }
                Ok(Some((Kind::Input, bytes))) => {
                    if self.input.is_some() {
                        self.to_input.extend(bytes);
                        self.write_input();
                    }
                }
                Ok(Some((Kind::Resize, bytes))) => self.resize(&bytes),
                Ok(Some((Kind::Signal, bytes))) => {
                    self.signal(bytes.first().map_or(0, |byte| i32::from(*byte)));
                }
                Ok(Some(_)) | Err(_) => return client.gone = true,
            }
        }
    }

    fn signal(&self, number: i32) {
        if number == libc::SIGKILL {
            self.running.kill();
        } else {
            // The only way to fail that matters is that it has ended.
            let _ = self.running.signal(Signal(number));
        }
    }

    fn resize(&self, bytes: &[u8]) {
        if let (Some(terminal), [a, b, c, d]) = (&self.input, bytes) {
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
            client.backlog.extend(wire::frame(Kind::Exit, &json));
            let backlog = client.backlog.make_contiguous();
            let _ = client.socket.write_all(backlog);
        }
    }
}

/// The latest output. A program that writes byte by byte costs no more than one that does not.
#[derive(Default)]
struct Replay {
    /// Stream and bytes; no piece is longer than [`MAX_PIECE`].
    pieces: VecDeque<(usize, Vec<u8>)>,
    total: usize,
}

impl Replay {
    fn push(&mut self, stream: usize, bytes: &[u8]) {
        self.total += bytes.len();
        match self.pieces.back_mut() {
            Some((last, piece)) if *last == stream && piece.len() + bytes.len() <= MAX_PIECE => {
                piece.extend_from_slice(bytes);
            }
            _ => self.pieces.push_back((stream, bytes.to_vec())),
        }
        while self.total > MAX_REPLAY {
            let Some((_, oldest)) = self.pieces.pop_front() else { return };
            self.total -= oldest.len();
        }
    }
}

impl Client {
    /// Sends as much as goes now; keeps the rest.
    fn send(&mut self, bytes: &[u8]) {
        self.backlog.extend(bytes);
        while !self.backlog.is_empty() {
            match self.socket.write(self.backlog.as_slices().0) {
                Ok(count) => drop(self.backlog.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.gone = true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_bytes_make_few_pieces_and_the_latest_stay() {
        let mut replay = Replay::default();
        for byte in 0..MAX_REPLAY * 2 {
            replay.push(0, &[b'a' + (byte % 26) as u8]);
        }
        assert!(replay.pieces.len() <= MAX_REPLAY / MAX_PIECE);
        assert_eq!(replay.total, replay.pieces.iter().map(|(_, piece)| piece.len()).sum::<usize>());
        assert!(replay.total > MAX_REPLAY - MAX_PIECE && replay.total <= MAX_REPLAY);
        let last = replay.pieces.back().and_then(|(_, piece)| piece.last());
        assert_eq!(last, Some(&(b'a' + ((MAX_REPLAY * 2 - 1) % 26) as u8)));
        replay.push(1, b"e");
        replay.push(0, b"o");
        let streams: Vec<_> =
            replay.pieces.iter().rev().take(2).map(|(stream, _)| *stream).collect();
        assert_eq!(streams, [0, 1]);
    }
}
