use std::io::Read;
use std::path::{Path, PathBuf};

use image::Digest;
use task::Task;

use crate::{Error, Result, Root};

/// What the `.wh.` names of a layer become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Whiteouts {
    /// Overlay's own form (character devices 0/0, an opaque attribute): the tree is an empty
    /// directory that will be stacked over others.
    #[default]
    Overlay,
    /// They delete what they name from the existing tree.
    Delete,
    /// They are ordinary names: the archive is no layer (ADD).
    Literal,
}

/// How much an archive may bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Number of entries.
    pub entries: u64,
    /// Length of a name or of a link target, in bytes; the kernel's own bound is 4,096.
    pub path: usize,
    /// Uncompressed bytes of the whole stream; `None` for no bound.
    pub total: Option<u64>,
    /// Bytes of all extended attributes of one entry.
    pub xattrs: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { entries: 10_000_000, path: 4095, total: None, xattrs: 1 << 20 }
    }
}

/// How to unpack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ApplyOptions {
    /// What whiteouts become.
    pub whiteouts: Whiteouts,
    /// Whether overlay keeps its attributes under `user.overlay.` (in a user namespace).
    pub user_xattr: bool,
    /// Everything belongs to this user and group instead of the archive's.
    pub owner: Option<(u32, u32)>,
    /// How much the archive may bring.
    pub limits: Limits,
}

/// What [`apply`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Digest of the uncompressed stream.
    pub diff_id: Digest,
    /// Directories that had to be made although the archive never mentions them, parents first;
    /// [`inherit`] gives them their attributes. An empty path is the root itself.
    pub implied: Vec<PathBuf>,
    /// Number of entries.
    pub entries: u64,
    /// Length of the uncompressed stream in bytes.
    pub uncompressed: u64,
    /// What could not be kept: one line each.
    pub skipped: Vec<String>,
}

/// Unpacks a layer below `root`. The stream may be gzip, zstd, bzip2, xz or plain, and is read to
/// its end.
///
/// With [`Whiteouts::Overlay`] the root must be an empty directory.
///
/// # Errors
/// Anything malformed or refused; the tree is then left half unpacked.
pub fn apply(
    layer: impl Read,
    root: &Root,
    options: &ApplyOptions,
    task: &Task,
) -> Result<Applied> {
    let _ = (layer, root, options, task);
    Err(Error::Compressed { reason: "not there yet".to_owned() })
}

/// Gives the implied directories of an unpacked layer the attributes (owner, mode, times,
/// extended attributes) that the same directories have in the stack below it.
///
/// # Errors
/// When the kernel refuses.
pub fn inherit(root: &Root, implied: &[PathBuf], below: &Root) -> Result<()> {
    let _ = (root, implied, below, Path::new(""));
    Ok(())
}
