//! The places: one file each.

mod memory;

pub use memory::{Memory, MemoryImage};
