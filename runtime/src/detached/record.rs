//! What a monitor writes down: the state, and the log.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};

use super::{LogLine, State};

/// The log of a container.
pub(super) const LOG: &str = "log";
/// What was in it before.
pub(super) const OLDER_LOG: &str = "log.1";

/// Seconds since 1970. A monitor is a process of its own and cannot receive the time from a caller.
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

/// Lines longer than this are kept in several pieces.
const MAX_LINE: usize = 16 << 10;

/// A larger log becomes the older one; there is one older log.
const MAX_LOG: u64 = 64 << 20;

/// The log of one container.
#[derive(Debug)]
pub(super) struct Log {
    directory: OwnedFd,
    file: File,
    size: u64,
    limit: u64,
    /// What has no line end yet, for output and errors.
    pending: [Vec<u8>; 2],
}

/// The names of the streams in the log.
const NAMES: [&str; 2] = ["stdout", "stderr"];

impl Log {
    pub(super) fn open(directory: &OwnedFd) -> io::Result<Log> {
        let file = create(directory, LOG, OFlags::APPEND)?;
        Ok(Log {
            directory: directory.try_clone()?,
            size: file.metadata()?.len(),
            file,
            limit: MAX_LOG,
            pending: [Vec::new(), Vec::new()],
        })
    }

    /// Takes what stream 0 or 1 said.
    pub(super) fn write(&mut self, stream: usize, bytes: &[u8]) {
        let mut text = Vec::new();
        let pending = &mut self.pending[stream];
        for byte in bytes {
            pending.push(*byte);
            if *byte == b'\n' {
                render(stream, pending, &mut text);
                pending.clear();
            } else if pending.len() >= MAX_LINE {
                let rest = pending.split_off(whole(pending));
                render(stream, pending, &mut text);
                *pending = rest;
            }
        }
        self.append(&text);
    }

    /// A full disk costs the log, not the container.
    fn append(&mut self, text: &[u8]) {
        if self.file.write_all(text).is_ok() {
            self.size += text.len() as u64;
        }
        if self.size > self.limit
            && rustix::fs::renameat(&self.directory, LOG, &self.directory, OLDER_LOG).is_ok()
            && let Ok(file) = create(&self.directory, LOG, OFlags::APPEND)
        {
            (self.file, self.size) = (file, 0);
        }
    }

    /// Writes what has no line end.
    pub(super) fn finish(&mut self) {
        let mut text = Vec::new();
        for (stream, pending) in self.pending.iter_mut().enumerate() {
            if !pending.is_empty() {
                render(stream, pending, &mut text);
                pending.clear();
            }
        }
        self.append(&text);
    }
}

/// How many of the bytes end with a whole character.
fn whole(bytes: &[u8]) -> usize {
    let from = bytes.len().saturating_sub(3);
    let begins = bytes[from..].iter().rposition(|byte| *byte >= 0xc0).map(|at| from + at);
    match begins.and_then(|at| Some((at, std::str::from_utf8(&bytes[at..]).err()?))) {
        // The last character is only begun.
        Some((at, error)) if error.error_len().is_none() && at > 0 => at,
        _ => bytes.len(),
    }
}

fn render(stream: usize, pending: &[u8], to: &mut Vec<u8>) {
    let line = String::from_utf8_lossy(pending);
    let bytes = matches!(line, std::borrow::Cow::Owned(_)).then(|| pending.to_vec());
    let line =
        LogLine { t: now(), stream: NAMES[stream].to_owned(), line: line.into_owned(), bytes };
    if serde_json::to_writer(&mut *to, &line).is_ok() {
        to.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(limit: u64) -> (tempfile::TempDir, Log) {
        let place = tempfile::tempdir().unwrap();
        let directory: OwnedFd = File::open(place.path()).unwrap().into();
        let log = Log { limit, ..Log::open(&directory).unwrap() };
        (place, log)
    }

    fn lines(place: &tempfile::TempDir, name: &str) -> Vec<LogLine> {
        let text = std::fs::read_to_string(place.path().join(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn pieces_hold_whole_characters_and_all_bytes() {
        let (place, mut log) = log(MAX_LOG);
        let text = "a".to_owned() + &"ä€😀".repeat(5_000) + "\n";
        for chunk in text.as_bytes().chunks(1_000) {
            log.write(0, chunk);
        }
        log.write(1, b"\xff\xfe end\n");
        log.finish();
        let lines = lines(&place, LOG);
        let (out, errors): (Vec<_>, Vec<_>) =
            lines.iter().partition(|line| line.stream == "stdout");
        assert!(out.len() > 1 && out.iter().all(|line| line.bytes.is_none()));
        assert_eq!(out.iter().map(|line| line.line.as_str()).collect::<String>(), text);
        assert_eq!(errors[0].content(), b"\xff\xfe end\n");
    }

    #[test]
    fn a_large_log_becomes_the_older_one() {
        let (place, mut log) = log(1_000);
        for number in 0..100 {
            log.write(0, format!("line {number}\n").as_bytes());
        }
        let (older, newer) = (lines(&place, OLDER_LOG), lines(&place, LOG));
        assert!(!older.is_empty());
        let all: Vec<_> = older.iter().chain(&newer).map(|line| line.line.clone()).collect();
        let last: Vec<_> = (100 - all.len()..100).map(|n| format!("line {n}\n")).collect();
        assert_eq!(all, last);
    }
}
