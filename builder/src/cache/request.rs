//! The caches of a request.

use std::fmt;
use std::time::Duration;

use layers::Compression;
use serde::{Deserialize, Serialize};
use task::Cause;
use transport::{Bucket, Location, Sink, Source};

use crate::Places;

/// Import and export of the cache.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheRequest {
    /// `--cache-ttl`: results older than this are made again.
    pub ttl: Option<Duration>,
    /// `--fail-if-not-cached`: nothing is run; a step that would have to be is an error.
    pub must_hit: bool,
    /// `--cache-from`: asked in this order after the cache of this machine.
    pub from: Vec<CacheFrom>,
    /// `--cache-to`: given the steps once the image is made.
    pub to: Vec<CacheTo>,
    /// Whether the image's configuration tells of its steps, so that the image is a cache.
    pub inline: bool,
}

impl CacheRequest {
    /// Whether steps are given away.
    pub(crate) fn exports(&self) -> bool {
        self.inline || !self.to.is_empty()
    }
}

/// Where a cache is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum CachePlace {
    /// Where an image could be as well.
    Image(Location),
    /// A bucket. It has credentials, so it cannot be serialized.
    #[serde(skip)]
    Bucket(Bucket),
}

impl fmt::Display for CachePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CachePlace::Image(location) => location.fmt(f),
            CachePlace::Bucket(bucket) => bucket.fmt(f),
        }
    }
}

impl From<Location> for CachePlace {
    fn from(location: Location) -> CachePlace {
        CachePlace::Image(location)
    }
}

impl CachePlace {
    /// The cache there, to be read.
    pub(crate) fn source(&self, places: &dyn Places) -> Result<Box<dyn Source>, Cause> {
        Ok(match self {
            CachePlace::Image(location) => places.source(location)?,
            CachePlace::Bucket(bucket) => Box::new(bucket.open()?),
        })
    }

    /// The cache there, to be written.
    pub(crate) fn sink(&self, places: &dyn Places) -> Result<Box<dyn Sink>, Cause> {
        Ok(match self {
            CachePlace::Image(location) => places.sink(location)?,
            CachePlace::Bucket(bucket) => Box::new(bucket.open()?),
        })
    }
}

/// A cache to ask.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CacheFrom {
    /// What the user calls it.
    pub name: String,
    /// Where it may be; every existing one is read.
    pub places: Vec<CachePlace>,
}

/// Which steps are given away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Those that the image has a layer of.
    Min,
    /// All, those of earlier stages too.
    #[default]
    Max,
}

/// The document that a cache is listed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheForm {
    /// An OCI image manifest: every registry takes it.
    #[default]
    Manifest,
    /// An OCI index of layers, as BuildKit writes with `image-manifest=false`.
    Index,
    /// Docker's manifest list of layers with Docker's media types.
    DockerList,
}

/// A place to write the cache to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CacheTo {
    /// What the user calls it.
    pub name: String,
    /// Where it is.
    pub place: CachePlace,
    /// Which steps.
    pub mode: Mode,
    /// Which document lists them.
    pub form: CacheForm,
    /// How layers are compressed that are not there in the image's form; as the image's without.
    pub compression: Option<Compression>,
    /// Whether all layers are.
    pub force: bool,
    /// Whether cache mounts go along.
    pub mounts: bool,
    /// Whether the build works although this fails.
    pub ignore_error: bool,
}
