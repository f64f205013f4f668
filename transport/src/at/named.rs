//! Choosing an image from the `index.json` of a layout or archive.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use image::{Descriptor, Digest, MediaType, Node};

use crate::{Error, ImageSelector, Result};

/// How many indexes are looked through for a digest that is not listed itself.
const INDEXES: usize = 1000;

/// Names a manifest in `index.json` (image-spec, annotations.md).
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The full name, as containerd and Docker write it.
pub(crate) const FULL_NAME: &str = "io.containerd.image.name";

/// The name of the selected entry: an entry that is selected without a name may have one, and a
/// policy may refer to it.
pub(crate) fn named_as(entry: &Descriptor, named: &ImageSelector) -> ImageSelector {
    match (named, entry.annotations.get(REF_NAME)) {
        (ImageSelector::Only | ImageSelector::Position(_), Some(name)) => {
            ImageSelector::Name(name.clone())
        }
        _ => named.clone(),
    }
}

/// The selected entry, as it is listed: with its names there.
pub(crate) fn pick(
    entries: &[Descriptor],
    named: &ImageSelector,
    place: &str,
) -> Result<Descriptor> {
    let known = || {
        let names = entries.iter().filter_map(|entry| entry.annotations.get(REF_NAME));
        names.take(10).cloned().collect::<Vec<_>>()
    };
    let none = |name: String| Error::NoImage { name, place: place.to_owned(), known: known() };
    // What has no name is named by its place in the list.
    let shown = |entry: &Descriptor| {
        let at = entries.iter().position(|other| other == entry).unwrap_or_default();
        entry.annotations.get(REF_NAME).cloned().unwrap_or_else(|| format!("@{at}"))
    };
    let several = |name: &str, found: &[&Descriptor]| Error::Malformed {
        place: place.to_owned(),
        reason: format!(
            "{name} could be several images ({}); name one",
            found.iter().take(10).map(|entry| shown(entry)).collect::<Vec<_>>().join(", ")
        ),
    };
    let unique = |found: Vec<&Descriptor>, name: String| {
        let digests: BTreeSet<_> = found.iter().map(|entry| entry.digest).collect();
        match (found.first(), digests.len()) {
            (None, _) => Err(none(name)),
            (Some(entry), 1) => Ok((*entry).clone()),
            _ => Err(several(&name, &found)),
        }
    };
    let chosen = match named {
        ImageSelector::Only => {
            // What refers to an image is listed beside it and is not meant.
            let images = entries.iter().filter(|entry| entry.artifact_type.is_none());
            let images: Vec<_> = images.filter(|entry| !is_fallback_tag(entry)).collect();
            let all = if images.is_empty() { entries.iter().collect() } else { images };
            unique(all, "the only image".to_owned())?
        }
        ImageSelector::Position(position) => {
            entries.get(*position).cloned().ok_or_else(|| none(format!("image @{position}")))?
        }
        ImageSelector::Digest(digest) => {
            let found = entries.iter().find(|entry| entry.digest == *digest);
            found.cloned().ok_or_else(|| none(digest.to_string()))?
        }
        ImageSelector::Name(name) => {
            let by = |key: &str| {
                let has = |entry: &&Descriptor| entry.annotations.get(key) == Some(name);
                entries.iter().filter(has).collect::<Vec<_>>()
            };
            let short = by(REF_NAME);
            unique(if short.is_empty() { by(FULL_NAME) } else { short }, format!("{name:?}"))?
        }
    };
    Ok(chosen)
}

/// As [`pick`]; a digest may also be that of an image or index inside a listed index. `read` gives the
/// document of a descriptor, or `None` if it is missing or broken.
pub(crate) fn pick_or_below(
    entries: &[Descriptor],
    named: &ImageSelector,
    place: &str,
    read: &dyn Fn(&Descriptor) -> Option<Bytes>,
) -> Result<Descriptor> {
    match named {
        ImageSelector::Digest(digest) if entries.iter().all(|entry| entry.digest != *digest) => {
            below(entries, *digest, read).map_or_else(|| pick(entries, named, place), Ok)
        }
        _ => pick(entries, named, place),
    }
}

/// The entry of a digest in the indexes that are listed, nearest first.
fn below(
    entries: &[Descriptor],
    digest: Digest,
    read: &dyn Fn(&Descriptor) -> Option<Bytes>,
) -> Option<Descriptor> {
    let is_index = |entry: &&Descriptor| entry.media_type.is_index();
    let mut todo: VecDeque<Descriptor> = entries.iter().filter(is_index).cloned().collect();
    let mut seen = BTreeSet::new();
    while let Some(next) = todo.pop_front() {
        if !seen.insert(next.digest) || seen.len() > INDEXES {
            continue;
        }
        let Some(Ok(Node::Index(index))) = read(&next).map(|bytes| Node::read(next, bytes)) else {
            continue;
        };
        if let Some(found) = index.manifests.iter().find(|child| child.digest == digest) {
            return Some(found.clone());
        }
        todo.extend(index.manifests.iter().filter(is_index).cloned());
    }
    None
}

/// `sha256-<hex>` names the referrers of a digest if there is no other list of them.
fn is_fallback_tag(entry: &Descriptor) -> bool {
    let name = entry.annotations.get(REF_NAME);
    name.is_some_and(|name| name.starts_with("sha256-") && name.len() >= 71)
}

/// The descriptor of an image that was an entry of an index, as that of one that was not: the same
/// image is listed in the same way wherever it comes from.
pub(crate) fn placeless(entry: Descriptor) -> Descriptor {
    Descriptor { platform: None, ..entry }
}

/// The descriptor without the names that only hold where it was found.
pub(crate) fn unnamed(mut entry: Descriptor) -> Descriptor {
    entry.annotations.remove(REF_NAME);
    entry.annotations.remove(FULL_NAME);
    if entry.media_type.as_str().is_empty() {
        // Old writers leave it out; a document that is something else says so itself.
        entry.media_type = MediaType::OCI_MANIFEST;
    }
    entry
}
