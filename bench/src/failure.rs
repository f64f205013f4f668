//! What went wrong, as a sentence: the reader is the person who started the benchmark.

use std::fmt;
use std::process::{Command, Output, Stdio};

/// A sentence for the person at the terminal.
#[derive(Debug, Clone)]
pub(crate) struct Failure(String);

impl Failure {
    pub(crate) fn new(text: impl Into<String>) -> Failure {
        Failure(text.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// Says what was being done when an error came.
pub(crate) fn context<T, E: fmt::Display>(
    doing: &str,
    result: std::result::Result<T, E>,
) -> Result<T> {
    result.map_err(|error| Failure(format!("{doing}: {error}")))
}

/// Runs a command to its end, unmeasured; its standard output.
pub(crate) fn output(command: &mut Command) -> Result<Vec<u8>> {
    let done: Output = context(&format!("{command:?}"), command.stdin(Stdio::null()).output())?;
    if done.status.success() {
        return Ok(done.stdout);
    }
    let stderr = String::from_utf8_lossy(&done.stderr);
    Err(Failure(format!("{command:?}: {}: {}", done.status, last_lines(&stderr))))
}

/// Runs a command to its end, unmeasured.
pub(crate) fn check(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// The end of a program's complaint, on one line.
pub(crate) fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(4)..].join(" / ")
}
