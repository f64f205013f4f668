//! `rbuild start`, `restart`, `stop`, `pause`, `unpause` and `update`.

use std::time::Duration;

use app::{App, Runnable, observed, quiet_task, several};
use clap::{Args, Subcommand};
use containers::syntax::restart;
use containers::{Container, Phase, StartOptions};
use options::container::{BlockFlags, LimitFlags};
use options::progress::Progress;
use options::{Failure, environment, flags};
use runtime::{AttachOptions, AttachOutcome, Signal};

use super::choice::{self, Choice};
use super::streams::{attachment, need_terminal};
use super::{containers, missing, start_failure};

/// Does the same to several containers at once, and prints their names. One that fails keeps no
/// other back; the exit code tells.
pub(super) fn each(
    app: &App,
    names: &[String],
    act: impl Fn(&Container) -> Result<(), Failure> + Sync,
) -> Result<u8, Failure> {
    let all = containers(app)?;
    at_once(names, &|name| act(&all.find(name)?.ok_or_else(|| missing(name))?).map(|()| true))
}

/// Does something to each name in a thread of its own, and prints the names for which it says so.
fn at_once(
    names: &[String],
    one: &(dyn Fn(&String) -> Result<bool, Failure> + Sync),
) -> Result<u8, Failure> {
    let results = std::thread::scope(|scope| {
        let threads: Vec<_> = names.iter().map(|name| scope.spawn(|| one(name))).collect();
        threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    let mut failures = Vec::new();
    for (name, result) in names.iter().zip(results) {
        match result {
            Ok(Ok(done)) => {
                if done {
                    outln!("{name}");
                }
            }
            Ok(Err(failure)) => failures.push(failure),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    several::answer(failures)
}

/// As [`each`] for listed containers: one that disappears meanwhile is not a failure.
pub(super) fn each_listed(
    app: &App,
    names: &[String],
    act: impl Fn(&Container) -> Result<(), Failure> + Sync,
) -> Result<u8, Failure> {
    let all = containers(app)?;
    at_once(names, &|name| {
        let Some(container) = all.find(name)? else { return Ok(false) };
        match act(&container) {
            Err(_) if all.find(container.id())?.is_none() => Ok(false),
            done => done.map(|()| true),
        }
    })
}

/// Start created or stopped containers, with their files
#[derive(Debug, Args)]
pub struct Start {
    /// Connect standard output and error, and forward signals
    #[arg(short, long, conflicts_with = "all")]
    attach: bool,
    /// Connect standard input too
    #[arg(short, long, conflicts_with = "all")]
    interactive: bool,
    /// Forward signals to the program with --attach (default: true)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    sig_proxy: Option<bool>,
    /// Detach with these keys
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", value_parser = flags::keys)]
    detach_keys: flags::Keys,
    /// Start all containers that do not run
    #[arg(long)]
    all: bool,
    /// With --all, start those whose restart policy applies at boot
    #[arg(long, requires = "all")]
    restart_policy: bool,
    /// Start matching containers that do not run, as `ps --filter`
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Start the newest container
    #[arg(short, long, conflicts_with_all = ["all", "containers"])]
    latest: bool,
    /// The containers
    #[arg(conflicts_with = "all", required_unless_present_any = ["all", "latest", "filter"])]
    containers: Vec<String>,
}

impl Runnable for Start {
    fn run(mut self, app: &App) -> Result<u8, Failure> {
        if self.latest {
            self.containers = vec![choice::latest(app)?.id().to_owned()];
        }
        if self.attach || self.interactive {
            return self.attached(app);
        }
        let start = |container: &Container| {
            let started = container.start(&options(false), &quiet_task("start"));
            started.map(drop).map_err(start_failure)
        };
        if !self.all && self.filter.is_empty() {
            return each(app, &self.containers, start);
        }
        let chosen = Choice::of(self.containers);
        let found = chosen.found(app, &self.filter, |container| {
            !container.is_running() && (container.wants_start() || !self.restart_policy)
        });
        each_listed(app, &found?, start)
    }
}

impl Start {
    /// Starts one container with our streams; gives back its exit code.
    fn attached(self, app: &App) -> Result<u8, Failure> {
        let [name] = &self.containers[..] else {
            return Err(Failure::usage("--attach is for one container"));
        };
        let keys = self.detach_keys.0;
        let container = super::require(app, name)?;
        let terminal = container.record().spec.process.terminal;
        if terminal && self.interactive {
            need_terminal()?;
        }
        let task = quiet_task("start");
        container.start(&options(true), &task).map_err(start_failure)?;
        let keys = if terminal { keys } else { Vec::new() };
        let forward_signals = self.sig_proxy != Some(false);
        let options =
            AttachOptions { replay: true, forward_signals, ..attachment(self.interactive, keys) };
        let ended = container.attach(&options, &task)?;
        task.done();
        Ok(match ended {
            AttachOutcome::Exited(status) => status.code(),
            AttachOutcome::Detached => 0,
        })
    }
}

fn options(attached: bool) -> StartOptions {
    let notify = environment::notify_socket();
    StartOptions { attached, size: size(), notify, ..StartOptions::default() }
}

/// Check the health of containers
#[derive(Debug, Subcommand)]
pub enum Healthcheck {
    /// Run the health check of a container now; exit with 1 if it fails
    Run {
        /// The container
        container: String,
    },
}

impl Runnable for Healthcheck {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let Healthcheck::Run { container } = self;
        let container = super::require(app, &container)?;
        let well =
            observed("healthcheck", Progress::Quiet, |task| Ok(container.check_health(task)?))?;
        outln!("{}", if well { "healthy" } else { "unhealthy" });
        Ok(u8::from(!well))
    }
}

/// The size of our terminal.
pub(crate) fn size() -> Option<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(std::io::stdin()).ok()?;
    Some((size.ws_row, size.ws_col))
}

/// Stop containers and start them again
#[derive(Debug, Args)]
pub struct Restart {
    /// Wait this many seconds before killing (default: the container's --stop-timeout, else 10)
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS", value_parser = patience, allow_hyphen_values = true)]
    time: Option<Duration>,
    /// Stop with this signal (default: the container's --stop-signal, else TERM)
    #[arg(short, long, value_name = "SIGNAL", value_parser = flags::signal)]
    signal: Option<Signal>,
    /// Restart all running containers
    #[arg(long, conflicts_with_all = ["all", "containers", "latest", "cidfile"])]
    running: bool,
    /// Restart matching containers, as `ps --filter`
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    #[command(flatten)]
    choice: Choice,
}

impl Runnable for Restart {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let Restart { time, signal, running, filter, mut choice } = self;
        choice.all |= running;
        choice.apply(
            app,
            &filter,
            false,
            |container| container.is_running() || !running,
            |container| {
                container.stop_by(signal, time, &quiet_task("stop"))?;
                let started = container.start(&options(false), &quiet_task("start"));
                started.map(drop).map_err(start_failure)
            },
        )
    }
}

/// Seconds to wait before a container is killed; `-1` waits as long as it takes.
///
/// # Errors
/// A sentence that says what was expected.
pub(crate) fn patience(text: &str) -> Result<Duration, String> {
    let seconds = match text {
        "-1" => Ok(u32::MAX),
        text => text.parse::<u32>(),
    };
    seconds
        .map(|seconds| Duration::from_secs(seconds.into()))
        .map_err(|_| "expected seconds, or -1 to wait as long as it takes".to_owned())
}

/// Stop containers, and kill those that do not stop in time
#[derive(Debug, Args)]
pub struct Stop {
    /// Wait this many seconds before killing (default: the container's --stop-timeout, else 10)
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS", value_parser = patience, allow_hyphen_values = true)]
    time: Option<Duration>,
    /// Stop with this signal (default: the container's --stop-signal, else TERM)
    #[arg(short, long, value_name = "SIGNAL", value_parser = flags::signal)]
    signal: Option<Signal>,
    /// Ignore missing containers
    #[arg(short, long)]
    ignore: bool,
    /// Stop matching containers, as `ps --filter`
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    #[command(flatten)]
    choice: Choice,
}

impl Runnable for Stop {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let Stop { time, signal, ignore, filter, choice } = self;
        choice.apply(
            app,
            &filter,
            ignore,
            |container| container.is_running() || container.phase() == Phase::Restarting,
            |container| Ok(container.stop_by(signal, time, &quiet_task("stop"))?),
        )
    }
}

/// Freeze the processes of containers
#[derive(Debug, Args)]
pub struct Pause {
    /// Pause matching containers, as `ps --filter`
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    #[command(flatten)]
    choice: Choice,
}

impl Runnable for Pause {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let running = |container: &Container| container.phase() == Phase::Running;
        self.choice.apply(app, &self.filter, false, running, |container| Ok(container.pause()?))
    }
}

/// Resume the processes of containers
#[derive(Debug, Args)]
pub struct Unpause {
    /// Resume matching containers, as `ps --filter`
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    #[command(flatten)]
    choice: Choice,
}

impl Runnable for Unpause {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let paused = |container: &Container| container.phase() == Phase::Paused;
        self.choice.apply(app, &self.filter, false, paused, |container| Ok(container.unpause()?))
    }
}

/// Change the limits or the restart policy of containers
///
/// A running container gets the limits at once, but for --ulimit, --shm-size, --oom-score-adj and
/// --cgroup-parent, which hold from its start.
#[derive(Debug, Args)]
pub struct Update {
    #[command(flatten)]
    limits: LimitFlags,
    #[command(flatten)]
    block: BlockFlags,
    /// Restart the container when it ends: no, on-failure[:TIMES], always or unless-stopped
    #[arg(long, value_name = "POLICY", value_parser = restart)]
    restart: Option<runtime::Restart>,
    /// The containers
    #[arg(required = true)]
    containers: Vec<String>,
}

impl Runnable for Update {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let mut limits = self.limits.limits();
        self.block.add(&mut limits)?;
        if limits == runtime::Limits::default() && self.restart.is_none() {
            return Err(Failure::usage("there is nothing to change")
                .hint("`rbuild update --help` lists the options"));
        }
        each(app, &self.containers, |container| {
            container.update(limits.clone(), self.restart).map_err(|error| match error {
                error @ containers::Error::Running { .. } => {
                    Failure::from(error).hint("stop it to change limits that hold from the start")
                }
                error => error.into(),
            })
        })
    }
}
