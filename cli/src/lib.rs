//! The two commands `rbuild` and `rcopy`: argv, configuration files, environment, clock, terminal
//! and exit codes. Everything else is in the crates below.
//!
//! A program that builds, copies, runs, signs or mirrors images uses those crates: see the examples
//! of `builder`, `transport`, `containers`, `sign` and `transport::sync`. This crate is the two
//! programs:
//!
//! ```no_run
//! fn main() -> std::process::ExitCode {
//!     cli::rbuild() // reads the command line of this process
//! }
//! ```
// The programs read the environment and the clock, and print (invariants I9, I10).
#![allow(clippy::disallowed_methods, clippy::print_stderr)]

#[macro_use]
extern crate app;

mod about;
mod care;
mod docker;
mod entry;
mod images;
mod prune;
mod rbuild;
mod rcopy;

use options::Dialect;

/// What the static programs allocate with.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The whole of the command `rbuild`, or of `rcopy` if this process was started under that name:
/// one file with two names is both programs.
#[must_use]
pub fn rbuild() -> std::process::ExitCode {
    entry::enter(Dialect::Rbuild)
}

/// The whole of the command `rcopy`, or of `rbuild` if this process was started under that name.
#[must_use]
pub fn rcopy() -> std::process::ExitCode {
    entry::enter(Dialect::Rcopy)
}
