use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use image::{Algorithm, Descriptor, Digest, MAX_DOCUMENT, MediaType};
use serde::Deserialize;
use task::{Cause, Task};

use super::files;
use crate::bridge::{self, blocking};
use crate::{Blob, Capabilities, Error, Location, Origin, Result, Sink, Source, Unverified};

const VERSION: &str = "Directory Transport Version: 1.1\n";

/// `dir:…`: one image as loose files, as skopeo writes it: `manifest.json`, blobs named by the
/// hexadecimal digits of their digest, `<hex>.manifest.json` for the images of an index.
#[derive(Debug, Clone)]
pub struct Directory {
    path: PathBuf,
    prepared: Arc<Mutex<bool>>,
    /// Whether publishing waits for the disk.
    synced: bool,
}

impl Directory {
    /// The image in a directory, which need not exist to be written to.
    pub fn new(path: &Path) -> Directory {
        Directory { path: path.to_owned(), prepared: Arc::default(), synced: true }
    }

    /// The same without waiting for the disk, if asked: should the power be lost soon after, what was
    /// published may be incomplete.
    #[must_use]
    pub fn unsynced(self, unsynced: bool) -> Directory {
        Directory { synced: !unsynced, ..self }
    }

    fn blob(&self, digest: Digest) -> PathBuf {
        match digest.algorithm() {
            Algorithm::Sha256 => self.path.join(digest.hex()),
            Algorithm::Sha512 => self.path.join(format!("sha512-{}", digest.hex())),
        }
    }

    fn document(&self, digest: Digest) -> PathBuf {
        self.path.join(format!("{}.manifest.json", digest.hex()))
    }

    fn place(&self) -> String {
        format!("the directory {}", self.path.display())
    }

    /// Makes the directory, or checks that it is one of ours.
    fn prepare(&self) -> Result<()> {
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        if !*prepared {
            self.prepare_once()?;
            *prepared = true;
        }
        Ok(())
    }

    fn prepare_once(&self) -> Result<()> {
        let path = &self.path;
        fs::create_dir_all(path).map_err(Error::file("creating", path))?;
        let version = path.join("version");
        if files::read(&version, 1024)?.is_some() {
            return Ok(());
        }
        let mut entries = fs::read_dir(path).map_err(Error::file("reading", path))?;
        if entries.next().is_some() {
            let reason = "it is not empty and was not written as dir:".to_owned();
            return Err(Error::Malformed { place: self.place(), reason });
        }
        // Publishing brings it to the disk with the rest.
        files::write_unsynced(&version, VERSION.as_bytes())
    }

    fn manifest(&self) -> Result<Vec<u8>> {
        let path = self.path.join("manifest.json");
        files::read(&path, MAX_DOCUMENT)?.ok_or_else(|| match self.path.is_dir() {
            true => Error::Malformed {
                place: self.path.display().to_string(),
                reason: "it is a directory without manifest.json or oci-layout".to_owned(),
            },
            false => files::absent(&self.path),
        })
    }
}

/// The type of a manifest without a descriptor, from its own field.
pub(crate) fn describe(document: &[u8], place: &str) -> Result<Descriptor> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Probe {
        schema_version: Option<u32>,
        media_type: Option<MediaType>,
        config: Option<MediaTypeField>,
        manifests: Option<Vec<MediaTypeField>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct MediaTypeField {
        #[serde(default)]
        media_type: MediaType,
    }
    let refuse = |reason: String| Error::Malformed { place: place.to_owned(), reason };
    let probe: Probe = serde_json::from_slice(document)
        .map_err(|error| refuse(format!("its manifest is malformed: {error}")))?;
    let docker = |typed: Option<&MediaTypeField>| typed.is_some_and(|t| t.media_type.is_docker());
    let media_type = match &probe {
        Probe { media_type: Some(media_type), .. } => media_type.clone(),
        Probe { schema_version: Some(1), .. } => MediaType::DOCKER_V1_SIGNED,
        Probe { manifests: Some(all), .. } if docker(all.first()) => MediaType::DOCKER_INDEX,
        Probe { manifests: Some(_), .. } => MediaType::OCI_INDEX,
        Probe { config, .. } if docker(config.as_ref()) => MediaType::DOCKER_MANIFEST,
        _ => MediaType::OCI_MANIFEST,
    };
    Ok(Descriptor::of(media_type, document))
}

#[async_trait]
impl Source for Directory {
    async fn resolve(&self) -> Result<Descriptor, Cause> {
        let directory = self.clone();
        blocking(move || Ok(describe(&directory.manifest()?, &directory.place())?)).await
    }

    async fn fetch(&self, descriptor: &Descriptor) -> Result<Unverified, Cause> {
        let (directory, descriptor) = (self.clone(), descriptor.clone());
        let file = blocking(move || {
            if !descriptor.media_type.is_node() {
                let file = files::open(&directory.blob(descriptor.digest))?;
                return file.ok_or_else(|| Error::missing(&descriptor, directory.place()));
            }
            if let Some(file) = files::open(&directory.document(descriptor.digest))? {
                return Ok(file);
            }
            let root = files::open(&directory.path.join("manifest.json"))?;
            root.ok_or_else(|| Error::missing(&descriptor, directory.place()))
        })
        .await?;
        Ok(bridge::stream(file))
    }

    async fn referrers(&self, _subject: &Descriptor) -> Result<Vec<Descriptor>, Cause> {
        Ok(Vec::new())
    }

    fn origin(&self) -> Origin {
        Origin::Elsewhere
    }

    fn location(&self) -> Option<Location> {
        Some(Location::Directory(self.path.clone()))
    }
}

#[async_trait]
impl Sink for Directory {
    fn capabilities(&self) -> Capabilities {
        Capabilities::INDEXES
    }

    async fn contains(&self, descriptor: &Descriptor) -> Result<bool, Cause> {
        if descriptor.media_type.is_node() {
            return Ok(false);
        }
        let (path, size) = (self.blob(descriptor.digest), descriptor.size);
        let marker = self.path.join("version");
        blocking(move || {
            let Some(file) = files::open(&path)?.filter(|_| marker.exists()) else {
                return Ok(false);
            };
            Ok(file.metadata().map_err(Error::file("reading", path))?.len() == size)
        })
        .await
    }

    async fn link(&self, _descriptor: &Descriptor, _origin: &Origin) -> Result<bool, Cause> {
        Ok(false)
    }

    async fn put(&self, descriptor: &Descriptor, blob: Blob) -> Result<(), Cause> {
        let directory = self.clone();
        let path = match descriptor.media_type.is_node() {
            true => self.document(descriptor.digest),
            false => self.blob(descriptor.digest),
        };
        let reader = bridge::reader(blob);
        blocking(move || {
            directory.prepare()?;
            let new = files::NewFile::create(&path)?;
            reader.pour(&mut new.file(), &path)?;
            Ok(new.appear_unsynced()?)
        })
        .await
    }

    async fn publish(
        &self,
        _root: &Descriptor,
        document: Bytes,
        _task: &Task,
    ) -> Result<(), Cause> {
        let directory = self.clone();
        blocking(move || {
            directory.prepare()?;
            let path = directory.path.join("manifest.json");
            if directory.synced {
                files::sync_all_in(&directory.path)?;
                return Ok(files::write(&path, &document)?);
            }
            Ok(files::write_unsynced(&path, &document)?)
        })
        .await
    }

    async fn refer(
        &self,
        _subject: &Descriptor,
        referrer: &Descriptor,
        _document: Bytes,
        _task: &Task,
    ) -> Result<(), Cause> {
        let action = format!("attaching {}", referrer.digest);
        Err(Error::Unsupported { action, place: self.place() }.into())
    }
}
