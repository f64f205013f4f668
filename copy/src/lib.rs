//! The copy engine: how images move between places, whatever the places are.
//!
//! A place is a [`Source`] or a [`Sink`] of four methods each; an image, an index, a signature
//! are all a rooted graph of descriptors; [`copy`] carries such a graph from one to the other.
//! Nothing becomes content unverified: a source gives [`Unverified`] bytes, a sink takes a
//! [`Blob`], and the only way from one to the other is [`Unverified::verify`].
//!
//! ```
//! use image::{Document, Manifest, MediaType};
//! use task::Task;
//! use copy::{CopyOptions, Memory, Open, copy};
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let (here, there) = (Memory::new(), Memory::new());
//! let config = here.insert(MediaType::OCI_CONFIG, &b"{}"[..]);
//! let manifest = Manifest::new(MediaType::OCI_MANIFEST, config, Vec::new());
//! let manifest = Document::write(MediaType::OCI_MANIFEST, manifest);
//! let root = here.insert(MediaType::OCI_MANIFEST, manifest.bytes().clone());
//! here.name("app:1", &root);
//!
//! let (source, sink) = (here.image("app:1"), there.image("copy:1"));
//! let copied = copy(&source, &sink, &Open, &CopyOptions::default(), &Task::silent()).await?;
//! assert_eq!(there.named("copy:1"), Some(copied));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod artifact_files;
mod attach;
mod attached;
mod best;
mod blob;
pub mod bridge;
mod capabilities;
mod convert;
mod copy;
mod edit;
mod entries;
mod error;
mod execution;
mod export;
mod file_of;
mod gzip_index;
mod left;
mod location;
mod memory;
mod options;
mod originals;
mod overlay;
mod parts;
mod place;
mod plan;
mod real;
mod rebase;
mod recompress;
mod referrer;
mod resolved_source;
mod rewrite;
mod select;
mod statements;
mod stop;
mod stored;
mod trees;
mod validate;
mod walk;

pub use self::artifact_files::{ArtifactFiles, TITLE, titled};
pub use self::attach::{Artifact, attach, publish, publish_document};
pub use self::attached::is_digest_tag;
pub use self::blob::{Blob, Unverified};
pub use self::capabilities::Capabilities;
pub use self::copy::{copy, permit};
pub use self::edit::{Draft, LayerFile, layers_of, open_part, read_layer};
pub use self::entries::entries;
pub use self::error::{Error, Result, Side};
pub use self::export::{export, fetch_file, write_whole};
pub use self::file_of::{FoundFile, export_files, file_of, part_of};
pub use self::gzip_index::Indexes;
pub use self::location::{ImageSelector, Location, StorageAt, foreign};
pub use self::memory::{Memory, MemoryImage};
pub use self::options::{CopyOptions, Format, Layers, Recompress, Select};
pub use self::originals::Originals;
pub use self::overlay::{Overlay, scratch};
pub use self::parts::table_of;
pub use self::place::{Gate, Open, Origin, Sink, Source};
pub use self::plan::{Leaf, Plan, Role};
pub use self::real::real_path;
pub use self::rebase::{
    BASE_DIGEST, BASE_NAME, Base, Rebase, RebaseReport, check_base, read_back, rebase,
};
pub use self::recompress::recompress;
pub use self::referrer::{Referrer, referrers, tagged};
pub use self::resolved_source::ResolvedSource;
pub use self::select::{image, node, open};
pub use self::statements::{IN_TOTO, PREDICATE_TYPE, statements};
pub use self::trees::{PathChange, Trees};
pub use self::validate::{Finding, validate};
pub use convert::as_oci;

#[cfg(test)]
mod copy_tests;
#[cfg(test)]
mod samples;
