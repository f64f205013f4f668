//! One file per command or family of commands: it owns its flags, its help and its `run`.

pub(crate) mod about;
pub(crate) mod account;
pub(crate) mod bud;
pub(crate) mod care;
pub(crate) mod container;
pub(crate) mod container_flags;
pub(crate) mod containers;
pub(crate) mod copy;
pub(crate) mod images;
pub(crate) mod inspect;
pub(crate) mod lock;
pub(crate) mod lookup;
pub(crate) mod manifest;
pub(crate) mod place;
pub(crate) mod plan;
pub(crate) mod registry;
pub(crate) mod registry_flags;
pub(crate) mod run;
pub(crate) mod sbom;
pub(crate) mod sign;
pub(crate) mod tags;
pub(crate) mod transfer;
pub(crate) mod working;
