//! Commands about builds: `bud`, `bake`, `plan`, `lock`, `verify-build`, and what is kept of builds
//! and of failed steps.
//!
//! Each is options with a `run` ([`app::Runnable`]); they become a `builder::Request`.
//!
//! ```
//! use build_commands::bud::Bud;
//! use clap::Parser;
//!
//! #[derive(Parser)]
//! struct Line {
//!     #[command(flatten)]
//!     bud: Bud,
//! }
//!
//! Line::try_parse_from(["bud", "--tag", "app", "--build-arg", "A=1", "."])?;
//! # Ok::<(), clap::Error>(())
//! ```
// Commands read the environment and the clock (invariant I9).
#![allow(clippy::disallowed_methods)]

#[macro_use]
extern crate app;

pub mod bake;
pub mod bud;
pub mod builds;
pub mod debug;
pub mod lock;
pub mod plan;
pub mod verify_build;
