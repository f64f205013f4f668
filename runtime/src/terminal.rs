//! The user's own terminal: raw mode, its size, the keys that detach, the signals to pass on.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

/// Rows and columns of the first of the streams that is a terminal.
pub(crate) fn size(streams: [BorrowedFd<'_>; 3]) -> Option<(u16, u16)> {
    let terminal = streams.into_iter().find(|stream| isatty(stream))?;
    let size = tcgetwinsize(terminal).ok()?;
    Some((size.ws_row, size.ws_col))
}

/// A terminal that hands every key through; dropping this gives it its manners back.
#[derive(Debug)]
pub(crate) struct Raw(Option<(OwnedFd, Termios)>);

impl Raw {
    /// Does nothing if it is not a terminal.
    pub(crate) fn enter(stream: BorrowedFd<'_>) -> Raw {
        let enter = || -> io::Result<(OwnedFd, Termios)> {
            let before = tcgetattr(stream)?;
            let mut raw = before.clone();
            raw.make_raw();
            tcsetattr(stream, OptionalActions::Flush, &raw)?;
            Ok((stream.try_clone_to_owned()?, before))
        };
        Raw(enter().ok())
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some((stream, before)) = &self.0 {
            let _ = tcsetattr(stream, OptionalActions::Drain, before);
        }
    }
}

/// Input of the terminal, searched for the detach keys.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum KeyInput {
    /// These bytes are for the program.
    Keys(Vec<u8>),
    /// The user wants to leave; these bytes came before that.
    Detach(Vec<u8>),
}

/// Looks for the detach sequence in what is typed; a beginning of it is held back until it is
/// clear what it becomes.
#[derive(Debug)]
pub(crate) struct DetachKeys {
    keys: Vec<u8>,
    matched: usize,
}

impl DetachKeys {
    pub(crate) fn new(keys: &[u8]) -> DetachKeys {
        DetachKeys { keys: keys.to_vec(), matched: 0 }
    }

    pub(crate) fn press(&mut self, typed: &[u8]) -> KeyInput {
        if self.keys.is_empty() {
            return KeyInput::Keys(typed.to_vec());
        }
        let mut through = Vec::with_capacity(typed.len());
        for byte in typed {
            while self.matched > 0 && self.keys[self.matched] != *byte {
                // What was held back is no sequence from its beginning; perhaps from later on.
                let held = &self.keys[..self.matched];
                let keep = (1..=held.len())
                    .find(|from| self.keys.starts_with(&held[*from..]))
                    .unwrap_or(held.len());
                through.extend_from_slice(&held[..keep]);
                self.matched -= keep;
            }
            if self.keys[self.matched] == *byte {
                self.matched += 1;
            } else {
                through.push(*byte);
            }
            if self.matched == self.keys.len() {
                return KeyInput::Detach(through);
            }
        }
        KeyInput::Keys(through)
    }
}

/// Where the handler writes; -1 for nowhere.
static PIPE: AtomicI32 = AtomicI32::new(-1);

extern "C" fn caught(signal: libc::c_int) {
    let byte = signal as u8;
    // SAFETY: write is async-signal-safe; a full pipe loses a signal, as signals are lost anyway.
    unsafe { libc::write(PIPE.load(Ordering::Relaxed), (&raw const byte).cast(), 1) };
}

/// Catches signals and gives them through a descriptor, until dropped.
#[derive(Debug)]
pub(crate) struct Signals {
    read: OwnedFd,
    write: OwnedFd,
    before: Vec<(libc::c_int, libc::sighandler_t)>,
}

impl Signals {
    /// `passed`: those that end programs; `resized`: the one of a terminal's new size.
    pub(crate) fn watch(passed: bool, resized: bool) -> io::Result<Signals> {
        let flags = rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK;
        let (read, write) = rustix::pipe::pipe_with(flags)?;
        PIPE.store(write.as_raw_fd(), Ordering::Relaxed);
        let mut wanted = Vec::new();
        if passed {
            wanted.extend([
                libc::SIGTERM,
                libc::SIGINT,
                libc::SIGHUP,
                libc::SIGQUIT,
                libc::SIGUSR1,
                libc::SIGUSR2,
            ]);
        }
        if resized {
            wanted.push(libc::SIGWINCH);
        }
        let handler = caught as extern "C" fn(libc::c_int);
        let before = wanted.into_iter().map(|signal| {
            // SAFETY: the handler only makes an async-signal-safe call.
            let before = unsafe { libc::signal(signal, handler as libc::sighandler_t) };
            (signal, before)
        });
        Ok(Signals { read, write, before: before.collect() })
    }

    /// The signals since the last call.
    pub(crate) fn caught(&self) -> Vec<libc::c_int> {
        let mut buffer = [0; 64];
        let count = rustix::io::read(&self.read, &mut buffer).unwrap_or(0);
        buffer[..count].iter().map(|byte| libc::c_int::from(*byte)).collect()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for (signal, before) in &self.before {
            // SAFETY: gives back what was there.
            unsafe { libc::signal(*signal, *before) };
        }
        let _ =
            PIPE.compare_exchange(self.write.as_raw_fd(), -1, Ordering::Relaxed, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(keys: &[u8], typed: &[&[u8]], expected: &[u8], detached: bool) {
        let mut detach = DetachKeys::new(keys);
        let (mut through, mut left) = (Vec::new(), false);
        for piece in typed {
            match detach.press(piece) {
                KeyInput::Keys(bytes) => through.extend(bytes),
                KeyInput::Detach(bytes) => {
                    through.extend(bytes);
                    left = true;
                }
            }
        }
        assert_eq!((through.as_slice(), left), (expected, detached), "{typed:?}");
    }

    #[test]
    fn detach_keys_are_found_across_reads() {
        check(b"pq", &[b"abc"], b"abc", false);
        check(b"pq", &[b"pq"], b"", true);
        check(b"pq", &[b"p", b"q"], b"", true);
        check(b"pq", &[b"p", b"x"], b"px", false);
        check(b"pq", &[b"ppq"], b"p", true);
        check(b"ppq", &[b"pppq"], b"p", true);
        check(b"pq", &[b"p"], b"", false);
        check(b"aab", &[b"aaac"], b"aaac", false);
        check(b"", &[b"pq"], b"pq", false);
    }
}
