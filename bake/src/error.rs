use task::{Fault, Kind};

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can be wrong with bake files and with what is asked of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file is malformed.
    #[error("reading {file}: {reason}")]
    File {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A variable, a group or a target cannot be evaluated.
    #[error("{subject}: {reason}")]
    Evaluation {
        /// Which one, and which key of it.
        subject: String,
        /// Why not.
        reason: String,
    },
    /// No target and no group has the name.
    #[error("there is no target or group {name:?}")]
    NoTarget {
        /// As asked for.
        name: String,
        /// The most similar name there is.
        closest: Option<String>,
    },
    /// A target inherits from one that does not exist.
    #[error("there is no target {name:?} to inherit from")]
    NoParent {
        /// As the file names it.
        name: String,
    },
    /// Groups contain each other.
    #[error("groups are in a circle: {path}")]
    CircularGroups {
        /// From the first to itself.
        path: String,
    },
    /// Targets inherit from each other.
    #[error("targets inherit in a circle: {path}")]
    CircularInheritance {
        /// From the first to itself.
        path: String,
    },
    /// Targets are named contexts of each other.
    #[error("targets are built on each other: {path}")]
    CircularContexts {
        /// From the first to itself.
        path: String,
    },
    /// An override is malformed.
    #[error("overriding {text:?}: expected TARGET.KEY=VALUE")]
    Override {
        /// As given.
        text: String,
    },
}

impl Error {
    /// Of something with a name that cannot be evaluated.
    pub(crate) fn of(subject: impl Into<String>, reason: impl Into<String>) -> Error {
        Error::Evaluation { subject: subject.into(), reason: reason.into() }
    }
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::NoTarget { .. } | Error::NoParent { .. } => Kind::NotFound,
            _ => Kind::Invalid,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::NoTarget { closest: Some(closest), .. } => {
                Some(format!("did you mean {closest:?}?"))
            }
            _ => None,
        }
    }
}
