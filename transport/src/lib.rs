//! Moving images between places: the only way an image moves.
//!
//! A place is a [`Source`] or a [`Sink`] of four methods each; an image, an index, a signature
//! are all a rooted graph of descriptors; [`copy`] carries such a graph from one to the other.
//! Nothing becomes content unverified: a source gives [`Unverified`] bytes, a sink takes a
//! [`Blob`], and the only way from one to the other is [`Unverified::verify`].
//!
//! ```
//! use image::{Document, Manifest, MediaType};
//! use task::Task;
//! use transport::at::Memory;
//! use transport::{CopyOptions, Open, copy};
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
pub mod at;
mod attach;
mod attached;
mod blob;
pub mod bridge;
mod convert;
mod copy;
mod edit;
mod error;
mod left;
mod location;
mod open;
mod options;
mod overlay;
mod place;
mod plan;
mod raw;
mod real;
mod rebase;
mod recompress;
mod referrer;
mod resolved;
mod select;
mod stop;
pub mod sync;
mod trees;

pub use artifact_files::{ArtifactFiles, TITLE};
pub use attach::{Artifact, attach, publish, publish_document};
pub use blob::{Blob, Unverified};
pub use copy::{copy, permit};
pub use edit::{Draft, LayerFile, layers_of, read_layer};
pub use error::{Error, Result, Side};
pub use location::{Location, Named, StorageAt};
pub use open::{Machine, Places};
pub use options::{CopyOptions, Format, Layers, Recompress, Select};
pub use overlay::{Overlay, scratch};
pub use place::{Gate, Open, Origin, Sink, Source};
pub use plan::{Leaf, Plan, Role};
pub use raw::{read_blob, write_blob};
pub use real::real_path;
pub use rebase::{Base, Rebase, RebaseReport, rebase};
pub use recompress::recompress;
pub use referrer::{Referrer, referrers};
pub use select::{image, node, open};
pub use trees::{Touched, Trees};

#[cfg(test)]
mod copy_tests;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod peers;
#[cfg(test)]
mod suite;
