use std::io;
use std::path::{Path, PathBuf};

use image::Digest;
use task::{Cancelled, Cause, Fault, Kind};

/// Why the store or a layout could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file operation failed.
    #[error("{action} {}", path.display())]
    File {
        /// What was being done: "reading", "creating".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The catalog could not be read or written.
    #[error("{action} in the catalog of the store")]
    Catalog {
        /// What was being done.
        action: &'static str,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The directory holds a store that this version cannot use.
    #[error("opening the store {}: {reason}", path.display())]
    Format {
        /// The store.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The directory is not an OCI layout, or a broken one.
    #[error("reading the OCI layout {}: {reason}", path.display())]
    Layout {
        /// The directory.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The store takes as much as it may, and nothing more can be removed.
    #[error("the store takes {} MiB of its limit of {} MiB, and the rest is in use or named", occupied >> 20, limit >> 20)]
    Full {
        /// The bound in bytes.
        limit: u64,
        /// What it takes.
        occupied: u64,
    },
    /// No such blob.
    #[error("blob {digest} is not in {}", place.display())]
    NoBlob {
        /// The blob.
        digest: Digest,
        /// The store or layout.
        place: PathBuf,
    },
    /// No such name.
    #[error("no image is named {name:?} in {}", place.display())]
    NoName {
        /// The name.
        name: String,
        /// The store or layout.
        place: PathBuf,
    },
    /// The name, prefix or lack of a name fits several things.
    #[error("{name:?} is ambiguous: it could be {}", candidates.join(", "))]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// What it could mean, at most a handful.
        candidates: Vec<String>,
    },
    /// A short name that images of several registries have.
    #[error("{name:?} could be {}", candidates.join(" or "))]
    SeveralNames {
        /// What was asked for.
        name: String,
        /// The full names.
        candidates: Vec<String>,
    },
    /// No manifest list has the name.
    #[error("there is no manifest list {name:?}")]
    NoList {
        /// The name.
        name: String,
    },
    /// What has the name is one image.
    #[error("{name} is a single image, not a manifest list")]
    OneImage {
        /// The name.
        name: String,
    },
    /// A manifest list is changed by its name, and this is none.
    #[error("{id:?} is an id; name the manifest list instead")]
    ListById {
        /// The id or digest.
        id: String,
    },
    /// Not something an image or a container may be called.
    #[error("{name:?} cannot be a name: {reason}")]
    BadName {
        /// The name, cut to a sane length.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Content under a name must be whole, and this part is missing.
    #[error("publishing {root}: its part {child} ({media_type}) is missing")]
    MissingChild {
        /// What was to be published.
        root: Digest,
        /// The missing part.
        child: Digest,
        /// What the part is.
        media_type: String,
    },
    /// No image for the platform in the index.
    #[error("index {index} has no image for {wanted}; it offers {}", offered.join(", "))]
    NoPlatform {
        /// The index.
        index: Digest,
        /// The platform asked for.
        wanted: String,
        /// The platforms there are.
        offered: Vec<String>,
    },
    /// The bytes are not those that were named.
    #[error("content of {expected} has the digest {found}")]
    Digest {
        /// The digest asked for.
        expected: Digest,
        /// The digest of what came.
        found: Digest,
    },
    /// More or fewer bytes than declared.
    #[error("content of {digest} has {found} bytes where {expected} were declared")]
    Size {
        /// The content.
        digest: Digest,
        /// Bytes declared.
        expected: u64,
        /// Bytes that came; when more than declared came, reading stopped there.
        found: u64,
    },
    /// The layer unpacks to something else than the image's configuration says.
    #[error("layer {layer} unpacks to {found} where the image's config says {expected}")]
    DiffId {
        /// The layer.
        layer: Digest,
        /// The diff id in the configuration.
        expected: Digest,
        /// The digest of the uncompressed layer.
        found: Digest,
    },
    /// Unpacking a layer, or mounting a stack of them, failed.
    #[error("{action}")]
    Layer {
        /// What was being done, with the layer's digest.
        action: String,
        /// The cause in `layers`.
        #[source]
        source: Cause,
    },
    /// A document is broken.
    #[error("reading the document {digest}")]
    Document {
        /// The document.
        digest: Digest,
        /// The cause in `image`.
        #[source]
        source: Cause,
    },
    /// The bytes of a blob stopped coming.
    #[error("receiving {digest}")]
    Stream {
        /// The blob.
        digest: Digest,
        /// What the stream said; it may carry a [`Cause`].
        source: io::Error,
    },
    /// No such snapshot.
    #[error("snapshot {id} is not in the store")]
    NoSnapshot {
        /// The snapshot.
        id: Digest,
    },
    /// The files of a snapshot give another layer than they did.
    #[error(
        "layer {digest} is made of the files of snapshot {snapshot}, which now give {found}: something other than this program has changed them"
    )]
    Changed {
        /// The layer.
        digest: Digest,
        /// The snapshot.
        snapshot: Digest,
        /// What its files give now.
        found: Digest,
    },
    /// More layers than the kernel stacks.
    #[error("snapshot {id} would have {depth} parents; the kernel stacks no more than {limit}")]
    TooDeep {
        /// The snapshot.
        id: Digest,
        /// How many snapshots there would be, itself included.
        depth: u32,
        /// How many there may be.
        limit: u32,
    },
    /// No such container.
    #[error("no container has the name or id {name:?}")]
    NoContainer {
        /// What was asked for.
        name: String,
    },
    /// The name of a container is taken.
    #[error("the name {name:?} is taken by container {by}")]
    NameTaken {
        /// The name.
        name: String,
        /// The id of the container that has it.
        by: String,
    },
    /// The user stopped the work.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn file(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Error {
        Error::File { action, path: path.to_owned(), source: source.into() }
    }

    pub(crate) fn document(digest: Digest, source: image::Error) -> Error {
        match source {
            image::Error::DigestMismatch { expected, found } => Error::Digest { expected, found },
            image::Error::SizeMismatch { digest, expected, found } => {
                Error::Size { digest, expected, found }
            }
            source => Error::Document { digest, source: Cause::new(source) },
        }
    }

    pub(crate) fn layer(action: impl Into<String>, source: layers::Error) -> Error {
        match source {
            layers::Error::Cancelled(cancelled) => Error::Cancelled(cancelled),
            source => Error::Layer { action: action.into(), source: Cause::new(source) },
        }
    }

    pub(crate) fn stream(digest: Digest, source: io::Error) -> Error {
        if Cancelled::is_in(&source) {
            return Error::Cancelled(Cancelled);
        }
        Error::Stream { digest, source }
    }
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::File { source, .. } | Error::Stream { source, .. } => Kind::of_io(source),
            Error::Catalog { source, .. } => match source.sqlite_error_code() {
                Some(rusqlite::ErrorCode::DiskFull) => Kind::NoSpace,
                _ => Kind::System,
            },
            Error::Full { .. } => Kind::System,
            Error::NoBlob { .. }
            | Error::NoName { .. }
            | Error::NoPlatform { .. }
            | Error::NoList { .. }
            | Error::NoSnapshot { .. }
            | Error::NoContainer { .. } => Kind::NotFound,
            Error::Format { .. } | Error::NameTaken { .. } | Error::OneImage { .. } => {
                Kind::Refused
            }
            Error::Layout { .. }
            | Error::Ambiguous { .. }
            | Error::SeveralNames { .. }
            | Error::ListById { .. }
            | Error::BadName { .. }
            | Error::MissingChild { .. }
            | Error::Digest { .. }
            | Error::Size { .. }
            | Error::DiffId { .. }
            | Error::Changed { .. }
            | Error::TooDeep { .. } => Kind::Invalid,
            Error::Layer { source, .. } | Error::Document { source, .. } => source.kind(),
            Error::Cancelled(_) => Kind::Cancelled,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::Catalog { .. } => Some("`rbuild check` shows what is wrong".to_owned()),
            Error::SeveralNames { .. } => Some("write the name with its registry".to_owned()),
            Error::TooDeep { .. } => {
                Some("squash the image's layers, or start from a base with fewer".to_owned())
            }
            Error::Layer { source, .. } | Error::Document { source, .. } => source.hint(),
            Error::Stream { source, .. } => {
                let inner = source.get_ref().and_then(|inner| inner.downcast_ref::<Cause>());
                inner.and_then(Cause::hint)
            }
            _ => None,
        }
    }
}
