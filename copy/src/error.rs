use std::fmt;
use std::path::PathBuf;

use image::{Descriptor, Digest};
use task::{Cancelled, Cause, Fault, Kind};

/// Which end of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Where the content comes from.
    Source,
    /// Where the content goes.
    Destination,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Source => "at the source",
            Side::Destination => "at the destination",
        })
    }
}

/// Why moving an image failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// One end could not do its part.
    #[error("{action} {side}")]
    Place {
        /// What was being done, and to what.
        action: String,
        /// Which end failed.
        side: Side,
        /// What that end says.
        source: Cause,
    },
    /// A name could not be looked up; what is behind it names the place.
    #[error("{source}")]
    Resolve {
        /// What that place says.
        source: Cause,
    },
    /// The gate did not let the image through; nothing was moved.
    #[error("checking whether {digest} may be used")]
    Gate {
        /// The image as the source names it.
        digest: Digest,
        /// What the gate says.
        source: Cause,
    },
    /// The source broke off; its own error is reported instead of this one.
    #[error("reading {digest} was interrupted")]
    BrokenOff {
        /// The content being read.
        digest: Digest,
        /// The kind of the error behind it.
        kind: Kind,
    },
    /// The user stopped the copy, or another part of it failed.
    #[error("cancelled")]
    Cancelled,
    /// Content is not what it is named.
    #[error(transparent)]
    Content(#[from] image::Error),
    /// A layer of an image tar is not what its config names.
    #[error("reading layer {name:?}")]
    Layer {
        /// The entry or digest of the layer.
        name: String,
        /// What is wrong with it.
        source: Cause,
    },
    /// The files of a layer could not be written.
    #[error("writing the files of a layer below {}", .place.display())]
    Unpack {
        /// Where the layers are.
        place: PathBuf,
        /// Why.
        source: Cause,
    },
    /// No image of the index serves the platform.
    #[error("choosing an image for {wanted}: the index has {offered}")]
    NoPlatform {
        /// The platforms asked for.
        wanted: String,
        /// The platforms there are.
        offered: String,
    },
    /// The copy would change digests although that was forbidden.
    #[error("copying with the same digests: {reason}")]
    WouldChange {
        /// What would change them.
        reason: String,
    },
    /// The image cannot be written in this format or place.
    #[error("converting {digest}: {reason}")]
    Convert {
        /// The document.
        digest: Digest,
        /// Why not.
        reason: String,
    },
    /// An image cannot be put on another base.
    #[error("rebasing {digest}: {reason}")]
    Rebase {
        /// The image.
        digest: Digest,
        /// Why not.
        reason: String,
    },
    /// An image with more, deeper or larger documents than any honest one.
    #[error("walking {digest}: it has {what}")]
    TooComplex {
        /// The document at which the limit was reached.
        digest: Digest,
        /// The limit.
        what: String,
    },
    /// A form of image that is not read any more.
    #[error("reading {digest}: {media_type} is not supported")]
    Obsolete {
        /// The document.
        digest: Digest,
        /// Its type.
        media_type: String,
    },
    /// The text does not name a place.
    #[error("{text:?} does not name an image: {reason}")]
    Location {
        /// The text as given.
        text: String,
        /// What is wrong with it.
        reason: String,
        /// What to write instead.
        hint: Option<String>,
    },
    /// The place has no image of that name.
    #[error("finding {name} in {place}: no such image{}", known_names(.known))]
    NoImage {
        /// What was asked for.
        name: String,
        /// Where.
        place: String,
        /// Some of the names there are.
        known: Vec<String>,
    },
    /// The image has no such file.
    #[error("finding {path} in the image: {reason}")]
    NoFile {
        /// The path as given.
        path: String,
        /// Why not.
        reason: String,
    },
    /// The place lacks content that one of its documents names.
    #[error("finding {digest} in {place}: no such content")]
    NoContent {
        /// The content.
        digest: Digest,
        /// Where.
        place: String,
    },
    /// The destination does not take a document, most likely because it misses its content.
    #[error("writing {digest}: the destination rejected it")]
    Rejected {
        /// The document.
        digest: Digest,
        /// What the destination says.
        source: Cause,
    },
    /// The place's own files are not what they should be.
    #[error("reading {place}: {reason}")]
    Malformed {
        /// The place.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The document that a name points at is of another size or type than the place said.
    #[error("reading {}: it is a {} of {} bytes, not what {place} declared", .found.digest, .found.media_type, .found.size)]
    Relabelled {
        /// What it is.
        found: Box<Descriptor>,
        /// The place.
        place: String,
    },
    /// The image is for another platform than the one asked for.
    #[error("choosing an image for {wanted}: {digest} is for {found}")]
    OtherPlatform {
        /// The platform asked for.
        wanted: String,
        /// The image.
        digest: Digest,
        /// What it is for.
        found: String,
    },
    /// The place cannot do that.
    #[error("{action}: {place} cannot do that")]
    Unsupported {
        /// What was asked.
        action: String,
        /// The place.
        place: String,
    },
    /// The destination is there already and cannot be added to.
    #[error("writing {path}: it exists already")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A local file operation failed.
    #[error("{action} {path}")]
    File {
        /// What was being done, ending in a preposition if need be.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        source: std::io::Error,
    },
    /// A file of an artifact has a name that no file may have.
    #[error("{name:?} is not a name for a file")]
    FileName {
        /// The name.
        name: String,
    },
    /// Two files of an artifact have the same name.
    #[error("two files are called {name:?}")]
    SameName {
        /// The name.
        name: String,
    },
    /// A list of images to mirror that says what cannot be meant.
    #[error("reading {name}: {reason}")]
    List {
        /// The list.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What a list says about a repository cannot be read.
    #[error("reading {what} of {name}")]
    Listed {
        /// What was being read.
        what: String,
        /// The registry or repository.
        name: String,
        /// Why not.
        source: Cause,
    },
    /// A pattern of tags, a range of versions or a part of a mirror that is none.
    #[error("reading {text:?}: {reason}")]
    Pattern {
        /// The text as given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A mirror would lose more tags than is allowed.
    #[error(
        "deleting {count} of {of} tags of {repository}: that is more than {limit} percent, so none was deleted"
    )]
    Floor {
        /// The repository at the destination.
        repository: String,
        /// How many tags the source has no more.
        count: usize,
        /// How many there are.
        of: usize,
        /// What is allowed.
        limit: u8,
    },
    /// A tag that cannot be deleted without others.
    #[error("deleting {name}: the registry deletes manifests only, and this one is also {others}")]
    Shared {
        /// The name.
        name: String,
        /// The tags that would go with it.
        others: String,
    },
    /// A stream of bytes broke.
    #[error("reading a stream")]
    Stream(#[source] std::io::Error),
}

fn known_names(names: &[String]) -> String {
    match names {
        [] => String::new(),
        _ => format!(", there is {}", names.join(", ")),
    }
}

impl Error {
    /// Names what one end was doing when it failed.
    pub fn at(action: impl Into<String>, side: Side) -> impl FnOnce(Cause) -> Error {
        let action = action.into();
        move |source| Error::Place { action, side, source }
    }

    /// Looking up a name failed.
    pub fn resolve(source: Cause) -> Error {
        Error::Resolve { source }
    }

    /// Names the file that an operation failed on.
    pub fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::File { action, path, source }
    }

    /// Names content that a place lacks.
    pub fn missing(descriptor: &Descriptor, place: impl Into<String>) -> Error {
        Error::NoContent { digest: descriptor.digest, place: place.into() }
    }
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::Place { source, .. }
            | Error::Resolve { source }
            | Error::Layer { source, .. }
            | Error::Unpack { source, .. }
            | Error::Listed { source, .. }
            | Error::Gate { source, .. } => source.kind(),
            Error::BrokenOff { kind, .. } => *kind,
            Error::Cancelled => Kind::Cancelled,
            Error::NoImage { .. }
            | Error::NoContent { .. }
            | Error::NoFile { .. }
            | Error::Rejected { .. } => Kind::NotFound,
            Error::NoPlatform { .. }
            | Error::OtherPlatform { .. }
            | Error::WouldChange { .. }
            | Error::Exists { .. }
            | Error::Floor { .. }
            | Error::Shared { .. }
            | Error::FileName { .. }
            | Error::Unsupported { .. } => Kind::Refused,
            Error::Content(_)
            | Error::Convert { .. }
            | Error::Rebase { .. }
            | Error::TooComplex { .. }
            | Error::Obsolete { .. }
            | Error::Location { .. }
            | Error::Pattern { .. }
            | Error::SameName { .. }
            | Error::List { .. }
            | Error::Relabelled { .. }
            | Error::Malformed { .. } => Kind::Invalid,
            Error::File { source, .. } | Error::Stream(source) => of_io(source),
        }
    }

    fn again(&self) -> bool {
        match self {
            Error::Place { source, .. } | Error::Resolve { source } => source.again(),
            _ => self.kind() == Kind::Unavailable,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::Place { source, .. }
            | Error::Resolve { source }
            | Error::Gate { source, .. }
            | Error::Rejected { source, .. }
            | Error::Listed { source, .. }
            | Error::Unpack { source, .. }
            | Error::Layer { source, .. } => source.hint(),
            Error::Location { hint, .. } => hint.clone(),
            Error::NoPlatform { .. } => {
                Some("choose one of these platforms, or copy all of them".to_owned())
            }
            Error::Obsolete { .. } => Some(
                "convert the image with an older client, or ask its publisher for a newer one"
                    .to_owned(),
            ),
            Error::List { .. } => Some(
                "a list maps registries to images, images-by-tag-regex and images-by-semver"
                    .to_owned(),
            ),
            Error::Exists { .. } => Some("remove it first, or write to another file".to_owned()),
            _ => None,
        }
    }
}

fn of_io(error: &std::io::Error) -> Kind {
    use std::io::ErrorKind;
    if Cancelled::is_in(error) {
        return Kind::Cancelled;
    }
    match error.kind() {
        ErrorKind::UnexpectedEof | ErrorKind::InvalidData => Kind::Invalid,
        _ => Kind::of_io(error),
    }
}

impl From<Cancelled> for Error {
    fn from(_: Cancelled) -> Self {
        Error::Cancelled
    }
}

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;
