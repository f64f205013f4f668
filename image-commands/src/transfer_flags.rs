//! The options that `pull`, `push` and `manifest push` share.

use clap::{Args, ValueEnum};
use options::ends::RetryFlags;
use options::progress::Progress;
use options::registry::RegistryFlags;
use options::{Failure, Reach};
use transport::Format;

/// How an image is moved between the store and a registry, and what the user sees of it.
#[derive(Debug, Args)]
pub(crate) struct TransferFlags {
    /// Show progress in this form
    #[arg(long, value_enum, default_value_t, env = "RBUILD_PROGRESS", hide_env = true)]
    progress: Progress,
    #[command(flatten)]
    registry: RegistryFlags,
    #[command(flatten)]
    retry: RetryFlags,
}

impl TransferFlags {
    /// How progress is shown; not at all if the command is to be quiet.
    pub(crate) fn progress(&self, quiet: bool) -> Progress {
        self.progress.unless(quiet)
    }

    /// How the registry is reached.
    ///
    /// # Errors
    /// Credentials that are not `user:password`.
    pub(crate) fn reach(&self) -> Result<Reach, Failure> {
        Ok(self.retry.reach(self.registry.reach()?))
    }

    /// How often a blob is fetched at most.
    pub(crate) fn attempts(&self) -> u32 {
        self.retry.attempts()
    }
}

/// The format of documents that a push writes.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum DocumentFormat {
    Oci,
    #[value(alias = "docker")]
    V2s2,
}

impl From<DocumentFormat> for Format {
    fn from(format: DocumentFormat) -> Format {
        match format {
            DocumentFormat::Oci => Format::Oci,
            DocumentFormat::V2s2 => Format::Docker,
        }
    }
}
