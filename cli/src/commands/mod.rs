//! One file per command or family of commands: it owns its flags, its help and its `run`.

pub mod about;
pub mod account;
pub mod bud;
pub mod care;
pub mod container;
pub mod container_flags;
pub mod containers;
pub mod copy;
pub mod images;
pub mod lookup;
pub mod place;
pub mod registry;
pub mod registry_flags;
pub mod run;
pub mod sign;
pub mod transfer;
