//! `rbuild start`, `restart`, `stop`, `kill`, `wait`, `rm` and `container prune`.

use std::time::Duration;

use clap::{Args, Subcommand};
use containers::syntax::restart;
use containers::{Container, Phase, StartOptions};
use options::container::{BlockFlags, LimitFlags};
use options::progress::Progress;
use options::{Dialect, Failure, environment, flags};
use runtime::{AttachOptions, Attached, Signal};

use super::streams::{attachment, need_terminal};
use super::{containers, missing, remove, start_failure};
use crate::app::{App, observed, quiet_task};
use crate::commands::Runnable;
use crate::commands::several;

/// Does the same to several containers at once, and prints their names. One that fails keeps no
/// other back; the exit code tells.
fn each(
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

/// The names of the containers in one of these phases.
fn names_of(app: &App, phases: &[Phase]) -> Result<Vec<String>, Failure> {
    let all = containers(app)?.list()?;
    let some = all.iter().filter(|container| {
        container.kind() == containers::Kind::Program && phases.contains(&container.phase())
    });
    Ok(some.map(|container| container.name().to_owned()).collect())
}

/// As [`each`] for listed containers: one that disappears meanwhile is not a failure.
fn each_listed(
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
pub(crate) struct Start {
    /// Connect standard output and error, and forward signals
    #[arg(short, long)]
    attach: bool,
    /// Connect standard input too
    #[arg(short, long)]
    interactive: bool,
    /// Detach with these keys
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", value_parser = flags::keys)]
    detach_keys: flags::Keys,
    /// Start all containers that do not run
    #[arg(long, conflicts_with_all = ["containers", "attach", "interactive"])]
    all: bool,
    /// With --all, start those whose restart policy applies at boot
    #[arg(long, requires = "all")]
    restart_policy: bool,
    /// The containers
    #[arg(required_unless_present = "all")]
    containers: Vec<String>,
}

impl Runnable for Start {
    fn run(self, app: &App) -> Result<u8, Failure> {
        if self.all {
            let all = containers(app)?.list()?;
            let some = all.iter().filter(|container| {
                container.kind() == containers::Kind::Program
                    && !container.is_running()
                    && (container.wants_start() || !self.restart_policy)
            });
            let names: Vec<String> = some.map(|container| container.name().to_owned()).collect();
            return each_listed(app, &names, |container| {
                container
                    .start(&StartOptions::default(), &quiet_task("start"))
                    .map(drop)
                    .map_err(start_failure)
            });
        }
        if !self.attach && !self.interactive {
            return each(app, &self.containers, |container| {
                let started = container.start(&options(false), &quiet_task("start"));
                started.map(drop).map_err(start_failure)
            });
        }
        let [name] = &self.containers[..] else {
            return Err(Failure::usage("--attach is for one container"));
        };
        let keys = self.detach_keys.0.clone();
        let container = super::require(app, name)?;
        let terminal = container.record().spec.process.terminal;
        if terminal && self.interactive {
            need_terminal()?;
        }
        let task = quiet_task("start");
        container.start(&options(true), &task).map_err(start_failure)?;
        let keys = if terminal { keys } else { Vec::new() };
        let options = AttachOptions { replay: true, ..attachment(self.interactive, keys) };
        let ended = container.attach(&options, &task)?;
        task.done();
        Ok(match ended {
            Attached::Exited(status) => status.code(),
            Attached::Detached => 0,
        })
    }
}

fn options(attached: bool) -> StartOptions {
    StartOptions { attached, size: size(), notify: environment::notify_socket() }
}

/// Check the health of containers
#[derive(Debug, Subcommand)]
pub(crate) enum Healthcheck {
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
pub(crate) struct Restart {
    /// Wait this many seconds before killing (default: the container's --stop-timeout, else 10)
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS")]
    time: Option<u32>,
    /// The containers
    #[arg(required = true)]
    containers: Vec<String>,
}

impl Runnable for Restart {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let patience = self.time.map(|seconds| Duration::from_secs(seconds.into()));
        each(app, &self.containers, |container| {
            container.stop(patience, &quiet_task("stop"))?;
            let started = container.start(&options(false), &quiet_task("start"));
            started.map(drop).map_err(start_failure)
        })
    }
}

/// Stop containers, and kill those that do not stop in time
#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// Wait this many seconds before killing (default: the container's --stop-timeout, else 10)
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS")]
    time: Option<u32>,
    /// Apply to all running containers
    #[arg(short, long, conflicts_with = "containers")]
    all: bool,
    /// Ignore missing containers
    #[arg(short, long)]
    ignore: bool,
    /// The containers
    #[arg(required_unless_present = "all")]
    containers: Vec<String>,
}

impl Runnable for Stop {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let patience = self.time.map(|seconds| Duration::from_secs(seconds.into()));
        let stop = |container: &Container| Ok(container.stop(patience, &quiet_task("stop"))?);
        if self.all {
            let phases = [Phase::Running, Phase::Paused, Phase::Restarting];
            each_listed(app, &names_of(app, &phases)?, stop)
        } else if self.ignore {
            each_listed(app, &self.containers, stop)
        } else {
            each(app, &self.containers, stop)
        }
    }
}

/// Freeze the processes of containers
#[derive(Debug, Args)]
pub(crate) struct Pause {
    /// Apply to all running containers
    #[arg(short, long, conflicts_with = "containers")]
    all: bool,
    /// The containers
    #[arg(required_unless_present = "all")]
    containers: Vec<String>,
}

impl Runnable for Pause {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let pause = |container: &Container| Ok(container.pause()?);
        match self.all {
            true => each_listed(app, &names_of(app, &[Phase::Running])?, pause),
            false => each(app, &self.containers, pause),
        }
    }
}

/// Resume the processes of containers
#[derive(Debug, Args)]
pub(crate) struct Unpause {
    /// Resume all paused containers
    #[arg(short, long, conflicts_with = "containers")]
    all: bool,
    /// The containers
    #[arg(required_unless_present = "all")]
    containers: Vec<String>,
}

impl Runnable for Unpause {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let unpause = |container: &Container| Ok(container.unpause()?);
        match self.all {
            true => each_listed(app, &names_of(app, &[Phase::Paused])?, unpause),
            false => each(app, &self.containers, unpause),
        }
    }
}

/// Change the limits or the restart policy of containers
///
/// A running container gets the limits at once, but for --ulimit, --shm-size, --oom-score-adj and
/// --cgroup-parent, which hold from its start.
#[derive(Debug, Args)]
pub(crate) struct Update {
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

/// Send a signal to containers
#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// Send this signal
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL", value_parser = flags::signal)]
    signal: Signal,
    /// Apply to all running containers
    #[arg(short, long, conflicts_with = "containers")]
    all: bool,
    /// The containers
    #[arg(required_unless_present = "all")]
    containers: Vec<String>,
}

impl Runnable for Kill {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let kill = |container: &Container| Ok(container.kill(self.signal)?);
        if !self.all {
            return each(app, &self.containers, kill);
        }
        let names = names_of(app, &[Phase::Running, Phase::Paused])?;
        each_listed(app, &names, |container| match kill(container) {
            Err(_) if container.again().is_ok_and(|now| !now.is_running()) => Ok(()),
            sent => sent,
        })
    }
}

/// Wait for containers to end and print their exit codes
#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// The containers
    #[arg(required = true)]
    containers: Vec<String>,
}

impl Runnable for Wait {
    fn run(self, app: &App) -> Result<u8, Failure> {
        for name in &self.containers {
            let container = super::require(app, name)?;
            let status = observed("wait", Progress::Quiet, |task| Ok(container.wait(task)?))?;
            outln!("{}", status.code());
        }
        Ok(0)
    }
}

/// Remove containers
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// Kill running containers first; ignore missing ones
    #[arg(short, long)]
    force: bool,
    /// Remove their anonymous volumes too
    #[arg(short, long)]
    volumes: bool,
    /// Ignore missing containers
    #[arg(short, long)]
    ignore: bool,
    /// Remove all stopped containers; with --force all
    #[arg(short, long, conflicts_with = "containers")]
    all: bool,
    /// The containers
    #[arg(required_unless_present = "all")]
    containers: Vec<String>,
}

impl Runnable for Rm {
    fn run(mut self, app: &App) -> Result<u8, Failure> {
        if Dialect::spoken().prints_ids() {
            let all = containers(app)?;
            for name in &mut self.containers {
                if let Some(found) = all.find(name)? {
                    found.id().clone_into(name);
                }
            }
        }
        self.remove(app).map_err(|failure| Dialect::spoken().removing(failure))
    }
}

impl Rm {
    fn remove(self, app: &App) -> Result<u8, Failure> {
        let rm = |container: &Container| {
            remove(container, self.force)?;
            if self.volumes {
                container.discard_volumes();
            }
            Ok(())
        };
        if !self.all {
            return if self.force || self.ignore {
                each_listed(app, &self.containers, rm)
            } else {
                each(app, &self.containers, rm)
            };
        }
        let all = containers(app)?.list()?;
        let some = all.iter().filter(|container| self.force || !container.is_running());
        let names: Vec<String> = some.map(|container| container.name().to_owned()).collect();
        each_listed(app, &names, |container| match rm(container) {
            // Started since it was listed.
            Err(_) if !self.force && container.again().is_ok_and(|now| now.is_running()) => Ok(()),
            removed => removed,
        })
    }
}

/// Remove all containers that do not run
#[derive(Debug, Args)]
pub(crate) struct ContainerPrune {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

impl Runnable for ContainerPrune {
    fn run(self, app: &App) -> Result<u8, Failure> {
        if !self.force && std::io::IsTerminal::is_terminal(&std::io::stdin()) {
            return Err(Failure::usage("this removes all containers that are not running")
                .hint("`rbuild container prune --force`"));
        }
        let names = names_of(app, &[Phase::Created, Phase::Exited, Phase::Dead])?;
        each_listed(app, &names, |container| remove(container, false))
    }
}
