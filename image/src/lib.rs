//! What an image is: digests, descriptors, documents and names, as pure values.
//!
//! The bytes are the truth. A [`Document`] keeps the bytes it was read from, so reading and
//! writing again never changes a digest; fields this crate does not know are kept in `rest`.

mod config;
mod descriptor;
mod digest;
mod document;
mod edit;
mod error;
mod manifest;
mod media_type;
mod platform;
mod reference;
mod view;

pub use config::{Config, ContainerConfig, Healthcheck, History, RootFs};
pub use descriptor::Descriptor;
pub use digest::{Algorithm, ChainId, Digest, Digester};
pub use document::{Document, MAX_DOCUMENT};
pub use edit::{ConfigEdit, history_behind, steps};
pub use error::{Error, Result};
pub use manifest::{Index, Manifest, Node};
pub use media_type::{Encoding, MediaType};
pub use platform::Platform;
pub use reference::{Reference, Repository, Tag};
pub use view::{Image, Layer};
