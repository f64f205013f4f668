//! The vocabulary of the command line: groups of options that several commands share, with their
//! help, and what they say as values of the libraries. There are no commands here; all that is printed
//! is progress.
//!
//! A program that speaks docker's language of options gets a container of it:
//!
//! ```
//! use clap::Parser;
//! use options::container::ContainerFlags;
//!
//! #[derive(Parser)]
//! #[command(disable_help_flag = true)] // docker's -h is the host name
//! struct Run {
//!     #[command(flatten)]
//!     container: ContainerFlags,
//!     image: String,
//!     #[arg(trailing_var_arg = true)]
//!     command: Vec<String>,
//! }
//!
//! let line = "docker --memory 64m --cap-drop ALL -e A=1 --read-only alpine env";
//! let run = Run::parse_from(line.split(' '));
//! let spec = run.container.spec(&run.command, false)?;
//! assert_eq!(spec.limits.memory, Some(64 << 20));
//! assert_eq!(spec.isolation.cap_drop, ["ALL"]);
//! assert_eq!((spec.process.env, spec.files.read_only), (vec!["A=1".to_owned()], true));
//! assert_eq!(spec.process.command, ["env"]);
//! # Ok::<(), options::Failure>(())
//! ```
// A variable of the environment stands for an option, and an age is of now (invariant I9).
#![allow(clippy::disallowed_methods)]

pub mod buildah;
mod clusters;
pub mod commit;
pub mod compress;
pub mod container;
pub mod copy;
pub mod dialect;
mod effective_config;
mod elsewhere;
pub mod ends;
pub mod environment;
pub mod examples;
mod failure;
pub mod flags;
pub mod globals;
pub mod help;
#[doc(hidden)]
pub mod help_check;
pub mod key_file;
pub mod list;
pub mod names;
pub mod overview;
pub mod place;
pub mod platform;
mod program;
pub mod progress;
mod reach;
pub mod reference;
pub mod refused;
pub mod registry;
pub mod sealer;
pub mod settings;
pub mod sign_copy;
pub mod signer;
pub mod translate;
pub mod tree;

pub use dialect::Dialect;
pub use effective_config::{EffectiveConfig, Servers};
pub use failure::{Failure, full_disk};
pub use program::Program;
pub use reach::Reach;
