//! The storage of podman and buildah. Images leave it with the digests they have there; `write` puts
//! images into it.
//!
//! Layers lie there unpacked; a record beside each (`tar-split`) has everything of the archive but
//! the content of its files, so that the archive comes out as it went in. The manifest is kept as
//! well where it names layers without compression; else one that does is made, because the
//! compressed bytes are gone.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use image::{
    Config, Descriptor, Digest, Document, Encoding, MAX_DOCUMENT, Manifest, MediaType, Node,
    Platform, Reference,
};
use serde::Deserialize;
use task::Cause;
use tokio::sync::OnceCell;

use super::directory::describe;
use super::files;
use crate::bridge::{self, blocking};
use crate::{Error, Location, Origin, Result, Source, StorageAt, Unverified};

mod assembled;
mod drivers;
mod locks;
mod records;
mod split;
mod write;

use assembled::{Layer, TarSplitReader, size};
use drivers::Driver;
use locks::Locks;
pub use write::ContainersSink;

/// The largest list of images or layers that is read.
const LIST: u64 = 256 << 20;

/// `containers-storage:…`: an image in the storage of podman and buildah.
#[derive(Debug, Clone)]
pub struct ContainersImage {
    storage: Storage,
    name: String,
    at: Option<StorageAt>,
    opened: Arc<OnceCell<Arc<StorageImage>>>,
}

#[derive(Debug)]
struct StorageImage {
    /// The storage that has the image, and the name it has there.
    found: Option<(StorageAt, String)>,
    root: Descriptor,
    /// What it was as it came, with its layers compressed.
    original: Digest,
    documents: BTreeMap<Digest, Bytes>,
    layers: BTreeMap<Digest, Layer>,
}

/// Storage in its places, the first that has the image counting.
#[derive(Debug, Clone)]
struct Storage(Vec<(Option<String>, PathBuf)>);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ImageRecord {
    id: String,
    #[serde(default)]
    digest: Option<String>,
    #[serde(default)]
    names: Option<Vec<String>>,
    #[serde(default)]
    layer: String,
    /// The digests of what is kept beside the image, by key.
    #[serde(default)]
    big_data_digests: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct LayerRecord {
    id: String,
    #[serde(default)]
    parent: String,
    #[serde(default)]
    diff_digest: Option<Digest>,
}

/// One store: a driver's directories below a root.
struct Store {
    root: PathBuf,
    driver: Driver,
}

impl ContainersImage {
    /// The image of this name or id, in the storage that the location says or the first of
    /// `roots` that has it.
    pub(crate) fn new(at: Option<&StorageAt>, name: &str, roots: &[PathBuf]) -> ContainersImage {
        let storage = match at {
            Some(at) => vec![(at.driver.clone(), at.graph_root.clone())],
            None => roots.iter().map(|root| (None, root.clone())).collect(),
        };
        ContainersImage {
            storage: Storage(storage),
            name: name.to_owned(),
            at: at.cloned(),
            opened: Arc::default(),
        }
    }

    /// The names of all images there.
    pub(crate) async fn names(&self) -> Result<Vec<String>, Cause> {
        let storage = self.storage.clone();
        blocking(move || {
            let mut names = Vec::new();
            for store in storage.stores()? {
                names.extend(store.images()?.into_iter().flat_map(ImageRecord::names));
            }
            Ok(names)
        })
        .await
    }

    async fn opened(&self) -> Result<Arc<StorageImage>, Cause> {
        let open = || async {
            let (storage, name) = (self.storage.clone(), self.name.clone());
            blocking(move || storage.open(&name).map(Arc::new)).await
        };
        Ok(Arc::clone(self.opened.get_or_try_init(open).await?))
    }
}

impl ImageRecord {
    /// The whole name of this image that a text means, unless it means its id.
    fn named(&self, text: &str) -> Option<String> {
        let wanted = |default: &str| {
            let name = Reference::parse_with(text, default).ok()?;
            Some(Reference { digest: None, ..name }.or_latest().to_string())
        };
        let wanted: Vec<_> = ["docker.io", "localhost"].into_iter().filter_map(wanted).collect();
        let names = self.names.iter().flatten();
        names.clone().find(|name| *name == text || wanted.contains(name)).cloned()
    }

    /// Whether the image, or the index it was chosen from, has this digest.
    fn has_digest(&self, digest: &str) -> bool {
        let manifest =
            |(key, kept): (&String, &String)| key.starts_with("manifest") && kept == digest;
        self.digest.as_deref() == Some(digest)
            || self.big_data_digests.iter().flatten().any(manifest)
    }

    fn names(self) -> Vec<String> {
        self.names.unwrap_or_default()
    }

    /// Whether a text means this image: its id or the beginning of it, its digest, one of its
    /// names.
    fn is(&self, text: &str) -> bool {
        let (text, id) = match text.rsplit_once('@') {
            Some((name, id)) if !id.contains(':') => (name, Some(id)),
            _ => (text, None),
        };
        if id.is_some_and(|id| !self.id.starts_with(id)) {
            return false;
        }
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        let is_hex = hex.len() >= 3 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        if (is_hex && self.id.starts_with(hex)) || text.is_empty() {
            return true;
        }
        let names = self.names.iter().flatten();
        ["docker.io", "localhost"].iter().any(|default| {
            let Ok(wanted) = Reference::parse_with(text, default) else { return false };
            let digest = wanted.digest.map(|digest| digest.to_string());
            let plain = Reference { digest: None, ..wanted.clone() };
            let named = |name: &String| match (&digest, wanted.tag.is_some()) {
                (Some(_), false) => name
                    .parse::<Reference>()
                    .is_ok_and(|reference| reference.repository == wanted.repository),
                _ => *name == plain.clone().or_latest().to_string(),
            };
            digest.as_ref().is_none_or(|digest| self.has_digest(digest)) && names.clone().any(named)
        })
    }
}

impl Storage {
    fn stores(&self) -> Result<Vec<Store>> {
        let mut stores = Vec::new();
        for (driver, root) in &self.0 {
            let found = match driver.as_deref() {
                Some(name) => Some(Driver::named(name).ok_or_else(|| {
                    let action = format!("reading layers of the driver {name}");
                    let place = format!("the storage {}", root.display());
                    Error::Unsupported { action, place }
                })?),
                None => Driver::of(root),
            };
            if let Some(driver) = found {
                stores.push(Store { root: root.clone(), driver });
            }
        }
        Ok(stores)
    }

    fn shown(&self) -> String {
        let roots: Vec<_> = self.0.iter().map(|(_, root)| root.display().to_string()).collect();
        format!("the storage {}", roots.join(", "))
    }

    fn open(&self, name: &str) -> Result<StorageImage> {
        let mut known = Vec::new();
        for store in self.stores()? {
            let images = store.images()?;
            // A name is exact, so it goes before the beginning of an id.
            let exact = images.iter().find(|image| {
                image.names.iter().flatten().any(|known| known == name) || image.id == name
            });
            let mut fitting = images.iter().filter(|image| image.is(name));
            let (first, several) = (fitting.next(), fitting.next().is_some());
            let chosen = if several { store.of_this_machine(&images, name) } else { first };
            match (exact.or(chosen), several) {
                (Some(image), _) => {
                    let name = image.named(name).unwrap_or_else(|| name.to_owned());
                    let found = Some((store.place(), name));
                    return Ok(StorageImage { found, ..store.open(image)? });
                }
                (None, true) => {
                    let reason = format!("{name:?} could be several images");
                    return Err(Error::Malformed { place: store.shown(), reason });
                }
                (None, false) => {
                    known.extend(images.into_iter().flat_map(ImageRecord::names).take(10));
                }
            }
        }
        Err(Error::NoImage { name: format!("{name:?}"), place: self.shown(), known })
    }
}

impl Store {
    fn place(&self) -> StorageAt {
        let driver = Some(self.driver.name().to_owned());
        StorageAt { driver, graph_root: crate::real_path(&self.root), run_root: None }
    }

    fn shown(&self) -> String {
        format!("the storage {}", self.root.display())
    }

    fn directory(&self, what: &str) -> PathBuf {
        self.root.join(format!("{}-{what}", self.driver.name()))
    }

    /// A list that others change, read while they do not.
    fn list<T: for<'de> Deserialize<'de>>(&self, what: &str, files: &[&str]) -> Result<Vec<T>> {
        let directory = self.directory(what);
        let _lock = Locks::shared(&directory.join(format!("{what}.lock")))?;
        let mut all = Vec::new();
        for name in files {
            let path = directory.join(name);
            let Some(bytes) = files::read(&path, LIST)? else { continue };
            let list: Option<Vec<T>> = serde_json::from_slice(&bytes).map_err(|error| {
                let reason = format!("malformed JSON ({error})");
                Error::Malformed { place: path.display().to_string(), reason }
            })?;
            all.extend(list.unwrap_or_default());
        }
        Ok(all)
    }

    fn images(&self) -> Result<Vec<ImageRecord>> {
        self.list("images", &["images.json"])
    }

    fn refuse(&self, image: &ImageRecord, reason: impl Into<String>) -> Error {
        let place = format!("image {} of {}", image.id, self.shown());
        Error::Malformed { place, reason: reason.into() }
    }

    /// Of several images that came of one index, the one for this machine.
    fn of_this_machine<'a>(
        &self,
        images: &'a [ImageRecord],
        name: &str,
    ) -> Option<&'a ImageRecord> {
        // The beginning of an id may fit what has nothing in common.
        name.contains('@').then_some(())?;
        let host = Platform::host();
        let serves = |image: &ImageRecord| {
            let config = self.data(image, &format!("sha256:{}", image.id)).ok()?;
            let config: Config = serde_json::from_slice(&config).ok()?;
            config.platform().serves(&host)
        };
        let mut fitting = images.iter().filter(|image| image.is(name) && serves(image).is_some());
        fitting.next().filter(|_| fitting.next().is_none())
    }

    /// What is kept of an image under a key.
    fn data(&self, image: &ImageRecord, key: &str) -> Result<Vec<u8>> {
        let name = data_name(key);
        if !image.id.bytes().all(|byte| byte.is_ascii_hexdigit()) || name.contains('/') {
            return Err(self.refuse(image, "its id or data is not named as it should be"));
        }
        let path = self.directory("images").join(&image.id).join(name);
        files::read(&path, MAX_DOCUMENT)?
            .ok_or_else(|| self.refuse(image, format!("its {key} is missing")))
    }

    fn open(&self, image: &ImageRecord) -> Result<StorageImage> {
        let document = self.data(image, "manifest")?;
        let descriptor = describe(&document, &self.shown())?;
        if !descriptor.media_type.is_manifest() {
            let reason = format!("it is kept as a {}", descriptor.media_type);
            return Err(self.refuse(image, reason));
        }
        let Node::Manifest(manifest) = Node::read(descriptor.clone(), document.clone())? else {
            return Err(self.refuse(image, "it is not a manifest"));
        };
        let config = self.data(image, &manifest.config.digest.to_string())?;
        let config = Document::<Config>::read(manifest.config.clone(), config)?;
        let layers = self.layers(image, &config)?;
        let docker = manifest.config.media_type.is_docker();
        let mut plain = Vec::new();
        for (diff_id, layer) in &layers {
            let size = size(&layer.record)?;
            plain.push(Descriptor::new(MediaType::layer(Encoding::Plain, docker), *diff_id, size));
        }
        let same = manifest.layers.len() == plain.len()
            && manifest.layers.iter().zip(&plain).all(|(a, b)| a.digest == b.digest);
        let original = descriptor.digest;
        let mut documents = BTreeMap::from([(config.digest(), config.bytes().clone())]);
        let root = if same {
            documents.insert(descriptor.digest, document.into());
            descriptor
        } else {
            let mut made: Manifest = Manifest::clone(&manifest);
            made.layers = plain;
            let made = Document::write(descriptor.media_type, made);
            documents.insert(made.digest(), made.bytes().clone());
            made.descriptor().clone()
        };
        let layers = layers.into_iter().collect();
        Ok(StorageImage { found: None, root, original, documents, layers })
    }

    /// The image's layers, base first, from its top layer down.
    fn layers(
        &self,
        image: &ImageRecord,
        config: &Document<Config>,
    ) -> Result<Vec<(Digest, Layer)>> {
        let records: Vec<LayerRecord> =
            self.list("layers", &["layers.json", "volatile-layers.json"])?;
        let records: BTreeMap<&str, &LayerRecord> =
            records.iter().map(|record| (record.id.as_str(), record)).collect();
        let mut chain = Vec::new();
        let mut next = image.layer.as_str();
        while !next.is_empty() {
            let record = records.get(next);
            let record =
                record.ok_or_else(|| self.refuse(image, format!("its layer {next} is missing")))?;
            chain.push(*record);
            if chain.len() > records.len() {
                return Err(self.refuse(image, "its layers form a cycle"));
            }
            next = &record.parent;
        }
        chain.reverse();
        let diff_ids = &config.rootfs.diff_ids;
        let found: Vec<_> = chain.iter().map(|record| record.diff_digest).collect();
        if found.iter().map(Option::as_ref).ne(diff_ids.iter().map(Some)) {
            return Err(self.refuse(image, "its layers are not those that its config names"));
        }
        let mut layers = Vec::new();
        for (record, diff_id) in chain.into_iter().zip(diff_ids) {
            if !record.id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                return Err(self.refuse(image, "a layer is not named as it should be"));
            }
            let files = self.driver.files(&self.root, &record.id);
            let name = format!("{}.tar-split.gz", record.id);
            let layer = Layer { record: self.directory("layers").join(name), files };
            layers.push((*diff_id, layer));
        }
        Ok(layers)
    }
}

/// The file that has what is kept of an image under a key.
fn data_name(key: &str) -> String {
    let plain = |b: u8| b == b'.' || b.is_ascii_digit() || b.is_ascii_lowercase();
    match key.bytes().all(plain) {
        true => key.to_owned(),
        false => format!("={}", BASE64_STANDARD.encode(key)),
    }
}

#[async_trait]
impl Source for ContainersImage {
    async fn resolve(&self) -> Result<Descriptor, Cause> {
        Ok(self.opened().await?.root.clone())
    }

    async fn fetch(&self, descriptor: &Descriptor) -> Result<Unverified, Cause> {
        let opened = self.opened().await?;
        if let Some(bytes) = opened.documents.get(&descriptor.digest) {
            return Ok(Unverified::whole(bytes.clone()));
        }
        let layer = opened.layers.get(&descriptor.digest);
        let layer = layer.ok_or_else(|| Error::missing(descriptor, self.storage.shown()))?.clone();
        let assembled = blocking(move || TarSplitReader::open(&layer)).await?;
        Ok(bridge::stream(assembled))
    }

    async fn original(&self) -> Result<Option<Digest>, Cause> {
        Ok(Some(self.opened().await?.original))
    }

    async fn referrers(&self, _subject: &Descriptor) -> Result<Vec<Descriptor>, Cause> {
        Ok(Vec::new())
    }

    fn origin(&self) -> Origin {
        Origin::Elsewhere
    }

    fn location(&self) -> Option<Location> {
        let opened = self.opened.get().and_then(|opened| opened.found.clone());
        Some(match opened {
            Some((at, name)) => Location::Containers(Some(at), name),
            None => Location::Containers(self.at.clone(), self.name.clone()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str, names: &[&str]) -> ImageRecord {
        ImageRecord {
            id: id.to_owned(),
            digest: Some(format!("sha256:{}", "a".repeat(64))),
            names: Some(names.iter().map(|name| (*name).to_owned()).collect()),
            layer: String::new(),
            big_data_digests: None,
        }
    }

    #[test]
    fn names_ids_and_digests_mean_an_image() {
        let hub = image("0123456789abcdef", &["docker.io/library/app:latest"]);
        let local = image("fedcba9876543210", &["localhost/app:1", "r.example/team/app:2"]);
        let digest = format!("r.example/team/app@sha256:{}", "a".repeat(64));
        let other = format!("r.example/team/app@sha256:{}", "b".repeat(64));
        for (text, first, second) in [
            ("app", true, false),
            ("app:latest", true, false),
            ("app:1", false, true),
            ("localhost/app:1", false, true),
            ("r.example/team/app", false, false),
            ("r.example/team/app:2", false, true),
            (digest.as_str(), false, true),
            (other.as_str(), false, false),
            ("0123", true, false),
            ("sha256:fedcba", false, true),
            ("app@0123", true, false),
            ("app@4567", false, false),
            ("@fedc", false, true),
            ("none", false, false),
        ] {
            assert_eq!((hub.is(text), local.is(text)), (first, second), "{text}");
        }
    }
}
