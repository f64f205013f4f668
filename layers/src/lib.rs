//! Directory trees to tar streams and back, and stacks of them.
//!
//! [`apply`] unpacks a layer into a [`Root`], [`diff`] and [`archive`] make tar streams out of
//! trees, [`Stack::mount`] lays directories over each other, [`copy::copy`] takes files from one
//! root to another, [`Tree`] says what a stack of layers amounts to without unpacking it, and [`LayerWriter`] compresses and digests a layer while it is written.
//!
//! Everything inside a root is reached by `openat2` with `RESOLVE_IN_ROOT` from a held directory
//! descriptor, and everything that changes a file names it by a descriptor or by one component
//! below a descriptor: no path is looked up by name twice.
//!
//! ```
//! use std::io::{Read as _, Write as _};
//!
//! use layers::{Compression, LayerWriter, decompress};
//!
//! let compression = Compression { encoding: image::Encoding::Zstd, level: None };
//! let mut writer = LayerWriter::new(Vec::new(), compression, 2);
//! writer.write_all(&[0; 1024])?; // an archive without entries
//! let (bytes, layer) = writer.finish()?;
//! assert_eq!(layer.descriptor.digest, image::Digest::of(&bytes));
//!
//! let mut archive = Vec::new();
//! decompress(&bytes[..])?.read_to_end(&mut archive)?;
//! assert_eq!(layer.diff_id, image::Digest::of(&archive));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod apply;
mod blocks;
mod compare;
mod compress;
mod contents;
pub mod copy;
mod diff;
mod edit;
mod entries;
mod error;
mod inflate;
mod mapped;
mod owner;
mod placeholder;
mod root;
mod stack;
mod table;
mod tar;
mod tree;
mod unpack;
mod writer;
mod xattr;

pub use apply::{AppliedLayer, ApplyOptions, Limits, Whiteouts, apply, inherit};
pub use compare::{Comparison, Difference, OpenSide, Times, compare};
pub use compress::{StreamFormat, decompress, sniff};
pub use diff::{DiffOptions, DiffStats, archive, archive_entry, diff};
pub use edit::{LayerEdit, edit_layer};
pub use entries::{EntryKind, LayerEntries, LayerEntry, write_files};
pub use error::{Error, Result};
pub use mapped::IdMap;
pub use owner::{OwnerMap, give_all, give_new};
pub use root::{Entry, Root};
pub use rustix::fs::{FileType, Mode, OFlags, Stat};
pub use stack::{Stack, Top};
pub use table::{
    FilePart, GZIP_INDEX, LayerTable, TableEntry, TablePlace, promise_index, promised_index,
};
pub use tar::is_tar_header;
pub use tree::{FileKind, Inode, LayerRead, Touch, Tree, TreeEntry, TreeOptions, merge};
pub use writer::{Compression, GzipIndex, LayerInfo, LayerWriter, index_gzip, write_chunked};
