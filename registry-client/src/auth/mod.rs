mod challenge;
mod files;
mod grants;
mod helper;
mod keychain;
mod scope;
mod token;

pub(crate) use challenge::Challenge;
pub use files::AuthFiles;
pub(crate) use grants::Authority;
pub use keychain::{Anonymous, Credential, CredentialOverride, Keychain};
pub(crate) use scope::{Access, Scope};
