//! `rbuild ps`.

use clap::Args;
use containers::{Container, ContainerFilter, Kind};
use options::Failure;
use options::environment::now;
use serde_json::Value;

use super::{containers, cut, image, row};
use crate::app::App;
use crate::commands::Runnable;
use crate::commands::images::ago;
use crate::format;

/// List containers
#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Show stopped containers too
    #[arg(short, long)]
    all: bool,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
    /// Show the newest container only, running or not
    #[arg(short, long)]
    latest: bool,
    /// Show this many of the newest containers, running or not
    #[arg(short = 'n', long, value_name = "NUMBER", conflicts_with = "latest")]
    last: Option<usize>,
    /// Show matching containers only: id=, name=, status=, label=, ancestor=, exited=, volume=,
    /// network=, health=
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Show full ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// Format each container with a Go template (`table TEMPLATE` for columns), or json
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

/// What the columns of `--format table …` are called.
const HEADERS: [(&str, &str); 11] = [
    ("ID", "CONTAINER ID"),
    ("Names", "NAMES"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("Status", "STATUS"),
    ("State", "STATE"),
    ("CreatedAt", "CREATED AT"),
    ("Pid", "PID"),
    ("Labels", "LABELS"),
    ("Ports", "PORTS"),
    ("Networks", "NETWORKS"),
];

fn filter(text: &str) -> Result<ContainerFilter, Failure> {
    ContainerFilter::parse(text).ok_or_else(|| {
        Failure::usage(format!("--filter {text:?} is not supported"))
            .hint("id=, name=, status=, label=, ancestor=, exited=, volume=, network=, health= are")
    })
}

impl Runnable for Ps {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let filters = self.filter.iter().map(|text| filter(text)).collect::<Result<Vec<_>, _>>()?;
        let of_state = filters.iter().any(ContainerFilter::is_of_state);
        let last = if self.latest { Some(1) } else { self.last };
        let all = self.all || last.is_some() || of_state;
        let mut found = containers(app)?.list()?;
        found.retain(|container| {
            let shown = all && container.kind() == Kind::Program;
            (container.is_running() || shown)
                && ContainerFilter::all(&filters, container, &image(container))
        });
        found.reverse();
        found.truncate(last.unwrap_or(usize::MAX));
        match self.format.as_deref() {
            Some("json") => {
                let rows: Vec<Value> = found.iter().map(row).collect();
                outln!("{:#}", Value::from(rows));
            }
            Some(template) if !template.starts_with("table") => {
                for container in &found {
                    outln!("{}", format::template(template, &row(container))?);
                }
            }
            _ if self.quiet => found.iter().for_each(|container| outln!("{}", self.id(container))),
            Some(table) => {
                let rows: Vec<Value> = found.iter().map(row).collect();
                out!("{}", format::lines(table, &rows, &HEADERS, false)?);
            }
            None => out!("{}", self.table(&found)),
        }
        Ok(0)
    }
}

impl Ps {
    fn id<'a>(&self, container: &'a Container) -> &'a str {
        let id = container.id();
        if self.no_trunc { id } else { &id[..id.len().min(12)] }
    }

    fn table(&self, found: &[Container]) -> String {
        let width = if self.no_trunc { usize::MAX } else { 32 };
        let rows = found.iter().map(|container| {
            let created = i64::try_from(container.row().created).unwrap_or_default();
            let created = jiff::Timestamp::from_second(created).map(|time| ago(&time.to_string()));
            vec![
                self.id(container).to_owned(),
                cut(&image(container), width),
                cut(&container.command_line(), width),
                created.unwrap_or_default(),
                container.status(now()),
                container.port_text(),
                container.name().to_owned(),
            ]
        });
        let header = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"];
        format::table(&header, &rows.collect::<Vec<_>>())
    }
}
