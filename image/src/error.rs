use task::{Fault, Kind};

use crate::Digest;

/// Why bytes or text are not what they should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not `algorithm:hex` with a known algorithm and exactly its number of lower-case digits.
    #[error("{text:?} is not a digest: {reason}")]
    Digest {
        /// The text as given, cut to a sane length.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Not an image reference.
    #[error("{text:?} is not an image reference: {reason}")]
    Reference {
        /// The text as given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Not `os/arch[/variant]`.
    #[error("{text:?} is not a platform: {reason}")]
    Platform {
        /// The text as given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The bytes do not have the digest they are named by.
    #[error("content does not match its digest: expected {expected}, found {found}")]
    DigestMismatch {
        /// The digest that was asked for.
        expected: Digest,
        /// The digest of the bytes that came.
        found: Digest,
    },
    /// The bytes do not have the length their descriptor declares.
    #[error("content of {digest} has {found} bytes where its descriptor declares {expected}")]
    SizeMismatch {
        /// The content.
        digest: Digest,
        /// Bytes declared.
        expected: u64,
        /// Bytes that came.
        found: u64,
    },
    /// A document larger than [`crate::MAX_DOCUMENT`].
    #[error("document {digest} has {size} bytes, more than the {limit} allowed")]
    TooLarge {
        /// The document.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// Not JSON of the expected shape.
    #[error("document {digest} ({media_type}) is malformed")]
    Malformed {
        /// The document.
        digest: Digest,
        /// What it claims to be.
        media_type: String,
        /// The parser's complaint.
        #[source]
        source: serde_json::Error,
    },
    /// Well-formed JSON that contradicts itself or its descriptor.
    #[error("document {digest} is not acceptable: {reason}")]
    Confused {
        /// The document.
        digest: Digest,
        /// The contradiction.
        reason: String,
    },
    /// Neither an image index nor an image manifest.
    #[error("{digest} has media type {media_type:?}, which is neither an index nor a manifest")]
    NotANode {
        /// The document.
        digest: Digest,
        /// What its descriptor says it is.
        media_type: String,
    },
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        Kind::Invalid
    }
}

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;
