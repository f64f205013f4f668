//! Commands about containers: `run`, `create` and all that is done to a container afterwards,
//! working containers, networks, volumes, and the command line that engines speak to a runtime.
//!
//! Each is options with a `run` ([`app::Runnable`]); the containers themselves are the crate
//! `containers`.
//!
//! ```
//! use clap::Parser;
//! use container_commands::container::Stop;
//!
//! #[derive(Parser)]
//! struct Line {
//!     #[command(flatten)]
//!     stop: Stop,
//! }
//!
//! Line::try_parse_from(["stop", "--time", "3", "web"])?;
//! # Ok::<(), clap::Error>(())
//! ```
// Commands read the environment and the clock (invariant I9).
#![allow(clippy::disallowed_methods)]

#[macro_use]
extern crate app;

pub mod container;
mod descriptors;
pub mod network;
pub mod oci_runtime;
pub mod quadlet;
pub mod run;
mod run_files;
mod run_lazily;
mod table;
pub mod volume;
pub mod working;
