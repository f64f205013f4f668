//! The software in an image, read from its layers: no tool runs in the image, and no network is
//! used.
//!
//! [`scan`] reads one layer, once: which package databases, manifests and binaries it brings, and
//! what it hides of the layers below. A [`LayerScan`] depends on the layer alone, so that it can be
//! kept by diffID. [`Inventory::merge`] puts the layers of an image over each other: what a higher
//! layer removes or replaces is not there. [`spdx()`] and [`cyclonedx()`] write it down.
//!
//! Layers are hostile: every file, string and number of packages is bounded, and what cannot be
//! read is noted, never guessed and never fatal.
//!
//! ```
//! use sbom::Inventory;
//! use task::Task;
//!
//! let status = "Package: hello\nStatus: install ok installed\nVersion: 2.10-3\nArchitecture: amd64\n";
//! let mut layer = tar::Builder::new(Vec::new());
//! let mut header = tar::Header::new_gnu();
//! header.set_size(status.len() as u64);
//! layer.append_data(&mut header, "var/lib/dpkg/status", status.as_bytes())?;
//!
//! let (scanned, _digest) = sbom::scan(&layer.into_inner()?[..], &Task::silent())?;
//! let inventory = Inventory::merge(&[scanned]);
//! assert_eq!(inventory.packages[0].package.name, "hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cyclonedx;
mod error;
mod inventory;
mod license;
mod package;
mod parse;
mod purl;
mod rpm;
mod scan;
mod secret;
mod spdx;
mod table;
mod version;
mod vuln;

pub use cyclonedx::cyclonedx;
pub use error::{Error, Result};
pub use inventory::{Inventory, LocatedPackage, Subject};
pub use package::{Ecosystem, Package, Release};
pub use scan::{LayerScan, SCAN_VERSION, scan};
pub use secret::{AllowList, SECRET_VERSION, Secret, redact, search_config, search_layer};
pub use spdx::spdx;
pub use table::{table, vulnerability_table};
pub use vuln::{Finding as Vulnerable, MAX_DATABASE, Vulnerabilities};
