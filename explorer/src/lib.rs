//! What is in an image, layer by layer and file by file: which step wrote which file, and which
//! bytes layers carry that the image does not show.
//!
//! [`explore`] reads each layer once, past its digest; nothing is unpacked. The [`ExploredImage`] image
//! is shown by [`summary`] (words), [`json`], [`html`] (a report of one file) and, with the feature
//! `screen`, by `show` (a browser on the terminal). A [`Difference`] compares two images.
//!
//! ```
//! use explorer::ExploredImage;
//! use image::{Config, Descriptor, Digest, Document, Image, Manifest, MediaType};
//! use task::Task;
//! # let mut layer = tar::Builder::new(Vec::new());
//! # let mut header = tar::Header::new_gnu();
//! # header.set_size(3);
//! # layer.append_data(&mut header, "etc/motd", &b"hi\n"[..])?;
//! # let layer = layer.into_inner()?;
//! # let mut config = Config::default();
//! # config.rootfs.diff_ids.push(Digest::of(&layer));
//! # let config = Document::write(MediaType::OCI_CONFIG, config);
//! # let layers = vec![Descriptor::of(MediaType::OCI_LAYER, &layer)];
//! # let manifest = Manifest::new(MediaType::OCI_MANIFEST, config.descriptor().clone(), layers);
//! # let manifest = Document::write(MediaType::OCI_MANIFEST, manifest);
//! // `manifest`, `config` and `layer` are at hand: from a store, a registry or a file.
//! let image = Image::new(manifest, config)?;
//! let mut open = |_: &image::Layer<'_>| Ok(Box::new(std::io::Cursor::new(layer.clone())) as _);
//! let explored: ExploredImage = explorer::explore("app", &image, &mut open, &Task::silent())?;
//! assert_eq!(explored.carried_and_wasted(), (3, 0));
//! print!("{}", explorer::summary(&explored));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[cfg(feature = "screen")]
mod browser;
mod difference;
mod error;
mod explored_image;
mod html;
#[cfg(test)]
mod sample;
#[cfg(feature = "screen")]
mod screen;
mod summary;
mod tree;

pub use difference::Difference;
pub use error::{Error, Result};
pub use explored_image::{ExploredImage, LayerView, OpenLayer, explore};
pub use html::html;
#[cfg(feature = "screen")]
pub use screen::show;
pub use summary::{json, summary};
pub use tree::{Change, File, MAX_NAMES, Node, Tree, Version, Waste};
