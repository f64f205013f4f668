//! `rbuild registry gc`, `scrub`, `retention`, `check-config`: looking after a registry's storage,
//! while servers use it.

use std::path::PathBuf;
use std::time::Duration;

use app::App;
use clap::Args;
use options::Failure;
use registry_server::{Admin, CollectionReport};
use task::Kind;

use super::place::{self, Place};

/// Delete content that no manifest needs
///
/// Safe while servers on the same storage accept pushes. Unneeded content stays for the grace
/// period, because a push of its manifest may follow. Servers collect by themselves every hour.
#[derive(Debug, Args)]
pub struct Gc {
    #[command(flatten)]
    place: Place,
    /// Show what would be deleted; delete nothing
    #[arg(long)]
    dry_run: bool,
    /// Keep unneeded content for this long, such as 90s, 15m, 12h, 2d (default: as configured, or
    /// 24h); less than the duration of a push is safe only without pushes
    #[arg(long, value_name = "SPAN", value_parser = task::span)]
    grace: Option<Duration>,
}

/// Read all stored content and compare it with its digest
///
/// Exits with 1 if content is broken or missing.
#[derive(Debug, Args)]
pub struct Scrub {
    #[command(flatten)]
    place: Place,
    /// Delete broken content; delete incomplete images yourself and push them again
    #[arg(long)]
    repair: bool,
}

/// Delete the tags that no retention rule keeps
#[derive(Debug, Args)]
pub struct Retention {
    #[command(flatten)]
    place: Place,
    /// Show what would be deleted; delete nothing
    #[arg(long)]
    dry_run: bool,
}

/// Check the configuration file of a registry and the files it names
#[derive(Debug, Args)]
pub struct CheckConfig {
    /// The configuration file
    file: PathBuf,
}

impl Gc {
    pub(super) fn run(self, app: &App) -> Result<u8, Failure> {
        let mut options = self.place.find()?.options;
        if let Some(grace) = self.grace {
            options.limits.grace = grace;
        }
        let admin = Admin::open(options)?;
        if self.dry_run {
            let garbage = app.wait(admin.garbage())??;
            for (repository, digest) in &garbage.manifests {
                outln!("manifest {repository}@{digest}");
            }
            for digest in &garbage.content {
                outln!("content {digest}");
            }
            return Ok(0);
        }
        let Some(done) = app.wait(admin.collect())?? else {
            let message = "another server is collecting garbage in this storage now";
            return Err(Failure::new(Kind::Unavailable, message).hint("try again in two minutes"));
        };
        let CollectionReport { erased, unlinked, delisted, spared, emptied, .. } = done;
        outln!(
            "deleted {erased} blobs and manifests, {delisted} untagged manifests and {unlinked} \
             links; spared {spared} that are needed again"
        );
        if emptied > 0 {
            outln!("removed {emptied} empty repositories from the catalog");
        }
        Ok(0)
    }
}

impl Scrub {
    pub(super) fn run(self, app: &App) -> Result<u8, Failure> {
        let admin = Admin::open(self.place.find()?.options)?;
        let found = app.wait(admin.scrub(self.repair))??;
        for digest in &found.broken {
            outln!("broken {digest}{}", if self.repair { ", deleted" } else { "" });
        }
        for (repository, manifest, missing) in &found.missing {
            outln!("{repository}@{manifest} lacks {missing}");
        }
        outln!(
            "read {} blobs and manifests ({} bytes): {} broken, {} manifests with parts missing",
            found.checked,
            found.bytes,
            found.broken.len(),
            found.missing.len()
        );
        Ok(u8::from(!found.broken.is_empty() || !found.missing.is_empty()))
    }
}

impl Retention {
    pub(super) fn run(self, app: &App) -> Result<u8, Failure> {
        let options = self.place.find()?.options;
        if options.retention.is_empty() {
            return Err(Failure::usage("there are no retention rules")
                .hint("give a --config with [[retention]], see docs/registry.md"));
        }
        let admin = Admin::open(options)?;
        let days = |span: Duration| format!("{}d", span.as_secs() / 86_400);
        for gone in app.wait(admin.retire(self.dry_run))?? {
            let pulled = gone.pulled.map_or("not known to be pulled".to_owned(), |pulled| {
                format!("pulled {} ago", days(pulled))
            });
            let (repository, tag, age) = (gone.repository, gone.tag, days(gone.age));
            outln!("{repository}:{tag} (set {age} ago, {pulled})");
        }
        Ok(0)
    }
}

impl CheckConfig {
    pub(super) fn run(self) -> Result<u8, Failure> {
        place::read(&self.file)?;
        outln!("{} is good", self.file.display());
        Ok(0)
    }
}
