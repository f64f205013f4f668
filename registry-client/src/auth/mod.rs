mod challenge;
mod files;
mod helper;
mod keychain;
mod token;

pub(crate) use challenge::Challenge;
pub use files::Files;
pub use keychain::{Anonymous, Credential, Keychain};
pub(crate) use token::{Access, Authority, Scope};
