//! Descriptors that a program gets beside its standard streams.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use crate::stage::{ErrorContext, Step};
use crate::{Error, Result, sys};

/// More are never passed on: one message carries them all.
const MOST: usize = sys::MAX_FDS - 8;

/// Makes sure that this process was started with descriptors of these numbers, so that none of its own goes
/// to a program by mistake.
///
/// # Errors
/// [`Error::Invalid`] names the first that it does not have.
pub fn check_inherited(numbers: &[u32]) -> Result<()> {
    if numbers.len() > MOST {
        return Err(Error::invalid("descriptors", format!("more than {MOST} are not passed on")));
    }
    // What a process opens itself is closed on exec, so it cannot have come from another one.
    let own = |number: &&u32| match RawFd::try_from(**number) {
        Ok(number) => !sys::survives_exec(number),
        Err(_) => true,
    };
    match numbers.iter().find(own) {
        None => Ok(()),
        Some(number) => {
            let why = format!("this process was not started with descriptor {number}");
            Err(Error::invalid("descriptors", why))
        }
    }
}

/// From now on, programs that this process starts get none of its descriptors but the standard streams: what
/// outlives it would keep them open.
pub fn close_on_exec() {
    // A kernel before 5.11 leaves them as they are.
    let _ = sys::cloexec_from(3);
}

/// Descriptors of this process by their numbers. They are closed with this.
#[derive(Debug, Default)]
pub(crate) struct LentDescriptors(Vec<OwnedFd>);

impl LentDescriptors {
    pub(crate) fn new(numbers: &[u32]) -> Result<LentDescriptors> {
        let one = |number: &u32| {
            let number = RawFd::try_from(*number).map_err(|_| io::ErrorKind::InvalidInput.into());
            number.and_then(sys::take_fd)
        };
        let fds = numbers.iter().map(one).collect::<io::Result<_>>();
        fds.map(LentDescriptors)
            .map_err(Error::system("opening", "the descriptors for the program"))
    }

    pub(crate) fn as_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().map(AsFd::as_fd)
    }
}

/// Descriptors on their way to a program, each with its number there.
#[derive(Debug, Default)]
pub(crate) struct ProgramDescriptors(Vec<(u32, OwnedFd)>);

impl ProgramDescriptors {
    /// Those that came last.
    pub(crate) fn split(
        numbers: &[u32],
        fds: &mut VecDeque<OwnedFd>,
    ) -> io::Result<ProgramDescriptors> {
        let first = fds.len().checked_sub(numbers.len()).ok_or(io::ErrorKind::InvalidData)?;
        let last = fds.split_off(first);
        Ok(ProgramDescriptors(numbers.iter().copied().zip(last).collect()))
    }

    /// The first number that none of them, and none before them, has in the program.
    fn above(&self) -> RawFd {
        let most = self.0.iter().map(|(number, _)| *number).max().unwrap_or(2);
        RawFd::try_from(most).unwrap_or(RawFd::MAX).saturating_add(1).max(3)
    }

    /// Moves them, and the line to the supervisor, to numbers that none of them has in the program.
    pub(crate) fn make_way(&mut self, line: &mut UnixStream) -> Step {
        if self.0.is_empty() {
            return Ok(());
        }
        let above = self.above();
        for (number, fd) in &mut self.0 {
            let moved = rustix::io::fcntl_dupfd_cloexec(&*fd, above);
            *fd = moved.doing("moving descriptor", number.to_string())?;
        }
        *line = self.copy(line).doing("moving", "the line to the supervisor")?;
        Ok(())
    }

    /// A copy of the line to the supervisor that is out of their way.
    pub(crate) fn copy(&self, line: &UnixStream) -> io::Result<UnixStream> {
        Ok(rustix::io::fcntl_dupfd_cloexec(line, self.above())?.into())
    }

    /// Gives them their numbers. Whatever had one of these is closed.
    pub(crate) fn place(&self) -> Step {
        for (number, fd) in &self.0 {
            let at = RawFd::try_from(*number).unwrap_or(RawFd::MAX);
            sys::dup_to(fd.as_fd(), at).doing("passing descriptor", number.to_string())?;
        }
        Ok(())
    }
}
