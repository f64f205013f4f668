//! Tables of contents of compressed layers: which part of the blob holds which file, so that one
//! file can be read without the rest (zstd:chunked and eStargz, and gzip with an index beside it).
//!
//! A layer's descriptor promises the digest of its table, the table the digests of the contents; so
//! what is read this way is checked from the manifest down, as whole layers are.

mod rows;
mod seekable;

use std::io::{self, BufReader, Read, Write};
use std::ops::Range;
use std::sync::Arc;

use image::{Descriptor, Digest, Digester};

use self::seekable::Entrance;
pub use self::seekable::{GZIP_INDEX, promise_index, promised_index};
use crate::tar::{Reader, ReaderLimits};
use crate::{EntryKind, Error, LayerEntry, Result, decompress};

const CHUNKED_DIGEST: &str = "io.github.containers.zstd-chunked.manifest-checksum";
const CHUNKED_PLACE: &str = "io.github.containers.zstd-chunked.manifest-position";
const STARGZ_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";
/// Bytes at the end of an eStargz layer that say where its table is: an empty gzip member.
const STARGZ_FOOTER: u64 = 51;
/// The file that is the table, in an archive of its own at the layer's end.
const STARGZ_NAME: &[u8] = b"stargz.index.json";
/// Larger tables are not read, packed or unpacked.
const LARGEST: u64 = 64 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TableForm {
    Chunked,
    Stargz,
}

/// Where the table of a layer is, and the digest that the layer's descriptor promises of it.
#[derive(Debug, Clone)]
pub struct TablePlace {
    form: TableForm,
    digest: Digest,
    /// Of the packed table; where it is empty, the footer says it.
    packed: Range<u64>,
    layer: u64,
}

impl TablePlace {
    /// What the annotations of a layer say; `None` where it has no table.
    pub fn of(layer: &Descriptor) -> Option<TablePlace> {
        let said = |key: &str| layer.annotations.get(key);
        if let Some(digest) = said(CHUNKED_DIGEST) {
            let mut numbers = said(CHUNKED_PLACE)?.split(':').map(str::parse::<u64>);
            let (start, length) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
            let packed = start..start.checked_add(length)?;
            let (form, digest) = (TableForm::Chunked, digest.parse().ok()?);
            let place = TablePlace { form, digest, packed, layer: layer.size };
            return place.sane(&place.packed).then_some(place);
        }
        let digest = said(STARGZ_DIGEST)?.parse().ok()?;
        (layer.size > STARGZ_FOOTER).then_some(TablePlace {
            form: TableForm::Stargz,
            digest,
            packed: 0..0,
            layer: layer.size,
        })
    }

    fn sane(&self, packed: &Range<u64>) -> bool {
        packed.start < packed.end
            && packed.end <= self.layer
            && packed.end - packed.start <= LARGEST
    }

    /// The part of the layer that must be read to know where the table is; `None` if it is known.
    pub fn footer(&self) -> Option<Range<u64>> {
        self.packed.is_empty().then(|| self.layer - STARGZ_FOOTER..self.layer)
    }

    /// The place, with what the footer says.
    ///
    /// # Errors
    /// [`Error::Table`].
    pub fn found(mut self, footer: &[u8]) -> Result<TablePlace> {
        // A gzip header with one extra field, SG: 16 hexadecimal digits and a word.
        let text = footer.get(16..38).filter(|text| &text[16..] == b"STARGZ");
        let digits = text.and_then(|text| std::str::from_utf8(&text[..16]).ok());
        let start = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let packed = start.unwrap_or(u64::MAX)..self.layer - STARGZ_FOOTER;
        if !self.sane(&packed) {
            return Err(malformed("the footer of the layer names none"));
        }
        self.packed = packed;
        Ok(self)
    }

    /// The part of the layer that is the table.
    pub fn packed(&self) -> Range<u64> {
        self.packed.clone()
    }

    /// Reads and checks the table.
    ///
    /// # Errors
    /// [`Error::Table`] if it is not what was promised; of `packed`.
    pub fn read(&self, packed: impl Read) -> Result<LayerTable> {
        let (text, digested) = match self.form {
            TableForm::Chunked => {
                let bytes = bounded(packed)?;
                (bounded(decompress(&bytes[..])?)?, Digest::of(&bytes))
            }
            TableForm::Stargz => {
                let text = stargz_text(decompress(packed)?)?;
                let digest = Digest::of(&text);
                (text, digest)
            }
        };
        if digested != self.digest {
            return Err(malformed("it has another digest than was promised"));
        }
        rows::parse(&text, self.packed.start)
    }
}

/// The table in the archive that holds it.
fn stargz_text(archive: impl Read) -> Result<Vec<u8>> {
    let limits = ReaderLimits { entries: 16, path: 4096, xattrs: 1 << 16 };
    let mut reader = Reader::new(BufReader::new(archive), limits);
    while let Some(header) = reader.next()? {
        if header.path != STARGZ_NAME {
            continue;
        }
        if header.size > LARGEST {
            return Err(malformed("it is too large"));
        }
        let mut text = Vec::new();
        loop {
            let piece = reader.fill()?;
            let length = piece.len();
            if length == 0 {
                return Ok(text);
            }
            text.extend_from_slice(piece);
            reader.consume(length);
        }
    }
    Err(malformed("it is not where the layer's footer says"))
}

fn malformed(reason: &str) -> Error {
    Error::Table { reason: reason.to_owned() }
}

fn bounded(from: impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(LARGEST + 1).read_to_end(&mut bytes).map_err(Error::read)?;
    match bytes.len() as u64 > LARGEST {
        true => Err(malformed("it is too large")),
        false => Ok(bytes),
    }
}

/// A layer's table of contents.
#[derive(Debug, Clone)]
pub struct LayerTable {
    /// The entries, in the archive's order.
    pub entries: Vec<TableEntry>,
}

/// An entry of a layer and where its content is.
#[derive(Debug, Clone)]
pub struct TableEntry {
    /// Everything about it but its content.
    pub entry: LayerEntry,
    /// The pieces of its content, in their order.
    pub parts: Vec<FilePart>,
}

/// A piece of a file's content.
#[derive(Debug, Clone)]
pub struct FilePart {
    /// Where its compressed bytes are in the layer; empty where it is all zeros.
    pub range: Range<u64>,
    /// Bytes that lie before it once that is decompressed.
    skip: u64,
    /// Bytes of content.
    pub size: u64,
    /// Of the content; `None` for zeros.
    digest: Option<Digest>,
    /// How the compressed bytes are entered, where they do not start a stream.
    entrance: Option<Arc<Entrance>>,
}

impl FilePart {
    /// Whether it is all zeros, which need not be stored.
    pub fn is_hole(&self) -> bool {
        self.digest.is_none()
    }

    /// Decompresses the piece, checks it, and writes it.
    ///
    /// # Errors
    /// [`Error::Table`] if it is not what the table says; of either side.
    pub fn unpack(&self, packed: impl Read, out: &mut impl Write) -> Result<()> {
        let Some(digest) = self.digest else {
            let zeros = io::copy(&mut io::repeat(0).take(self.size), out);
            return zeros.map(drop).map_err(Error::write);
        };
        match &self.entrance {
            None => self.unpack_plain(decompress(packed)?, digest, out),
            Some(entrance) => self.unpack_plain(entrance.enter(packed)?, digest, out),
        }
    }

    fn unpack_plain(
        &self,
        mut plain: impl Read,
        digest: Digest,
        out: &mut impl Write,
    ) -> Result<()> {
        let skipped = io::copy(&mut plain.by_ref().take(self.skip), &mut io::sink());
        skipped.map_err(Error::read)?;
        let mut plain = plain.take(self.size);
        let mut digester = Digester::new(digest.algorithm());
        let (mut buffer, mut size) = (vec![0; 128 << 10], 0);
        loop {
            let n = plain.read(&mut buffer).map_err(Error::read)?;
            if n == 0 {
                break;
            }
            digester.update(&buffer[..n]);
            out.write_all(&buffer[..n]).map_err(Error::write)?;
            size += n as u64;
        }
        if size != self.size || digester.finish() != digest {
            return Err(malformed("a file has another digest than it says"));
        }
        Ok(())
    }
}

impl TableEntry {
    /// Bytes of content in the parts.
    fn told(&self) -> u64 {
        self.parts.iter().map(|part| part.size).sum()
    }

    /// Bytes of content that there should be.
    fn content(&self) -> u64 {
        match self.entry.kind {
            EntryKind::File => self.entry.size,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::tar::{Header, TypeFlag};
    use image::MediaType;

    use super::*;
    use crate::tar::Writer;
    use crate::write_chunked;

    fn large() -> Vec<u8> {
        (0..90_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect()
    }

    fn archive() -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        let large = large();
        let files: [(&str, &[u8]); 4] =
            [("./a/large", &large), ("a/empty", b""), ("a/.wh.gone", b""), ("small", b"small")];
        for (path, content) in files {
            let mut header = Header::new(TypeFlag::File);
            header.path = path.as_bytes().to_vec();
            (header.mode, header.size) = (0o644, content.len() as u64);
            writer.entry(&header).unwrap();
            writer.contents(content).unwrap();
        }
        writer.finish().unwrap()
    }

    fn table(layer: &[u8], descriptor: &Descriptor) -> Result<LayerTable> {
        let part = |range: Range<u64>| &layer[range.start as usize..range.end as usize];
        let mut place = TablePlace::of(descriptor).unwrap();
        if let Some(footer) = place.footer() {
            place = place.found(part(footer))?;
        }
        place.read(part(place.packed()))
    }

    fn content(layer: &[u8], entry: &TableEntry) -> Vec<u8> {
        let mut whole = Vec::new();
        for part in &entry.parts {
            let packed = &layer[part.range.start as usize..part.range.end as usize];
            part.unpack(packed, &mut whole).unwrap();
        }
        whole
    }

    fn check(layer: &[u8], descriptor: &Descriptor) {
        let table = table(layer, descriptor).unwrap();
        let told: Vec<_> =
            table.entries.iter().map(|e| (&e.entry.path[..], e.entry.kind)).collect();
        let file = EntryKind::File;
        let gone = (&b"a/gone"[..], EntryKind::Whiteout);
        assert_eq!(told, [(&b"a/large"[..], file), (b"a/empty", file), gone, (b"small", file)]);
        assert!(content(layer, &table.entries[0]) == large());
        assert_eq!(content(layer, &table.entries[1]), b"");
        assert_eq!(content(layer, &table.entries[3]), b"small");
        let mut part = table.entries[3].parts[0].clone();
        let packed = &layer[part.range.start as usize..part.range.end as usize];
        part.digest = Some(Digest::of(b"other"));
        let unpacked = part.unpack(packed, &mut io::sink());
        assert!(matches!(unpacked, Err(Error::Table { .. })), "{unpacked:?}");
    }

    #[test]
    fn files_of_zstd_chunked_are_read_alone() {
        let (layer, info) = write_chunked(&archive()[..], Vec::new(), None).unwrap();
        check(&layer, &info.descriptor);
        let mut other = info.descriptor.clone();
        other.annotations.insert(CHUNKED_DIGEST.into(), Digest::of(b"other").to_string());
        assert!(matches!(table(&layer, &other), Err(Error::Table { .. })));
        other.annotations.insert(CHUNKED_PLACE.into(), format!("{}:9:9:1", other.size));
        assert!(TablePlace::of(&other).is_none());
    }

    /// A layer as `stargz` writes it: a gzip member for each piece of content, the table, the footer.
    fn stargz() -> (Vec<u8>, Descriptor) {
        let member = |bytes: &[u8]| {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            out.write_all(bytes).unwrap();
            out.finish().unwrap()
        };
        let (large, mut layer) = (large(), member(&[0; 512]));
        let (one, two) = large.split_at(200_000);
        let mut offsets = Vec::new();
        for piece in [one, two, b"before it small", b"headers"] {
            offsets.push(layer.len());
            layer.extend(member(piece));
        }
        let row = |kind: &str, name: &str, more: serde_json::Value| {
            let mut row = serde_json::json!({"type": kind, "name": name});
            row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            row
        };
        let digest = |bytes: &[u8]| Digest::of(bytes).to_string();
        let table = serde_json::json!({"version": 1, "entries": [
            row("reg", "a/large", serde_json::json!({"size": large.len(), "offset": offsets[0],
                "chunkSize": one.len(), "chunkDigest": digest(one), "digest": digest(&large)})),
            row("chunk", "a/large", serde_json::json!({"offset": offsets[1],
                "chunkOffset": one.len(), "chunkDigest": digest(two)})),
            row("reg", "a/empty", serde_json::json!({})),
            row("reg", "a/.wh.gone", serde_json::json!({})),
            row("reg", "small", serde_json::json!({"size": 5, "offset": offsets[2],
                "innerOffset": 10, "digest": digest(b"small")})),
            row("reg", ".no.prefetch.landmark/.wh..wh.plnk/x", serde_json::json!({})),
        ]});
        let text = serde_json::to_vec(&table).unwrap();
        let mut writer = Writer::new(Vec::new());
        let mut header = Header::new(TypeFlag::File);
        (header.path, header.size) = (STARGZ_NAME.to_vec(), text.len() as u64);
        writer.entry(&header).unwrap();
        writer.contents(&text).unwrap();
        let start = layer.len();
        layer.extend(member(&writer.finish().unwrap()));
        layer.extend([0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255, 26, 0, b'S', b'G', 22, 0]);
        layer.extend(format!("{start:016x}STARGZ").bytes());
        layer.extend([1, 0, 0, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0]);
        let mut descriptor = Descriptor::of(MediaType::OCI_LAYER_GZIP, &layer);
        descriptor.annotations.insert(STARGZ_DIGEST.into(), digest(&text));
        (layer, descriptor)
    }

    #[test]
    fn files_of_estargz_are_read_alone() {
        let (layer, mut descriptor) = stargz();
        check(&layer, &descriptor);
        descriptor.annotations.insert(STARGZ_DIGEST.into(), Digest::of(b"other").to_string());
        assert!(matches!(table(&layer, &descriptor), Err(Error::Table { .. })));
    }

    #[test]
    fn tables_that_contradict_themselves_are_refused() {
        let digest = Digest::of(b"x");
        for row in [
            r#"{"type":"reg","name":"f","size":5,"offset":9,"endOffset":4}"#,
            r#"{"type":"reg","name":"f","size":5,"offset":1,"endOffset":4}"#,
            r#"{"type":"what","name":"f"}"#,
            r#"{"type":"reg","name":"f","size":9007199254740992,"offset":1,"chunkType":"zeros"}"#,
            r#"{"type":"reg","name":"../f"}"#,
            r#"{"type":"reg","name":"f","size":5,"offset":90,"digest":"DIGEST"}"#,
            r#"{"type":"reg","name":"f","size":5,"offset":1,"chunkSize":4,"chunkDigest":"DIGEST"}"#,
            r#"{"type":"reg","name":"f","size":5,"offset":1,"chunkSize":6,"chunkDigest":"DIGEST"}"#,
            r#"{"type":"reg","name":"f","size":5,"offset":1,"chunkOffset":18446744073709551615}"#,
        ] {
            let row = row.replace("DIGEST", &digest.to_string());
            let text = format!(r#"{{"version":1,"entries":[{row}]}}"#);
            assert!(rows::parse(text.as_bytes(), 50).is_err(), "{text}");
        }
    }
}
