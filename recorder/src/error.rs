use std::io;
use std::path::{Path, PathBuf};

use task::{Fault, Kind};

/// Why nothing is recorded or replayed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of the recording cannot be read or written.
    #[error("{action} {}", .path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The proxy cannot be set up.
    #[error("setting up the recording proxy")]
    Setup {
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::File { action, path, source }
    }

    pub(crate) fn setup(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::Setup { source: source.into() }
    }
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::File { source, .. } => Kind::of_io(source),
            Error::Setup { .. } => Kind::System,
        }
    }
}
