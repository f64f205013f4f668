//! `rbuild volume`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use app::{App, Runnable, observed, quiet_task, several};
use clap::{Args, Subcommand};
use containers::{Volume as StoredVolume, VolumeFilter, Volumes};
use options::progress::Progress;
use options::{Failure, environment, flags};
use serde_json::Value;

use crate::container::{out_of, patience};
use crate::table::TableFlags;

/// Manage volumes: directories that outlive containers
#[derive(Debug, Subcommand)]
#[expect(missing_docs, reason = "the help of each command says it")]
pub enum Volume {
    Create(Create),
    #[command(alias = "list")]
    Ls(Ls),
    Inspect(Inspect),
    #[command(alias = "remove")]
    Rm(Rm),
    Exists(Exists),
    Export(Export),
    Import(Import),
    Prune(Prune),
}

impl Runnable for Volume {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let volumes = Volumes::new(app.store()?.clone());
        run_each! { self, &volumes, Volume {
            Create, Ls, Inspect, Rm, Exists, Export, Import, Prune,
        } }
    }
}

/// The document of a volume.
///
/// # Errors
/// There is no such volume.
pub fn document(app: &App, name: &str) -> Result<Value, Failure> {
    Ok(Volumes::new(app.store()?.clone()).get(name)?.document())
}

/// Make a volume
#[derive(Debug, Args)]
pub struct Create {
    /// Add a label
    #[arg(short, long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Accepted: `local` is the only driver
    #[arg(short, long, value_name = "DRIVER", default_value = "local", value_parser = ["local"])]
    driver: String,
    /// Keep the data in a directory of this machine: type=none, o=bind and device=DIRECTORY
    #[arg(short, long, value_name = "KEY=VALUE")]
    opt: Vec<String>,
    /// Accepted for scripts: a volume that exists is no failure
    #[arg(long)]
    ignore: bool,
    /// Its name (default: a new random one)
    name: Option<String>,
}

impl Create {
    fn run(self, volumes: &Volumes) -> Result<u8, Failure> {
        let labels = self.label.iter().map(|text| flags::pair(text)).collect();
        let name = match self.name {
            Some(name) => name,
            None => task::random_id(),
        };
        let made = match device(&self.opt)? {
            Some(device) => volumes.create_at(&name, labels, &device),
            None => volumes.create(&name, labels),
        };
        match made {
            // As docker: it is there, which is what was asked for.
            Err(containers::Error::VolumeExists { .. }) => {}
            made => drop(made?),
        }
        outln!("{name}");
        Ok(0)
    }
}

/// The directory that `--opt` names.
fn device(options: &[String]) -> Result<Option<PathBuf>, Failure> {
    let mut device = None;
    for text in options {
        match text.split_once('=') {
            Some(("type", "none" | "bind" | "") | ("o", "bind" | "rbind" | "")) => {}
            Some(("device", path)) => device = Some(environment::absolute(Path::new(path))?),
            _ => {
                return Err(Failure::usage(format!("--opt {text:?} is not supported"))
                    .hint("type=none, o=bind and device=DIRECTORY are; mount other file systems there first"));
            }
        }
    }
    match device {
        None if !options.is_empty() => Err(Failure::usage("--opt: no device=DIRECTORY is given")),
        device => Ok(device),
    }
}

/// Exit with 0 if the volume exists, else with 1
#[derive(Debug, Args)]
pub struct Exists {
    /// The volume
    name: String,
}

impl Exists {
    fn run(self, volumes: &Volumes) -> Result<u8, Failure> {
        Ok(u8::from(volumes.find(&self.name)?.is_none()))
    }
}

/// List volumes
#[derive(Debug, Args)]
pub struct Ls {
    /// Show matching volumes only: name=, label=, label!=, driver=, scope=, dangling=
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    #[command(flatten)]
    table: TableFlags,
}

const HEADERS: [(&str, &str); 6] = [
    ("Driver", "DRIVER"),
    ("Name", "VOLUME NAME"),
    ("Mountpoint", "MOUNTPOINT"),
    ("Scope", "SCOPE"),
    ("CreatedAt", "CREATED AT"),
    ("Labels", "LABELS"),
];

impl Ls {
    fn run(self, volumes: &Volumes) -> Result<u8, Failure> {
        let mut all = volumes.list()?;
        for filter in &self.filter {
            retain(&mut all, filter, volumes)?;
        }
        let rows: Vec<Value> = all.iter().map(StoredVolume::document).collect();
        self.table.print(&rows, "Name", "table {{.Driver}}\\t{{.Name}}", &HEADERS)?;
        Ok(0)
    }
}

fn retain(all: &mut Vec<StoredVolume>, filter: &str, volumes: &Volumes) -> Result<(), Failure> {
    let condition = VolumeFilter::parse(filter).ok_or_else(|| {
        Failure::usage(format!("--filter {filter:?} is not supported"))
            .hint("name=, label=, label!=, driver=, scope= and dangling= are supported")
    })?;
    let mut kept = Vec::new();
    for volume in all.drain(..) {
        if condition.matches(&volume, volumes)? {
            kept.push(volume);
        }
    }
    *all = kept;
    Ok(())
}

/// Show volumes as JSON
#[derive(Debug, Args)]
pub struct Inspect {
    /// Format each volume with a Go template
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Show all volumes
    #[arg(short, long, conflicts_with = "volumes")]
    all: bool,
    /// The volumes
    #[arg(required_unless_present = "all")]
    volumes: Vec<String>,
}

impl Inspect {
    fn run(mut self, volumes: &Volumes) -> Result<u8, Failure> {
        if self.all {
            self.volumes = volumes.list()?.into_iter().map(|volume| volume.name).collect();
        }
        let one = |name: &str| Ok(volumes.get(name)?.document());
        several::show(&self.volumes, self.format.as_deref(), one)
    }
}

/// Remove volumes that no container uses
#[derive(Debug, Args)]
pub struct Rm {
    /// Ignore missing volumes
    #[arg(short, long)]
    force: bool,
    /// With --force, remove the containers that use it too: wait this many seconds before killing
    /// them; -1 waits as long as it takes
    #[arg(short, long, value_name = "SECONDS", value_parser = patience, allow_hyphen_values = true, requires = "force")]
    time: Option<Duration>,
    /// Remove all volumes
    #[arg(short, long, conflicts_with = "volumes")]
    all: bool,
    /// The volumes
    #[arg(required_unless_present = "all")]
    volumes: Vec<String>,
}

impl Rm {
    fn run(mut self, volumes: &Volumes) -> Result<u8, Failure> {
        if self.all {
            self.volumes = volumes.list()?.into_iter().map(|volume| volume.name).collect();
        }
        let (_, answer) = several::each(&self.volumes, |name| {
            let removed = match self.time {
                Some(time) => volumes.remove_with_users(name, time, &quiet_task("stop")),
                None => volumes.remove(name),
            };
            match removed {
                Err(containers::Error::NoVolume { .. }) if self.force => {}
                removed => removed?,
            }
            outln!("{name}");
            Ok(())
        });
        answer
    }
}

/// Write the files of a volume as a tar archive
#[derive(Debug, Args)]
pub struct Export {
    /// Write the archive to this file (default: standard output)
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The volume
    volume: String,
}

impl Export {
    fn run(self, volumes: &Volumes) -> Result<u8, Failure> {
        volumes.get(&self.volume)?;
        observed("export", Progress::Quiet, |task| {
            match &self.output {
                None => volumes.export(&self.volume, &mut out_of()?, task)?,
                Some(path) => {
                    let file = File::create(path);
                    let write = || format!("writing {}", path.display());
                    let mut file = file.map_err(|error| Failure::io(write(), &error))?;
                    volumes.export(&self.volume, &mut file, task)?;
                }
            }
            Ok(())
        })?;
        Ok(0)
    }
}

/// Add the files of a tar archive to a volume
#[derive(Debug, Args)]
pub struct Import {
    /// The volume
    volume: String,
    /// The archive, or - for standard input
    archive: PathBuf,
}

impl Import {
    fn run(self, volumes: &Volumes) -> Result<u8, Failure> {
        observed("import", Progress::Quiet, |task| {
            if self.archive.as_os_str() == "-" {
                return Ok(volumes.import(&self.volume, std::io::stdin(), task)?);
            }
            let file = File::open(&self.archive);
            let read = || format!("reading {}", self.archive.display());
            let file = file.map_err(|error| Failure::io(read(), &error))?;
            Ok(volumes.import(&self.volume, file, task)?)
        })?;
        Ok(0)
    }
}

/// Remove anonymous volumes that no container uses, with --all named ones too
#[derive(Debug, Args)]
pub struct Prune {
    /// Also remove named volumes
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Remove matching volumes only: name=, label=, label!=, all=true for named ones too
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

impl Prune {
    fn run(self, volumes: &Volumes) -> Result<u8, Failure> {
        if !self.force && std::io::IsTerminal::is_terminal(&std::io::stdin()) {
            return Err(Failure::usage(
                "this removes the data of all volumes that no container uses",
            )
            .hint("`rbuild volume prune --force`"));
        }
        let (all, filters): (Vec<&String>, Vec<&String>) =
            self.filter.iter().partition(|text| ["all=true", "all=1"].contains(&text.as_str()));
        let all = self.all || !all.is_empty();
        let mut listed = volumes.list()?;
        for filter in filters {
            retain(&mut listed, filter, volumes)?;
        }
        for volume in listed {
            if !all && !volume.anonymous {
                continue;
            }
            match volumes.remove(&volume.name) {
                // Used, or removed meanwhile.
                Err(containers::Error::VolumeInUse { .. } | containers::Error::NoVolume { .. }) => {
                }
                removed => {
                    removed?;
                    outln!("{}", volume.name);
                }
            }
        }
        Ok(0)
    }
}
