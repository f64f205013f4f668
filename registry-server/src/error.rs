use std::io;

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
    /// The place where the registry keeps everything cannot be used.
    #[error("{action} {name}")]
    Storage {
        /// What was being done.
        action: &'static str,
        /// The directory or bucket.
        name: String,
        /// The complaint.
        #[source]
        source: io::Error,
    },
    /// What was configured cannot work.
    #[error("setting up {what}: {reason}")]
    Configuration {
        /// What was being set up.
        what: &'static str,
        /// What is wrong.
        reason: String,
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
            Error::Storage { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Kind::Denied
            }
            Error::Listen { .. } | Error::Storage { .. } => Kind::System,
            Error::Json { .. } | Error::Configuration { .. } => Kind::Invalid,
        }
    }
}

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;
