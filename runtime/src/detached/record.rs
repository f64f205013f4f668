//! What a monitor writes down: the state, and the log.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};

use super::{LogLine, State};

/// Seconds since 1970. A monitor is a process of its own; nobody can hand it the time.
pub(super) fn now() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// A new file in the container's directory, for its owner alone.
pub(super) fn create(directory: &OwnedFd, name: &str, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o600))?.into())
}

/// Replaces `state.json` in one step.
pub(super) fn write_state(directory: &OwnedFd, state: &State) -> io::Result<()> {
    let mut file = create(directory, "state.json.new", OFlags::TRUNC)?;
    file.write_all(&serde_json::to_vec(state)?)?;
    drop(file);
    rustix::fs::renameat(directory, "state.json.new", directory, "state.json")?;
    Ok(())
}

/// Lines longer than this are cut into several.
const MAX_LINE: usize = 16 << 10;

/// The log of one container.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
    /// What has no line end yet, for output and errors.
    pending: [Vec<u8>; 2],
}

/// The names of the streams in the log.
const NAMES: [&str; 2] = ["stdout", "stderr"];

impl Log {
    pub(super) fn open(directory: &OwnedFd) -> io::Result<Log> {
        Ok(Log {
            file: create(directory, "log", OFlags::APPEND)?,
            pending: [Vec::new(), Vec::new()],
        })
    }

    /// Takes what stream 0 or 1 said.
    pub(super) fn write(&mut self, stream: usize, bytes: &[u8]) {
        let mut text = Vec::new();
        let pending = &mut self.pending[stream];
        for byte in bytes {
            pending.push(*byte);
            if *byte == b'\n' || pending.len() >= MAX_LINE {
                render(stream, pending, &mut text);
            }
        }
        // A full disk costs the log, not the container.
        let _ = self.file.write_all(&text);
    }

    /// Writes what has no line end.
    pub(super) fn finish(&mut self) {
        let mut text = Vec::new();
        for (stream, pending) in self.pending.iter_mut().enumerate() {
            if !pending.is_empty() {
                render(stream, pending, &mut text);
            }
        }
        let _ = self.file.write_all(&text);
    }
}

fn render(stream: usize, pending: &mut Vec<u8>, to: &mut Vec<u8>) {
    let line = LogLine {
        t: now(),
        stream: NAMES[stream].to_owned(),
        line: String::from_utf8_lossy(pending).into_owned(),
    };
    pending.clear();
    if serde_json::to_writer(&mut *to, &line).is_ok() {
        to.push(b'\n');
    }
}
