//! Where registries.d is.

use std::path::PathBuf;

use registry_client::Client;
use sign::lookaside::{Lookaside, Reading};
use task::Cause;

use super::Places;
use super::registries::{RegistriesFlags, listed, read_text};
use crate::report::Failure;

/// Reads lookasides on servers with a client that is made when it is first needed.
pub(crate) struct Servers(Box<dyn Fn() -> Result<Client, Cause> + Send + Sync>);

impl Servers {
    /// Those that this client reaches.
    pub(crate) fn new(
        client: impl Fn() -> Result<Client, Cause> + Send + Sync + 'static,
    ) -> Servers {
        Servers(Box::new(client))
    }
}

impl sign::lookaside::Servers for Servers {
    fn read<'a>(&'a self, url: &'a str, limit: u64) -> Reading<'a> {
        Box::pin(async move { Ok((self.0)()?.read_file(url, limit).await?) })
    }
}

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
