//! What every command works with, below the crates of commands: the store and the registries of a
//! command line ([`App`]), work that a signal ends ([`observed`]), both standard streams, how a
//! failure is shown and what to do about it. There are no commands here.
//!
//! A command is options with a `run`:
//!
//! ```
//! use app::{App, Runnable, outln};
//! use clap::Args;
//! use options::Failure;
//!
//! /// Print the digest of an image in the store
//! #[derive(Args)]
//! struct DigestOf {
//!     /// The image
//!     image: String,
//! }
//!
//! impl Runnable for DigestOf {
//!     fn run(self, app: &App) -> Result<u8, Failure> {
//!         outln!("{}", app::lookup::require(app.store()?, &self.image)?.descriptor.digest);
//!         Ok(0)
//!     }
//! }
//! ```
// Commands read the environment and the clock, and print (invariants I9, I10).
#![allow(clippy::disallowed_methods, clippy::print_stderr)]

#[macro_use]
pub mod out;

mod app;
pub mod format;
pub mod hints;
pub mod images;
mod interrupt;
pub mod lists;
pub mod lookup;
pub mod place;
pub mod report;
pub mod secret_flags;
pub mod several;
mod short_names;
pub mod values;

pub use self::app::{App, ask, log};
pub use self::interrupt::{observed, observed_by, quiet_task, stopped_task};

use options::Failure;

/// A command with its options.
pub trait Runnable {
    /// Does what was asked for; gives the exit code.
    ///
    /// # Errors
    /// Why it cannot be done, with what to do.
    fn run(self, app: &App) -> Result<u8, Failure>;
}
