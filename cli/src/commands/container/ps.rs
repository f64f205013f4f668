//! `rbuild ps`.

use clap::Args;
use containers::{Container, Kind};
use serde_json::Value;

use super::{command, containers, cut, image, network_names, ports, row, status};
use crate::app::App;
use crate::commands::images::ago;
use crate::format;
use crate::report::Failure;

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

/// One condition of `--filter`.
struct Condition {
    key: String,
    value: String,
}

impl Condition {
    fn read(text: &str) -> Result<Condition, Failure> {
        const KEYS: [&str; 9] =
            ["id", "name", "status", "label", "ancestor", "exited", "volume", "network", "health"];
        match text.split_once('=') {
            Some((key, value)) if KEYS.contains(&key) => {
                Ok(Condition { key: key.to_owned(), value: value.to_owned() })
            }
            _ => Err(Failure::usage(format!("--filter {text:?} is not supported"))
                .hint(format!("{} are", KEYS.map(|key| format!("{key}=")).join(", ")))),
        }
    }

    fn holds(&self, container: &Container) -> bool {
        let value = self.value.as_str();
        let record = container.record();
        match self.key.as_str() {
            "id" => container.id().starts_with(value),
            "name" => container.name().contains(value.trim_start_matches('/')),
            "health" => {
                let health = container.health().map(|health| health.status.as_str());
                health.unwrap_or("none") == value
            }
            "status" => container.phase().as_str() == value,
            "exited" => container.exit().is_some_and(|exit| exit.code().to_string() == value),
            "network" => network_names(container).iter().any(|name| name == value),
            "volume" => record
                .volumes
                .iter()
                .any(|mounted| mounted.volume == value || mounted.target.to_str() == Some(value)),
            "label" => {
                let (key, wanted) = value.split_once('=').unwrap_or((value, ""));
                let found = record.spec.lifecycle.labels.get(key);
                found.is_some_and(|own| !value.contains('=') || own == wanted)
            }
            _ => {
                let (own, tag) = (image(container), format!("{value}:latest"));
                let tail = |name: &str| own == name || own.ends_with(&format!("/{name}"));
                let digest = container.row().image.as_ref();
                let digest = digest.map(|image| image.digest.to_string());
                tail(value) || tail(&tag) || digest.is_some_and(|d| d.starts_with(value))
            }
        }
    }
}

/// The filters of one key are alternatives; those of several keys must all hold.
fn filtered(container: &Container, conditions: &[Condition]) -> bool {
    conditions.iter().all(|condition| {
        let same = conditions.iter().filter(|other| other.key == condition.key);
        condition.holds(container)
            || condition.key != "label" && same.into_iter().any(|other| other.holds(container))
    })
}

impl Ps {
    /// Lists the newest first.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn run(self, app: &App) -> Result<u8, Failure> {
        let conditions =
            self.filter.iter().map(|text| Condition::read(text)).collect::<Result<Vec<_>, _>>()?;
        let of_state = conditions.iter().any(|c| matches!(c.key.as_str(), "status" | "exited"));
        let last = if self.latest { Some(1) } else { self.last };
        let all = self.all || last.is_some() || of_state;
        let mut found = containers(app)?.list()?;
        found.retain(|container| {
            let shown = all && container.kind() == Kind::Program;
            (container.is_running() || shown) && filtered(container, &conditions)
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
                cut(&command(container), width),
                created.unwrap_or_default(),
                status(container),
                ports(container),
                container.name().to_owned(),
            ]
        });
        let header = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"];
        format::table(&header, &rows.collect::<Vec<_>>())
    }
}
