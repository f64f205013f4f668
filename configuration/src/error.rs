use std::io;
use std::path::PathBuf;

use task::{Fault, Kind};

/// Why configuration cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or directory that cannot be read.
    #[error("reading {}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that is not what its format says.
    #[error("reading {}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// What reading configuration returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::Read { source, .. } => Kind::of_io(source),
            Error::Malformed { .. } => Kind::Invalid,
        }
    }
}
