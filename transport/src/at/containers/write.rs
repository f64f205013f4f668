//! Images go into the storage of podman and buildah.
//!
//! Layers are taken into a directory beside the storage's own while they arrive. Publishing takes
//! the storage's locks, moves the layers to their places, and changes the list of layers, then the
//! one of images: each in one visible step, so that a reader sees the whole image or none.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use image::{Config, Descriptor, Digest, Document, Encoding, Manifest, Node, Reference};
use layers::{Compression, LayerWriter};
use rustix::fs::FlockOperation;
use task::{Cause, Task};

use super::super::files;
use super::drivers::{Driver, LayerSummary, RECORD_FILE, Trees, directory};
use super::locks::Locks;
use super::records::{ImageFacts, LayerFacts, Records};
use super::split::{Owners, Split};
use super::{Layer, TarSplitReader, data_name};
use crate::bridge::{self, blocking};
use crate::{Blob, Capabilities, Error, Origin, Result, Sink, StorageAt};

/// What directories of layers on their way begin with.
const STAGED: &str = "rcopy-";

/// `containers-storage:…` to be written.
#[derive(Debug, Clone)]
pub struct ContainersSink {
    trees: Trees,
    name: Reference,
    arrived: Arc<Mutex<ReceivedImage>>,
}

#[derive(Debug, Default)]
struct ReceivedImage {
    staging: Option<Arc<StagingDirectory>>,
    documents: BTreeMap<Digest, Bytes>,
    /// What the image was chosen from.
    index: Option<(Digest, Bytes)>,
    layers: BTreeMap<Digest, Arrival>,
}

/// A layer that arrived.
#[derive(Debug, Clone)]
struct Arrival {
    /// Has what the driver took of the layer, and the record of its archive.
    directory: PathBuf,
    packed: (Digest, u64, u8),
    diff: (Digest, u64),
    /// Directories that the layer does not describe.
    implied: Vec<PathBuf>,
    owners: Owners,
}

/// A directory that goes when this is dropped; if the process is killed, the next one removes it.
#[derive(Debug)]
struct StagingDirectory {
    path: PathBuf,
    _lock: File,
}

impl Drop for StagingDirectory {
    fn drop(&mut self) {
        // What is left is removed by the next one.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// A directory of layers on their way.
fn stage(root: &Path) -> Result<StagingDirectory> {
    let tmp = root.join("tmp");
    directory(&tmp)?;
    clear(&tmp)?;
    for count in 0_u32.. {
        let path = tmp.join(format!("{STAGED}{}-{count}", std::process::id()));
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => {
                let lock = File::open(&path).map_err(Error::file("opening", &path))?;
                held(&lock).map_err(|error| Error::file("locking", &path)(error.into()))?;
                return Ok(StagingDirectory { path, _lock: lock });
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::file("creating", &path)(error)),
        }
    }
    Err(files::absent(&tmp))
}

/// Removes what killed processes left.
fn clear(tmp: &Path) -> Result<()> {
    for entry in fs::read_dir(tmp).map_err(Error::file("reading", tmp))?.flatten() {
        let left = entry.file_name().to_string_lossy().starts_with(STAGED);
        let lock = left.then(|| File::open(entry.path()).ok()).flatten();
        if lock.is_some_and(|lock| held(&lock).is_ok()) {
            // It may be another's turn to remove it.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

fn held(lock: &File) -> rustix::io::Result<()> {
    rustix::fs::flock(lock, FlockOperation::NonBlockingLockExclusive)
}

/// The number that containers/storage has for a compression.
fn compression(descriptor: &Descriptor) -> u8 {
    match descriptor.media_type.layer_encoding() {
        Some(Encoding::Gzip) => 2,
        Some(Encoding::Zstd) => 4,
        _ => 0,
    }
}

/// When a file was made here.
fn made(path: &Path) -> Result<String> {
    let time = fs::metadata(path).and_then(|about| about.modified());
    let time = time.map_err(Error::file("reading", path))?;
    let time = jiff::Timestamp::try_from(time);
    Ok(time.map_err(|error| Error::Stream(io::Error::other(error)))?.to_string())
}

impl ContainersSink {
    /// The image of this name, in the storage that the location says or the first of `roots`,
    /// whose driver is `set`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for drivers other than overlay and vfs and for ordinary users.
    pub(crate) fn new(
        at: Option<&StorageAt>,
        name: &str,
        roots: &[PathBuf],
        set: Option<&str>,
    ) -> Result<Self> {
        let root = at.map(|at| &at.graph_root).or(roots.first());
        let root = root.ok_or_else(|| files::absent("storage".as_ref()))?.clone();
        let cannot = |action: &str| {
            let place = format!("the storage {}", root.display());
            Error::Unsupported { action: action.to_owned(), place }
        };
        let set = set.filter(|_| at.is_none());
        let driver = match at.and_then(|at| at.driver.as_deref()).or(set) {
            Some(name) => Driver::named(name)
                .ok_or_else(|| cannot(&format!("writing layers of the driver {name}")))?,
            None => Driver::of(&root).unwrap_or(Driver::Overlay),
        };
        if !rustix::process::geteuid().is_root() {
            let action = "unpacking layers as an ordinary user (use podman unshare)";
            return Err(cannot(action));
        }
        let name = Reference::parse_with(name, "docker.io")?;
        let name = if name.digest.is_none() { name.or_latest() } else { name };
        let trees = Trees { root, driver };
        Ok(ContainersSink { trees, name, arrived: Arc::default() })
    }

    fn arrived(&self) -> std::sync::MutexGuard<'_, ReceivedImage> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shown(&self) -> String {
        format!("the storage {}", self.trees.root.display())
    }

    fn staging(&self) -> Result<Arc<StagingDirectory>> {
        let mut arrived = self.arrived();
        if let Some(staging) = &arrived.staging {
            return Ok(Arc::clone(staging));
        }
        let staging = Arc::new(stage(&self.trees.root)?);
        arrived.staging = Some(Arc::clone(&staging));
        Ok(staging)
    }

    fn has(&self, digest: Digest) -> Result<bool> {
        if self.arrived().layers.contains_key(&digest) {
            return Ok(true);
        }
        let _lock = Locks::shared(&self.trees.list("layers").join("layers.lock"))?;
        let layers = Records::open(&self.trees.list("layers").join("layers.json"))?;
        Ok(layers.layer_of(digest).is_some())
    }

    /// Unpacks a layer beside the storage's own.
    fn receive(&self, descriptor: &Descriptor, from: impl io::Read) -> Result<()> {
        let directory = self.staging()?.path.join(descriptor.digest.hex());
        let arrival = self.unpack(&directory, descriptor, from)?;
        self.arrived().layers.insert(descriptor.digest, arrival);
        Ok(())
    }

    fn unpack(
        &self,
        here: &Path,
        descriptor: &Descriptor,
        mut from: impl io::Read,
    ) -> Result<Arrival> {
        // What an attempt that failed left here.
        let _ = fs::remove_dir_all(here);
        directory(here)?;
        let record = here.join(RECORD_FILE);
        let file = File::create(&record).map_err(Error::file("creating", &record))?;
        let gzip = Compression { encoding: Encoding::Gzip, level: None };
        let writer = LayerWriter::new(io::BufWriter::new(file), gzip, 1);
        let failed = |source: layers::Error| self.trees.unpack(source);
        let plain = layers::decompress(&mut from).map_err(failed)?;
        let mut split = Split::new(plain, writer);
        let LayerSummary { diff, implied } = self.trees.take(&mut split, here)?;
        let (writer, owners) = split.finish().map_err(Error::file("reading", here))?;
        let (buffer, _) = writer.finish().map_err(failed)?;
        buffer.into_inner().map_err(|error| Error::file("writing", &record)(error.into_error()))?;
        // The digest is known only at the end.
        io::copy(&mut from, &mut io::sink()).map_err(Error::Stream)?;
        let packed = (descriptor.digest, descriptor.size, compression(descriptor));
        Ok(Arrival { directory: here.to_owned(), packed, diff, implied, owners })
    }

    /// A layer that is in the storage below other ones, unpacked once more.
    fn again(&self, id: &str, descriptor: &Descriptor, diff_id: Digest) -> Result<Arrival> {
        let layer = Layer { record: self.trees.record(id), files: self.trees.files(id) };
        let directory = self.staging()?.path.join(format!("again-{}", diff_id.hex()));
        let assembled = TarSplitReader::open(&layer)?;
        self.unpack(&directory, descriptor, assembled)
    }

    fn publish_now(&self, root: &Descriptor, document: &Bytes, task: &Task) -> Result<()> {
        // Also what a killed process left is removed then.
        self.staging()?;
        let Node::Manifest(manifest) = Node::read(root.clone(), document.clone())? else {
            return Err(Error::Unsupported {
                action: "storing an index".to_owned(),
                place: self.shown(),
            });
        };
        if !manifest.config.media_type.is_config() {
            let action = "storing what is not an image".to_owned();
            return Err(Error::Unsupported { action, place: self.shown() });
        }
        self.check_name(root)?;
        let config = self.arrived().documents.get(&manifest.config.digest).cloned();
        let config = config.ok_or_else(|| Error::missing(&manifest.config, self.shown()))?;
        let config = Document::<Config>::read(manifest.config.clone(), config)?;
        for what in ["layers", "images", "containers"] {
            directory(&self.trees.list(what))?;
        }
        self.trees.prepare()?;
        let locks = [
            self.trees.root.join("storage.lock"),
            self.trees.list("layers").join("layers.lock"),
            self.trees.list("images").join("images.lock"),
        ];
        let locks = Locks::exclusive(&locks.each_ref().map(PathBuf::as_path))?;
        let mut images = Records::open(&self.trees.list("images").join("images.json"))?;
        let mut layers = Records::open(&self.trees.list("layers").join("layers.json"))?;
        let id = config.digest().hex();
        let top = images.top(&id).filter(|top| layers.has(top)).map(str::to_owned);
        let top = match top {
            Some(top) => Some(top),
            None => self.place_layers((&manifest, &config), &mut layers, &locks, task)?,
        };
        self.place_image(&manifest, &config, top.as_deref(), &mut images)?;
        locks.changed(2, &root.digest.to_string())
    }

    /// Refuses a digest in the name that is not the one of what is stored.
    fn check_name(&self, root: &Descriptor) -> Result<()> {
        let index = self.arrived().index.as_ref().map(|(digest, _)| *digest);
        match self.name.digest.filter(|named| *named != root.digest && Some(*named) != index) {
            Some(named) => {
                let action = format!("naming an image by the digest {named}, which it has not");
                Err(Error::Unsupported { action, place: self.shown() })
            }
            None => Ok(()),
        }
    }

    /// Gives the image's layers their places, base first; the id of the last one.
    fn place_layers(
        &self,
        (manifest, config): (&Manifest, &Document<Config>),
        layers: &mut Records,
        locks: &Locks,
        task: &Task,
    ) -> Result<Option<String>> {
        let mut below: Vec<String> = Vec::new();
        let diff_ids = &config.rootfs.diff_ids;
        if manifest.layers.len() != diff_ids.len() {
            let reason = "its config does not name its layers".to_owned();
            return Err(Error::Malformed { place: config.digest().to_string(), reason });
        }
        for (descriptor, diff_id) in manifest.layers.iter().zip(diff_ids) {
            let id = layer_id(below.last().map(String::as_str), *diff_id);
            if !layers.has(&id) {
                let arrival = self.find(descriptor, *diff_id, layers)?;
                self.trees.place(&id, &below, (&arrival.directory, &arrival.implied), task)?;
                layers.add_layer(&LayerFacts {
                    id: &id,
                    parent: below.last().map(String::as_str),
                    created: &made(&self.trees.home(&id))?,
                    packed: arrival.packed,
                    diff: arrival.diff,
                    owners: &arrival.owners,
                });
            }
            below.push(id);
        }
        files::sync_all_in(&self.trees.root)?;
        layers.write()?;
        locks.changed(1, below.last().map_or("", String::as_str))?;
        Ok(below.pop())
    }

    fn find(&self, descriptor: &Descriptor, diff_id: Digest, layers: &Records) -> Result<Arrival> {
        let arrived = self.arrived().layers.remove(&descriptor.digest);
        let arrival = match (arrived, layers.layer_of(diff_id)) {
            (Some(arrival), _) => arrival,
            (None, Some((id, _))) => self.again(&id, descriptor, diff_id)?,
            (None, None) => return Err(Error::missing(descriptor, self.shown())),
        };
        match arrival.diff.0 == diff_id {
            true => Ok(arrival),
            false => {
                let (expected, found) = (diff_id, arrival.diff.0);
                let source = image::Error::DigestMismatch { expected, found };
                let name = descriptor.digest.to_string();
                Err(Error::Layer { name, source: Cause::new(source) })
            }
        }
    }

    fn place_image(
        &self,
        manifest: &Document<Manifest>,
        config: &Document<Config>,
        top: Option<&str>,
        images: &mut Records,
    ) -> Result<()> {
        let id = config.digest().hex();
        let home = self.trees.list("images").join(&id);
        directory(&home)?;
        let mut data = vec![
            (config.digest().to_string(), &config.bytes()[..]),
            (format!("manifest-{}", manifest.digest()), &manifest.bytes()[..]),
            ("manifest".to_owned(), &manifest.bytes()[..]),
        ];
        let index = self.arrived().index.clone();
        if let Some((digest, bytes)) = &index {
            data.push((format!("manifest-{digest}"), &bytes[..]));
        }
        for (key, content) in &data {
            files::write(&home.join(data_name(key)), content)?;
        }
        let created = match &config.created {
            Some(created) => created.clone(),
            None => made(&home)?,
        };
        images.add_image(&ImageFacts {
            id: &id,
            digest: manifest.digest(),
            name: Some(&self.name.to_string()),
            layer: top,
            created: &created,
            data: &data,
        });
        images.write()
    }
}

/// The id of a layer above another one, as containers/image gives it.
fn layer_id(parent: Option<&str>, diff_id: Digest) -> String {
    match parent {
        None => diff_id.hex(),
        Some(parent) => Digest::of(format!("{parent}+{}", diff_id.hex()).as_bytes()).hex(),
    }
}

#[async_trait]
impl Sink for ContainersSink {
    async fn contains(&self, descriptor: &Descriptor) -> Result<bool, Cause> {
        if descriptor.media_type.layer_encoding().is_none() {
            return Ok(self.arrived().documents.contains_key(&descriptor.digest));
        }
        let (sink, digest) = (self.clone(), descriptor.digest);
        Ok(blocking(move || sink.has(digest)).await?)
    }

    async fn link(&self, _: &Descriptor, _: &Origin) -> Result<bool, Cause> {
        Ok(false)
    }

    async fn put(&self, descriptor: &Descriptor, blob: Blob) -> Result<(), Cause> {
        if descriptor.media_type.layer_encoding().is_none() {
            let bytes = blob.read().await?;
            if descriptor.media_type.is_index() {
                self.arrived().index = Some((descriptor.digest, bytes));
                return Ok(());
            }
            self.arrived().documents.insert(descriptor.digest, bytes);
            return Ok(());
        }
        let (sink, descriptor) = (self.clone(), descriptor.clone());
        let reader = bridge::reader(blob);
        Ok(blocking(move || sink.receive(&descriptor, reader)).await?)
    }

    async fn publish(&self, root: &Descriptor, document: Bytes, task: &Task) -> Result<(), Cause> {
        let (sink, root, task) = (self.clone(), root.clone(), task.hidden());
        Ok(blocking(move || sink.publish_now(&root, &document, &task)).await?)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::ONE_IMAGE
    }

    fn keeps_index(&self) -> bool {
        true
    }
}
