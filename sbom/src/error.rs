use task::{Cancelled, Fault, Kind};

/// What can go wrong when a layer is scanned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The layer cannot be read.
    #[error("scanning the layer for packages")]
    Layer {
        /// Why.
        source: layers::Error,
    },
    /// The layer exceeds a limit.
    #[error("scanning the layer for packages: more than {limit} {what}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        limit: usize,
    },
    /// The user stopped the work.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<layers::Error> for Error {
    fn from(error: layers::Error) -> Error {
        match error {
            layers::Error::Cancelled(cancelled) => Error::Cancelled(cancelled),
            source => Error::Layer { source },
        }
    }
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::Layer { source } => source.kind(),
            Error::Limit { .. } => Kind::Invalid,
            Error::Cancelled(_) => Kind::Cancelled,
        }
    }
}
