//! zstd:chunked: a zstd layer whose files are frames of their own, with a table of contents behind
//! them in frames that other readers skip. Who has some of the files already fetches the others
//! only.
//!
//! Layout: frames of headers and frames of contents in turn; a skippable frame with the compressed
//! table; one with the compressed tar-split, from which the archive's exact bytes can be made
//! again; one with a footer that says where those are. The layer's annotations say so, too.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::{Descriptor, Digest, Digester, MediaType};
use serde::Serialize;

use super::LayerInfo;
use super::frames::{DigestWriter, Frames, OUTPUT, crc};
use crate::tar::{Header, Reader, ReaderLimits, TypeFlag};
use crate::{Error, Limits, Result};

const CHECKSUM: &str = "io.github.containers.zstd-chunked.manifest-checksum";
const POSITION: &str = "io.github.containers.zstd-chunked.manifest-position";
const SPLIT_POSITION: &str = "io.github.containers.zstd-chunked.tarsplit-position";
/// The type of table; there is one.
const TABLE_TYPE: u64 = 1;
const SKIPPABLE: [u8; 4] = [0x50, 0x2a, 0x4d, 0x18];
/// Bytes before the content of a skippable frame.
const FRAME_HEADER: u64 = 8;
const MAGIC: &[u8; 8] = b"GNUlInUx";
/// No table is larger than this, uncompressed.
const LARGEST_TABLE: usize = 256 << 20;

/// Writes a plain archive as a zstd:chunked layer. The annotations of the descriptor point at the
/// table of files. If the archive has something that the table cannot express (sparse files, names
/// that are not UTF-8), there is no table, and the layer is plain zstd.
///
/// # Errors
/// When the archive is malformed or `out` fails.
pub fn write_chunked<W: Write>(
    archive: impl Read,
    out: W,
    level: Option<i32>,
) -> Result<(W, LayerInfo)> {
    let limits = Limits::default();
    let taken = Rc::new(RefCell::new(Vec::new()));
    let input = BufReader::with_capacity(OUTPUT, archive);
    let mut tee = Tee { input, taken: Rc::clone(&taken) };
    let mut made = ChunkedArchive::new(out, level).map_err(Error::write)?;
    let known = ReaderLimits { entries: limits.entries, path: limits.path, xattrs: limits.xattrs };
    let mut reader = Reader::new(&mut tee, known);
    loop {
        let header = reader.next()?;
        made.raw(&mut taken.borrow_mut())?;
        let Some(header) = header else { break };
        let started = made.begin(header.size).map_err(Error::write)?;
        loop {
            let n = reader.fill()?.len();
            if n == 0 {
                break;
            }
            reader.consume(n);
            made.contents(&mut taken.borrow_mut()).map_err(Error::write)?;
        }
        made.end(&header, started)?;
    }
    // What stands behind the archive's end belongs to its bytes.
    loop {
        let n = tee.fill_buf().map_err(Error::read)?.len();
        if n == 0 {
            break;
        }
        tee.consume(n);
        made.raw(&mut taken.borrow_mut())?;
    }
    made.finish()
}

/// Keeps what is read through it.
struct Tee<R> {
    input: BufReader<R>,
    taken: Rc<RefCell<Vec<u8>>>,
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buffer)?;
        self.consume(n);
        Ok(n)
    }
}

impl<R: Read> BufRead for Tee<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.input.fill_buf()
    }

    fn consume(&mut self, n: usize) {
        self.taken.borrow_mut().extend_from_slice(&self.input.buffer()[..n]);
        self.input.consume(n);
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Table<'a> {
    version: u32,
    entries: &'a [Entry],
    tar_split_digest: Digest,
}

/// A row of a table, as containers/storage and containerd's stargz-snapshotter read it.
#[derive(Serialize)]
pub(super) struct Entry {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) name: String,
    #[serde(rename = "linkName", skip_serializing_if = "String::is_empty")]
    link: String,
    #[serde(skip_serializing_if = "is_zero")]
    mode: u64,
    #[serde(skip_serializing_if = "is_zero")]
    size: u64,
    #[serde(skip_serializing_if = "is_zero")]
    uid: u64,
    #[serde(skip_serializing_if = "is_zero")]
    gid: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    modtime: Option<String>,
    #[serde(rename = "devMajor", skip_serializing_if = "is_zero")]
    major: u64,
    #[serde(rename = "devMinor", skip_serializing_if = "is_zero")]
    minor: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) digest: Option<Digest>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) offset: u64,
    #[serde(rename = "endOffset", skip_serializing_if = "is_zero")]
    end: u64,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(super) chunk: Option<EntryChunk>,
}

/// Which piece of a file's content a row is about.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EntryChunk {
    pub(super) chunk_offset: u64,
    pub(super) chunk_size: u64,
    pub(super) chunk_digest: Digest,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// A line of the tar-split: raw bytes, or a file that is elsewhere.
#[derive(Serialize)]
struct Split<'a> {
    #[serde(rename = "type")]
    kind: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "is_zero")]
    size: u64,
    payload: Option<String>,
    position: u64,
}

const FILE: u8 = 1;
const SEGMENT: u8 = 2;

/// What is known about the archive so far.
struct ChunkedArchive<W> {
    out: DigestWriter<W>,
    frames: Frames,
    level: i32,
    plain: Digester,
    uncompressed: u64,
    file: Option<Contents>,
    entries: Vec<Entry>,
    /// Bytes of the table, about.
    table: usize,
    /// Whether the table can tell everything.
    tells: bool,
    split: Frames,
    split_out: DigestWriter<Vec<u8>>,
    split_size: u64,
    position: u64,
}

/// A file's contents on their way.
struct Contents {
    digester: Digester,
    crc: u64,
}

impl<W: Write> ChunkedArchive<W> {
    fn new(out: W, level: Option<i32>) -> io::Result<ChunkedArchive<W>> {
        let range = zstd::compression_level_range();
        let level = level.unwrap_or(3).clamp(*range.start(), *range.end());
        Ok(ChunkedArchive {
            out: DigestWriter::new(out),
            frames: Frames::new(level)?,
            level,
            plain: Digester::default(),
            uncompressed: 0,
            file: None,
            entries: Vec::new(),
            table: 0,
            tells: true,
            split: Frames::new(level)?,
            split_out: DigestWriter::new(Vec::new()),
            split_size: 0,
            position: 0,
        })
    }

    fn plain(&mut self, bytes: &[u8]) {
        self.plain.update(bytes);
        self.uncompressed += bytes.len() as u64;
    }

    /// Bytes that are not file content: headers, padding, the end.
    fn raw(&mut self, bytes: &mut Vec<u8>) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.plain(bytes);
        self.frames.write(bytes, &mut self.out).map_err(Error::write)?;
        let payload = Some(STANDARD.encode(&*bytes));
        bytes.clear();
        self.line(SEGMENT, None, 0, payload)
    }

    /// Contents of this length follow: says where.
    fn begin(&mut self, size: u64) -> io::Result<u64> {
        if size == 0 {
            return Ok(0);
        }
        self.frames.end(&mut self.out)?;
        self.file = Some(Contents { digester: Digester::default(), crc: !0 });
        Ok(self.out.length)
    }

    fn contents(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        self.plain(bytes);
        if let Some(file) = &mut self.file {
            file.digester.update(bytes);
            file.crc = crc(file.crc, bytes);
        }
        self.frames.write(bytes, &mut self.out)?;
        bytes.clear();
        Ok(())
    }

    fn end(&mut self, header: &Header, offset: u64) -> Result<()> {
        let mut entry = Entry::new(header);
        let mut payload = None;
        if let Some(file) = self.file.take() {
            self.frames.end(&mut self.out).map_err(Error::write)?;
            payload = Some(STANDARD.encode((!file.crc).to_be_bytes()));
            if let Some(entry) = &mut entry {
                entry.digest = Some(file.digester.finish());
                (entry.offset, entry.end) = (offset, self.out.length);
            }
        }
        match entry {
            Some(entry) => {
                self.table += entry.room();
                self.tells &= self.table <= LARGEST_TABLE;
                self.entries.push(entry);
            }
            None => self.tells = false,
        }
        if !self.tells {
            self.entries = Vec::new();
            self.split_out.out = Vec::new();
        }
        let name = std::str::from_utf8(&header.path).unwrap_or_default();
        self.line(FILE, Some(name), header.size, payload)
    }

    fn line(
        &mut self,
        kind: u8,
        name: Option<&str>,
        size: u64,
        payload: Option<String>,
    ) -> Result<()> {
        if !self.tells {
            return Ok(());
        }
        let position = self.position;
        self.position += 1;
        let line = Split { kind, name, size, payload, position };
        let mut bytes = json(&line)?;
        bytes.push(b'\n');
        self.split_size += bytes.len() as u64;
        self.split.write(&bytes, &mut self.split_out).map_err(Error::write)
    }

    fn finish(mut self) -> Result<(W, LayerInfo)> {
        self.frames.end(&mut self.out).map_err(Error::write)?;
        let mut annotations = BTreeMap::new();
        if self.tells {
            self.split.end(&mut self.split_out).map_err(Error::write)?;
            annotations = self.table().map_err(Error::write)?;
        }
        let DigestWriter { out, digester, length } = self.out;
        let mut descriptor = Descriptor::new(MediaType::OCI_LAYER_ZSTD, digester.finish(), length);
        descriptor.annotations = annotations;
        let (diff_id, uncompressed) = (self.plain.finish(), self.uncompressed);
        Ok((out, LayerInfo { descriptor, diff_id, uncompressed }))
    }

    fn table(&mut self) -> io::Result<BTreeMap<String, String>> {
        let split = std::mem::take(&mut self.split_out.out);
        let split_digest = Digest::of(&split);
        let table = Table { version: 1, entries: &self.entries, tar_split_digest: split_digest };
        let table = serde_json::to_vec(&table).map_err(io::Error::other)?;
        let packed = zstd::bulk::compress(&table, self.level)?;
        let offset = self.out.length + FRAME_HEADER;
        self.skippable(&packed)?;
        let split_offset = self.out.length + FRAME_HEADER;
        self.skippable(&split)?;
        let numbers = [
            offset,
            packed.len() as u64,
            table.len() as u64,
            TABLE_TYPE,
            split_offset,
            split.len() as u64,
            self.split_size,
        ];
        let mut footer: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        footer.extend_from_slice(MAGIC);
        self.skippable(&footer)?;
        let position = format!("{offset}:{}:{}:{TABLE_TYPE}", packed.len(), table.len());
        let split_position = format!("{split_offset}:{}:{}", split.len(), self.split_size);
        Ok(BTreeMap::from([
            (CHECKSUM.to_owned(), Digest::of(&packed).to_string()),
            (POSITION.to_owned(), position),
            (SPLIT_POSITION.to_owned(), split_position),
        ]))
    }

    fn skippable(&mut self, content: &[u8]) -> io::Result<()> {
        let length = u32::try_from(content.len()).map_err(io::Error::other)?;
        self.out.put(&SKIPPABLE)?;
        self.out.put(&length.to_le_bytes())?;
        self.out.put(content)
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::write(io::Error::other(error)))
}

impl Entry {
    /// `None` for what a table cannot tell.
    pub(super) fn new(header: &Header) -> Option<Entry> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        if header.sparse.is_some() {
            return None;
        }
        let kind = match header.kind {
            TypeFlag::File => "reg",
            TypeFlag::HardLink => "hardlink",
            TypeFlag::Symlink => "symlink",
            TypeFlag::Char => "char",
            TypeFlag::Block => "block",
            TypeFlag::Directory => "dir",
            TypeFlag::Fifo => "fifo",
        };
        let xattrs = header.xattrs.iter();
        let xattrs = xattrs.map(|(name, value)| Some((text(name)?, STANDARD.encode(value))));
        Some(Entry {
            kind,
            name: text(&header.path)?,
            link: text(&header.link)?,
            mode: header.mode.into(),
            size: header.size,
            uid: header.uid.into(),
            gid: header.gid.into(),
            modtime: time(header.mtime),
            major: header.device.0.into(),
            minor: header.device.1.into(),
            xattrs: xattrs.collect::<Option<_>>()?,
            digest: None,
            offset: 0,
            end: 0,
            chunk: None,
        })
    }

    /// The row of a further piece of a file.
    pub(super) fn of_chunk(name: &str, offset: u64, chunk: EntryChunk) -> Entry {
        Entry {
            kind: "chunk",
            name: name.to_owned(),
            link: String::new(),
            mode: 0,
            size: 0,
            uid: 0,
            gid: 0,
            modtime: None,
            major: 0,
            minor: 0,
            xattrs: BTreeMap::new(),
            digest: None,
            offset,
            end: 0,
            chunk: Some(chunk),
        }
    }

    /// Bytes that the row takes in a table, about.
    pub(super) fn room(&self) -> usize {
        let xattrs = self.xattrs.iter().map(|(key, value)| key.len() + value.len());
        300 + self.name.len() + self.link.len() + xattrs.sum::<usize>()
    }
}

/// RFC 3339 in UTC; `None` for years that it cannot write.
fn time((seconds, nanos): (i64, u32)) -> Option<String> {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // The civil calendar, counted in eras of 400 years from March of the year 0.
    let shifted = days.checked_add(719_468)?;
    let (era, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    if !(0..=9999).contains(&year) {
        return None;
    }
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    let fraction = match nanos {
        0 => String::new(),
        nanos => format!(".{nanos:09}").trim_end_matches('0').to_owned(),
    };
    Some(format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::Writer;

    fn archive(entries: &[(TypeFlag, &str, &[u8])]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        for (kind, path, content) in entries {
            let mut header = Header::new(*kind);
            (header.path, header.mode, header.mtime) = (path.as_bytes().to_vec(), 0o644, (1, 5));
            match kind {
                TypeFlag::File => header.size = content.len() as u64,
                TypeFlag::Symlink => header.link = content.to_vec(),
                _ => {}
            }
            writer.entry(&header).unwrap();
            if *kind == TypeFlag::File {
                writer.contents(content).unwrap();
            }
        }
        writer.finish().unwrap()
    }

    fn position(info: &LayerInfo, key: &str) -> Vec<usize> {
        let text = &info.descriptor.annotations[key];
        text.split(':').map(|number| number.parse().unwrap()).collect()
    }

    #[test]
    fn every_file_is_where_the_table_says_and_the_whole_is_the_archive() {
        let large: Vec<u8> = (0..700_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        let plain = archive(&[
            (TypeFlag::Directory, "d/", b""),
            (TypeFlag::File, "d/large", &large),
            (TypeFlag::File, "d/empty", b""),
            (TypeFlag::Symlink, "link", b"d/large"),
            (TypeFlag::File, "small", b"small"),
        ]);
        let (bytes, info) = write_chunked(&plain[..], Vec::new(), None).unwrap();
        let (again, _) = write_chunked(&plain[..], Vec::new(), None).unwrap();
        assert_eq!(bytes, again);
        assert_eq!(info.diff_id, Digest::of(&plain));
        assert_eq!(info.descriptor.digest, Digest::of(&bytes));
        let mut whole = Vec::new();
        crate::decompress(&bytes[..]).unwrap().read_to_end(&mut whole).unwrap();
        assert_eq!(whole, plain);
        let at = position(&info, POSITION);
        let packed = &bytes[at[0]..at[0] + at[1]];
        assert_eq!(info.descriptor.annotations[CHECKSUM], Digest::of(packed).to_string());
        let table = zstd::decode_all(packed).unwrap();
        assert_eq!(table.len(), at[2]);
        let table: serde_json::Value = serde_json::from_slice(&table).unwrap();
        let entries = table["entries"].as_array().unwrap();
        let names: Vec<_> = entries.iter().map(|entry| entry["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["d/", "d/large", "d/empty", "link", "small"]);
        for (at, content) in [(1, &large[..]), (4, b"small")] {
            let number = |key: &str| usize::try_from(entries[at][key].as_u64().unwrap()).unwrap();
            let frame = &bytes[number("offset")..number("endOffset")];
            assert_eq!(zstd::decode_all(frame).unwrap(), content);
            assert_eq!(entries[at]["digest"], Digest::of(content).to_string());
        }
        assert_eq!(entries[0]["modtime"], "1970-01-01T00:00:01.000000005Z");
        // The archive again from the tar-split and the files.
        let at = position(&info, SPLIT_POSITION);
        let split = zstd::decode_all(&bytes[at[0]..at[0] + at[1]]).unwrap();
        assert_eq!(split.len(), at[2]);
        let mut made = Vec::new();
        let files: BTreeMap<&str, &[u8]> = [("d/large", &large[..]), ("small", b"small")].into();
        for line in split.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let line: serde_json::Value = serde_json::from_slice(line).unwrap();
            match line["type"].as_u64().unwrap() {
                2 => made.extend(STANDARD.decode(line["payload"].as_str().unwrap()).unwrap()),
                _ => made
                    .extend(files.get(line["name"].as_str().unwrap()).copied().unwrap_or_default()),
            }
        }
        assert_eq!(made, plain);
        let footer = &bytes[bytes.len() - 64..];
        assert_eq!(&footer[56..], MAGIC);
    }

    /// Yields the given numbers of bytes in turn.
    struct Pieces<'a>(&'a [u8], std::iter::Cycle<std::slice::Iter<'a, usize>>);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.1.next().map_or(0, |n| *n).min(buffer.len());
            self.0.read(&mut buffer[..length])
        }
    }

    #[test]
    fn chunked_bytes_do_not_depend_on_how_the_archive_is_read() {
        let large: Vec<u8> = (0..700_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        let plain = archive(&[
            (TypeFlag::Directory, "d/", b""),
            (TypeFlag::File, "d/large", &large),
            (TypeFlag::File, "d/less", &large[..200_000]),
            (TypeFlag::File, "small", b"small"),
        ]);
        for level in [1, 3, 9] {
            let (bytes, _) = write_chunked(&plain[..], Vec::new(), Some(level)).unwrap();
            for sizes in [&[512][..], &[65_536], &[1, 100_000, 7], &[131_073, 131_071]] {
                let pieces = Pieces(&plain, sizes.iter().cycle());
                let (other, _) = write_chunked(pieces, Vec::new(), Some(level)).unwrap();
                assert!(bytes == other, "level {level}, read in {sizes:?}");
            }
        }
    }

    #[test]
    fn what_a_table_cannot_tell_is_plain_zstd() {
        let mut writer = Writer::new(Vec::new());
        let mut header = Header::new(TypeFlag::File);
        header.path = b"\xff".to_vec();
        writer.entry(&header).unwrap();
        let plain = writer.finish().unwrap();
        let (bytes, info) = write_chunked(&plain[..], Vec::new(), Some(5)).unwrap();
        assert!(info.descriptor.annotations.is_empty());
        let mut whole = Vec::new();
        crate::decompress(&bytes[..]).unwrap().read_to_end(&mut whole).unwrap();
        assert_eq!(whole, plain);
        assert!(write_chunked(&plain[..600], Vec::new(), None).is_err());
    }

    #[test]
    fn times_and_checksums_are_those_of_go() {
        assert_eq!(time((0, 0)).unwrap(), "1970-01-01T00:00:00Z");
        assert_eq!(time((951_782_400, 500_000_000)).unwrap(), "2000-02-29T00:00:00.5Z");
        assert_eq!(time((-1, 0)).unwrap(), "1969-12-31T23:59:59Z");
        assert_eq!(time((4_102_444_799, 0)).unwrap(), "2099-12-31T23:59:59Z");
        assert_eq!(time((i64::MAX, 0)), None);
        assert_eq!(!crc(!0, b"123456789"), 0xb909_56c7_75a4_1001);
    }
}
