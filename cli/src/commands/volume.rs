//! `rbuild volume`.

use std::fs::File;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use containers::{Volume as Known, VolumeFilter, Volumes};
use options::progress::Progress;
use options::{Failure, flags};
use serde_json::Value;

use super::container::out_of;
use super::several;
use crate::app::{App, observed};
use crate::commands::Runnable;
use crate::format;

/// Manage volumes: directories that outlive containers
#[derive(Debug, Subcommand)]
pub(crate) enum Volume {
    /// Make a volume
    Create(Create),
    /// List volumes
    #[command(alias = "list")]
    Ls(Ls),
    /// Show volumes as JSON
    Inspect(Inspect),
    /// Remove volumes that no container uses
    #[command(alias = "remove")]
    Rm(Rm),
    /// Write the files of a volume as a tar archive
    Export(Export),
    /// Add the files of a tar archive to a volume
    Import(Import),
    /// Remove anonymous volumes that no container uses, with --all named ones too
    Prune(Prune),
}

impl Runnable for Volume {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let volumes = Volumes::new(app.store()?.clone());
        run_each! { self, &volumes, Volume {
            Create, Ls, Inspect, Rm, Export, Import, Prune,
        } }
    }
}

/// The document of a volume.
///
/// # Errors
/// There is no such volume.
pub(super) fn document(app: &App, name: &str) -> Result<Value, Failure> {
    Ok(Volumes::new(app.store()?.clone()).get(name)?.document())
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Add a label
    #[arg(short, long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Accepted: `local` is the only driver
    #[arg(short, long, value_name = "DRIVER", default_value = "local", value_parser = ["local"])]
    driver: String,
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
        match volumes.create(&name, labels) {
            // As docker: it is there, which is what was asked for.
            Err(containers::Error::VolumeExists { .. }) => {}
            made => drop(made?),
        }
        outln!("{name}");
        Ok(0)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// Show matching volumes only: name=, label=, dangling=
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Format each volume with a Go template (`table TEMPLATE` for columns), or json
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Print names only
    #[arg(short, long)]
    quiet: bool,
}

impl Ls {
    fn run(self, volumes: &Volumes) -> Result<u8, Failure> {
        let mut all = volumes.list()?;
        for filter in &self.filter {
            retain(&mut all, filter, volumes)?;
        }
        let rows: Vec<Value> = all.iter().map(Known::document).collect();
        match self.format.as_deref() {
            Some("json") => rows.iter().for_each(|row| outln!("{row}")),
            _ if self.quiet => all.iter().for_each(|volume| outln!("{}", volume.name)),
            given => {
                let template = given.unwrap_or("table {{.Driver}}\\t{{.Name}}");
                let headers =
                    [("Driver", "DRIVER"), ("Name", "VOLUME NAME"), ("Mountpoint", "MOUNTPOINT")];
                out!("{}", format::lines(template, &rows, &headers, false)?);
            }
        }
        Ok(0)
    }
}

fn retain(all: &mut Vec<Known>, filter: &str, volumes: &Volumes) -> Result<(), Failure> {
    let condition = VolumeFilter::parse(filter).ok_or_else(|| {
        Failure::usage(format!("--filter {filter:?} is not supported"))
            .hint("name=, label= and dangling= are")
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

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Format each volume with a Go template
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// The volumes
    #[arg(required = true)]
    volumes: Vec<String>,
}

impl Inspect {
    fn run(self, volumes: &Volumes) -> Result<u8, Failure> {
        let one = |name: &str| Ok(volumes.get(name)?.document());
        several::show(&self.volumes, self.format.as_deref(), one)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// Ignore missing volumes
    #[arg(short, long)]
    force: bool,
    /// The volumes
    #[arg(required = true)]
    volumes: Vec<String>,
}

impl Rm {
    fn run(self, volumes: &Volumes) -> Result<u8, Failure> {
        let (_, answer) = several::each(&self.volumes, |name| {
            match volumes.remove(name) {
                Err(containers::Error::NoVolume { .. }) if self.force => {}
                removed => removed?,
            }
            outln!("{name}");
            Ok(())
        });
        answer
    }
}

#[derive(Debug, Args)]
pub(crate) struct Export {
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

#[derive(Debug, Args)]
pub(crate) struct Import {
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

#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Also remove named volumes
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

impl Prune {
    fn run(self, volumes: &Volumes) -> Result<u8, Failure> {
        if !self.force && std::io::IsTerminal::is_terminal(&std::io::stdin()) {
            return Err(Failure::usage(
                "this removes the data of all volumes that no container uses",
            )
            .hint("`rbuild volume prune --force`"));
        }
        for volume in volumes.list()? {
            if !self.all && !volume.anonymous {
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
