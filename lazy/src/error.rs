//! What can go wrong.

use std::path::{Path, PathBuf};

use task::{Fault, Kind};

/// Why files of an image cannot be shown or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// FUSE is not there, or may not be used.
    #[error("{action}")]
    Mount {
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// A table of contents contradicts itself.
    #[error("reading the table of contents of a layer: {path:?}: {reason}")]
    Table {
        /// The entry.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Content could not be fetched.
    #[error("fetching a part of a layer")]
    Fetch {
        /// Why not.
        source: std::io::Error,
    },
    /// What was fetched is not what the table promises.
    #[error(transparent)]
    Layer(#[from] layers::Error),
    /// A file of this machine.
    #[error("{action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// Which one.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn file(
        action: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.as_ref().to_owned();
        move |source| Error::File { action, path, source }
    }

    pub(crate) fn fetch(source: std::io::Error) -> Error {
        Error::Fetch { source }
    }
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::Mount { source, .. } | Error::File { source, .. } | Error::Fetch { source } => {
                Kind::of_io(source)
            }
            Error::Table { .. } => Kind::Invalid,
            Error::Layer(error) => error.kind(),
        }
    }
}
