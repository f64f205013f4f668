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

use builder::working::WorkingContainer;
use options::{Dialect, Failure};
use store::Store;
use task::{Kind, Task};

pub use self::commit::Commit;
pub use self::config::Config;
pub use self::files::{Add, Copy};
pub use self::from::From;
pub use self::list::{Containers, Rename};
pub use self::mount::{Mount, Umount};
pub(crate) use self::run::{RunFlags, WorkingCommand, run};
pub use self::unshare::Unshare;

/// The working container of this name, and it must be there.
///
/// # Errors
/// There is none.
pub(crate) fn require(store: &Store, name: &str) -> Result<WorkingContainer, Failure> {
    WorkingContainer::find(store, name)?.ok_or_else(|| {
        let what = Dialect::spoken().no_container("working container", name);
        Failure::new(Kind::NotFound, what)
            .hint("`rbuild containers` lists the working containers; `rbuild from IMAGE` makes one")
    })
}

/// The same, with exclusive access.
///
/// # Errors
/// There is none; the user cancels the wait for another writer.
pub(crate) fn locked(store: &Store, name: &str, task: &Task) -> Result<WorkingContainer, Failure> {
    Ok(require(store, name)?.lock(task)?)
}
