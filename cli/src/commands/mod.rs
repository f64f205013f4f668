//! One file per command or family of commands: it owns its flags, its help and its `run`.

pub(crate) mod about;
pub(crate) mod account;
pub(crate) mod artifact;
pub(crate) mod attest;
pub(crate) mod auth;
pub(crate) mod bake;
pub(crate) mod beside;
pub(crate) mod bud;
pub(crate) mod builds;
pub(crate) mod care;
pub(crate) mod container;
pub(crate) mod copy;
pub(crate) mod crane;
pub(crate) mod debug;
pub(crate) mod diff;
pub(crate) mod docker;
pub(crate) mod edit;
pub(crate) mod explore;
pub(crate) mod image_list;
pub(crate) mod image_proxy;
pub(crate) mod images;
pub(crate) mod imagetools;
pub(crate) mod import;
pub(crate) mod index;
pub(crate) mod inspect;
pub(crate) mod layers;
pub(crate) mod lock;
pub(crate) mod lookup;
pub(crate) mod manifest;
pub(crate) mod network;
pub(crate) mod oci_runtime;
pub(crate) mod place;
pub(crate) mod plan;
pub(crate) mod policy;
pub(crate) mod prune;
pub(crate) mod quadlet;
pub(crate) mod ratelimit;
pub(crate) mod raw;
#[cfg(feature = "registry")]
pub(crate) mod registry;
pub(crate) mod run;
pub(crate) mod run_files;
mod run_lazily;
pub(crate) mod sbom;
pub(crate) mod secret_flags;
mod several;
pub(crate) mod sign;
pub(crate) mod sign_blob;
pub(crate) mod standalone;
pub(crate) mod sync;
pub(crate) mod tags;
pub(crate) mod transfer;
pub(crate) mod trust;
pub(crate) mod validate;
pub(crate) mod verify_build;
pub(crate) mod volume;
pub(crate) mod working;

use crate::app::App;
use options::Failure;

/// A command with its options.
pub(crate) trait Runnable {
    /// Does what was asked for; gives the exit code.
    ///
    /// # Errors
    /// Why it cannot be done, with what to do.
    fn run(self, app: &App) -> Result<u8, Failure>;
}
