//! Commands about images, artifacts, registries and signatures: all of `rcopy`, and what `rbuild`
//! pulls, pushes, lists, signs and serves.
//!
//! Each is options with a `run` ([`app::Runnable`]); the places are the crate `transport`.
//!
//! ```
//! use clap::Parser;
//! use image_commands::copy::Copy;
//!
//! #[derive(Parser)]
//! struct Line {
//!     #[command(flatten)]
//!     copy: Copy,
//! }
//!
//! Line::try_parse_from(["copy", "--all", "docker://registry.example/app", "oci:app"])?;
//! # Ok::<(), clap::Error>(())
//! ```
// Commands read the environment and the clock (invariant I9).
#![allow(clippy::disallowed_methods)]

#[macro_use]
extern crate app;

pub mod account;
pub mod artifact;
pub mod attest;
pub mod auth;
pub mod beside;
pub mod copy;
pub mod crane;
pub mod diff;
pub mod edit;
pub mod explore;
pub mod image_list;
pub mod image_proxy;
pub mod images;
pub mod imagetools;
pub mod import;
pub mod index;
pub mod inspect;
pub mod layers;
pub mod manifest;
mod policy;
pub mod ratelimit;
pub mod raw;
#[cfg(feature = "registry")]
pub mod registry;
pub mod sbom;
mod sign;
mod sign_blob;
pub mod standalone;
pub mod sync;
pub mod tags;
pub mod transfer;
mod transfer_flags;
pub mod trust;
pub mod validate;
