//! The images of this machine: content, names, unpacked layers, build cache, containers.
//!
//! ```text
//! <store>/                        0700, one file system
//! ├── store.json                  format version, features, id map: who may use this store
//! ├── catalog.db                  SQLite (WAL): the truth about everything below
//! ├── blobs/sha256/<hex>          manifests, configs, layers; mode 0444, as in an OCI layout
//! ├── snapshots/<hex>/fs/         a committed layer, as an overlay lower directory
//! ├── mounts/<hex>/{data,lock}    a cache mount, named by the digest of its id
//! ├── containers/<id>/            upper/ and work/ of the overlay, and the runtime's files
//! ├── flights/<hex>               locked by the process that does the step of this key
//! ├── active/<lease>/<n>/{fs,work}   a snapshot in the making
//! ├── ingest/<lease>/<n>          a blob on its way in
//! ├── leases/<lease>              locked by the process that holds the lease
//! ├── reserve                     room for the catalog on a full disk
//! └── trash/                      on its way out
//! ```
//!
//! The catalog is the truth: a file without a row is garbage, a row without its file is a bug that
//! [`Store::check`] reports. Files get their place inside the write transaction that makes their
//! row, so there is no state in between. Nothing relies on a process ending well (invariant I7):
//! what a dead process left is in the directories of its lease, and the next process sees that its
//! lock is gone.
//!
//! The plain layer of a snapshot can be a blob without a file: each read writes it again, and it is
//! compressed before it leaves ([`Store::derive`], [`Store::seal`]).
//!
//! Content is moved into place at once and marked *unsynced* with the boot id; publishing calls
//! `syncfs` once, then sets the name and clears the marks in one transaction. Opening a store
//! whose marks bear another boot id checks what they are about.
//!
//! [`Layout`] is a plain OCI image layout directory; [`Store`] shares its blob format. [`IncomingFile`]
//! is a file that appears whole or not at all, for other code that keeps files on a disk.
//!
//! ```
//! use image::{Descriptor, Document, Manifest, MediaType};
//!
//! let directory = tempfile::tempdir()?;
//! let layout = store::Layout::create(&directory.path().join("layout"))?;
//! let config = Descriptor::of(MediaType::OCI_CONFIG, b"{}");
//! let manifest = Manifest::new(MediaType::OCI_MANIFEST, config, Vec::new());
//! let manifest = Document::write(MediaType::OCI_MANIFEST, manifest);
//! layout.insert(b"{}")?;
//! layout.insert(manifest.bytes())?;
//! layout.publish(Some("app:1"), manifest.descriptor())?;
//! assert_eq!(layout.names()?, ["app:1"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod blob;
mod budget;
mod catalog;
mod check;
mod container;
mod derived;
mod error;
mod file;
mod flight;
mod format;
mod gc;
mod images;
mod incoming;
mod layout;
mod lease;
mod limit;
mod lookup;
mod manifest_list;
mod mark;
mod mount;
mod name;
mod recover;
mod reserve;
mod select;
mod snapshot;
mod step;
mod store;
#[cfg(test)]
mod tests;
mod unpack;
mod usage;

pub use blob::BlobWriter;
pub use budget::{
    Budget, CacheEntry, CollectionFilter, CollectionReport, ItemKind, RemovalReason, RemovedItem,
};
pub use check::{Problem, Severity};
pub use container::ContainerRecord;
pub use error::{Error, Result};
pub use flight::Flight;
pub use images::{ImageFilter, StoredImage, repository_and_tag};
pub use incoming::{IncomingFile, settle};
pub use layout::{Layout, Listing};
pub use lease::Lease;
pub use lookup::FoundImage;
pub use manifest_list::ManifestList;
pub use mount::{CacheMount, CacheSharing};
pub use name::{Name, PublishedRoot};
pub use snapshot::{Active, MAX_DEPTH, SnapshotId};
pub use step::{StepNote, StepRecord};
pub use store::{Options, Store};
pub use unpack::PendingLayer;
pub use usage::{ImageUsage, Total, Usage};
