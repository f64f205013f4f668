//! What may be said about an image beside it, and what it is called.

use serde::{Deserialize, Serialize};

/// The one version of statements that is written.
pub const STATEMENT_V1: &str = "https://in-toto.io/Statement/v1";
/// The predicate that is an SPDX document.
pub const SPDX: &str = "https://spdx.dev/Document";
/// On an entry of an index: which image it is about (BuildKit's).
pub const ABOUT: &str = "vnd.docker.reference.digest";
/// On an entry of an index: what it is.
pub(crate) const ABOUT_TYPE: &str = "vnd.docker.reference.type";

/// What to say about the images of a build; part of a [`crate::Request`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attest {
    /// Which packages they contain.
    pub sbom: bool,
    /// How they were built.
    pub provenance: Option<Provenance>,
    /// In the index, as in BuildKit, instead of as referrers: the digest of the name then depends
    /// on the attestations.
    pub in_index: bool,
    /// The version of this program.
    pub version: String,
}

/// What provenance says besides what the build itself knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Provenance {
    /// With the Dockerfile, the steps and the values of build arguments.
    pub max: bool,
    /// Who built it: a URI.
    pub builder_id: String,
    /// The user says that building again gives the same.
    pub reproducible: bool,
    /// Names this run.
    pub invocation: String,
    /// The version of this program.
    pub version: String,
}

impl Attest {
    /// Whether anything is said at all.
    pub(crate) fn any(&self) -> bool {
        self.sbom || self.provenance.is_some()
    }
}
