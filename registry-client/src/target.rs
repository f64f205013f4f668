use std::fmt;

use image::{Digest, Reference, Tag};

/// The reference of a manifest request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A movable name.
    Tag(Tag),
    /// Exact content.
    Digest(Digest),
}

impl From<&Reference> for Target {
    /// The digest wins over the tag; neither means `latest`.
    fn from(reference: &Reference) -> Target {
        match (&reference.digest, &reference.tag) {
            (Some(digest), _) => Target::Digest(*digest),
            (None, Some(tag)) => Target::Tag(tag.clone()),
            (None, None) => Target::Tag(Tag::latest()),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Tag(tag) => tag.fmt(f),
            Target::Digest(digest) => digest.fmt(f),
        }
    }
}

impl Target {
    /// What follows the repository in a name: `:tag`, `@digest`.
    pub(crate) fn suffix(&self) -> String {
        match self {
            Target::Tag(tag) => format!(":{tag}"),
            Target::Digest(digest) => format!("@{digest}"),
        }
    }
}
