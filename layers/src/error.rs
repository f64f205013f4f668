use std::io;
use std::path::{Path, PathBuf};

use task::{Cancelled, Fault, Kind};

/// What can go wrong between a directory tree and a tar stream.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused an operation on a file of the tree.
    #[error("{action} {}", path.display())]
    File {
        /// What was being done: a gerund.
        action: &'static str,
        /// The file, relative to its root where there is one.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The incoming stream could not be read.
    #[error("reading the archive")]
    Read {
        /// What the reader said.
        source: io::Error,
    },
    /// The outgoing stream could not be written.
    #[error("writing the archive")]
    Write {
        /// What the writer said.
        source: io::Error,
    },
    /// The compressed stream is broken.
    #[error("decompressing the archive: {reason}")]
    Compressed {
        /// What is wrong with it.
        reason: String,
    },
    /// The archive breaks the format.
    #[error("reading the archive entry at byte {offset}: {reason}")]
    Malformed {
        /// Where the entry's header starts in the uncompressed stream.
        offset: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// A layer's table of contents is not what was promised, or contradicts itself.
    #[error("reading the table of contents of a layer: {reason}")]
    Table {
        /// What is wrong with it.
        reason: String,
    },
    /// An entry asks for something that is never done.
    #[error("unpacking {}: {reason}", path.display())]
    Entry {
        /// The entry's name.
        path: PathBuf,
        /// Why it is refused.
        reason: String,
    },
    /// A hard link names a file that the archive has not brought.
    #[error("linking {} to {}, which is not in this layer", path.display(), target.display())]
    LinkTarget {
        /// The link.
        path: PathBuf,
        /// What it should be a link to.
        target: PathBuf,
    },
    /// The archive is larger than it may be.
    #[error("reading the archive: more than {limit} {what}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        limit: u64,
    },
    /// A file changed its size while it was being archived.
    #[error("archiving {}: the file changed while it was read", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A copy would put a file where a directory is, or the other way round.
    #[error("copying to {}: {reason}", path.display())]
    Conflict {
        /// The place in the target.
        path: PathBuf,
        /// What is in the way.
        reason: &'static str,
    },
    /// A directory, device or pipe where a plain file is needed.
    #[error("reading {}: it is not a plain file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The kernel refused to stack the directories.
    #[error("mounting the file system: {action}")]
    Mount {
        /// The step that failed.
        action: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel stacks no more than this many directories.
    #[error("stacking {layers} layers: the kernel takes no more than {limit}")]
    TooManyLayers {
        /// How many there are.
        layers: usize,
        /// How many there may be.
        limit: usize,
    },
    /// The user stopped the work.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn file(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Error {
        Error::File { action, path: path.to_owned(), source: source.into() }
    }

    /// An error of an incoming stream, told apart from cancellation.
    pub(crate) fn read(source: io::Error) -> Error {
        match source.downcast::<Error>() {
            Ok(error) => error,
            Err(source) if Cancelled::is_in(&source) => Error::Cancelled(Cancelled),
            Err(source) => Error::Read { source },
        }
    }

    /// An error of an outgoing stream, told apart from cancellation.
    pub(crate) fn write(source: io::Error) -> Error {
        match source.downcast::<Error>() {
            Ok(error) => error,
            Err(source) if Cancelled::is_in(&source) => Error::Cancelled(Cancelled),
            Err(source) => Error::Write { source },
        }
    }

    /// The code the kernel gave, where the error comes from there.
    pub fn errno(&self) -> Option<rustix::io::Errno> {
        match self {
            Error::File { source, .. } | Error::Mount { source, .. } => {
                rustix::io::Errno::from_io_error(source)
            }
            _ => None,
        }
    }
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::File { source, .. } => Kind::of_io(source),
            Error::Read { .. } | Error::Write { .. } | Error::Changed { .. } => Kind::System,
            Error::Mount { .. } => Kind::System,
            Error::Compressed { .. }
            | Error::Malformed { .. }
            | Error::Table { .. }
            | Error::Entry { .. }
            | Error::LinkTarget { .. }
            | Error::Limit { .. }
            | Error::Conflict { .. }
            | Error::NotAFile { .. }
            | Error::TooManyLayers { .. } => Kind::Invalid,
            Error::Cancelled(_) => Kind::Cancelled,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::TooManyLayers { .. } => {
                Some("squash the image's layers, or start from a base with fewer".to_owned())
            }
            Error::Mount { source, .. } if source.raw_os_error() == Some(1) => Some(
                "this process may not mount: in a container it needs CAP_SYS_ADMIN and a seccomp \
                 profile that allows fsopen, fsmount and open_tree (docker, podman: --cap-add \
                 SYS_ADMIN --security-opt seccomp=unconfined), or an ordinary user who may make \
                 user namespaces"
                    .to_owned(),
            ),
            Error::LinkTarget { .. } => Some(
                "the image was built wrongly; rebuild or squash it with its builder".to_owned(),
            ),
            _ => None,
        }
    }
}
