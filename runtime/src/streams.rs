//! The three streams of a container's program: always pipes of ours, never files of the machine.
//!
//! A program that had the caller's own descriptor could open the file behind it again, for writing,
//! through `/proc/self/fd` or `/dev/stdin`, and would share its position and flags. So bytes are
//! carried between our pipes and the caller's files, a thread for each that says something, for as
//! long as the container lives.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use task::Task;

use crate::terminal::Signals;

/// How much is carried at once: what a pipe holds.
const PIECE: usize = 64 << 10;

/// Where what a program writes goes.
#[derive(Debug)]
enum To {
    Task,
    File(OwnedFd),
}

/// Copies one stream of a container.
#[derive(Debug)]
enum StreamRelay {
    Input { from: OwnedFd, to: OwnedFd },
    Output { from: OwnedFd, to: To },
}

/// Our side of a program's streams.
#[derive(Debug, Default)]
pub(crate) struct Carrier(Vec<StreamRelay>);

/// The ends of pipes that a program gets: input, output, error.
pub(crate) type ProgramPipes = [OwnedFd; 3];

/// A pipe of ours that a thread of this process fills from a file, for containers that read it one
/// after the other: what one of them leaves, the next one reads.
#[derive(Debug)]
pub struct SharedInput(OwnedFd);

impl SharedInput {
    /// Begins to fill a pipe. The thread ends with the file, with the last reader or with this
    /// process.
    ///
    /// # Errors
    /// No pipe or thread can be made.
    pub fn new(mut from: File) -> io::Result<SharedInput> {
        let (ours, to) = pipe_with(PipeFlags::CLOEXEC)?;
        let mut to = File::from(to);
        let fill = move || _ = io::copy(&mut from, &mut to);
        std::thread::Builder::new().name("input".to_owned()).spawn(fill)?;
        Ok(SharedInput(ours))
    }

    /// The same pipe for one more container.
    ///
    /// # Errors
    /// This process has no descriptor left.
    pub fn share(&self) -> io::Result<SharedInput> {
        self.0.try_clone().map(SharedInput)
    }
}

impl Carrier {
    /// Nothing to read; what is written is dropped. Nothing has to be carried.
    pub(crate) fn null() -> io::Result<(ProgramPipes, Carrier)> {
        Ok(([null()?, null()?, null()?], Carrier::default()))
    }

    /// What the program writes becomes the task's output; it reads `input`.
    pub(crate) fn to_task(input: Option<OwnedFd>) -> io::Result<(ProgramPipes, Carrier)> {
        let mut carrier = Carrier::default();
        let input = carrier.input(input)?;
        let (output, error) = (carrier.output(To::Task)?, carrier.output(To::Task)?);
        Ok(([input, output, error], carrier))
    }

    /// As [`Carrier::to_task`]; the program reads a pipe of ours that others read after it.
    pub(crate) fn shared(input: SharedInput) -> io::Result<(ProgramPipes, Carrier)> {
        let mut carrier = Carrier::default();
        let (output, error) = (carrier.output(To::Task)?, carrier.output(To::Task)?);
        Ok(([input.0, output, error], carrier))
    }

    /// What the program writes goes to two files; it reads `input`. Where both are one and the
    /// same, so is the pipe, and what was written first comes first.
    pub(crate) fn to_files(
        input: Option<OwnedFd>,
        output: OwnedFd,
        error: OwnedFd,
    ) -> io::Result<(ProgramPipes, Carrier)> {
        let mut carrier = Carrier::default();
        let input = carrier.input(input)?;
        let one = is_one(&output, &error);
        let output = carrier.output(To::File(output))?;
        let error = if one { output.try_clone()? } else { carrier.output(To::File(error))? };
        Ok(([input, output, error], carrier))
    }

    /// Our end of a terminal, which the program has; what it shows goes to a file.
    pub(crate) fn terminal(ours: OwnedFd, input: OwnedFd, output: OwnedFd) -> io::Result<Carrier> {
        rustix::io::ioctl_fionbio(&ours, true)?;
        let input = StreamRelay::Input { from: input, to: ours.try_clone()? };
        Ok(Carrier(vec![input, StreamRelay::Output { from: ours, to: To::File(output) }]))
    }

    /// What was written and not carried yet.
    pub(crate) fn said(&self) -> String {
        let mut all = Vec::new();
        let mut buffer = [0; 4096];
        for stream in self.0.iter().filter(|stream| stream.is_output()) {
            while let Ok(count @ 1..) = rustix::io::read(stream.from(), &mut buffer)
                && all.len() < PIECE
            {
                all.extend_from_slice(&buffer[..count]);
            }
        }
        String::from_utf8_lossy(&all).trim().to_owned()
    }

    fn input(&mut self, from: Option<OwnedFd>) -> io::Result<OwnedFd> {
        let Some(from) = from else { return null() };
        let (theirs, to) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&to, true)?;
        self.0.push(StreamRelay::Input { from, to });
        Ok(theirs)
    }

    fn output(&mut self, to: To) -> io::Result<OwnedFd> {
        let (from, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&from, true)?;
        self.0.push(StreamRelay::Output { from, to });
        Ok(theirs)
    }

    /// Copies bytes while `until` waits for the end of the program, and then the rest. The
    /// processes of a container have ended with it, so nothing comes after that.
    ///
    /// # Errors
    /// No pipe can be made.
    pub(crate) fn carry<T>(self, task: &Task, until: impl FnOnce() -> T) -> io::Result<T> {
        if self.0.is_empty() {
            return Ok(until());
        }
        let (over, alive) = pipe_with(PipeFlags::CLOEXEC)?;
        let over = over.as_fd();
        Ok(std::thread::scope(|scope| {
            for stream in self.0 {
                scope.spawn(move || stream.copy(over, task));
            }
            let ended = until();
            drop(alive);
            ended
        }))
    }

    /// As [`Carrier::carry`] until there is something to read from `line`, which `then` reads. An output
    /// gets its thread with its first byte, so a program that prints nothing needs none. Signals that
    /// come meanwhile are given to `pass`.
    ///
    /// # Errors
    /// No pipe can be made.
    pub(crate) fn carry_until<T>(
        self,
        task: &Task,
        line: BorrowedFd<'_>,
        signals: Option<(&Signals, &dyn Fn(libc::c_int))>,
        then: impl FnOnce() -> T,
    ) -> io::Result<T> {
        let (over, alive) = pipe_with(PipeFlags::CLOEXEC)?;
        let over = over.as_fd();
        Ok(std::thread::scope(|scope| {
            let copy = |stream: StreamRelay| drop(scope.spawn(move || stream.copy(over, task)));
            let (silent, inputs) = self.0.into_iter().partition(StreamRelay::is_output);
            Vec::into_iter(inputs).for_each(copy);
            let silent = attend(silent, line, signals, copy);
            let ended = then();
            drop(alive);
            silent.into_iter().filter(StreamRelay::is_readable).for_each(copy);
            ended
        }))
    }
}

/// Waits until there is something to read from `line`. Outputs that speak are given to `copy`; those that
/// were silent to the end come back.
fn attend(
    mut silent: Vec<StreamRelay>,
    line: BorrowedFd<'_>,
    signals: Option<(&Signals, &dyn Fn(libc::c_int))>,
    copy: impl Fn(StreamRelay),
) -> Vec<StreamRelay> {
    loop {
        let mut fds = vec![PollFd::from_borrowed_fd(line, PollFlags::IN)];
        fds.extend(silent.iter().map(|stream| PollFd::new(stream.from(), PollFlags::IN)));
        fds.extend(signals.map(|(signals, _)| PollFd::new(signals, PollFlags::IN)));
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            // What is not watched is read all the same.
            Err(_) => {
                silent.into_iter().for_each(copy);
                return Vec::new();
            }
        }
        let events: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        if let Some((signals, pass)) = signals {
            signals.caught().into_iter().for_each(pass);
        }
        if !events[0].is_empty() {
            return silent;
        }
        let outputs = std::mem::take(&mut silent).into_iter().zip(&events[1..]);
        for (stream, events) in outputs {
            if events.contains(PollFlags::IN) {
                copy(stream);
            } else if events.is_empty() {
                silent.push(stream);
            }
        }
    }
}

impl StreamRelay {
    fn is_output(&self) -> bool {
        matches!(self, StreamRelay::Output { .. })
    }

    fn from(&self) -> &OwnedFd {
        match self {
            StreamRelay::Input { from, .. } | StreamRelay::Output { from, .. } => from,
        }
    }

    fn is_readable(&self) -> bool {
        is_readable(self.from().as_fd())
    }

    /// Copies its bytes until it ends, or the container does.
    fn copy(self, over: BorrowedFd<'_>, task: &Task) {
        match self {
            StreamRelay::Input { from, to } => feed(&from, &to, over),
            StreamRelay::Output { from, to } => drain(&from, &to, over, task),
        }
    }
}

fn null() -> io::Result<OwnedFd> {
    Ok(File::options().read(true).write(true).open("/dev/null")?.into())
}

/// Whether two descriptors are of the same file, pipe or terminal.
fn is_one(one: &OwnedFd, other: &OwnedFd) -> bool {
    match (rustix::fs::fstat(one), rustix::fs::fstat(other)) {
        (Ok(one), Ok(other)) => (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino),
        _ => false,
    }
}

/// Waits until `fd` is ready or the container is over; whether it is not over.
fn wait(fd: &OwnedFd, what: PollFlags, over: BorrowedFd<'_>) -> bool {
    loop {
        let mut fds = [PollFd::new(fd, what), PollFd::from_borrowed_fd(over, PollFlags::empty())];
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
            Ok(_) => return fds[1].revents().is_empty(),
        }
    }
}

/// Carries the caller's input into the program's, and its end too.
fn feed(from: &OwnedFd, to: &OwnedFd, over: BorrowedFd<'_>) {
    let mut buffer = vec![0; PIECE];
    while wait(from, PollFlags::IN, over) {
        let count = match rustix::io::read(from, &mut buffer) {
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => continue,
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            match rustix::io::write(to, rest) {
                Ok(count) => rest = &rest[count..],
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) if wait(to, PollFlags::OUT, over) => {}
                // The program reads no more.
                Err(_) => return,
            }
        }
    }
}

/// Copies the output of the program until no process can write any more.
///
/// If the receiver is gone, the pipe closes and the program gets an error on its next write, as it
/// would without this process.
fn drain(from: &OwnedFd, to: &To, over: BorrowedFd<'_>, task: &Task) {
    let mut buffer = vec![0; PIECE];
    let mut running = true;
    loop {
        running = running && wait(from, PollFlags::IN, over);
        match rustix::io::read(from, &mut buffer) {
            Ok(0) => return,
            Ok(count) => match to {
                To::Task => task.output(&buffer[..count]),
                To::File(file) if write_all(file.as_fd(), &buffer[..count]).is_ok() => {}
                To::File(_) => return,
            },
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) if running => {}
            Err(_) => return,
        }
    }
}

/// Writes all of it, also to what others have made not to block.
pub(crate) fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => {
                poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::OUT)], None)?;
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Whether there is something to read now.
pub(crate) fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&now)).is_ok_and(|n| n > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn nothing_is_lost_between_the_end_of_the_program_and_ours() {
        let (mut read, write) = io::pipe().unwrap();
        let ((_, output, error), carrier) = {
            let files = (write.try_clone().unwrap().into(), write.into());
            let ([input, output, error], carrier) =
                Carrier::to_files(None, files.0, files.1).unwrap();
            ((input, output, error), carrier)
        };
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            read.read_to_end(&mut all).map(|_| all)
        });
        let task = Task::silent();
        let mut written = Vec::new();
        carrier
            .carry(&task, || {
                let (mut output, mut error) = (File::from(output), File::from(error));
                for number in 0..20_000 {
                    let line = format!("{number}\n");
                    let to = if number % 2 == 0 { &mut output } else { &mut error };
                    to.write_all(line.as_bytes()).unwrap();
                    written.extend_from_slice(line.as_bytes());
                }
                // The ends stay open beyond the program, as when a process of it is left.
                std::mem::forget((output, error));
            })
            .unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), written);
    }

    #[test]
    fn what_silent_outputs_say_last_is_read_after_the_end() {
        let (mut read, write) = io::pipe().unwrap();
        let files = (write.try_clone().unwrap().into(), write.into());
        let ([_, output, error], carrier) = Carrier::to_files(None, files.0, files.1).unwrap();
        let (line, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
        far.write_all(b"e").unwrap();
        let end = || File::from(output).write_all(b"last words").unwrap();
        carrier.carry_until(&Task::silent(), line.as_fd(), None, end).unwrap();
        drop(error);
        let mut all = String::new();
        read.read_to_string(&mut all).unwrap();
        assert_eq!(all, "last words");
    }

    #[test]
    fn input_ends_for_the_program_where_it_ends_for_us() {
        let (read, mut write) = io::pipe().unwrap();
        let ([input, ..], carrier) = Carrier::to_task(Some(read.into())).unwrap();
        let read = carrier.carry(&Task::silent(), || {
            write.write_all(b"abc").unwrap();
            drop(write);
            let mut all = String::new();
            File::from(input).read_to_string(&mut all).map(|_| all)
        });
        assert_eq!(read.unwrap().unwrap(), "abc");
    }

    #[test]
    fn a_program_is_told_when_nobody_takes_its_output() {
        let (read, write) = io::pipe().unwrap();
        let null = File::options().write(true).open("/dev/null").unwrap();
        let ([_, output, _], carrier) = Carrier::to_files(None, write.into(), null.into()).unwrap();
        drop(read);
        let error = carrier.carry(&Task::silent(), || {
            let mut output = File::from(output);
            (0..).find_map(|_| output.write_all(&[0; 4096]).err())
        });
        assert_eq!(error.unwrap().unwrap().kind(), io::ErrorKind::BrokenPipe);
    }
}
