//! Copying files from one root to another: COPY and ADD.

use std::fmt;
use std::path::Path;

use task::Task;

use crate::{Error, Result, Root};

/// What to do with one path of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Copy it, and ask again for what is below it.
    Yes,
    /// Leave it and everything below it out.
    No,
    /// A directory that is only copied if something below it is.
    Descend,
}

/// How to copy.
#[derive(Clone, Copy)]
pub struct CopyOptions<'a> {
    /// Everything belongs to this user and group instead of the source's.
    pub owner: Option<(u32, u32)>,
    /// The permission bits (07777) of a copy, given the `st_mode` (kind and bits) of the source.
    pub mode: &'a dyn Fn(u32) -> u32,
    /// The modification time (seconds and nanoseconds since 1970) of every copy instead of the
    /// source's.
    pub mtime: Option<(i64, u32)>,
    /// Asked for every path below the source (relative to it; an empty path for the source
    /// itself) and whether it is a directory.
    pub keep: &'a dyn Fn(&Path, bool) -> Keep,
    /// Whether the source's final component is followed when it is a symbolic link.
    pub follow: bool,
    /// Owner, mode and time of the parents of the target that have to be made: user, group, and
    /// permission bits. The time is `mtime`, or the moment when that is `None`.
    pub parents: (u32, u32, u32),
    /// Whether a file may take the place of a directory and the other way round; otherwise that
    /// is [`Error::Conflict`].
    pub replace: bool,
}

impl Default for CopyOptions<'_> {
    fn default() -> Self {
        CopyOptions {
            owner: None,
            mode: &|mode| mode & 0o7777,
            mtime: None,
            keep: &|_, _| Keep::Yes,
            follow: false,
            parents: (0, 0, 0o755),
            replace: false,
        }
    }
}

impl fmt::Debug for CopyOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyOptions").field("owner", &self.owner).finish_non_exhaustive()
    }
}

/// What was copied.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Copied {
    /// Files of every kind, directories included.
    pub files: u64,
    /// Bytes of contents.
    pub bytes: u64,
    /// What could not be kept: one line each.
    pub skipped: Vec<String>,
}

/// Copies the file or tree `source` to `target`, which becomes the copy itself: to copy into a
/// directory, name the file in it. An existing directory is merged into and keeps its own
/// attributes at the top; directories below take the source's.
///
/// # Errors
/// When one of the roots cannot be read or written, or kinds are in conflict.
pub fn copy(
    from: &Root,
    source: &Path,
    to: &Root,
    target: &Path,
    options: &CopyOptions<'_>,
    task: &Task,
) -> Result<Copied> {
    let _ = (from, to, target, options, task);
    Err(Error::Conflict { path: source.to_owned(), reason: "not there yet" })
}
