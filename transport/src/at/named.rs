//! Choosing an image from the `index.json` of a layout or archive.

use std::collections::BTreeSet;

use image::{Descriptor, MediaType};

use crate::{Error, Named, Result};

/// Names a manifest in `index.json` (image-spec, annotations.md).
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The full name, as containerd and Docker write it.
pub(crate) const FULL_NAME: &str = "io.containerd.image.name";

/// The name of the selected entry: an entry that is selected without a name may have one, and a
/// policy may refer to it.
pub(crate) fn named_as(entry: &Descriptor, named: &Named) -> Named {
    match (named, entry.annotations.get(REF_NAME)) {
        (Named::Only | Named::Position(_), Some(name)) => Named::Name(name.clone()),
        _ => named.clone(),
    }
}

/// The selected entry, as it is listed: with its names there.
pub(crate) fn pick(entries: &[Descriptor], named: &Named, place: &str) -> Result<Descriptor> {
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
        Named::Only => {
            // What refers to an image is listed beside it and is not meant.
            let images = entries.iter().filter(|entry| entry.artifact_type.is_none());
            let images: Vec<_> = images.filter(|entry| !is_fallback_tag(entry)).collect();
            let all = if images.is_empty() { entries.iter().collect() } else { images };
            unique(all, "the only image".to_owned())?
        }
        Named::Position(position) => {
            entries.get(*position).cloned().ok_or_else(|| none(format!("image @{position}")))?
        }
        Named::Digest(digest) => {
            let found = entries.iter().find(|entry| entry.digest == *digest);
            found.cloned().ok_or_else(|| none(digest.to_string()))?
        }
        Named::Name(name) => {
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

/// `sha256-<hex>` names the referrers of a digest if there is no other list of them.
fn is_fallback_tag(entry: &Descriptor) -> bool {
    let name = entry.annotations.get(REF_NAME);
    name.is_some_and(|name| name.starts_with("sha256-") && name.len() >= 71)
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
