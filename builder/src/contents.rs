//! Which software an image contains: its layers scanned, each once on this machine.

use std::io::Read;

use image::{Image, Layer};
use sbom::{Inventory, LayerScan, SCAN_VERSION};
use store::Store;
use task::{Cause, Task};

use crate::error::ErrorContext;
use crate::{Error, Result};

/// Where the store remembers scans of layers.
const MEMO: &str = "sbom";

/// Gives the bytes of a layer, compressed as they are.
pub type OpenLayer<'a> = dyn FnMut(&Layer<'_>) -> Result<Box<dyn Read>, Cause> + 'a;

/// Lists the packages of an image. The store caches the packages of each layer, so a layer is
/// scanned once, whatever images it is in. `open` opens layers that are not in the cache.
///
/// # Errors
/// [`Error::Part`] when a layer cannot be read or is not what the image says.
pub fn inventory(
    store: &Store,
    image: &Image,
    open: &mut OpenLayer<'_>,
    task: &Task,
) -> Result<Inventory> {
    let task = task.child("listing packages");
    let mut scans = Vec::with_capacity(image.layers().len());
    let mut read = 0;
    for layer in image.layers() {
        task.check()?;
        let key = format!("{SCAN_VERSION} {}", layer.diff_id);
        let known =
            store.memo(MEMO, key.as_bytes()).during("reading the cached packages of a layer")?;
        let known = known.and_then(|bytes| serde_json::from_slice::<LayerScan>(&bytes).ok());
        if let Some(scan) = known {
            scans.push(scan);
            continue;
        }
        let doing = || format!("listing the packages of layer {}", layer.descriptor.digest);
        let bytes = open(&layer).map_err(Error::part(doing()))?;
        let (scan, diff_id) = sbom::scan(bytes, &task).during(doing())?;
        // What is remembered of a layer must be of that layer, whatever an image claims.
        if diff_id != layer.diff_id {
            return Err(Error::DiffId {
                layer: layer.descriptor.digest,
                found: diff_id,
                expected: layer.diff_id,
                witness: "the image",
            });
        }
        let bytes = serde_json::to_vec(&scan).expect("scans are plain data with string keys");
        store.set_memo(MEMO, key.as_bytes(), &bytes).during("caching the packages of a layer")?;
        read += 1;
        scans.push(scan);
    }
    let inventory = Inventory::merge(&scans);
    for note in &inventory.notes {
        task.warn(note.clone());
    }
    task.note(format!("{} packages, {read} layers read", inventory.packages.len()));
    if read == 0 {
        task.reused();
    } else {
        task.done();
    }
    Ok(inventory)
}

/// The bytes of a layer that the store has.
///
/// # Errors
/// It does not have it.
pub fn open_stored(store: &Store, layer: &Layer<'_>) -> Result<Box<dyn Read>, Cause> {
    Ok(Box::new(store.open_blob(layer.descriptor.digest)?))
}
