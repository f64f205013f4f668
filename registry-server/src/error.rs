use std::io;
use std::path::PathBuf;

use task::Kind;

/// Why a registry cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The port cannot be listened on.
    #[error("listening on port {port}")]
    Listen {
        /// The port; 0 is any.
        port: u16,
        /// The system's complaint.
        #[source]
        source: io::Error,
    },
    /// The registry's directory cannot be read or written.
    #[error("{action} {}", path.display())]
    Store {
        /// What was being done.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's complaint.
        #[source]
        source: io::Error,
    },
    /// A document of the registry's own is malformed.
    #[error("reading or writing a document of the registry")]
    Json {
        /// The parser's complaint.
        #[source]
        source: serde_json::Error,
    },
}

impl task::Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::Listen { .. } | Error::Store { .. } => Kind::System,
            Error::Json { .. } => Kind::Invalid,
        }
    }
}

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;
