//! `rbuild kill`, `wait`, `rm` and `container prune`.

use std::time::Duration;

use app::{App, Runnable, observed, quiet_task};
use clap::Args;
use containers::{Container, ContainerFilter, Containers, Kind, Phase};
use options::progress::Progress;
use options::{Dialect, Failure, flags};
use runtime::{Join, Signal};
use task::Task;

use super::choice::{self, Choice, told};
use super::life::{each_listed, patience};
use super::{containers, filters, image, missing, remove};

/// Send a signal to containers
#[derive(Debug, Args)]
pub struct Kill {
    /// Send this signal
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL", value_parser = flags::signal)]
    signal: Signal,
    /// Send it to matching containers, as `ps --filter`
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    #[command(flatten)]
    choice: Choice,
}

impl Runnable for Kill {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let Kill { signal, filter, choice } = self;
        let found = choice.finds(&filter);
        choice.apply(app, &filter, false, Container::is_running, |container| {
            match container.kill(signal) {
                // It ended since it was listed.
                Err(_) if found && container.again().is_ok_and(|now| !now.is_running()) => Ok(()),
                sent => Ok(sent?),
            }
        })
    }
}

/// What `wait` waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    /// Its program ended.
    Ended,
    /// Its record is gone.
    Removed,
    /// It is in this phase.
    Phase(Phase),
    /// Its health is this.
    Health(String),
}

fn condition(text: &str) -> Result<Condition, String> {
    Ok(match text {
        "not-running" | "next-exit" | "stopped" => Condition::Ended,
        "removed" | "removing" => Condition::Removed,
        "healthy" | "unhealthy" | "starting" => Condition::Health(text.to_owned()),
        "configured" | "initialized" => Condition::Phase(Phase::Created),
        name => match Phase::ALL.into_iter().find(|phase| phase.as_str() == name) {
            Some(phase) => Condition::Phase(phase),
            None => {
                return Err("expected created, running, paused, exited, stopped, removed, \
                            healthy or unhealthy"
                    .to_owned());
            }
        },
    })
}

impl Condition {
    fn holds(&self, container: &Container) -> bool {
        match self {
            Condition::Ended => matches!(container.phase(), Phase::Exited | Phase::Dead),
            Condition::Removed => false,
            Condition::Phase(phase) => container.phase() == *phase,
            Condition::Health(status) => {
                container.health().is_some_and(|health| health.status.as_str() == status)
            }
        }
    }
}

/// A time; a number alone is milliseconds.
fn interval(text: &str) -> Result<Duration, String> {
    let milliseconds = text.parse().map(Duration::from_millis).ok();
    let time = milliseconds.or_else(|| flags::duration(text).ok());
    time.filter(|time| !time.is_zero()).ok_or_else(|| "expected a time such as 250ms".to_owned())
}

/// Wait for containers to end and print their exit codes
#[derive(Debug, Args)]
pub struct Wait {
    /// Wait for one of these: created, running, paused, exited, stopped, removed, healthy or unhealthy;
    /// the exit code of a container that has not ended is printed as -1
    #[arg(long, value_name = "STATE", value_delimiter = ',', value_parser = condition)]
    condition: Vec<Condition>,
    /// Check the --condition at this interval
    #[arg(short, long, value_name = "TIME", default_value = "250ms", value_parser = interval)]
    interval: Duration,
    /// Wait for the newest container
    #[arg(short, long, conflicts_with = "containers")]
    latest: bool,
    /// Ignore missing containers; -1 is printed for them
    #[arg(long)]
    ignore: bool,
    /// The containers
    #[arg(required_unless_present = "latest")]
    containers: Vec<String>,
}

impl Runnable for Wait {
    fn run(mut self, app: &App) -> Result<u8, Failure> {
        if self.latest {
            self.containers = vec![choice::latest(app)?.id().to_owned()];
        }
        let all = containers(app)?;
        for name in &self.containers {
            let code = match all.find(name)? {
                None if self.ignore => -1,
                None => return Err(missing(name)),
                Some(container) if self.condition.is_empty() => {
                    let ended = |task: &Task| Ok(container.wait(task)?);
                    i32::from(observed("wait", Progress::Quiet, ended)?.code())
                }
                Some(container) => {
                    observed("wait", Progress::Quiet, |task| self.meets(container, task))?
                }
            };
            outln!("{code}");
        }
        Ok(0)
    }
}

impl Wait {
    /// Waits until one of the conditions holds; gives the exit code, or -1.
    fn meets(&self, mut container: Container, task: &Task) -> Result<i32, Failure> {
        loop {
            let code = container.exit().map_or(-1, |exit| i32::from(exit.code()));
            if self.condition.iter().any(|condition| condition.holds(&container)) {
                return Ok(code);
            }
            std::thread::sleep(self.interval);
            task.check().map_err(containers::Error::from)?;
            container = match container.again() {
                Ok(now) => now,
                Err(containers::Error::NoContainer { .. }) => {
                    let waits = [Condition::Removed, Condition::Ended];
                    return match self.condition.iter().any(|one| waits.contains(one)) {
                        true => Ok(code),
                        false => Err(missing(container.name())),
                    };
                }
                Err(error) => return Err(error.into()),
            };
        }
    }
}

/// Remove containers
#[derive(Debug, Args)]
pub struct Rm {
    /// Stop running containers first; ignore missing ones
    #[arg(short, long)]
    force: bool,
    /// With --force, wait this many seconds before killing (default: 0); -1 waits as long as it takes
    #[arg(short, long, value_name = "SECONDS", value_parser = patience, allow_hyphen_values = true, requires = "force")]
    time: Option<Duration>,
    /// Remove their anonymous volumes too
    #[arg(short, long)]
    volumes: bool,
    /// Ignore missing containers
    #[arg(short, long)]
    ignore: bool,
    /// Remove the containers that share the network of a removed one too
    #[arg(long)]
    depend: bool,
    /// Remove matching containers, as `ps --filter`
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    #[command(flatten)]
    choice: Choice,
}

impl Runnable for Rm {
    fn run(mut self, app: &App) -> Result<u8, Failure> {
        self.choice.read_files()?;
        let all = containers(app)?;
        if Dialect::spoken().prints_ids() {
            for name in &mut self.choice.containers {
                if let Some(found) = all.find(name)? {
                    found.id().clone_into(name);
                }
            }
        }
        if self.depend {
            self.choice.containers.extend(dependents(&all, &self.choice.containers)?);
        }
        self.remove(app).map_err(|failure| Dialect::spoken().removing(failure))
    }
}

/// The containers that share the network of one of these.
fn dependents(all: &Containers, names: &[String]) -> Result<Vec<String>, Failure> {
    let mut wanted = Vec::new();
    for name in names {
        wanted.extend(all.find(name)?);
    }
    let listed = all.list()?;
    let shares = listed.iter().filter(|container| {
        let network = &container.record().spec.network;
        let Some(Join::Container(name)) = &network.join else { return false };
        let named = |one: &Container| one.name() == name || one.id().starts_with(name.as_str());
        wanted.iter().any(named)
    });
    Ok(shares.map(told).collect())
}

impl Rm {
    fn remove(self, app: &App) -> Result<u8, Failure> {
        let Rm { force, time, volumes, ignore, depend: _, filter, choice } = self;
        let found = choice.finds(&filter);
        let removable = |container: &Container| force || !container.is_running();
        let everything = choice.all;
        let rm = |container: &Container| {
            if let Some(time) = time {
                container.stop(Some(time), &quiet_task("stop"))?;
            }
            match remove(container, force) {
                // Started since it was listed.
                Err(_)
                    if found && !force && container.again().is_ok_and(|now| now.is_running()) =>
                {
                    return Ok(());
                }
                removed => removed?,
            }
            if volumes {
                container.discard_volumes();
            }
            Ok(())
        };
        if everything {
            // Working containers and failed steps of builds too.
            let all = containers(app)?.list()?;
            let filters = filters(app, &filter)?;
            let some = all.iter().filter(|container| {
                removable(container) && ContainerFilter::all(&filters, container, &image(container))
            });
            return each_listed(app, &some.map(told).collect::<Vec<_>>(), rm);
        }
        choice.apply(app, &filter, force || ignore, removable, rm)
    }
}

/// Remove all containers that do not run
#[derive(Debug, Args)]
pub struct ContainerPrune {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Remove matching containers only: until=AGE|TIME, label=, label!=, or as `ps --filter`
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

impl Runnable for ContainerPrune {
    fn run(self, app: &App) -> Result<u8, Failure> {
        if !self.force && std::io::IsTerminal::is_terminal(&std::io::stdin()) {
            return Err(Failure::usage("this removes all containers that are not running")
                .hint("`rbuild container prune --force`"));
        }
        let filters = filters(app, &self.filter)?;
        let mut all = containers(app)?.list()?;
        all.retain(|container| {
            container.kind() == Kind::Program
                && [Phase::Created, Phase::Exited, Phase::Dead].contains(&container.phase())
                && ContainerFilter::all(&filters, container, &image(container))
        });
        let names: Vec<String> = all.iter().map(told).collect();
        each_listed(app, &names, |container| remove(container, false))
    }
}
