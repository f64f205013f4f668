//! The tar format: one strict reading, one canonical writing.
//!
//! POSIX.1-2024 `pax`, with the GNU extensions that image layers contain (long names, sparse
//! files, base-256 numbers). Where common readers disagree about an archive, it is refused.

mod header;
mod number;
mod pax;
mod read;
mod sparse;
mod write;

pub(crate) use read::{Reader, ReaderLimits};
pub(crate) use sparse::Sparse;
pub(crate) use write::Writer;

/// The unit of the format.
pub(crate) const BLOCK: usize = 512;
/// Extended headers (names, attributes, sparse maps) are no longer than this, as with Go.
pub(crate) const EXTENSION: u64 = 1 << 20;
/// What PAX calls extended attributes.
pub(crate) const XATTR: &str = "SCHILY.xattr.";

/// Whether a block is the header of an entry of a tar archive: it has the checksum that it says.
#[must_use]
pub fn is_tar_header(block: &[u8; BLOCK]) -> bool {
    header::Raw::check(block).is_ok()
}

/// Extended attributes: names and values.
pub(crate) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TypeFlag {
    File,
    HardLink,
    Symlink,
    Char,
    Block,
    Directory,
    Fifo,
}

/// One entry of an archive, everything about it but its contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// Where the entry starts in the archive (reading only).
    pub(crate) offset: u64,
    pub(crate) kind: TypeFlag,
    /// The name as it stands there: any bytes but NUL, not empty.
    pub(crate) path: Vec<u8>,
    /// What a link points to.
    pub(crate) link: Vec<u8>,
    /// Permission bits (07777).
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Bytes of contents that are stored in the archive.
    pub(crate) size: u64,
    /// Seconds and nanoseconds since 1970.
    pub(crate) mtime: (i64, u32),
    pub(crate) device: (u32, u32),
    /// Extended attributes, in the archive's order, names unique.
    pub(crate) xattrs: Xattrs,
    pub(crate) sparse: Option<Sparse>,
}

impl Header {
    /// An entry about which nothing is said yet.
    pub(crate) fn new(kind: TypeFlag) -> Header {
        Header {
            offset: 0,
            kind,
            path: Vec::new(),
            link: Vec::new(),
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: (0, 0),
            device: (0, 0),
            xattrs: Vec::new(),
            sparse: None,
        }
    }
}
