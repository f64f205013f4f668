use std::io::Read;

use image::{Digest, DigestReader, Image, Layer};
use layers::{EntryKind, LayerEntries, Limits};
use serde_json::json;
use task::{Cause, Task};

use crate::error::{Error, Result};
use crate::tree::{MAX_NAMES, Tree};

/// Gives the bytes of a layer's blob, compressed as they are and checked against its digest.
pub type OpenLayer<'a> = dyn FnMut(&Layer<'_>) -> Result<Box<dyn Read>, Cause> + 'a;

/// One layer of an image.
#[derive(Debug)]
pub struct LayerView {
    /// The blob.
    pub digest: Digest,
    /// The uncompressed tar.
    pub diff_id: Digest,
    /// Bytes of the blob.
    pub size: u64,
    /// Bytes of the files in it.
    pub files: u64,
    /// Number of entries.
    pub entries: usize,
    /// The history step that made it.
    pub step: String,
}

/// An image whose layers were all read.
#[derive(Debug)]
pub struct ExploredImage {
    /// What the user calls the image.
    pub name: String,
    /// The manifest.
    pub digest: Digest,
    /// `os/arch[/variant]`.
    pub platform: String,
    /// The configuration as it is.
    pub config: serde_json::Value,
    /// Base first.
    pub layers: Vec<LayerView>,
    /// Every name of every layer.
    pub tree: Tree,
}

impl ExploredImage {
    /// Bytes of files in all layers together, and how many of them the image does not show.
    pub fn carried_and_wasted(&self) -> (u64, u64) {
        let carried = self.layers.iter().map(|layer| layer.files).sum();
        (carried, self.tree.waste().iter().map(|waste| waste.bytes).sum())
    }

    /// Whether more than this part of the bytes is not shown.
    pub fn wastes_more_than(&self, percent: u8) -> bool {
        let (carried, wasted) = self.carried_and_wasted();
        wasted.saturating_mul(100) > carried.saturating_mul(u64::from(percent))
    }
}

/// Reads all layers of an image, one after the other, past their digests.
///
/// # Errors
/// A layer cannot be opened or read, or is not what the image says; the image has more than
/// [`MAX_NAMES`] names; the task was cancelled.
pub fn explore(
    name: &str,
    image: &Image,
    open: &mut OpenLayer<'_>,
    task: &Task,
) -> Result<ExploredImage> {
    let mut tree = Tree::default();
    let mut views = Vec::new();
    let steps = steps(image);
    for (number, layer) in image.layers().enumerate() {
        task.check()?;
        let descriptor = layer.descriptor;
        let child = task.sized(format!("layer {}", descriptor.digest.short()), descriptor.size);
        let opened = open(&layer);
        let blob = opened.map_err(|source| Error::Open { layer: descriptor.digest, source })?;
        let (entries, files) = entries(child.reading(blob), number, &mut tree, &layer)?;
        views.push(LayerView {
            digest: descriptor.digest,
            diff_id: layer.diff_id,
            size: descriptor.size,
            files,
            entries,
            step: steps.get(number).cloned().unwrap_or_default(),
        });
        child.done();
    }
    let config = serde_json::from_slice(image.config().bytes()).unwrap_or(json!({}));
    Ok(ExploredImage {
        name: name.to_owned(),
        digest: image.descriptor().digest,
        platform: image.platform().to_string(),
        config,
        layers: views,
        tree,
    })
}

/// Takes the entries of a layer into the tree: how many there are, and the bytes of their files.
fn entries(
    blob: impl Read,
    number: usize,
    tree: &mut Tree,
    layer: &Layer<'_>,
) -> Result<(usize, u64)> {
    let digest = layer.descriptor.digest;
    let broken = |source| Error::Layer { layer: digest, source };
    let plain = layers::decompress(blob).map_err(broken)?;
    let mut hashed = DigestReader::new(plain, layer.diff_id.algorithm());
    let mut entries = LayerEntries::new(&mut hashed, Limits::default());
    let (mut count, mut bytes) = (0, 0);
    while let Some(entry) = entries.next().map_err(broken)? {
        count += 1;
        if entry.kind == EntryKind::File {
            bytes += entry.size;
        }
        let too_many = |_| Error::TooManyNames { layer: digest, limit: MAX_NAMES };
        tree.take(number, entry).map_err(too_many)?;
    }
    drop(entries);
    std::io::copy(&mut hashed, &mut std::io::sink())
        .map_err(|source| Error::Read { layer: digest, source })?;
    let found = hashed.finish().1;
    if found != layer.diff_id {
        return Err(Error::DiffId { layer: digest, expected: layer.diff_id, found });
    }
    Ok((count, bytes))
}

/// For each layer the step that made it.
fn steps(image: &Image) -> Vec<String> {
    let history = image.config().history.iter();
    history
        .filter(|step| !step.empty_layer)
        .map(|step| step.created_by.clone().unwrap_or_default())
        .collect()
}

/// A step as people wrote it: without what builders put around a command.
pub(crate) fn shortened(step: &str) -> &str {
    let step = step.strip_prefix("/bin/sh -c #(nop) ").unwrap_or(step);
    let step = step.strip_suffix("# buildkit").unwrap_or(step);
    match step.strip_prefix("/bin/sh -c ") {
        Some(command) => command.trim(),
        None => step.trim(),
    }
}

#[cfg(test)]
mod tests {
    use crate::sample::sample;

    #[test]
    fn waste_is_compared_with_what_the_layers_carry() {
        let explored = sample();
        assert_eq!(explored.carried_and_wasted(), (10_100, 7_000));
        assert!(!explored.wastes_more_than(70));
        assert!(explored.wastes_more_than(69));
    }
}
