//! Cache mounts as they travel.

use image::Digest;
use serde::{Deserialize, Serialize};

/// No more mounts than this are looked at.
pub(super) const MOST_MOUNTS: usize = 1000;

/// A cache mount in a cache manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MountRecord {
    /// Its id.
    pub(super) id: String,
    /// When it was used last, seconds since 1970.
    pub(super) used: i64,
    /// The blob that lists its pieces.
    pub(super) index: Digest,
}
