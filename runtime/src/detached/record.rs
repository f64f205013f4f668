//! What a monitor writes down: the state, and the log.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};

use super::{LogLine, State};
use crate::LogLimits;

/// The log of a container.
pub(super) const LOG: &str = "log";

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

/// A file of the log that is larger is full, unless it was said otherwise.
const MAX_LOG: u64 = 64 << 20;
/// How many files a log has, unless it was said otherwise.
const FILES: u32 = 2;

/// The name of a file of the log: 0 is written to, the others are older.
pub(super) fn log_name(number: u32) -> String {
    if number == 0 { LOG.to_owned() } else { format!("{LOG}.{number}") }
}

/// The path of an open directory; nothing for one that was removed.
pub(super) fn path(directory: &OwnedFd) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd())).ok()
}

/// When a process was started, in clock ticks since the machine was: with its number this names it.
pub(super) fn birth(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; the start is the twentieth field after it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if state == "Z" || state == "X" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// The log of one container.
#[derive(Debug)]
pub(super) struct Log {
    directory: OwnedFd,
    file: File,
    size: u64,
    limit: u64,
    files: u32,
    off: bool,
    /// What has no line end yet, for output and errors.
    pending: [Vec<u8>; 2],
}

/// The names of the streams in the log.
const NAMES: [&str; 2] = ["stdout", "stderr"];

impl Log {
    pub(super) fn open(directory: &OwnedFd, limits: LogLimits) -> io::Result<Log> {
        let file = create(directory, LOG, OFlags::APPEND)?;
        Ok(Log {
            directory: directory.try_clone()?,
            size: file.metadata()?.len(),
            file,
            limit: limits.max_size.unwrap_or(MAX_LOG),
            files: limits.max_files.unwrap_or(FILES).max(1),
            off: limits.off,
            pending: [Vec::new(), Vec::new()],
        })
    }

    /// Takes what stream 0 or 1 said.
    pub(super) fn write(&mut self, stream: usize, bytes: &[u8]) {
        if self.off {
            return;
        }
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

    /// A full disk costs the log, not the container. No file holds more than its limit but for a
    /// single line.
    fn append(&mut self, text: &[u8]) {
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            let length = line.len() as u64;
            if self.size > 0 && self.size + length > self.limit {
                self.rotate();
            }
            if self.file.write_all(line).is_ok() {
                self.size += length;
            }
        }
    }

    /// Makes each file the next older one, drops the oldest, and begins a new one.
    fn rotate(&mut self) {
        for number in (1..self.files).rev() {
            let (newer, older) = (log_name(number - 1), log_name(number));
            // A file that is not there yet is not moved.
            let _ = rustix::fs::renameat(&self.directory, &newer, &self.directory, &older);
        }
        if self.files == 1 {
            let _ = rustix::fs::unlinkat(&self.directory, LOG, rustix::fs::AtFlags::empty());
        }
        if let Ok(file) = create(&self.directory, LOG, OFlags::APPEND) {
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
        let limits = LogLimits { max_size: Some(limit), max_files: Some(3), off: false };
        let log = Log::open(&directory, limits).unwrap();
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
    fn a_full_file_becomes_the_older_one_and_the_oldest_goes() {
        let (place, mut log) = log(1_000);
        for number in 0..100 {
            log.write(0, format!("line {number}\n").as_bytes());
        }
        let mut all = Vec::new();
        for name in ["log.2", "log.1", "log"] {
            assert!(std::fs::metadata(place.path().join(name)).unwrap().len() <= 1_000);
            all.extend(lines(&place, name).into_iter().map(|line| line.line));
        }
        assert!(!place.path().join("log.3").exists());
        let last: Vec<_> = (100 - all.len()..100).map(|n| format!("line {n}\n")).collect();
        assert_eq!(all, last);
    }
}
