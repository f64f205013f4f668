//! What `docker save` wrote before it wrote OCI layouts, and still writes beside them: a
//! `manifest.json` that names the files of each image, but no digest of a layer.

use std::collections::BTreeMap;
use std::io::Read;

use bytes::Bytes;
use image::{
    Config, Descriptor, Digest, Digester, Document, Encoding, MAX_DOCUMENT, Manifest, MediaType,
    Node, Reference,
};
use serde::Deserialize;

use super::archive::blob_name;
use super::named;
use super::tar::TarIndex;
use crate::{Error, ImageSelector, Result};

/// Where the content of an image is that lies under names of its own.
#[derive(Debug, Default)]
pub(crate) struct Content {
    /// Offset and size in the archive.
    pub(crate) places: BTreeMap<Digest, (u64, u64)>,
    /// Documents that are not in the archive but follow from what is.
    pub(crate) made: BTreeMap<Digest, Bytes>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

impl Item {
    fn tags(&self) -> &[String] {
        self.repo_tags.as_deref().unwrap_or_default()
    }
}

fn items(tar: &TarIndex, place: &str) -> Result<Vec<Item>> {
    let refuse = |reason: String| Error::Malformed { place: place.to_owned(), reason };
    let bytes = tar.read("manifest.json", MAX_DOCUMENT)?.ok_or_else(|| {
        refuse(match tar.find("index.json") {
            Some(_) => "it is an OCI archive: read it as oci-archive:".to_owned(),
            None => "it has no file manifest.json, so it is not an archive of Docker 1.10 or newer"
                .to_owned(),
        })
    })?;
    serde_json::from_slice(&bytes)
        .map_err(|error| refuse(format!("its manifest.json is malformed: {error}")))
}

/// All names in the archive.
pub(crate) fn names(tar: &TarIndex, place: &str) -> Result<Vec<String>> {
    let items = items(tar, place)?;
    Ok(items.iter().flat_map(|item| item.tags().iter().cloned()).collect())
}

/// The name of the selected image: its whole name if it has one, because a policy may refer to it.
pub(crate) fn named_as(
    tar: &TarIndex,
    named: &ImageSelector,
    place: &str,
) -> Result<ImageSelector> {
    let whole = |name: &str| match name.parse::<Reference>() {
        Ok(name) => ImageSelector::Name(name.or_latest().to_string()),
        Err(_) => ImageSelector::Name(name.to_owned()),
    };
    Ok(match named {
        ImageSelector::Digest(_) => named.clone(),
        ImageSelector::Name(name) => whole(name),
        ImageSelector::Only | ImageSelector::Position(_) => {
            let items = items(tar, place)?;
            let tag = pick(&items, named, place)?.tags().first();
            tag.map_or_else(|| named.clone(), |tag| whole(tag))
        }
    })
}

/// Finds an image; `entries` are those of the layout that newer archives are too.
pub(crate) fn choose(
    tar: &TarIndex,
    named: &ImageSelector,
    entries: &[Descriptor],
    place: &str,
) -> Result<(Descriptor, Content)> {
    if let ImageSelector::Digest(digest) = named
        && let Some(entry) = entries.iter().find(|entry| entry.digest == *digest)
    {
        return Ok((named::unnamed(entry.clone()), Content::default()));
    }
    let items = items(tar, place)?;
    let item = pick(&items, named, place)?;
    let config = tar.read(&item.config, MAX_DOCUMENT)?.ok_or_else(|| Error::Malformed {
        place: place.to_owned(),
        reason: format!("the config {:?} is missing", item.config),
    })?;
    if let Some(entry) = in_layout(tar, entries, item, &config)? {
        return Ok((named::unnamed(entry), Content::default()));
    }
    assemble(tar, item, config, place)
}

fn pick<'a>(items: &'a [Item], named: &ImageSelector, place: &str) -> Result<&'a Item> {
    let known = || items.iter().flat_map(|item| item.tags().iter().cloned()).take(10).collect();
    let none = |name: String| Error::NoImage { name, place: place.to_owned(), known: known() };
    match named {
        ImageSelector::Only => match items {
            [only] => Ok(only),
            [] => Err(none("the only image".to_owned())),
            _ => {
                let names = items.iter().enumerate().take(10).map(|(at, item)| {
                    item.tags().first().cloned().unwrap_or_else(|| format!("@{at}"))
                });
                let names: Vec<String> = names.collect();
                let reason = format!("it has several images ({}); name one", names.join(", "));
                Err(Error::Malformed { place: place.to_owned(), reason })
            }
        },
        ImageSelector::Position(at) => items.get(*at).ok_or_else(|| none(format!("image @{at}"))),
        ImageSelector::Digest(digest) => {
            let hex = digest.hex();
            items.iter().find(|i| i.config.contains(&hex)).ok_or_else(|| none(digest.to_string()))
        }
        ImageSelector::Name(name) => {
            let wanted = name.parse::<Reference>()?.or_latest();
            let is = |tag: &String| {
                tag.parse::<Reference>().is_ok_and(|reference| reference.or_latest() == wanted)
            };
            let found = items.iter().find(|item| item.tags().iter().any(is));
            found.ok_or_else(|| none(format!("{name:?}")))
        }
    }
}

/// The manifest of the same image in the layout beside, which keeps the image's digest.
fn in_layout(
    tar: &TarIndex,
    entries: &[Descriptor],
    item: &Item,
    config: &[u8],
) -> Result<Option<Descriptor>> {
    let config = Digest::of(config);
    let layers = item.layers.as_deref().unwrap_or_default().len();
    for entry in entries.iter().filter(|entry| entry.media_type.is_manifest()) {
        let Some(bytes) = tar.read(&blob_name(entry.digest), MAX_DOCUMENT)? else { continue };
        if let Ok(Node::Manifest(manifest)) = Node::read(entry.clone(), bytes)
            && manifest.config.digest == config
            && manifest.layers.len() == layers
            && manifest.layers.iter().all(|layer| tar.find(&blob_name(layer.digest)).is_some())
        {
            return Ok(Some(entry.clone()));
        }
    }
    Ok(None)
}

/// Makes the manifest that the archive lacks.
fn assemble(
    tar: &TarIndex,
    item: &Item,
    config: Vec<u8>,
    place: &str,
) -> Result<(Descriptor, Content)> {
    let refuse = |reason: String| Error::Malformed { place: place.to_owned(), reason };
    let descriptor = Descriptor::of(MediaType::DOCKER_CONFIG, &config);
    let config = Document::<Config>::read(descriptor, config)?;
    let paths = item.layers.as_deref().unwrap_or_default();
    let diff_ids = &config.rootfs.diff_ids;
    if paths.len() != diff_ids.len() {
        let (layers, named) = (paths.len(), diff_ids.len());
        return Err(refuse(format!("it lists {layers} layers where the config has {named}")));
    }
    let mut content = Content::default();
    let mut known = BTreeMap::new();
    let mut layers = Vec::with_capacity(paths.len());
    for (path, diff_id) in paths.iter().zip(diff_ids) {
        let found = tar.find(path);
        let found = found.ok_or_else(|| refuse(format!("the layer {path:?} is missing")))?;
        let (encoding, digest) = match known.get(&(found, *diff_id)) {
            Some(known) => *known,
            None => identify(tar, path, found, *diff_id)?,
        };
        known.insert((found, *diff_id), (encoding, digest));
        content.places.insert(digest, found);
        layers.push(Descriptor::new(MediaType::layer(encoding, true), digest, found.1));
    }
    let manifest = Manifest::new(MediaType::DOCKER_MANIFEST, config.descriptor().clone(), layers);
    let manifest = Document::write(MediaType::DOCKER_MANIFEST, manifest);
    content.made.insert(config.digest(), config.bytes().clone());
    content.made.insert(manifest.digest(), manifest.bytes().clone());
    Ok((manifest.descriptor().clone(), content))
}

/// What a layer is stored as. A plain one is named by its diff id, which the copy verifies; of a
/// compressed one the digest has to be computed.
fn identify(
    tar: &TarIndex,
    name: &str,
    (offset, size): (u64, u64),
    diff_id: Digest,
) -> Result<(Encoding, Digest)> {
    let failed =
        |source| Error::Layer { name: name.to_owned(), source: Error::Stream(source).into() };
    let mut head = Vec::new();
    tar.reader(offset, size).take(6).read_to_end(&mut head).map_err(failed)?;
    let encoding = match layers::sniff(&head) {
        None => return Ok((Encoding::Plain, diff_id)),
        Some(layers::StreamFormat::Gzip) => Encoding::Gzip,
        Some(layers::StreamFormat::Zstd) => Encoding::Zstd,
        Some(other) => {
            let reason = std::io::Error::other(format!("it is compressed as {other:?}"));
            return Err(failed(reason));
        }
    };
    let mut digester = Digester::default();
    std::io::copy(&mut tar.reader(offset, size), &mut digester).map_err(failed)?;
    Ok((encoding, digester.finish()))
}
