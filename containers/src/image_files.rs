//! What lies below what a container writes.

use std::path::Path;

use layers::Stack;
use store::{SnapshotId, Store};

use crate::Result;

/// The files of an image.
#[derive(Debug, Clone, Copy)]
pub enum ImageFiles<'a> {
    /// None: the image is empty.
    Nothing,
    /// In the store.
    Snapshot(SnapshotId),
    /// At a path of this process, as of an image that is fetched while it is read.
    Shown(&'a Path),
}

impl From<Option<SnapshotId>> for ImageFiles<'_> {
    fn from(snapshot: Option<SnapshotId>) -> Self {
        snapshot.map_or(ImageFiles::Nothing, ImageFiles::Snapshot)
    }
}

impl ImageFiles<'_> {
    /// The files, read-only.
    pub(crate) fn stack(self, store: &Store) -> Result<Option<Stack>> {
        Ok(match self {
            ImageFiles::Nothing => None,
            ImageFiles::Snapshot(snapshot) => Some(store.stack(snapshot)?),
            ImageFiles::Shown(path) => {
                Some(Stack { lower: vec![path.to_owned()], ..store.empty_stack() })
            }
        })
    }

    /// The files with a place above them for what is written.
    pub(crate) fn below(self, active: &store::Active) -> Result<Stack> {
        Ok(match self {
            ImageFiles::Nothing => active.stack(None)?,
            ImageFiles::Snapshot(snapshot) => active.stack(Some(snapshot))?,
            ImageFiles::Shown(path) => {
                Stack { lower: vec![path.to_owned()], ..active.stack(None)? }
            }
        })
    }
}
