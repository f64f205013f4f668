//! Working containers: an image in the making, changed by one command after the other.

mod buildah;
mod commit;
mod config;
mod files;
mod from;
mod list;
mod mount;
mod run;
mod settings;
mod unshare;

use std::path::PathBuf;
use std::time::SystemTime;

use builder::Env;
use builder::working::Working;
use clap::Args;
use image::Platform;
use store::Store;
use task::{Kind, Task};

pub(crate) use self::buildah::{BuildahFlags, log_level};
pub(crate) use self::commit::Commit;
pub(crate) use self::config::Config;
pub(crate) use self::files::{Add, Copy};
pub(crate) use self::from::From;
pub(crate) use self::list::{Containers, Rename};
pub(crate) use self::mount::{Mount, Umount};
pub(crate) use self::run::{RunFlags, Wish, run};
pub(crate) use self::unshare::Unshare;
use crate::app::App;
use options::Failure;
use options::Reach;

/// The working container of this name, and it must be there.
///
/// # Errors
/// There is none.
pub(crate) fn require(store: &Store, name: &str) -> Result<Working, Failure> {
    Working::find(store, name)?.ok_or_else(|| {
        Failure::new(Kind::NotFound, format!("there is no working container {name:?}"))
            .hint("`rbuild containers` lists the working containers; `rbuild from IMAGE` makes one")
    })
}

/// The same, with exclusive access.
///
/// # Errors
/// There is none; the user cancels the wait for another writer.
pub(crate) fn locked(store: &Store, name: &str, task: &Task) -> Result<Working, Failure> {
    Ok(require(store, name)?.lock(task)?)
}

/// What the builder works with.
///
/// # Errors
/// The store cannot be opened; the policy cannot be read.
pub(crate) fn env(app: &App, reach: &Reach) -> Result<Env, Failure> {
    Ok(Env {
        store: app.store()?.clone(),
        places: app.places_for(reach)?,
        gate: app.gate()?,
        clock: SystemTime::now,
        user_namespace: runtime::in_user_namespace(),
        guard: std::sync::Arc::new(transport::Open),
        single_id: runtime::single_id(),
        resolv_conf: PathBuf::from("/etc/resolv.conf"),
        threads: std::thread::available_parallelism().map_or(2, usize::from),
    })
}

/// The media types of images: as `--format` says, else `$BUILDAH_FORMAT`, else OCI's.
///
/// # Errors
/// Neither oci nor docker.
pub(crate) fn is_docker(flag: Option<&str>) -> Result<Option<bool>, Failure> {
    let variable = std::env::var("BUILDAH_FORMAT").ok().filter(|text| !text.is_empty());
    match flag.map(str::to_owned).or(variable).as_deref() {
        None => Ok(None),
        Some("oci" | "v1") => Ok(Some(false)),
        Some("docker" | "v2s2") => Ok(Some(true)),
        Some(other) => Err(Failure::usage(format!("format {other:?} is neither oci nor docker"))),
    }
}

/// The platform of an image, as a whole or in parts.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct PlatformFlags {
    /// Choose the image of this platform
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    /// Choose the operating system of the image
    #[arg(long, value_name = "OS", conflicts_with = "platform")]
    os: Option<String>,
    /// Choose the architecture of the image
    #[arg(long, value_name = "ARCH", conflicts_with = "platform")]
    arch: Option<String>,
    /// Choose the variant of the architecture
    #[arg(long, value_name = "VARIANT", conflicts_with = "platform")]
    variant: Option<String>,
}

impl PlatformFlags {
    /// Whether a whole platform is given.
    pub(crate) fn given(&self) -> bool {
        self.platform.is_some()
    }

    /// The platform.
    pub(crate) fn platform(&self) -> Platform {
        if let Some(platform) = &self.platform {
            return platform.clone();
        }
        if self.os.is_none() && self.arch.is_none() && self.variant.is_none() {
            return Platform::host();
        }
        let os = self.os.as_deref().unwrap_or(std::env::consts::OS);
        let architecture = self.arch.as_deref().unwrap_or(std::env::consts::ARCH);
        Platform::new(os, architecture, self.variant.as_deref())
    }
}

/// Whether the history tells of a step: as the flag says, else `$BUILDAH_HISTORY`.
pub(crate) fn wants_history(flag: Option<bool>) -> bool {
    let variable =
        || std::env::var("BUILDAH_HISTORY").is_ok_and(|text| text == "true" || text == "1");
    flag.unwrap_or_else(variable)
}

/// `--add-history`.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct HistoryFlag {
    /// Record this step in the history of the image (default: $BUILDAH_HISTORY)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub add_history: Option<bool>,
}
