//! Where registries.d is.

use std::path::PathBuf;

use sign::lookaside::Lookaside;

use super::Places;
use super::registries::{RegistriesFlags, listed, read_text};
use crate::report::Failure;

impl Places {
    /// What registries.d says.
    ///
    /// # Errors
    /// A file is malformed, or speaks of something that another one speaks of.
    pub(crate) fn lookaside(&self, flags: &RegistriesFlags) -> Result<Lookaside, Failure> {
        let fallback = match self.rootless {
            true => self.data().join("containers/sigstore"),
            false => PathBuf::from("/var/lib/containers/sigstore"),
        };
        let mut all = Lookaside::new(fallback);
        for file in listed(&self.registries_d(flags)?, "yaml")? {
            all.add(&file, &read_text(&file)?)?;
        }
        Ok(all)
    }
}
