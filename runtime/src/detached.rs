//! Containers that outlive the command that started them, each with a directory of its own.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use task::Task;

use crate::{Bundle, Error, ExitStatus, Result, Signal, StartOptions};

/// Streams of a detached container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Streams {
    /// A terminal of this many rows and columns instead of pipes.
    pub terminal: Option<(u16, u16)>,
    /// Whether standard input stays open for [`attach`].
    pub interactive: bool,
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is being set up.
    Created,
    /// Its program runs.
    Running,
    /// Its program ended.
    Exited,
    /// The process that watched it was killed: how the program ended is not known.
    Dead,
}

impl Status {
    /// The word used in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Exited => "exited",
            Status::Dead => "dead",
        }
    }
}

/// What `state.json` in a container's directory says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// See [`Status`].
    pub status: Status,
    /// The first process; 0 when not running.
    pub pid: u32,
    /// The process that watches it; 0 when gone.
    pub monitor: u32,
    /// Seconds since 1970 at which the program started.
    pub started: f64,
    /// Seconds since 1970 at which the program ended.
    #[serde(default)]
    pub finished: Option<f64>,
    /// How it ended.
    #[serde(default)]
    pub exit: Option<ExitStatus>,
    /// Whether it has a terminal.
    #[serde(default)]
    pub terminal: bool,
}

/// How to attach to a running container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachOptions {
    /// Whether our standard input goes to the container.
    pub input: bool,
    /// Keys that end the attachment but not the container; none if empty.
    pub detach_keys: Vec<u8>,
    /// Whether signals that reach us (TERM, INT, HUP, QUIT, USR1, USR2) are passed on.
    pub forward_signals: bool,
    /// Whether to begin with what the log holds.
    pub replay: bool,
}

/// The end of an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attached {
    /// The program ended.
    Exited(ExitStatus),
    /// The user pressed the detach keys; the program runs on.
    Detached,
}

/// A further program in a running container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// Program and arguments.
    pub args: Vec<String>,
    /// The whole environment, `NAME=value`; that of the container's program if not given.
    pub env: Option<Vec<String>>,
    /// `NAME=value` lines laid over the environment.
    pub extra_env: Vec<String>,
    /// Where to run; the container's working directory if not given.
    pub working_dir: Option<String>,
    /// `user[:group]`, looked up in the container; the container's user if not given.
    pub user: Option<String>,
    /// Whether it gets a terminal, and of which size (rows, columns).
    pub terminal: Option<(u16, u16)>,
    /// Whether our standard input goes to it.
    pub interactive: bool,
    /// Whether not to wait for it.
    pub detach: bool,
    /// Whether it gets all capabilities.
    pub privileged: bool,
}

/// One piece of output as the log keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// Seconds since 1970.
    pub t: f64,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// The text, with its line end if it had one.
    pub line: String,
}

/// What to read from a log.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LogOptions {
    /// Whether to go on until the container ends.
    pub follow: bool,
    /// Nothing older than this, in seconds since 1970.
    pub since: Option<f64>,
    /// Only this many of the last lines.
    pub tail: Option<usize>,
}

fn unsupported<T>(dir: &Path) -> Result<T> {
    Err(Error::NotRunning { path: dir.to_owned(), state: "not supported yet" })
}

/// Starts a container that a monitor process of its own watches; `dir` is the container's own,
/// existing directory, which gets `state.json`, `log` and `socket`.
///
/// # Errors
/// As [`crate::Container::start`].
#[allow(clippy::needless_pass_by_value)]
pub fn launch(
    dir: &Path,
    bundle: Bundle,
    streams: Streams,
    options: &StartOptions,
) -> Result<State> {
    let _ = (bundle, streams, options);
    unsupported(dir)
}

/// Connects our standard streams with those of the container until it ends or the user detaches.
///
/// # Errors
/// [`Error::NotRunning`], [`Error::NoContainer`].
pub fn attach(dir: &Path, options: &AttachOptions, task: &Task) -> Result<Attached> {
    let _ = (options, task);
    unsupported(dir)
}

/// Runs a further program in the container, with our standard streams.
///
/// # Errors
/// As [`crate::Container::start`], [`Error::NotRunning`], [`Error::NoContainer`].
pub fn exec(dir: &Path, exec: &Exec, options: &AttachOptions, task: &Task) -> Result<Attached> {
    let _ = (exec, options, task);
    unsupported(dir)
}

/// Sends a signal to the container's first process.
///
/// # Errors
/// [`Error::NotRunning`], [`Error::NoContainer`].
pub fn signal(dir: &Path, signal: Signal) -> Result<()> {
    let _ = signal;
    unsupported(dir)
}

/// Asks the container to end with `signal`, and kills it when it has not within `patience`.
///
/// # Errors
/// [`Error::NotRunning`], [`Error::NoContainer`].
pub fn stop(dir: &Path, signal: Signal, patience: Duration) -> Result<ExitStatus> {
    let _ = (signal, patience);
    unsupported(dir)
}

/// Waits for the container's end. A container that ended before is answered at once.
///
/// # Errors
/// [`Error::NoContainer`]; [`Error::Lost`] when the monitor was killed.
pub fn wait(dir: &Path, task: &Task) -> Result<ExitStatus> {
    let _ = task;
    unsupported(dir)
}

/// Where the container is in its life, checked against the processes that exist.
///
/// # Errors
/// [`Error::NoContainer`].
pub fn state(dir: &Path) -> Result<State> {
    unsupported(dir)
}

/// Reads the container's log, oldest first.
///
/// # Errors
/// [`Error::NoContainer`].
pub fn logs(
    dir: &Path,
    options: &LogOptions,
    task: &Task,
    each: &mut dyn FnMut(LogLine),
) -> Result<()> {
    let _ = (options, task, each);
    unsupported(dir)
}

pub(crate) fn monitor(_given: crate::stage::Given) -> crate::stage::Step {
    Ok(())
}
pub(crate) fn join(_given: crate::stage::Given) -> crate::stage::Step {
    Ok(())
}
