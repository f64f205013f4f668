mod files;
mod keychain;

pub use files::Files;
pub use keychain::{Anonymous, Credential, Keychain};
