//! What an image is: digests, descriptors, documents and names, as pure values.
//!
//! The bytes are the truth. A [`Document`] keeps the bytes it was read from, so reading and
//! writing again never changes a digest; fields this crate does not know are kept in `rest`.
//!
//! ```
//! use image::{Descriptor, Digest, Document, Manifest, MediaType, Reference};
//!
//! let name: Reference = "registry.example/team/app:1.0".parse()?;
//! assert_eq!(name.to_string(), "registry.example/team/app:1.0");
//!
//! let config = Descriptor::of(MediaType::OCI_CONFIG, b"{}");
//! let manifest = Manifest::new(MediaType::OCI_MANIFEST, config, Vec::new());
//! let manifest = Document::write(MediaType::OCI_MANIFEST, manifest);
//! assert_eq!(manifest.digest(), Digest::of(manifest.bytes()));
//! # Ok::<(), image::Error>(())
//! ```

mod config;
mod descriptor;
mod digest;
mod document;
mod edit;
mod error;
mod manifest;
mod media_type;
mod nullable;
mod platform;
mod reference;
mod summary;
mod view;

pub use config::{Config, ContainerConfig, Healthcheck, History, RootFs};
pub use descriptor::Descriptor;
pub use digest::{Algorithm, ChainId, Digest, DigestReader, Digester};
pub use document::{Document, MAX_DOCUMENT};
pub use edit::{ConfigEdit, history_behind, steps};
pub use error::{Error, Result};
pub use manifest::{Index, Manifest, Node};
pub use media_type::{Encoding, MediaType};
pub use platform::Platform;
pub use reference::{Reference, Repository, Tag};
pub use summary::Summary;
pub use view::{Image, Layer};
