//! Places of caches that no registry serves: buckets of S3 and Azure Blob Storage, and the cache
//! service of GitHub Actions.
//!
//! Blobs are objects named by their digest. A name is an object with the document that it names,
//! written last.

mod actions;
mod error;
#[cfg(feature = "s3")]
mod objects;

use std::fmt;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use image::{Descriptor, Digest, MAX_DOCUMENT};
use task::{Cause, Task};

use crate::at::describe;
use crate::{Blob, Capabilities, Error, Origin, Result, Sink, Source, Unverified};
use actions::Actions;

/// The media type of the list in which BuildKit describes a cache.
pub const BUILDKIT_CACHE: &str = "application/vnd.buildkit.cacheconfig.v0";

/// Names in a bucket.
#[derive(Clone, PartialEq, Eq)]
pub struct Bucket {
    /// What keeps the objects.
    pub service: Service,
    /// What the name of a blob's object begins with; its digest follows.
    pub blobs: String,
    /// What the name of a name's object begins with.
    pub names_in: String,
    /// The names that are written; the first is read.
    pub names: Vec<String>,
}

/// What keeps objects.
#[derive(Clone, PartialEq, Eq)]
pub enum Service {
    /// A bucket of S3 or of what speaks like it.
    S3 {
        /// Its name.
        bucket: String,
        /// The server, where it is not the one of AWS.
        endpoint: Option<String>,
        /// Whether the bucket's name is in the path and not in the name of the host.
        path_style: bool,
        /// Variables `AWS_…`: region and credentials.
        settings: Vec<(String, String)>,
    },
    /// A container of Azure Blob Storage.
    Azure {
        /// `https://ACCOUNT.blob.core.windows.net`.
        url: String,
        /// The name of the account.
        account: String,
        /// The name of the container, which exists.
        container: String,
        /// Variables `AZURE_…`: credentials.
        settings: Vec<(String, String)>,
    },
    /// The cache service of GitHub Actions, version 2.
    Actions {
        /// `ACTIONS_RESULTS_URL`.
        url: String,
        /// `ACTIONS_RUNTIME_TOKEN`.
        token: String,
    },
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.names.first().map(String::as_str).unwrap_or_default();
        match &self.service {
            Service::S3 { bucket, .. } => write!(f, "s3://{bucket}/{}{name}", self.names_in),
            Service::Azure { url, container, .. } => {
                write!(f, "{}/{container}/{}{name}", url.trim_end_matches('/'), self.names_in)
            }
            Service::Actions { .. } => write!(f, "gha:{name}"),
        }
    }
}

/// Without the credentials.
impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bucket({self})")
    }
}

/// The objects of a service.
#[async_trait]
trait Objects: Send + Sync {
    /// Whether there is a blob.
    async fn has(&self, digest: &Digest) -> Result<bool, Cause>;
    /// A blob; `None` if there is none.
    async fn read(&self, digest: &Digest) -> Result<Option<Unverified>, Cause>;
    /// Writes a blob; nothing is kept if it ends in an error.
    async fn write(&self, blob: Blob) -> Result<(), Cause>;
    /// The document of a name, no longer than [`MAX_DOCUMENT`].
    async fn named(&self, name: &str) -> Result<Option<Bytes>, Cause>;
    /// Replaces the document of a name.
    async fn name(&self, name: &str, document: Bytes) -> Result<(), Cause>;
    /// The list of a cache that BuildKit keeps under the name.
    async fn buildkit(&self, name: &str) -> Result<Option<Bytes>, Cause>;
}

impl Bucket {
    /// The cache there, to be read or written. Sends no request yet.
    ///
    /// # Errors
    /// Settings that contradict each other; a program without the feature `s3`.
    pub fn open(&self) -> Result<BucketImage, Cause> {
        let objects: Arc<dyn Objects> = match &self.service {
            Service::Actions { url, token } => Arc::new(Actions::new(url, token)?),
            #[cfg(feature = "s3")]
            _ => Arc::new(objects::BucketObjects::open(self)?),
            #[cfg(not(feature = "s3"))]
            _ => {
                let action = "reaching a bucket without the feature s3".to_owned();
                return Err(Error::Unsupported { action, place: self.to_string() }.into());
            }
        };
        let (names, shown) = (self.names.clone(), self.to_string());
        Ok(BucketImage { objects, names, shown, document: OnceLock::new() })
    }
}

/// A cache in a bucket.
pub struct BucketImage {
    objects: Arc<dyn Objects>,
    names: Vec<String>,
    shown: String,
    /// What the name pointed at when it was looked up.
    document: OnceLock<(Descriptor, Bytes)>,
}

#[async_trait]
impl Source for BucketImage {
    async fn resolve(&self) -> Result<Descriptor, Cause> {
        if let Some((descriptor, _)) = self.document.get() {
            return Ok(descriptor.clone());
        }
        let name = self.names.first().map(String::as_str).unwrap_or_default();
        let found = match self.objects.named(name).await? {
            Some(bytes) => Some((describe(&bytes, &self.shown)?, bytes)),
            None => self
                .objects
                .buildkit(name)
                .await?
                .map(|bytes| (Descriptor::of(BUILDKIT_CACHE.into(), &bytes), bytes)),
        };
        let Some((descriptor, bytes)) = found else {
            let (name, place) = (name.to_owned(), self.shown.clone());
            return Err(Error::NoImage { name, place, known: Vec::new() }.into());
        };
        Ok(self.document.get_or_init(|| (descriptor, bytes)).0.clone())
    }

    async fn fetch(&self, descriptor: &Descriptor) -> Result<Unverified, Cause> {
        match self.document.get() {
            Some((root, bytes)) if root.digest == descriptor.digest => {
                Ok(Unverified::whole(bytes.clone()))
            }
            _ => {
                let found = self.objects.read(&descriptor.digest).await?;
                found.ok_or_else(|| Error::missing(descriptor, &self.shown).into())
            }
        }
    }

    async fn referrers(&self, _subject: &Descriptor) -> Result<Vec<Descriptor>, Cause> {
        Ok(Vec::new())
    }

    fn origin(&self) -> Origin {
        Origin::Elsewhere
    }
}

#[async_trait]
impl Sink for BucketImage {
    async fn contains(&self, descriptor: &Descriptor) -> Result<bool, Cause> {
        self.objects.has(&descriptor.digest).await
    }

    async fn link(&self, _descriptor: &Descriptor, _origin: &Origin) -> Result<bool, Cause> {
        Ok(false)
    }

    async fn put(&self, _descriptor: &Descriptor, blob: Blob) -> Result<(), Cause> {
        self.objects.write(blob).await
    }

    async fn publish(&self, root: &Descriptor, document: Bytes, _task: &Task) -> Result<(), Cause> {
        if root.size > MAX_DOCUMENT {
            let (digest, size) = (root.digest, root.size);
            return Err(image::Error::TooLarge { digest, size, limit: MAX_DOCUMENT }.into());
        }
        for name in &self.names {
            self.objects.name(name, document.clone()).await?;
        }
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::INDEXES
    }
}
