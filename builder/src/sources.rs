//! Where a build's own files are, and how they are fetched.

use std::ffi::OsString;
use std::fmt;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::redact::without_credentials;

/// Where the Dockerfile is.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DockerfileAt {
    /// `Request::dockerfile` has it.
    #[default]
    Given,
    /// In the main context: of this name, or the usual one that is there.
    Context(Option<String>),
    /// Behind an `http` address.
    Url(String),
}

impl fmt::Debug for DockerfileAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DockerfileAt::Given => f.write_str("Given"),
            DockerfileAt::Context(name) => f.debug_tuple("Context").field(name).finish(),
            DockerfileAt::Url(url) => {
                f.debug_tuple("Url").field(&without_credentials(url)).finish()
            }
        }
    }
}

/// An `http` address of an archive or file; its debug form shows no credentials.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpUrl(pub String);

impl fmt::Debug for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HttpUrl").field(&without_credentials(&self.0)).finish()
    }
}

/// A stream that is read once.
#[derive(Clone)]
pub struct Stream(Arc<Mutex<Option<Box<dyn Read + Send>>>>);

impl Stream {
    /// What comes out of a reader.
    pub fn new(reader: impl Read + Send + 'static) -> Stream {
        Stream(Arc::new(Mutex::new(Some(Box::new(reader)))))
    }

    /// The reader, for the first who asks.
    pub(crate) fn take(&self) -> Option<Box<dyn Read + Send>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stream")
    }
}

impl PartialEq for Stream {
    fn eq(&self, other: &Stream) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Stream {}

/// Bytes no download is larger than unless the user says so.
pub(crate) const DOWNLOAD_LIMIT: u64 = 16 << 30;

/// How files from elsewhere are fetched; part of a `Request`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Sources {
    /// Where the Dockerfile is (see [`crate::complete`]).
    pub dockerfile: DockerfileAt,
    /// Bytes no download is larger than.
    pub download_limit: u64,
    /// Where the programs `git` and `ssh` are looked for.
    #[serde(with = "path_text")]
    pub search_path: OsString,
}

impl Default for Sources {
    fn default() -> Sources {
        Sources {
            dockerfile: DockerfileAt::default(),
            download_limit: DOWNLOAD_LIMIT,
            search_path: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
        }
    }
}

/// A path that is written as a text.
mod path_text {
    use std::ffi::{OsStr, OsString};
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(path: &OsStr, to: S) -> Result<S::Ok, S::Error> {
        Path::new(path).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<OsString, D::Error> {
        PathBuf::deserialize(from).map(Into::into)
    }
}
