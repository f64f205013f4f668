//! What software an image contains, read from its layers: no tool runs in the image, nothing is
//! asked of a network.
//!
//! [`scan`] reads one layer, once: which package databases, manifests and binaries it brings, and
//! what it hides of the layers below. A [`LayerScan`] depends on the layer alone, so that it can be
//! kept by diffID. [`Inventory::merge`] puts the layers of an image over each other: what a higher
//! layer removes or replaces is not there. [`spdx()`] and [`cyclonedx()`] write it down.
//!
//! Layers are hostile: every file, string and number of packages is bounded, and what cannot be
//! read is noted, never guessed and never fatal.

mod cyclonedx;
mod error;
mod inventory;
mod license;
mod package;
mod parse;
mod purl;
mod rpm;
mod scan;
mod spdx;

pub use cyclonedx::cyclonedx;
pub use error::{Error, Result};
pub use inventory::{Inventory, Located, Subject};
pub use package::{Ecosystem, Package, Release};
pub use scan::{LayerScan, SCAN_VERSION, scan};
pub use spdx::spdx;
