//! `tarball:…`: an image of archives of this machine, which are its layers.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use image::{
    Config, Descriptor, Digest, Digester, Document, Encoding, History, Manifest, MediaType,
    Platform,
};
use layers::StreamFormat;
use task::Cause;
use tokio::sync::OnceCell;

use super::files;
use super::tar::Section;
use crate::bridge::{self, blocking};
use crate::{Error, Location, Origin, Result, Source, Unverified};

/// An image whose layers are archives, the lowest first. Plain and gzip archives and those of zstd keep
/// their bytes, others are uncompressed. The same archives give the same image.
#[derive(Debug, Clone)]
pub struct Tarball {
    paths: Vec<PathBuf>,
    made: Arc<OnceCell<Arc<TarballImage>>>,
}

/// The image and where its content is.
#[derive(Debug)]
struct TarballImage {
    root: Descriptor,
    documents: BTreeMap<Digest, Bytes>,
    layers: BTreeMap<Digest, Arc<File>>,
}

/// An archive as a layer.
struct ArchiveLayer {
    descriptor: Descriptor,
    diff_id: Digest,
    file: File,
}

impl Tarball {
    /// The image of these archives.
    pub fn new(paths: &[PathBuf]) -> Tarball {
        Tarball { paths: paths.to_vec(), made: Arc::default() }
    }

    async fn made(&self) -> Result<Arc<TarballImage>, Cause> {
        let make = || async {
            let paths = self.paths.clone();
            blocking(move || Ok::<_, Cause>(Arc::new(make(&paths)?))).await
        };
        Ok(Arc::clone(self.made.get_or_try_init(make).await?))
    }
}

fn make(paths: &[PathBuf]) -> Result<TarballImage> {
    let Platform { os, architecture, variant, .. } = Platform::host();
    let mut config = Config { os, architecture, variant, ..Config::default() };
    let (mut descriptors, mut layers) = (Vec::new(), BTreeMap::new());
    for path in paths {
        let layer = archive_layer(path)?;
        config.rootfs.diff_ids.push(layer.diff_id);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let created_by = Some(format!("tarball {name}"));
        config.history.push(History { created_by, ..History::default() });
        layers.insert(layer.descriptor.digest, Arc::new(layer.file));
        descriptors.push(layer.descriptor);
    }
    let config = Document::write(MediaType::OCI_CONFIG, config);
    let manifest = Manifest::new(MediaType::OCI_MANIFEST, config.descriptor().clone(), descriptors);
    let manifest = Document::write(MediaType::OCI_MANIFEST, manifest);
    let root = manifest.descriptor().clone();
    let documents = BTreeMap::from([
        (config.digest(), config.bytes().clone()),
        (manifest.digest(), manifest.bytes().clone()),
    ]);
    Ok(TarballImage { root, documents, layers })
}

fn archive_layer(path: &Path) -> Result<ArchiveLayer> {
    let file = files::open_or_pipe(path)?.ok_or_else(|| files::absent(path))?;
    let mut head = [0; 6];
    let read = file.read_at(&mut head, 0).map_err(Error::file("reading", path))?;
    let (encoding, file) = match layers::sniff(&head[..read]) {
        None => (Encoding::Plain, file),
        Some(StreamFormat::Gzip) => (Encoding::Gzip, file),
        Some(StreamFormat::Zstd) => (Encoding::Zstd, file),
        // Layers have no other compressions.
        Some(_) => (Encoding::Plain, files::uncompressed(file, path)?),
    };
    let file = Arc::new(file);
    let failed = |source: io::Error| Error::Layer {
        name: path.display().to_string(),
        source: Error::Stream(source).into(),
    };
    let (digest, size, _) = digest_of(Section::whole(&file)).map_err(failed)?;
    let plain = layers::decompress(Section::whole(&file))
        .map_err(|error| Error::Layer { name: path.display().to_string(), source: error.into() })?;
    let (diff_id, _, start) = digest_of(plain).map_err(failed)?;
    let start = <[u8; BLOCK]>::try_from(start);
    // An archive ends with blocks of zeros, and an empty one has nothing else.
    if !start.is_ok_and(|block| block == [0; BLOCK] || layers::is_tar_header(&block)) {
        let reason = "it is not a tar archive".to_owned();
        return Err(Error::Malformed { place: path.display().to_string(), reason });
    }
    let descriptor = Descriptor::new(MediaType::layer(encoding, false), digest, size);
    let file = Arc::into_inner(file).expect("its readers are gone");
    Ok(ArchiveLayer { descriptor, diff_id, file })
}

/// Bytes of a header.
const BLOCK: usize = 512;

/// The digest and size of a stream, and its first block.
fn digest_of(mut stream: impl Read) -> io::Result<(Digest, u64, Vec<u8>)> {
    let mut start = Vec::with_capacity(BLOCK);
    stream.by_ref().take(BLOCK as u64).read_to_end(&mut start)?;
    let mut digester = Digester::default();
    digester.update(&start);
    let rest = io::copy(&mut stream, &mut digester)?;
    Ok((digester.finish(), start.len() as u64 + rest, start))
}

#[async_trait]
impl Source for Tarball {
    async fn resolve(&self) -> Result<Descriptor, Cause> {
        Ok(self.made().await?.root.clone())
    }

    async fn fetch(&self, descriptor: &Descriptor) -> Result<Unverified, Cause> {
        let made = self.made().await?;
        if let Some(document) = made.documents.get(&descriptor.digest) {
            return Ok(Unverified::whole(document.clone()));
        }
        let place = || "the archives".to_owned();
        let file = made.layers.get(&descriptor.digest);
        let file = file.ok_or_else(|| Error::missing(descriptor, place()))?;
        Ok(bridge::stream(Section::whole(file)))
    }

    async fn referrers(&self, _subject: &Descriptor) -> Result<Vec<Descriptor>, Cause> {
        Ok(Vec::new())
    }

    fn origin(&self) -> Origin {
        Origin::Elsewhere
    }

    fn location(&self) -> Option<Location> {
        Some(Location::Tarball(self.paths.clone()))
    }
}
