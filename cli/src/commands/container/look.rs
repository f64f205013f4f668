//! `rbuild top`, `stats` and `events`.

use std::time::Duration;

use clap::{Args, Subcommand};
use containers::{Container, Event, Usage};
use options::progress::Progress;
use options::{Failure, flags};
use serde_json::{Value, json};

use super::life::Healthcheck;
use super::{containers, require};
use crate::app::{App, observed};
use crate::commands::Runnable;
use crate::format;
use progress::bytes;

/// Commands that look at containers.
#[derive(Debug, Subcommand)]
pub(crate) enum Look {
    Top(Top),
    Stats(Stats),
    Events(Events),
    #[command(subcommand)]
    Healthcheck(Healthcheck),
}

impl Runnable for Look {
    fn run(self, app: &App) -> Result<u8, Failure> {
        match self {
            Look::Top(command) => command.run(app),
            Look::Stats(command) => command.run(app),
            Look::Events(command) => command.run(app),
            Look::Healthcheck(command) => command.run(app),
        }
    }
}

/// Show the processes of a container
#[derive(Debug, Args)]
pub(crate) struct Top {
    /// The container
    container: String,
}

impl Runnable for Top {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let processes = require(app, &self.container)?.processes()?;
        let ticks = rustix::param::clock_ticks_per_second().max(1);
        let rows = processes.iter().map(|process| {
            let seconds = process.ticks / ticks;
            vec![
                process.uid.to_string(),
                process.pid.to_string(),
                process.parent.to_string(),
                format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
                process.command.clone(),
            ]
        });
        let header = ["UID", "PID", "PPID", "TIME", "CMD"];
        out!("{}", format::table(&header, &rows.collect::<Vec<_>>()));
        Ok(0)
    }
}

/// Show the resource usage of containers
#[derive(Debug, Args)]
pub(crate) struct Stats {
    /// Accepted: stopped containers use nothing
    #[arg(short, long)]
    all: bool,
    /// Print once and exit
    #[arg(long)]
    no_stream: bool,
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
        loop {
            let chosen = self.chosen(app)?;
            let before: Vec<_> = chosen.iter().map(|c| c.usage().ok()).collect();
            std::thread::sleep(Duration::from_secs(1));
            let rows: Vec<Value> = chosen
                .iter()
                .zip(before)
                .filter_map(|(container, before)| row(container, before?))
                .collect();
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
        if self.containers.is_empty() {
            let all = containers(app)?.list()?.into_iter();
            return Ok(all.filter(Container::is_running).collect());
        }
        self.containers.iter().map(|name| require(app, name)).collect()
    }
}

fn machine_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    number.unwrap_or(0) * 1024
}

fn row(container: &Container, before: Usage) -> Option<Value> {
    let now = container.usage().ok()?;
    let limit = now.limit.unwrap_or_else(machine_memory).max(1);
    let percent = |part: f64| format!("{part:.2}%");
    Some(json!({
        "ID": &container.id()[..12], "Container": container.id(), "Name": container.name(),
        "CPUPerc": percent(now.cpu.saturating_sub(before.cpu) as f64 / 10_000.0),
        "MemUsage": format!("{} / {}", bytes(now.memory), bytes(limit)),
        "MemPerc": percent(now.memory as f64 * 100.0 / limit as f64),
        "NetIO": format!("{} / {}", bytes(now.network.0), bytes(now.network.1)),
        "BlockIO": format!("{} / {}", bytes(now.io.0), bytes(now.io.1)),
        "PIDs": now.pids,
    }))
}

/// Show events of containers
#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Show events since then: an RFC 3339 time, seconds since 1970, or an age such as 10m
    #[arg(long, value_name = "TIME", value_parser = flags::moment)]
    since: Option<f64>,
    /// Show events until then and exit: as --since
    #[arg(long, value_name = "TIME", value_parser = flags::moment)]
    until: Option<f64>,
    /// Show matching events only: type=, event=, container=, image=, label=
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Format each event with a Go template, or json
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

impl Runnable for Events {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let filters = self.filter.iter().map(|text| {
            text.split_once('=')
                .filter(|(key, _)| ["type", "event", "container", "image", "label"].contains(key))
                .ok_or_else(|| {
                    Failure::usage(format!("--filter {text:?} is not supported"))
                        .hint("type=, event=, container=, image= and label= are")
                })
        });
        let filters = filters.collect::<Result<Vec<_>, _>>()?;
        let all = containers(app)?;
        observed("events", Progress::Quiet, |task| {
            let mut failed = None;
            all.events(self.since, self.until, task, &mut |event| {
                if event.is_all(&filters)
                    && let Err(failure) = self.print(&event)
                {
                    failed.get_or_insert(failure);
                }
            })?;
            failed.map_or(Ok(()), Err)
        })?;
        Ok(0)
    }
}

impl Events {
    fn print(&self, event: &Event) -> Result<(), Failure> {
        let value = json!({
            "Time": event.time, "Type": event.kind, "Action": event.action, "Status": event.action,
            "ID": event.id, "Actor": {"ID": event.id, "Attributes": event.attributes},
            "Name": event.attributes.get("name"), "Attributes": event.attributes,
        });
        match self.format.as_deref() {
            Some("json") => outln!("{value}"),
            Some(template) => outln!("{}", format::template(template, &value)?),
            None => {
                let time = containers::rfc3339(event.time).unwrap_or_default();
                let pairs = event.attributes.iter().map(|(key, value)| format!("{key}={value}"));
                let pairs = pairs.collect::<Vec<_>>().join(", ");
                outln!("{time} {} {} {} ({pairs})", event.kind, event.action, event.id);
            }
        }
        Ok(())
    }
}
