//! Working containers: an image in the making, changed by one command after the other.

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
use options::{Failure, Reach};
use store::Store;
use task::{Kind, Task};

pub(crate) use self::commit::Commit;
pub(crate) use self::config::Config;
pub(crate) use self::files::{Add, Copy};
pub(crate) use self::from::From;
pub(crate) use self::list::{Containers, Rename};
pub(crate) use self::mount::{Mount, Umount};
pub(crate) use self::run::{RunFlags, Wish, run};
pub(crate) use self::unshare::Unshare;
use crate::app::App;

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
