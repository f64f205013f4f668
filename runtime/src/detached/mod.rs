//! Containers that outlive the command that started them, each with a directory of its own.

mod client;
mod clients;
mod guard;
mod health;
mod join;
mod logs;
mod monitor;
mod monitor_log;
mod record;
mod setup;
mod wire;

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use task::Task;

pub use client::Streams3;
pub(crate) use client::converse;
pub use health::{Health, HealthStatus, Probe, health};
pub(crate) use join::join;
pub use logs::{LogLine, LogOptions, logs};
pub use monitor::RESTART_MARK;
use monitor_log::MonitorLog;
pub(crate) use setup::monitor;

use crate::descriptors::LentDescriptors;
use crate::stage::{self, Answer, Answers, MonitorOptions, Role};
use crate::{Bundle, Error, Exec, ExitStatus, Result, Signal, StartOptions};

/// Streams of a detached container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Streams {
    /// A terminal of this many rows and columns instead of pipes.
    pub terminal: Option<(u16, u16)>,
    /// Whether standard input stays open for [`attach`].
    pub interactive: bool,
    /// Whether output, and the end, wait a moment for a first [`attach`], so that it misses nothing.
    pub attached: bool,
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
    /// When it was started, in clock ticks since the machine was; 0 when not known.
    #[serde(default)]
    pub birth: u64,
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
    /// Its cgroups' directories.
    #[serde(default)]
    pub cgroups: Vec<std::path::PathBuf>,
}

impl State {
    /// That of a container that was started, and of which nothing is left.
    fn gone(cgroups: Vec<std::path::PathBuf>) -> State {
        State {
            status: Status::Dead,
            pid: 0,
            birth: 0,
            monitor: 0,
            started: record::now(),
            finished: None,
            exit: None,
            terminal: false,
            cgroups,
        }
    }
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

/// How an attachment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachOutcome {
    /// The program ended.
    Exited(ExitStatus),
    /// The user pressed the detach keys; the program runs on.
    Detached,
}

/// Starts a container that a monitor process of its own watches; `dir` is the container's own,
/// existing directory, which gets `state.json`, `log`, `lock` and `socket`. A monitor that is killed is
/// replaced; a container both of whose monitors were killed runs on, and how it ends is not known.
/// Where this process logs, the monitor does too, in `monitor.log` beside them.
///
/// # Errors
/// As [`crate::Container::start`].
#[allow(clippy::needless_pass_by_value)] // the mount must be let go of here
pub fn launch(
    dir: &Path,
    bundle: Bundle,
    streams: Streams,
    watch: MonitorOptions,
    options: &StartOptions,
) -> Result<State> {
    let missing = |source| Error::NoContainer { path: dir.to_owned(), source };
    let directory = File::open(dir).map_err(missing)?;
    // What was known of its health is that of an earlier life.
    let _ = std::fs::remove_file(dir.join(health::FILE));
    let Streams { interactive, attached: held, .. } = streams;
    let role = Role::Monitor { interactive, held, watch: Box::new(watch) };
    let (config, filter) =
        crate::container::configure(bundle.spec, options, streams.terminal, role)?;
    let lent = LentDescriptors::new(&options.descriptors)?;
    let mut fds = vec![bundle.rootfs.as_fd(), directory.as_fd()];
    fds.extend(lent.as_fds());
    let log = MonitorLog::create(dir).map_err(Error::system("creating", "monitor.log"))?;
    let mut stage = stage::spawn(&config, &filter, &fds, log.writer())?;
    drop(lent);
    // The monitor has forked itself away from this process.
    let _ = stage.process.wait();
    let answer = Answers::new(stage.line).next();
    log.pass_on();
    match answer {
        Some((Answer::Started(started), _)) => {
            tracing::debug!(container = options.id, pid = started.pid, "container started");
            // The container of a short program may be removed by now.
            Ok(state(dir).unwrap_or_else(|_| State::gone(started.cgroups)))
        }
        Some((Answer::Failed(failure), _)) => Err(failure.into()),
        _ => Err(Error::Lost { process: "monitor" }),
    }
}

/// Connects our standard streams with those of the container until it ends or the user detaches.
///
/// # Errors
/// [`Error::NotRunning`], [`Error::NoContainer`], [`Error::Cancelled`].
pub fn attach(dir: &Path, options: &AttachOptions, task: &Task) -> Result<AttachOutcome> {
    let (input, output, error) = (io::stdin(), io::stdout(), io::stderr());
    client::attach(dir, options, [input.as_fd(), output.as_fd(), error.as_fd()], task)
}

/// [`attach`] with other streams than the standard ones.
///
/// # Errors
/// As [`attach`].
pub fn attach_streams(
    dir: &Path,
    options: &AttachOptions,
    streams: Streams3<'_>,
    task: &Task,
) -> Result<AttachOutcome> {
    client::attach(dir, options, streams, task)
}

/// Runs a further program in the container, with our standard streams.
///
/// # Errors
/// As [`crate::Container::start`], [`Error::NotRunning`], [`Error::NoContainer`].
pub fn exec(
    dir: &Path,
    exec: &Exec,
    options: &AttachOptions,
    task: &Task,
) -> Result<AttachOutcome> {
    let (input, output, error) = (io::stdin(), io::stdout(), io::stderr());
    client::exec(dir, exec, options, [input.as_fd(), output.as_fd(), error.as_fd()], task)
}

/// [`exec`] with other streams than the standard ones.
///
/// # Errors
/// As [`exec`].
pub fn exec_streams(
    dir: &Path,
    exec: &Exec,
    options: &AttachOptions,
    streams: Streams3<'_>,
    task: &Task,
) -> Result<AttachOutcome> {
    client::exec(dir, exec, options, streams, task)
}

/// Checks the health of the container now, beside the checks at their times; gives how it ended.
///
/// # Errors
/// [`Error::NotRunning`], [`Error::NoContainer`]; [`Error::Invalid`] where it has no check.
pub fn check_health(dir: &Path, task: &Task) -> Result<ExitStatus> {
    client::check_health(dir, task)
}

/// Sends a signal to the container's first process; SIGKILL ends all of them.
///
/// # Errors
/// [`Error::NotRunning`], [`Error::NoContainer`].
pub fn signal(dir: &Path, signal: Signal) -> Result<()> {
    client::signal(dir, signal)
}

/// Changes the limits of a running container; what `limits` does not name stays as it is.
///
/// # Errors
/// [`Error::NoContainer`], [`Error::NotRunning`]; [`Error::Limit`] where its cgroup does not have
/// the limit.
pub fn update(dir: &Path, limits: &crate::Limits) -> Result<()> {
    let state = state(dir)?;
    if state.status != Status::Running {
        return Err(Error::NotRunning { path: dir.to_owned(), state: state.status.as_str() });
    }
    let resources = crate::spec::resources_of(limits)?;
    Ok(crate::cgroup::update(&state.cgroups, &resources)?)
}

/// Asks the container to end with `signal`, and kills it when it has not within `patience`. A task
/// that is cancelled leaves it as it is.
///
/// # Errors
/// [`Error::Cancelled`]; [`Error::NotRunning`], [`Error::NoContainer`], [`Error::Lost`] when the monitor was killed.
pub fn stop(dir: &Path, signal: Signal, patience: Duration, task: &Task) -> Result<ExitStatus> {
    match client::signal(dir, signal) {
        Ok(()) | Err(Error::Lost { .. }) => {}
        Err(error) => return Err(error),
    }
    if !patience.is_zero()
        && let Some(status) = client::wait(dir, Some(patience), task)?
    {
        return Ok(status);
    }
    match client::signal(dir, Signal::KILL) {
        // It ended just now.
        Ok(()) | Err(Error::NotRunning { .. } | Error::Lost { .. }) => wait(dir, task),
        Err(error) => Err(error),
    }
}

/// Waits for the container's end. A container that ended before is answered at once.
///
/// # Errors
/// [`Error::NoContainer`]; [`Error::Lost`] when the monitor was killed.
pub fn wait(dir: &Path, task: &Task) -> Result<ExitStatus> {
    loop {
        if let Some(status) = client::wait(dir, None, task)? {
            return Ok(status);
        }
    }
}

/// No `state.json` is larger.
const MAX_STATE: u64 = 64 << 10;

/// Where the container is in its life, checked against the monitor: it holds a lock while it lives.
/// Without one, a first process that lives still runs.
///
/// # Errors
/// [`Error::NoContainer`].
pub fn state(dir: &Path) -> Result<State> {
    let missing = |source| Error::NoContainer { path: dir.to_owned(), source };
    let lock = File::open(dir.join("lock")).map_err(missing)?;
    // Looked at before the state is read: a monitor writes the end before it lets go.
    let shared = rustix::fs::FlockOperation::NonBlockingLockShared;
    let alone = rustix::fs::flock(&lock, shared).is_ok();
    drop(lock);
    let mut text = Vec::new();
    let file = File::open(dir.join("state.json")).map_err(missing)?;
    file.take(MAX_STATE).read_to_end(&mut text).map_err(missing)?;
    let mut state: State = serde_json::from_slice(&text).map_err(|error| missing(error.into()))?;
    if alone && matches!(state.status, Status::Created | Status::Running) {
        state.monitor = 0;
        match state.exit {
            // Its monitor was killed when it had nothing left to do but to say so.
            Some(_) => (state.status, state.pid) = (Status::Exited, 0),
            None if client::is_alive(&state) => {}
            None => (state.status, state.pid) = (Status::Dead, 0),
        }
    }
    Ok(state)
}
