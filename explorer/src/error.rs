use std::io;

use image::Digest;
use task::{Cancelled, Cause, Fault, Kind};

/// What can go wrong when an image is explored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The blob of a layer is not available.
    #[error("opening layer {layer}")]
    Open {
        /// The blob.
        layer: Digest,
        /// Why.
        source: Cause,
    },
    /// The archive of a layer is broken or cannot be read.
    #[error("reading layer {layer}")]
    Layer {
        /// The blob.
        layer: Digest,
        /// Why.
        source: layers::Error,
    },
    /// The bytes of a layer ended early.
    #[error("reading layer {layer} to its end")]
    Read {
        /// The blob.
        layer: Digest,
        /// Why.
        source: io::Error,
    },
    /// A layer is another one than the config says.
    #[error("reading layer {layer}: it unpacks to {found}, not to {expected} as the image says")]
    DiffId {
        /// The blob.
        layer: Digest,
        /// The diffID of the config.
        expected: Digest,
        /// What it unpacks to.
        found: Digest,
    },
    /// The layers name more files than are held in memory.
    #[error("reading layer {layer}: the image has more than {limit} names of files")]
    TooManyNames {
        /// The blob in which the limit was passed.
        layer: Digest,
        /// How many names are held.
        limit: usize,
    },
    /// The terminal failed.
    #[error("showing the image on the terminal")]
    Terminal {
        /// Why.
        source: io::Error,
    },
    /// The user stopped the work.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::Open { source, .. } => source.kind(),
            Error::Layer { source, .. } => source.kind(),
            Error::DiffId { .. } | Error::TooManyNames { .. } => Kind::Invalid,
            Error::Read { .. } | Error::Terminal { .. } => Kind::System,
            Error::Cancelled(_) => Kind::Cancelled,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::Open { source, .. } => source.hint(),
            Error::Layer { source, .. } => source.hint(),
            _ => None,
        }
    }
}
