//! Images go into the storage of podman and buildah.
//!
//! Layers are unpacked in a directory beside the storage's own while they arrive. Publishing takes
//! the storage's locks, moves the layers to their places, and changes the list of layers, then the
//! one of images: each in one visible step, so that a reader sees the whole image or none.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use image::{Config, Descriptor, Digest, Document, Encoding, Manifest, Node, Reference};
use layers::{ApplyOptions, Compression, LayerWriter, Root, Whiteouts};
use rustix::fs::FlockOperation;
use task::{Cause, Task};

use super::super::files;
use super::locks::Locks;
use super::records::{ImageFacts, LayerFacts, Records};
use super::split::{Owners, Split};
use super::{Assembled, Layer, data_name};
use crate::bridge::{self, blocking};
use crate::{Blob, Capabilities, Error, Origin, Result, Sink, StorageAt};

/// The mode of a base's root directory whose layer does not say it.
const ROOT: u32 = 0o555;
/// What directories of layers on their way begin with.
const STAGED: &str = "rcopy-";

/// `containers-storage:…` to be written, with the driver overlay.
#[derive(Debug, Clone)]
pub struct ContainersSink {
    root: PathBuf,
    name: Option<String>,
    arrived: Arc<Mutex<Arrived>>,
}

#[derive(Debug, Default)]
struct Arrived {
    staging: Option<Arc<Staging>>,
    documents: BTreeMap<Digest, Bytes>,
    layers: BTreeMap<Digest, Arrival>,
}

/// A layer that was unpacked.
#[derive(Debug, Clone)]
struct Arrival {
    /// Has `diff`, the tree, and `record`, the record of its archive.
    directory: PathBuf,
    packed: (Digest, u64, u8),
    diff: (Digest, u64),
    implied: Vec<PathBuf>,
    owners: Owners,
}

/// A directory that goes when this is dropped; if the process is killed, the next one removes it.
#[derive(Debug)]
struct Staging {
    path: PathBuf,
    _lock: File,
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What is left is removed by the next one.
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn directory(path: &Path) -> Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(path).map_err(Error::file("creating", path))
}

/// A directory of layers on their way.
fn stage(root: &Path) -> Result<Staging> {
    let tmp = root.join("tmp");
    directory(&tmp)?;
    clear(&tmp)?;
    for count in 0_u32.. {
        let path = tmp.join(format!("{STAGED}{}-{count}", std::process::id()));
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => {
                let lock = File::open(&path).map_err(Error::file("opening", &path))?;
                held(&lock).map_err(|error| Error::file("locking", &path)(error.into()))?;
                return Ok(Staging { path, _lock: lock });
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

/// Whether overlay keeps its attributes under `user.`: in a user namespace it cannot have others.
fn in_user_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let all: Vec<&str> = map.split_whitespace().collect();
    !map.is_empty() && all != ["0", "0", "4294967295"]
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
    /// The image of this name, in the storage that the location says or the first of `roots`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for drivers other than overlay and for ordinary users.
    pub(crate) fn new(at: Option<&StorageAt>, name: &str, roots: &[PathBuf]) -> Result<Self> {
        let root = at.map(|at| &at.graph_root).or(roots.first());
        let root = root.ok_or_else(|| files::absent("storage".as_ref()))?.clone();
        let there = |driver: &str| root.join(format!("{driver}-images")).is_dir();
        let driver = match at.and_then(|at| at.driver.as_deref()) {
            Some(driver) => driver,
            None if there("vfs") && !there("overlay") => "vfs",
            None => "overlay",
        };
        let cannot = |action: &str| {
            let place = format!("the storage {}", root.display());
            Error::Unsupported { action: action.to_owned(), place }
        };
        if !matches!(driver, "overlay" | "overlay2") {
            return Err(cannot(&format!("writing layers of the driver {driver}")));
        }
        if !rustix::process::geteuid().is_root() {
            let action = "unpacking layers as an ordinary user (use podman unshare)";
            return Err(cannot(action));
        }
        let name = Reference::parse_with(name, "docker.io")?;
        if name.digest.is_some() {
            return Err(cannot("naming an image by a digest"));
        }
        let name = Some(name.or_latest().to_string());
        Ok(ContainersSink { root, name, arrived: Arc::default() })
    }

    fn arrived(&self) -> std::sync::MutexGuard<'_, Arrived> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn list(&self, what: &str) -> PathBuf {
        self.root.join(format!("overlay-{what}"))
    }

    fn shown(&self) -> String {
        format!("the storage {}", self.root.display())
    }

    fn staging(&self) -> Result<Arc<Staging>> {
        let mut arrived = self.arrived();
        if let Some(staging) = &arrived.staging {
            return Ok(Arc::clone(staging));
        }
        let staging = Arc::new(stage(&self.root)?);
        arrived.staging = Some(Arc::clone(&staging));
        Ok(staging)
    }

    fn has(&self, digest: Digest) -> Result<bool> {
        if self.arrived().layers.contains_key(&digest) {
            return Ok(true);
        }
        let _lock = Locks::shared(&self.list("layers").join("layers.lock"))?;
        let layers = Records::open(&self.list("layers").join("layers.json"))?;
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
        directory: &Path,
        descriptor: &Descriptor,
        mut from: impl io::Read,
    ) -> Result<Arrival> {
        let failed = |source: layers::Error| Error::Unpack {
            place: self.root.join("overlay"),
            source: source.into(),
        };
        // What an attempt that failed left here.
        let _ = fs::remove_dir_all(directory);
        let (diff, record) = (directory.join("diff"), directory.join("record"));
        self::directory(&diff)?;
        let file = File::create(&record).map_err(Error::file("creating", &record))?;
        let gzip = Compression { encoding: Encoding::Gzip, level: None };
        let writer = LayerWriter::new(io::BufWriter::new(file), gzip, 1);
        let root = Root::open(&diff).map_err(failed)?;
        let user_xattr = in_user_namespace();
        let whiteouts = Whiteouts::Overlay;
        let options = ApplyOptions { whiteouts, user_xattr, ..ApplyOptions::default() };
        let plain = layers::decompress(&mut from).map_err(failed)?;
        let mut split = Split::new(plain, writer);
        let applied = layers::apply(&mut split, &root, &options, &Task::silent());
        let applied = applied.map_err(failed)?;
        let (writer, owners) = split.finish().map_err(Error::file("reading", directory))?;
        let (buffer, _) = writer.finish().map_err(failed)?;
        buffer.into_inner().map_err(|error| Error::file("writing", &record)(error.into_error()))?;
        // The digest is known only at the end.
        io::copy(&mut from, &mut io::sink()).map_err(Error::Stream)?;
        let packed = (descriptor.digest, descriptor.size, compression(descriptor));
        let diff = (applied.diff_id, applied.uncompressed);
        let directory = directory.to_owned();
        Ok(Arrival { directory, packed, diff, implied: applied.implied, owners })
    }

    /// A layer that is in the storage below other ones, unpacked once more.
    fn again(&self, id: &str, descriptor: &Descriptor, diff_id: Digest) -> Result<Arrival> {
        let record = self.list("layers").join(format!("{id}.tar-split.gz"));
        let layer = Layer { record, files: self.root.join("overlay").join(id).join("diff") };
        let directory = self.staging()?.path.join(format!("again-{}", diff_id.hex()));
        let assembled = Assembled::open(&layer)?;
        self.unpack(&directory, descriptor, assembled)
    }

    fn publish_now(&self, root: &Descriptor, document: &Bytes) -> Result<()> {
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
        let config = self.arrived().documents.get(&manifest.config.digest).cloned();
        let config = config.ok_or_else(|| Error::missing(&manifest.config, self.shown()))?;
        let config = Document::<Config>::read(manifest.config.clone(), config)?;
        for what in ["layers", "images", "containers"] {
            directory(&self.list(what))?;
        }
        directory(&self.root.join("overlay/l"))?;
        let locks = [
            self.root.join("storage.lock"),
            self.list("layers").join("layers.lock"),
            self.list("images").join("images.lock"),
        ];
        let locks = Locks::exclusive(&locks.each_ref().map(PathBuf::as_path))?;
        let mut images = Records::open(&self.list("images").join("images.json"))?;
        let mut layers = Records::open(&self.list("layers").join("layers.json"))?;
        let id = config.digest().hex();
        let top = images.top(&id).filter(|top| layers.has(top)).map(str::to_owned);
        let top = match top {
            Some(top) => Some(top),
            None => self.place_layers(&manifest, &config, &mut layers, &locks)?,
        };
        self.place_image(&manifest, &config, top.as_deref(), &mut images)?;
        locks.changed(2, &root.digest.to_string())
    }

    /// Gives the image's layers their places, base first; the id of the last one.
    fn place_layers(
        &self,
        manifest: &Manifest,
        config: &Document<Config>,
        layers: &mut Records,
        locks: &Locks,
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
                self.place_layer(&id, &below, &arrival)?;
                layers.add_layer(&LayerFacts {
                    id: &id,
                    parent: below.last().map(String::as_str),
                    created: &made(&self.root.join("overlay").join(&id))?,
                    packed: arrival.packed,
                    diff: arrival.diff,
                    owners: &arrival.owners,
                });
            }
            below.push(id);
        }
        files::sync_all_in(&self.root)?;
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

    /// Makes the directory of a layer as the driver has it, and moves it to its place.
    fn place_layer(&self, id: &str, below: &[String], arrival: &Arrival) -> Result<()> {
        let overlay = self.root.join("overlay");
        let (from, home) = (&arrival.directory, overlay.join(id));
        self.inherit(arrival, below)?;
        let private = ["work", "merged"].into_iter().chain(below.is_empty().then_some("empty"));
        for name in private {
            directory(&from.join(name))?;
        }
        let link = link(id);
        let write = |name: &str, text: &str| {
            let path = from.join(name);
            fs::write(&path, text).map_err(Error::file("writing", &path))
        };
        write("link", &link)?;
        if let Some(parent) = below.last() {
            write("lower", &self.lower(parent)?)?;
        }
        let record = self.list("layers").join(format!("{id}.tar-split.gz"));
        let staged = from.join("record");
        fs::rename(&staged, &record).map_err(Error::file("renaming", &staged))?;
        // No list has it: what is there was left by someone who did not come to the end.
        if home.exists() {
            fs::remove_dir_all(&home).map_err(Error::file("removing", &home))?;
        }
        fs::rename(from, &home).map_err(Error::file("renaming", from))?;
        let path = overlay.join("l").join(link);
        let _ = fs::remove_file(&path);
        symlink(format!("../{id}/diff"), &path).map_err(Error::file("creating", &path))
    }

    /// The layers below a child of `parent`, as the driver names them.
    fn lower(&self, parent: &str) -> Result<String> {
        let home = self.root.join("overlay").join(parent);
        let read = |name: &str| -> Result<Option<String>> {
            let text = files::read(&home.join(name), 1 << 20)?;
            Ok(text.map(|text| String::from_utf8_lossy(&text).trim().to_owned()))
        };
        let link = read("link")?.ok_or_else(|| files::absent(&home.join("link")))?;
        Ok(match read("lower")? {
            Some(lower) => format!("l/{link}:{lower}"),
            None => format!("l/{link}"),
        })
    }

    /// Gives directories that the layer does not describe the attributes that they have below.
    fn inherit(&self, arrival: &Arrival, below: &[String]) -> Result<()> {
        let diff = arrival.directory.join("diff");
        if arrival.implied.is_empty() {
            return Ok(());
        }
        if below.is_empty() {
            let root = arrival.implied.iter().any(|path| path.as_os_str().is_empty());
            let mode = fs::Permissions::from_mode(if root { ROOT } else { return Ok(()) });
            return fs::set_permissions(&diff, mode).map_err(Error::file("changing", &diff));
        }
        let named = |source: layers::Error| Error::Layer {
            name: diff.display().to_string(),
            source: source.into(),
        };
        let root = Root::open(&diff).map_err(named)?;
        // The layer that has a directory last says what it is.
        for id in below {
            let lower = Root::open(&self.root.join("overlay").join(id).join("diff"));
            layers::inherit(&root, &arrival.implied, &lower.map_err(named)?).map_err(named)?;
        }
        Ok(())
    }

    fn place_image(
        &self,
        manifest: &Document<Manifest>,
        config: &Document<Config>,
        top: Option<&str>,
        images: &mut Records,
    ) -> Result<()> {
        let id = config.digest().hex();
        let home = self.list("images").join(&id);
        directory(&home)?;
        let data = [
            (config.digest().to_string(), &config.bytes()[..]),
            (format!("manifest-{}", manifest.digest()), &manifest.bytes()[..]),
            ("manifest".to_owned(), &manifest.bytes()[..]),
        ];
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
            name: self.name.as_deref(),
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

/// The short name of a layer's directory, which keeps the options of a mount short: 26 letters
/// and digits that follow from its id.
fn link(id: &str) -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let pairs = id.as_bytes().chunks(2).take(26);
    let number = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).ok();
        text.and_then(|text| usize::from_str_radix(text, 16).ok()).unwrap_or(0)
    };
    pairs.map(|pair| char::from(LETTERS[number(pair) % 32])).collect()
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
            self.arrived().documents.insert(descriptor.digest, bytes);
            return Ok(());
        }
        let (sink, descriptor) = (self.clone(), descriptor.clone());
        let reader = bridge::reader(blob);
        Ok(blocking(move || sink.receive(&descriptor, reader)).await?)
    }

    async fn publish(&self, root: &Descriptor, document: Bytes) -> Result<(), Cause> {
        let (sink, root) = (self.clone(), root.clone());
        Ok(blocking(move || sink.publish_now(&root, &document)).await?)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::ONE_IMAGE
    }
}
