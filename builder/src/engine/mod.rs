//! Doing the steps of a build: what names their results, whether these are known, and the work.

mod commit;
mod execute;
mod executor;
mod graft;
mod keys;
mod parts;

pub(crate) use executor::Engine;
