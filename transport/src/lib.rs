//! The places images are copied from and to, and the mirror of many; with the engine that copies.
//!
//! A place is a [`Source`] or a [`Sink`] of four methods each; an image, an index, a signature
//! are all a rooted graph of descriptors; [`copy()`] carries such a graph from one to the other.
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

pub mod at;
mod buckets;
mod indexes;
mod lazily;
mod open;
mod proxy;
mod raw;
pub mod sync;
mod tls_details;

pub use buckets::{BUILDKIT_CACHE, Bucket, BucketImage, Service};
pub use copy::bridge;
pub use copy::{
    Artifact, ArtifactFiles, BASE_DIGEST, BASE_NAME, Base, Blob, Capabilities, CopyOptions, Draft,
    Error, Finding, Format, FoundFile, Gate, IN_TOTO, ImageSelector, Indexes, LayerFile, Layers,
    Leaf, Location, Open, Origin, Originals, Overlay, PREDICATE_TYPE, PathChange, Plan, Rebase,
    RebaseReport, Recompress, Referrer, ResolvedSource, Result, Role, Select, Side, Sink, Source,
    StorageAt, TITLE, Trees, Unverified, attach, check_base, copy, entries, export, export_files,
    fetch_file, file_of, foreign, image, is_digest_tag, layers_of, node, open, part_of, permit,
    publish, publish_document, read_back, read_layer, real_path, rebase, recompress, referrers,
    scratch, statements, tagged, titled, validate, write_whole,
};
pub use indexes::StoreIndexes;
pub use lazily::{Lazily, lazily};
pub use open::{Machine, Places};
pub use proxy::ImageProxy;
pub use raw::{copy_blob, describe_file, kind_of_manifest, put_manifest, read_blob, write_blob};
pub use tls_details::tls_details;

#[cfg(test)]
use copy::Memory;

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod peers;
#[cfg(test)]
#[path = "../../copy/src/samples.rs"]
mod samples;
#[cfg(test)]
mod suite;
