//! Tables of gzip layers that lie beside them: rows whose places are those of the uncompressed
//! archive, and checkpoints of the compressed one (docs/formats/gzip-index.md).

use std::io::{BufReader, Read};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::{Descriptor, Digest, MediaType};
use serde::Deserialize;

use super::{FilePart, LARGEST, LayerTable, bounded, malformed, rows};
use crate::inflate::{Checkpoint, Inflate, WINDOW, WithinMember};
use crate::{Result, decompress};

/// The media type of an index of a gzip layer, and the artifact type of what holds some.
pub const GZIP_INDEX: &str = "application/vnd.dev.rbuild.gzip-index.v1+zstd";
const DIGEST: &str = "dev.rbuild.gzip-index.digest";
const SIZE: &str = "dev.rbuild.gzip-index.size";

/// The index that the annotations of a layer promise.
pub fn promised_index(layer: &Descriptor) -> Option<Descriptor> {
    let said = |key: &str| layer.annotations.get(key);
    let (digest, size) = (said(DIGEST)?.parse().ok()?, said(SIZE)?.parse().ok()?);
    (size <= LARGEST).then(|| Descriptor::new(MediaType::from(GZIP_INDEX), digest, size))
}

/// Lets a layer promise an index of these bytes.
pub fn promise_index(layer: &mut Descriptor, index: &[u8]) {
    layer.annotations.insert(DIGEST.to_owned(), Digest::of(index).to_string());
    layer.annotations.insert(SIZE.to_owned(), index.len().to_string());
}

#[derive(Deserialize)]
struct IndexHead {
    version: u32,
    layer: Digest,
    checkpoints: Vec<PlaceRow>,
}

#[derive(Deserialize)]
struct PlaceRow {
    packed: u64,
    plain: u64,
    #[serde(default)]
    bits: u8,
    #[serde(default)]
    rest: u8,
    window: Option<String>,
}

/// A place at which a gzip stream can be entered, its window compressed.
#[derive(Debug)]
pub(super) struct Entrance {
    packed: u64,
    plain: u64,
    bits: u8,
    rest: u8,
    window: Option<Vec<u8>>,
}

impl Entrance {
    fn new(row: PlaceRow) -> Option<Entrance> {
        let window = match row.window {
            Some(text) => Some(STANDARD.decode(text).ok()?),
            None => None,
        };
        let PlaceRow { packed, plain, bits, rest, .. } = row;
        (bits < 8).then_some(Entrance { packed, plain, bits, rest, window })
    }

    /// The uncompressed bytes from here on; `packed` is the compressed ones.
    pub(super) fn enter(&self, packed: impl Read) -> Result<impl Read> {
        let window = self.window.as_ref().map(|window| zstd::bulk::decompress(window, WINDOW));
        let window = window.transpose().map_err(|_| malformed("a window of it is broken"))?;
        let within = window.map(|window| WithinMember { bits: self.bits, rest: self.rest, window });
        let place = Checkpoint { packed: self.packed, plain: self.plain, within };
        Ok(Inflate::enter(BufReader::new(packed), &place))
    }
}

impl LayerTable {
    /// Reads the index of a gzip layer. The caller knows that the index was made for this layer:
    /// by a digest that the layer's descriptor promises, or because it was made here.
    ///
    /// # Errors
    /// [`crate::Error::Table`] if it is malformed, or of another layer.
    pub fn of_gzip(index: &[u8], layer: &Descriptor) -> Result<LayerTable> {
        let text = bounded(decompress(index)?)?;
        let head: IndexHead = serde_json::from_slice(&text)
            .map_err(|error| malformed(&format!("it is malformed: {error}")))?;
        if head.version != 1 || head.layer != layer.digest {
            return Err(malformed("it is of another layer or of a later version"));
        }
        let places =
            head.checkpoints.into_iter().map(Entrance::new).map(|place| place.map(Arc::new));
        let places: Option<Vec<_>> = places.collect();
        let places = places.ok_or_else(|| malformed("a checkpoint is malformed"))?;
        let sorted =
            |two: &[Arc<Entrance>]| two[0].packed < two[1].packed && two[0].plain < two[1].plain;
        let ends = (places.first(), places.last());
        let (Some(first), Some(last)) = ends else {
            return Err(malformed("it has no checkpoints"));
        };
        if first.plain != 0 || last.packed >= layer.size || !places.windows(2).all(sorted) {
            return Err(malformed("its checkpoints are not in order"));
        }
        let mut table = rows::parse(&text, u64::MAX)?;
        for part in table.entries.iter_mut().flat_map(|entry| &mut entry.parts) {
            part.place(&places, layer.size)?;
        }
        Ok(table)
    }
}

impl FilePart {
    /// Makes of the place in the uncompressed archive the one in the layer.
    fn place(&mut self, places: &[Arc<Entrance>], layer: u64) -> Result<()> {
        if self.is_hole() {
            return Ok(());
        }
        let start = self.range.start;
        let end = start.checked_add(self.size).ok_or_else(|| malformed("a file has no end"))?;
        let after = places.partition_point(|place| place.plain <= start);
        let entrance = &places[after.saturating_sub(1)];
        let next = places.partition_point(|place| place.plain < end);
        self.range = entrance.packed..places.get(next).map_or(layer, |place| place.packed);
        self.skip = start - entrance.plain;
        self.entrance = Some(Arc::clone(entrance));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write as _};

    use super::*;
    use crate::tar::{Header, TypeFlag, Writer};
    use crate::writer::index_gzip;

    /// Bytes that compress to about a half.
    fn content(length: usize, seed: u32) -> Vec<u8> {
        let next = |state: &u32| Some(state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
        let all = std::iter::successors(Some(seed), next);
        all.map(|state| b'a' + (state >> 24 & 15) as u8).take(length).collect()
    }

    fn files() -> Vec<(&'static str, Vec<u8>)> {
        vec![
            ("small", b"small".to_vec()),
            ("empty", Vec::new()),
            ("large", content(7_000_000, 1)),
            ("between", content(100_000, 2)),
            ("exact", content(4 << 20, 3)),
            ("last", content(3_000_000, 4)),
        ]
    }

    fn archive() -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        for (path, content) in files() {
            let mut header = Header::new(TypeFlag::File);
            header.path = path.as_bytes().to_vec();
            (header.mode, header.size) = (0o644, content.len() as u64);
            writer.entry(&header).unwrap();
            writer.contents(&content).unwrap();
        }
        writer.finish().unwrap()
    }

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
        out.write_all(plain).unwrap();
        out.finish().unwrap()
    }

    fn layer(plain: &[u8], members: usize) -> (Vec<u8>, Descriptor) {
        let layer: Vec<u8> = plain.chunks(plain.len() / members + 1).flat_map(gzip).collect();
        let descriptor = Descriptor::of(MediaType::OCI_LAYER_GZIP, &layer);
        (layer, descriptor)
    }

    #[test]
    fn every_file_of_a_gzip_layer_is_read_alone() {
        let plain = archive();
        for members in [1, 2, 30] {
            let (layer, descriptor) = layer(&plain, members);
            let index = index_gzip(&layer[..], &descriptor).unwrap().unwrap();
            assert_eq!(index.diff_id, Digest::of(&plain));
            let table = LayerTable::of_gzip(&index.bytes, &descriptor).unwrap();
            assert_eq!(table.entries.len(), files().len());
            for (entry, (path, content)) in table.entries.iter().zip(files()) {
                assert_eq!(entry.entry.path, path.as_bytes());
                let mut read = Vec::new();
                for part in &entry.parts {
                    let packed = &layer[part.range.start as usize..part.range.end as usize];
                    // About as much as it needs, not the layer.
                    assert!(packed.len() < 5 << 20, "{path}: {}", packed.len());
                    part.unpack(packed, &mut read).unwrap();
                }
                assert!(read == content, "{path}");
            }
        }
    }

    #[test]
    fn what_is_not_as_the_index_says_is_refused() {
        let plain = archive();
        let (bytes, descriptor) = layer(&plain, 1);
        let index = index_gzip(&bytes[..], &descriptor).unwrap().unwrap();
        let (other, other_descriptor) = layer(&plain[..plain.len() - 512], 2);
        assert!(LayerTable::of_gzip(&index.bytes, &other_descriptor).is_err());
        // A layer that has other bytes than the index was made of.
        let table = LayerTable::of_gzip(&index.bytes, &descriptor).unwrap();
        let part = table.entries.last().unwrap().parts.last().unwrap();
        let packed = &other[part.range.start as usize..];
        assert!(part.unpack(packed, &mut io::sink()).is_err());
        let mut flipped = bytes[part.range.start as usize..part.range.end as usize].to_vec();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 1;
        assert!(part.unpack(&flipped[..], &mut io::sink()).is_err());
    }

    #[test]
    fn malformed_indexes_are_refused() {
        let layer = Descriptor::of(MediaType::OCI_LAYER_GZIP, &[0; 1000]);
        let index = |checkpoints: &str, entries: &str| {
            let digest = layer.digest;
            let text = format!(
                r#"{{"version":1,"layer":"{digest}","checkpoints":[{checkpoints}],"entries":[{entries}]}}"#
            );
            LayerTable::of_gzip(&zstd::bulk::compress(text.as_bytes(), 3).unwrap(), &layer)
        };
        let start = r#"{"packed":0,"plain":0}"#;
        assert!(index(start, "").is_ok());
        for checkpoints in [
            "",
            r#"{"packed":5,"plain":5}"#,
            r#"{"packed":1000,"plain":0}"#,
            r#"{"packed":0,"plain":0},{"packed":0,"plain":9}"#,
            r#"{"packed":0,"plain":0},{"packed":9,"plain":0}"#,
            r#"{"packed":0,"plain":0,"bits":8}"#,
            r#"{"packed":0,"plain":0,"window":"?"}"#,
        ] {
            assert!(index(checkpoints, "").is_err(), "{checkpoints}");
        }
        let digest = Digest::of(b"x");
        let row = format!(
            r#"{{"type":"reg","name":"f","size":2,"offset":{},"digest":"{digest}"}}"#,
            u64::MAX - 1
        );
        assert!(index(start, &row).is_err());
        let mut huge = layer.clone();
        promise_index(&mut huge, b"x");
        assert!(promised_index(&huge).is_some());
        huge.annotations.insert(SIZE.to_owned(), u64::MAX.to_string());
        assert!(promised_index(&huge).is_none());
    }
}
