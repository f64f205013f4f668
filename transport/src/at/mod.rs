//! The places: one file each.

mod files;
mod memory;
mod registry;
mod tar;

pub use memory::{Memory, MemoryImage};
pub use registry::Registry;
