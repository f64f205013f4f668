//! `rbuild mount` and `rbuild umount`.

use app::{App, Runnable, observed};
use builder::working::WorkingContainer;
use clap::Args;
use options::Failure;
use options::progress::Progress;
use serde_json::json;
use task::Kind;

use super::{locked, require};

/// Mount working containers and print where; without arguments list the mounts
#[derive(Debug, Args)]
pub struct Mount {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Accepted: ids and paths are always printed in full
    #[arg(long, hide = true)]
    notruncate: bool,
    /// The containers
    containers: Vec<String>,
}

impl Runnable for Mount {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let store = app.store()?;
        let mut found = Vec::new();
        for name in &self.containers {
            require(store, name)?;
        }
        if !self.containers.is_empty() && runtime::entered_namespace() {
            return Err(Failure::new(
                Kind::Refused,
                "the mount of an ordinary user ends with the command",
            )
            .hint("run `rbuild unshare` first, or `rbuild unshare --mount NAME COMMAND`"));
        }
        for name in &self.containers {
            let (working, path) = observed("mount", Progress::Quiet, |task| {
                let working = locked(store, name, task)?;
                let path = working.attach()?;
                Ok((working, path))
            })?;
            found.push((working.id().to_owned(), working.name().to_owned(), path));
        }
        if self.containers.is_empty() {
            let mounted = WorkingContainer::all(store)?.into_iter();
            found.extend(mounted.filter_map(|working| {
                let path = working.mounted()?;
                Some((working.id().to_owned(), working.name().to_owned(), path))
            }));
        }
        if self.json {
            let rows = found
                .iter()
                .map(|(id, name, path)| json!({"container": name, "id": id, "mountPoint": path}));
            outln!("{:#}", rows.collect::<serde_json::Value>());
            return Ok(0);
        }
        match self.containers.as_slice() {
            [_] => found.iter().for_each(|(_, _, path)| outln!("{}", path.display())),
            _ => found.iter().for_each(|(_, name, path)| outln!("{name} {}", path.display())),
        }
        Ok(0)
    }
}

/// Unmount working containers
#[derive(Debug, Args)]
pub struct Umount {
    /// Unmount all
    #[arg(short, long, conflicts_with = "containers")]
    all: bool,
    /// The containers
    #[arg(required_unless_present = "all")]
    containers: Vec<String>,
}

impl Runnable for Umount {
    fn run(self, app: &App) -> Result<u8, Failure> {
        let store = app.store()?;
        let mut names = self.containers.clone();
        if self.all {
            let mounted = WorkingContainer::all(store)?.into_iter();
            let mounted = mounted.filter(|working| working.mounted().is_some());
            names.extend(mounted.map(|working| working.name().to_owned()));
        }
        for name in names {
            let working = observed("umount", Progress::Quiet, |task| locked(store, &name, task))?;
            if !working.detach()? {
                return Err(Failure::new(
                    Kind::Refused,
                    format!("the working container {name} is not mounted"),
                ));
            }
            outln!("{}", working.id());
        }
        Ok(0)
    }
}
