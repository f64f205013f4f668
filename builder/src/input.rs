//! What a build takes from elsewhere, and what may become of it.

use std::collections::BTreeMap;

use image::{Digest, Platform};

/// What kind of thing an input is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InputKind {
    /// An image of a registry or of the store: `docker-image://`.
    Image,
    /// A file: `http://` and `https://`.
    Http,
    /// A commit of a repository: `git://`.
    Git,
    /// An image of a layout on this machine: `oci-layout://`.
    Layout,
    /// An image in another form on this machine: `oci-archive:`, `docker-archive:`, `dir:`.
    Archive,
    /// Files of this machine: `local://`. Never pinned, never recorded.
    Local,
}

/// Something from elsewhere that a build used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// What it is.
    pub kind: InputKind,
    /// As the user wrote it, without credentials.
    pub name: String,
    /// Its identifier, after what a source policy put in its place.
    pub identifier: String,
    /// Its content: the digest of what an image's name points at (often an index), the digest of
    /// a file, the commit of a repository.
    pub resolved: String,
    /// For an image, what it was resolved for.
    pub platform: Option<Platform>,
    /// For an image, the digest of the manifest for that platform.
    pub manifest: Option<Digest>,
    /// Where it was asked for first: `Dockerfile:3`, or the option that names it.
    pub place: Option<String>,
}

/// The verdict of a source policy about an identifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It may be used.
    Allow,
    /// It must not be used.
    Deny {
        /// Why: which rule says so.
        reason: String,
    },
    /// Something else is to be used, or the same with further attributes.
    Convert {
        /// The identifier to use.
        to: String,
        /// BuildKit's attributes, such as `http.checksum` or `git.checksum`.
        attrs: BTreeMap<String, String>,
    },
}

/// What a lock file requires of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pin {
    /// Any content will do.
    Free,
    /// Exactly this content, in the form of [`Input::resolved`].
    To(String),
    /// The build must stop: one sentence that says why.
    Refused(String),
}
