//! `rbuild ps`.

use std::time::Duration;

use app::format::ago;
use app::{App, Runnable, format};
use clap::{Args, ValueEnum};
use containers::{Container, ContainerFilter, Kind};
use options::environment::now;
use options::{Dialect, Failure};
use serde_json::{Value, json};

use super::{containers, filters, image};

/// List containers
#[derive(Debug, Args)]
pub struct Ps {
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
    #[arg(
        short = 'n',
        long,
        value_name = "NUMBER",
        conflicts_with = "latest",
        allow_hyphen_values = true
    )]
    last: Option<i64>,
    /// Show matching containers only: id=, name=, status=, label=, label!=, ancestor=, exited=,
    /// before=, since=, until=, volume=, network=, publish=, expose=, health=, restart-policy=,
    /// command=, is-task=
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Show full ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// Show the size of each container: of its changes, and with its image
    #[arg(short, long)]
    size: bool,
    /// Show working containers of `from` and failed steps of builds too
    #[arg(long, visible_alias = "storage")]
    external: bool,
    /// Print no header
    #[arg(long)]
    noheading: bool,
    /// Sort by command, created, id, image, names, runningfor, size or status
    #[arg(long, value_name = "COLUMN", value_enum, default_value = "created", ignore_case = true)]
    sort: Sort,
    /// Print the list again after this many seconds, until interrupted
    #[arg(short, long, value_name = "SECONDS")]
    watch: Option<u32>,
    /// Format each container with a Go template (`table TEMPLATE` for columns), or json
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

/// A column that sorts the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sort {
    Command,
    Created,
    Id,
    Image,
    Names,
    Runningfor,
    Size,
    Status,
}

/// What the columns of `--format table …` are called.
const HEADERS: [(&str, &str); 21] = [
    ("ID", "CONTAINER ID"),
    ("Names", "NAMES"),
    ("Image", "IMAGE"),
    ("ImageID", "IMAGE ID"),
    ("Command", "COMMAND"),
    ("Created", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedHuman", "CREATED"),
    ("RunningFor", "CREATED"),
    ("Status", "STATUS"),
    ("State", "STATE"),
    ("Health", "HEALTH"),
    ("ExitCode", "EXIT CODE"),
    ("Pid", "PID"),
    ("Labels", "LABELS"),
    ("Ports", "PORTS"),
    ("Networks", "NETWORKS"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Size", "SIZE"),
    ("Restarts", "RESTARTS"),
];

impl Runnable for Ps {
    fn run(self, app: &App) -> Result<u8, Failure> {
        loop {
            self.show(&self.found(app)?)?;
            let Some(seconds) = self.watch else { return Ok(0) };
            std::thread::sleep(Duration::from_secs(seconds.max(1).into()));
        }
    }
}

impl Ps {
    fn found(&self, app: &App) -> Result<Vec<Container>, Failure> {
        let filters = filters(app, &self.filter)?;
        let of_state = filters.iter().any(ContainerFilter::is_of_state);
        let last = self.last.and_then(|number| usize::try_from(number).ok());
        let last = if self.latest { Some(1) } else { last };
        let all = self.all || last.is_some() || of_state;
        let mut found = containers(app)?.list()?;
        found.retain(|container| {
            let program = container.kind() == Kind::Program;
            let shown = all && program || self.external && !program;
            (container.is_running() || shown)
                && ContainerFilter::all(&filters, container, &image(container))
        });
        found.reverse();
        found.truncate(last.unwrap_or(usize::MAX));
        match self.sort {
            // Newest first, as they are.
            Sort::Created | Sort::Runningfor => {}
            Sort::Command => found.sort_by_key(Container::command_line),
            Sort::Id => found.sort_by_key(|container| container.id().to_owned()),
            Sort::Image => found.sort_by_key(image),
            Sort::Names => found.sort_by_key(|container| container.name().to_owned()),
            Sort::Size => found.sort_by_key(Container::written),
            Sort::Status => found.sort_by_key(|container| container.status(now())),
        }
        Ok(found)
    }

    fn show(&self, found: &[Container]) -> Result<(), Failure> {
        let ids = || found.iter().for_each(|container| outln!("{}", self.id(container)));
        match self.format.as_deref() {
            Some("json") if Dialect::spoken() == Dialect::Docker => {
                found.iter().for_each(|container| outln!("{}", self.row(container)));
            }
            Some("json") => {
                let rows: Vec<Value> = found.iter().map(|container| self.row(container)).collect();
                outln!("{:#}", Value::from(rows));
            }
            None if self.quiet => ids(),
            Some(table) if self.quiet && table.starts_with("table") => ids(),
            None => out!("{}", format::headed(self.table(found), self.noheading)),
            Some(template) => {
                let rows: Vec<Value> = found.iter().map(|container| self.row(container)).collect();
                out!("{}", format::lines(template, &rows, &HEADERS, self.noheading)?);
            }
        }
        Ok(())
    }

    fn id<'a>(&self, container: &'a Container) -> &'a str {
        let id = container.id();
        if self.no_trunc { id } else { &id[..id.len().min(12)] }
    }

    /// A command as docker shows it: in quotes, cut at 20 characters.
    fn command(&self, container: &Container) -> String {
        let line = container.command_line();
        match (Dialect::spoken(), self.no_trunc) {
            (Dialect::Docker, true) => format!("\"{line}\""),
            (Dialect::Docker, false) => format!("\"{}\"", format::cut(&line, 20)),
            _ => line,
        }
    }

    /// What the container wrote, and that with its image.
    fn size(container: &Container) -> String {
        let written = container.written();
        let whole = written + container.image_size();
        format!("{} (virtual {})", progress::bytes(written), progress::bytes(whole))
    }

    /// One container for templates and JSON.
    fn row(&self, container: &Container) -> Value {
        let mounts = container.mounted();
        let created = container.row().created;
        let age = created_ago(container);
        let labels = &container.record().spec.lifecycle.labels;
        let pairs = labels.iter().map(|(key, value)| format!("{key}={value}"));
        let labels = match Dialect::spoken() {
            Dialect::Docker => json!(pairs.collect::<Vec<_>>().join(",")),
            _ => json!(labels),
        };
        let whole = self.no_trunc || self.format.as_deref() == Some("json");
        let id = if whole { container.id() } else { self.id(container) };
        let wants_size = self.size || self.asks("Size");
        let image_id = || container.image_id().map(|id| id.to_string());
        let mut row = json!({
            "ID": id, "Names": container.name(), "Image": image(container),
            "ImageID": if whole || self.asks("ImageID") { image_id() } else { None },
            "Command": self.command(container), "Status": container.status(now()),
            "State": container.phase().as_str(),
            "Health": container.health().map(|health| health.status.as_str()),
            "Created": if whole { json!(created) } else { json!(age) },
            "CreatedAt": at(created), "CreatedHuman": age, "RunningFor": age,
            "ExitCode": container.exit().map_or(0, runtime::ExitStatus::code),
            "Exited": container.exit().is_some(),
            "Pid": container.state().map_or(0, |state| state.pid),
            "Labels": labels,
            "Ports": container.port_text(), "Networks": container.network_names().join(","),
            "Mounts": mounts.join(","), "LocalVolumes": container.record().volumes.len(),
            "Restarts": container.restarts(), "Platform": "linux",
            "Size": if wants_size { Ps::size(container) } else { String::new() },
        });
        if self.format.as_deref() != Some("json") {
            // For `.Label "KEY"`.
            row["LabelMap"] = json!(container.record().spec.lifecycle.labels);
        }
        row
    }

    /// Whether the template has this field.
    fn asks(&self, field: &str) -> bool {
        self.format.as_deref().is_some_and(|format| format.contains(field))
    }

    fn table(&self, found: &[Container]) -> String {
        let width = if self.no_trunc { usize::MAX } else { 32 };
        let rows = found.iter().map(|container| {
            let mut row = vec![
                self.id(container).to_owned(),
                image(container),
                format::cut(&self.command(container), width),
                created_ago(container),
                container.status(now()),
                container.port_text(),
                container.name().to_owned(),
            ];
            row.extend(self.size.then(|| Ps::size(container)));
            row
        });
        let header =
            ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES", "SIZE"];
        let columns = if self.size { 8 } else { 7 };
        format::table(&header[..columns], &rows.collect::<Vec<_>>())
    }
}

fn created_ago(container: &Container) -> String {
    let created = i64::try_from(container.row().created).unwrap_or_default();
    let created = jiff::Timestamp::from_second(created).map(|time| ago(&time.to_string()));
    created.unwrap_or_default()
}

/// A moment as docker's lists have it: `2026-01-31 12:00:00 +0000 UTC`.
fn at(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or_default();
    let time = jiff::Timestamp::from_second(seconds);
    time.map(|time| time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string()).unwrap_or_default()
}
