//! Which containers a command is for: those named, or those that a flag chooses.

use std::path::PathBuf;

use app::App;
use clap::Args;
use containers::{Container, ContainerFilter, Kind};
use options::{Dialect, Failure};

use super::life::{each, each_listed};
use super::{containers, filters, image};

/// The containers of a command that takes several.
#[derive(Debug, Args)]
pub(crate) struct Choice {
    /// Apply to all containers that the command can change
    #[arg(short, long)]
    pub(super) all: bool,
    /// Apply to the newest container
    #[arg(short, long, conflicts_with_all = ["all", "containers", "cidfile"])]
    latest: bool,
    /// Apply to the container whose id is in this file
    #[arg(long, value_name = "FILE", conflicts_with = "all")]
    cidfile: Vec<PathBuf>,
    /// The containers
    #[arg(conflicts_with = "all")]
    pub(super) containers: Vec<String>,
}

/// The newest container.
///
/// # Errors
/// There is none; the store cannot be read.
pub fn latest(app: &App) -> Result<Container, Failure> {
    let mut all = containers(app)?.list()?;
    all.retain(|container| container.kind() == Kind::Program);
    all.pop().ok_or_else(|| Failure::new(task::Kind::NotFound, "there are no containers"))
}

/// A container by its name, or the newest one.
///
/// # Errors
/// There is no such container; neither or both are given.
pub(super) fn one(app: &App, name: Option<&str>, newest: bool) -> Result<Container, Failure> {
    match (name, newest) {
        (Some(name), false) => super::require(app, name),
        (None, true) => latest(app),
        (Some(_), true) => Err(Failure::usage("--latest: a container is named too")),
        (None, false) => Err(Failure::usage("no container is named")
            .hint("name one, or give --latest for the newest one")),
    }
}

/// The ids in files, each on the first line of its file.
fn ids(files: &[PathBuf]) -> Result<Vec<String>, Failure> {
    let read = |path: &PathBuf| {
        let text = std::fs::read_to_string(path);
        let text =
            text.map_err(|error| Failure::io(format!("reading {}", path.display()), &error))?;
        let id = text.lines().next().unwrap_or_default().trim();
        match id.is_empty() {
            true => Err(Failure::usage(format!("there is no id in {}", path.display()))),
            false => Ok(id.to_owned()),
        }
    };
    files.iter().map(read).collect()
}

impl Choice {
    /// Those of these names.
    pub(super) fn of(containers: Vec<String>) -> Choice {
        Choice { all: false, latest: false, cidfile: Vec::new(), containers }
    }

    /// The ids in the files of --cidfile are names like any other.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(super) fn read_files(&mut self) -> Result<(), Failure> {
        self.containers.extend(ids(&self.cidfile)?);
        self.cidfile.clear();
        Ok(())
    }

    /// Whether the containers are found rather than named.
    pub(super) fn finds(&self, filter: &[String]) -> bool {
        self.all || self.latest || !filter.is_empty()
    }

    /// The containers that the flags find among those the command is for. `filter` chooses among
    /// the named ones where some are named.
    ///
    /// # Errors
    /// A filter is not understood; the store cannot be read.
    pub(super) fn found(
        &self,
        app: &App,
        filter: &[String],
        eligible: impl Fn(&Container) -> bool,
    ) -> Result<Vec<String>, Failure> {
        let filters = filters(app, filter)?;
        let mut found = match self.latest {
            true => vec![latest(app)?],
            false => containers(app)?.list()?,
        };
        let named = |container: &Container| {
            self.containers.iter().any(|name| {
                container.name() == name || !name.is_empty() && container.id().starts_with(name)
            })
        };
        found.retain(|container| {
            (self.latest || container.kind() == Kind::Program && eligible(container))
                && (self.containers.is_empty() || named(container))
                && ContainerFilter::all(&filters, container, &image(container))
        });
        Ok(found.iter().map(told).collect())
    }

    /// Does something to the chosen containers, and prints them. With `lenient`, named ones that are
    /// missing are no failure.
    ///
    /// # Errors
    /// As [`Choice::found`]; what was done failed for one.
    pub(super) fn apply(
        mut self,
        app: &App,
        filter: &[String],
        lenient: bool,
        eligible: impl Fn(&Container) -> bool,
        act: impl Fn(&Container) -> Result<(), Failure> + Sync,
    ) -> Result<u8, Failure> {
        self.read_files()?;
        if self.finds(filter) {
            return each_listed(app, &self.found(app, filter, eligible)?, act);
        }
        if self.containers.is_empty() {
            return Err(Failure::usage("no container is named")
                .hint("name one, or give --all, --latest, --cidfile or --filter"));
        }
        match lenient {
            true => each_listed(app, &self.containers, act),
            false => each(app, &self.containers, act),
        }
    }
}

/// What a command prints of a container that it found: podman its id.
pub(super) fn told(container: &Container) -> String {
    match Dialect::spoken().prints_ids() {
        true => container.id().to_owned(),
        false => container.name().to_owned(),
    }
}
