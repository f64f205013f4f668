//! `rbuild stats` and `healthcheck`.

use std::time::Duration;

use app::{App, Runnable, format};
use clap::{Args, Subcommand};
use containers::{Container, Usage, machine_memory};
use options::Failure;
use serde_json::{Value, json};

use super::events::Events;
use super::life::Healthcheck;
use super::top::Top;
use super::{choice, containers, require};
use progress::bytes;

/// Commands that report on containers.
#[derive(Debug, Subcommand)]
#[expect(missing_docs, reason = "the help of each command says it")]
pub enum StatusCommand {
    Top(Top),
    Stats(Stats),
    Events(Events),
    #[command(subcommand)]
    Healthcheck(Healthcheck),
}

impl Runnable for StatusCommand {
    fn run(self, app: &App) -> Result<u8, Failure> {
        match self {
            StatusCommand::Top(command) => command.run(app),
            StatusCommand::Stats(command) => command.run(app),
            StatusCommand::Events(command) => command.run(app),
            StatusCommand::Healthcheck(command) => command.run(app),
        }
    }
}

/// Show the resource usage of containers
#[derive(Debug, Args)]
pub struct Stats {
    /// Show containers that do not run too; they use nothing
    #[arg(short, long)]
    all: bool,
    /// Print once and exit
    #[arg(long)]
    no_stream: bool,
    /// Do not clear the screen between two lists
    #[arg(long)]
    no_reset: bool,
    /// Show full ids
    #[arg(long, visible_alias = "notruncate")]
    no_trunc: bool,
    /// Wait this many seconds between two lists
    #[arg(short, long, value_name = "SECONDS", default_value_t = 1)]
    interval: u32,
    /// Show the newest container
    #[arg(short, long, conflicts_with = "containers")]
    latest: bool,
    /// Format each container with a Go template (`table TEMPLATE` for columns), or json
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// The containers (default: all running)
    containers: Vec<String>,
}

const STATS_HEADERS: [(&str, &str); 9] = [
    ("ID", "CONTAINER ID"),
    ("Name", "NAME"),
    ("CPUPerc", "CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET I/O"),
    ("BlockIO", "BLOCK I/O"),
    ("PIDs", "PIDS"),
    ("Container", "CONTAINER"),
];

const STATS: &str = "table {{.ID}}\\t{{.Name}}\\t{{.CPUPerc}}\\t{{.MemUsage}}\\t{{.MemPerc}}\\t\
                     {{.NetIO}}\\t{{.BlockIO}}\\t{{.PIDs}}";

impl Runnable for Stats {
    /// Prints, every second until interrupted or nothing runs.
    fn run(self, app: &App) -> Result<u8, Failure> {
        let pause = Duration::from_secs(self.interval.max(1).into());
        let clears = !self.no_stream
            && !self.no_reset
            && self.format.is_none()
            && std::io::IsTerminal::is_terminal(&std::io::stdout());
        loop {
            let chosen = self.chosen(app)?;
            let before: Vec<_> = chosen.iter().map(|one| one.usage().ok()).collect();
            std::thread::sleep(if self.no_stream { Duration::from_secs(1) } else { pause });
            let rows: Vec<Value> = chosen
                .iter()
                .zip(before)
                .filter_map(|(container, before)| self.row(container, before))
                .collect();
            if clears {
                out!("\x1b[H\x1b[2J");
            }
            match self.format.as_deref() {
                Some("json") => rows.iter().for_each(|row| outln!("{row}")),
                given => {
                    let template = given.unwrap_or(STATS);
                    out!("{}", format::lines(template, &rows, &STATS_HEADERS, false)?);
                }
            }
            if self.no_stream || rows.is_empty() {
                return Ok(0);
            }
        }
    }
}

impl Stats {
    fn chosen(&self, app: &App) -> Result<Vec<Container>, Failure> {
        if self.latest {
            return Ok(vec![choice::latest(app)?]);
        }
        if self.containers.is_empty() {
            let all = containers(app)?.list()?.into_iter();
            let shown = |one: &Container| {
                one.is_running() || self.all && one.kind() == containers::Kind::Program
            };
            return Ok(all.filter(shown).collect());
        }
        self.containers.iter().map(|name| require(app, name)).collect()
    }

    /// One container; nothing where it ended meanwhile and ended ones are not wanted.
    fn row(&self, container: &Container, before: Option<Usage>) -> Option<Value> {
        let (now, seconds) = match (before, container.usage()) {
            (Some(before), Ok(now)) => (now, now.cpu.saturating_sub(before.cpu)),
            _ if self.all || !self.containers.is_empty() => (Usage::default(), 0),
            _ => return None,
        };
        let each = if self.no_stream { 1 } else { self.interval.max(1) };
        let limit = now.limit.unwrap_or_else(machine_memory).max(1);
        let percent = |part: f64| format!("{part:.2}%");
        let pair = |(one, other): (u64, u64)| format!("{} / {}", bytes(one), bytes(other));
        let id = if self.no_trunc { container.id() } else { &container.id()[..12] };
        Some(json!({
            "ID": id, "Container": container.id(), "Name": container.name(),
            "CPUPerc": percent(seconds as f64 / 10_000.0 / f64::from(each)),
            "MemUsage": pair((now.memory, limit)),
            "MemPerc": percent(now.memory as f64 * 100.0 / limit as f64),
            "NetIO": pair(now.network), "BlockIO": pair(now.io), "PIDs": now.pids,
        }))
    }
}
