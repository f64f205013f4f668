//! The file system of a working container for one command.

use std::path::PathBuf;

use layers::Root;

use crate::{Error, Result};

/// The file system of a working container for one command; to be kept until it has ended.
#[derive(Debug)]
pub struct CommandRoot {
    pub(super) root: Option<Root>,
    /// Forgotten when the command has ended.
    pub(super) _stubs: Option<store::Active>,
    /// What has to be made in the container for mounts, parents first, and is taken away again.
    pub(super) made: Vec<PathBuf>,
    pub(super) again: Option<Root>,
}

impl CommandRoot {
    /// The root, once.
    ///
    /// # Errors
    /// It was taken before.
    pub fn take(&mut self) -> Result<Root> {
        self.root.take().ok_or(Error::internal("the root of a command is taken once"))
    }
}

impl Drop for CommandRoot {
    fn drop(&mut self) {
        let Some(root) = &self.again else { return };
        for path in self.made.iter().rev() {
            // What the command has filled meanwhile is the container's.
            let empty = match root.entries(path) {
                Ok(entries) => entries.is_empty(),
                Err(_) => root.symlink_metadata(path).is_ok_and(|stat| stat.st_size == 0),
            };
            if empty && let Err(error) = root.remove_all(path) {
                tracing::debug!(%error, "a mount point stays in the container");
            }
        }
    }
}
