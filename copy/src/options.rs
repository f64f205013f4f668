use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use image::Platform;
use layers::Compression;

/// Which images of an index are copied. An image that is in no index is always copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Select {
    /// The one that serves this platform best; the copy is that image alone.
    One(Platform),
    /// The index and everything in it.
    All,
    /// A smaller index of the images that serve these platforms.
    List(Vec<Platform>),
    /// The index document without its images, for a destination that has them or gets them later.
    IndexOnly,
}

impl Default for Select {
    fn default() -> Self {
        Select::One(Platform::host())
    }
}

/// A family of document types; the bytes of layers are the same in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// OCI image-spec documents.
    Oci,
    /// Docker manifest schema 2 and manifest lists (`v2s2`).
    Docker,
}

/// How to copy.
#[derive(Debug, Clone)]
pub struct CopyOptions {
    /// Which images of an index.
    pub select: Select,
    /// Blobs in flight at a time; each takes up to 1 MiB of memory.
    pub concurrency: usize,
    /// Fail rather than change a digest.
    pub preserve_digests: bool,
    /// Convert the documents to this family where they are of the other.
    pub format: Option<Format>,
    /// Copy what refers to the images (signatures, SBOMs) as well.
    pub referrers: bool,
    /// Copy the tags that are named by the images' digests as well (`sha256-….sig`, `.att`,
    /// `.sbom`), by which signatures and SBOMs of the older form are found.
    pub digest_tags: bool,
    /// Whether signatures are among what is copied so.
    pub signatures: bool,
    /// Of what refers to the images, only these types of artifact; all where it is empty.
    pub artifact_types: Vec<String>,
    /// Write the layers in another compression.
    pub recompress: Option<Recompress>,
    /// Make an index of each gzip layer that has none, attach it to the image, and let the manifest
    /// promise its digest, so that single files can be fetched. The manifest's digest changes.
    pub gzip_index: bool,
    /// Annotations of the entry by which a layout or archive lists the root.
    pub entry: BTreeMap<String, String>,
    /// How often a blob is sent at most when the destination breaks off before more of it came
    /// through.
    pub attempts: u32,
    /// How long that may take altogether.
    pub patience: Duration,
    /// An image that is in no index must be for one of these platforms, if there are any.
    pub only_for: Vec<Platform>,
    /// Warn of what is attached to the image and stays behind, where the destination or the
    /// selection leaves no choice; costs the source some questions.
    pub tell_left: bool,
}

impl Default for CopyOptions {
    fn default() -> Self {
        CopyOptions {
            select: Select::default(),
            concurrency: 8,
            preserve_digests: false,
            format: None,
            referrers: false,
            digest_tags: false,
            signatures: true,
            artifact_types: Vec::new(),
            recompress: None,
            gzip_index: false,
            entry: BTreeMap::new(),
            attempts: 3,
            patience: Duration::from_secs(60),
            only_for: Vec::new(),
            tell_left: false,
        }
    }
}

/// The compression of layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recompress {
    /// The format and its level.
    pub compression: Compression,
    /// Whether a zstd layer is written with a table of its files (zstd:chunked).
    pub chunked: bool,
    /// Which layers are written again.
    pub layers: Layers,
    /// Threads that compress one layer; their number does not show in the bytes.
    pub threads: usize,
    /// A directory for the new layers until they are sent.
    pub room: PathBuf,
}

/// Which layers a [`Recompress`] writes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layers {
    /// Those that are not compressed.
    Plain,
    /// Those in any other format.
    Others,
    /// All, so that all have the same level.
    All,
}
