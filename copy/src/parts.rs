//! Layers that are read file by file, through their tables of contents.

use std::fs::File;
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use image::Descriptor;
use layers::{FilePart, LayerTable, TableEntry, TablePlace};
use task::Task;

use crate::edit::{of_layer, read_part};
use crate::{Error, Indexes, LayerFile, Result, Source, gzip_index, scratch};

/// A layer of which only its table of contents is here.
#[derive(Debug, Clone)]
pub(crate) struct PartedLayer {
    descriptor: Descriptor,
    table: Arc<LayerTable>,
}

impl PartedLayer {
    /// Fetches the table of a layer; see [`table_of`].
    pub(crate) async fn open(
        source: &dyn Source,
        layer: &Descriptor,
        indexes: &dyn Indexes,
        task: &Task,
    ) -> Result<Option<PartedLayer>> {
        let table = table_of(source, layer, indexes, task).await?;
        Ok(table.map(|table| PartedLayer::new(layer.clone(), table)))
    }

    /// A layer with its table.
    pub(crate) fn new(descriptor: Descriptor, table: LayerTable) -> PartedLayer {
        PartedLayer { descriptor, table: Arc::new(table) }
    }

    /// What is in the layer, in its order.
    pub(crate) fn entries(&self) -> &[TableEntry] {
        &self.table.entries
    }

    /// The content of a file, fetched and checked, in an unnamed file in `room`.
    pub(crate) async fn content(
        &self,
        source: &dyn Source,
        entry: &TableEntry,
        room: &Path,
        task: &Task,
    ) -> Result<File> {
        let stored = || entry.parts.iter().map(|part| &part.range).filter(|r| !r.is_empty());
        let start = stored().map(|range| range.start).min().unwrap_or(0);
        let end = stored().map(|range| range.end).max().unwrap_or(0);
        let (parts, place) = (entry.parts.clone(), room.to_owned());
        let name = self.descriptor.digest.to_string();
        if start == end {
            return unpack(&parts, start, None, &place, &name);
        }
        let part = (&self.descriptor, start..end);
        let read = read_part(source, part, task, move |mut reader| {
            let mut packed = scratch(&place)?;
            io::copy(&mut reader, &mut packed).map_err(Error::Stream)?;
            unpack(&parts, start, Some(packed), &place, &name)
        });
        read.await?.ok_or_else(|| {
            let why = io::Error::other("the place gave its table of contents, but not its files");
            of_layer(&self.descriptor.digest.to_string())(layers::Error::Read { source: why })
        })
    }
}

/// The content of a file of a layer that is here whole, checked, in an unnamed file in `room`.
pub(crate) fn content_of(layer: &LayerFile, entry: &TableEntry, room: &Path) -> Result<File> {
    let name = layer.descriptor.digest.to_string();
    unpack(&entry.parts, 0, Some(layer.file()?), room, &name)
}

/// Fetches the table of contents of a layer, or the index of a gzip layer that its descriptor
/// promises; one in `indexes` comes first. `None` where the layer has none, where it is not what
/// the layer's descriptor promises, or where the place does not give parts of its table.
///
/// # Errors
/// [`Error::Place`] when the source fails.
pub async fn table_of(
    source: &dyn Source,
    layer: &Descriptor,
    indexes: &dyn Indexes,
    task: &Task,
) -> Result<Option<LayerTable>> {
    let Some(mut place) = TablePlace::of(layer) else {
        return gzip_index::table(source, layer, indexes).await;
    };
    if let Some(footer) = place.footer() {
        let Some(footer) = bytes(source, layer, footer, task).await? else { return Ok(None) };
        let Ok(found) = place.found(&footer) else { return Ok(None) };
        place = found;
    }
    let part = (layer, place.packed());
    let read =
        read_part(source, part, task, move |reader| match place.read(BufReader::new(reader)) {
            Ok(table) => Ok(Some(table)),
            Err(layers::Error::Read { source }) => Err(Error::Stream(source)),
            Err(_) => Ok(None),
        });
    Ok(read.await?.flatten())
}

/// Unpacks the parts of a file; `packed` has the layer's bytes from `start`.
fn unpack(
    parts: &[FilePart],
    start: u64,
    mut packed: Option<File>,
    room: &Path,
    layer: &str,
) -> Result<File> {
    let mut file = scratch(room)?;
    let mut at = 0;
    for part in parts {
        at += part.size;
        if part.is_hole() {
            file.set_len(at).map_err(Error::Stream)?;
            file.seek(SeekFrom::Start(at)).map_err(Error::Stream)?;
            continue;
        }
        let length = part.range.end - part.range.start;
        let done = match &mut packed {
            Some(packed) if length > 0 => {
                packed.seek(SeekFrom::Start(part.range.start - start)).map_err(Error::Stream)?;
                part.unpack(BufReader::new(packed.take(length)), &mut file)
            }
            _ => part.unpack(io::empty(), &mut file),
        };
        done.map_err(of_layer(layer))?;
    }
    file.seek(SeekFrom::Start(0)).map_err(Error::Stream)?;
    Ok(file)
}

/// A short part of a layer.
async fn bytes(
    source: &dyn Source,
    layer: &Descriptor,
    part: Range<u64>,
    task: &Task,
) -> Result<Option<Vec<u8>>> {
    read_part(source, (layer, part), task, |mut reader| {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map_err(Error::Stream)?;
        Ok(bytes)
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use image::{Digest, MediaType};

    use super::*;

    #[test]
    fn a_hole_takes_no_room() {
        let size = 1_u64 << 40;
        let row =
            format!(r#"{{"type":"reg","name":"f","size":{size},"offset":0,"chunkType":"zeros"}}"#);
        let text = format!(r#"{{"version":1,"entries":[{row}]}}"#);
        let mut layer = Descriptor::of(MediaType::OCI_LAYER_ZSTD, text.as_bytes());
        let digest = Digest::of(text.as_bytes()).to_string();
        let place = format!("0:{0}:{0}:1", text.len());
        for (key, value) in [("checksum", digest), ("position", place)] {
            let key = format!("io.github.containers.zstd-chunked.manifest-{key}");
            layer.annotations.insert(key, value);
        }
        let table = TablePlace::of(&layer).unwrap().read(text.as_bytes()).unwrap();
        let room = tempfile::tempdir().unwrap();
        let file = unpack(&table.entries[0].parts, 0, None, room.path(), "x").unwrap();
        let about = file.metadata().unwrap();
        assert_eq!(about.len(), size);
        assert!(about.blocks() < 2048, "{} blocks", about.blocks());
    }
}
