//! The record of an archive (`tar-split`): everything of it but the content of its files, which lie
//! unpacked beside it. A line of JSON for each piece.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use crc_fast::{CrcAlgorithm, Digest as Crc};
use serde::Serialize;

use super::assembled::{FILE, SEGMENT, broken};

const BLOCK: usize = 512;
/// The largest extended header that is looked into; the unpacker refuses larger ones.
const EXTENSION: u64 = 1 << 20;
/// Bytes of an archive that one line of the record has at most.
const LINE: usize = 1 << 20;

/// Users and groups.
pub(super) type Owners = (BTreeSet<u64>, BTreeSet<u64>);

/// A stream of an archive that writes the record of what passes.
pub(super) struct Split<R, W> {
    from: R,
    record: SplitRecord<W>,
    state: SplitState,
    next: NextEntry,
    /// The users and groups that own something.
    owners: Owners,
}

/// What an extended header says about the next entry.
#[derive(Default)]
struct NextEntry {
    name: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
}

enum SplitState {
    /// A header, as far as it has come.
    Header(Vec<u8>),
    /// An extended header of a kind, and how much of it with its padding is missing.
    Extension { kind: u8, size: usize, content: Vec<u8>, left: u64 },
    /// The content of a file.
    File { name: Vec<u8>, size: u64, left: u64, crc: Box<Crc> },
    /// Bytes that are kept as they are.
    Kept(u64),
    /// What stands behind the end, which is kept.
    Rest,
}

/// The lines of the record.
struct SplitRecord<W> {
    to: W,
    position: u64,
    segment: Vec<u8>,
}

#[derive(Serialize)]
struct RecordLine<'a> {
    #[serde(rename = "type")]
    kind: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_raw: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    payload: String,
    position: u64,
}

impl<W: Write> SplitRecord<W> {
    fn line(&mut self, line: &RecordLine<'_>) -> io::Result<()> {
        serde_json::to_writer(&mut self.to, line)?;
        self.position += 1;
        self.to.write_all(b"\n")
    }

    fn keep(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.segment.extend_from_slice(bytes);
        if self.segment.len() >= LINE { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.segment.is_empty() {
            return Ok(());
        }
        let payload = BASE64_STANDARD.encode(std::mem::take(&mut self.segment));
        let (kind, position) = (SEGMENT, self.position);
        self.line(&RecordLine { kind, name: None, name_raw: None, size: None, payload, position })
    }

    fn file(&mut self, name: &[u8], size: u64, crc: u64) -> io::Result<()> {
        let (text, name_raw) = match std::str::from_utf8(name) {
            Ok(text) => (Some(text), None),
            Err(_) => (None, Some(BASE64_STANDARD.encode(name))),
        };
        let (payload, position) = (BASE64_STANDARD.encode(crc.to_be_bytes()), self.position);
        let (kind, name, size) = (FILE, text, Some(size));
        self.line(&RecordLine { kind, name, name_raw, size, payload, position })
    }
}

impl<R: Read, W: Write> Split<R, W> {
    /// Reads an uncompressed archive and writes its record.
    pub(super) fn new(from: R, to: W) -> Self {
        let record = SplitRecord { to, position: 0, segment: Vec::new() };
        let state = SplitState::Header(Vec::new());
        Split { from, record, state, next: NextEntry::default(), owners: Owners::default() }
    }

    /// Ends the record; where it went and who owns something.
    pub(super) fn finish(mut self) -> io::Result<(W, Owners)> {
        let whole = match &self.state {
            SplitState::Header(part) => {
                self.record.segment.extend_from_slice(part);
                true
            }
            SplitState::Rest => true,
            _ => false,
        };
        if !whole {
            return Err(broken("the archive ends within an entry"));
        }
        self.record.flush()?;
        Ok((self.record.to, self.owners))
    }

    /// Takes in bytes that pass; how many of them.
    fn step(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let least = |left: u64| usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        match &mut self.state {
            SplitState::Rest => self.record.keep(bytes).map(|()| bytes.len()),
            SplitState::Kept(left) => {
                let n = least(*left);
                self.record.keep(&bytes[..n])?;
                *left -= n as u64;
                if *left == 0 {
                    self.state = SplitState::Header(Vec::new());
                }
                Ok(n)
            }
            SplitState::Header(part) => {
                let n = bytes.len().min(BLOCK - part.len());
                part.extend_from_slice(&bytes[..n]);
                if part.len() == BLOCK {
                    let header = std::mem::take(part);
                    self.record.keep(&header)?;
                    self.state = self.header(&header)?;
                }
                Ok(n)
            }
            SplitState::Extension { kind, size, content, left } => {
                let n = least(*left);
                content.extend_from_slice(&bytes[..n]);
                *left -= n as u64;
                if *left == 0 {
                    self.record.keep(content)?;
                    content.truncate(*size);
                    self.next.learn(*kind, content);
                    self.state = SplitState::Header(Vec::new());
                }
                Ok(n)
            }
            SplitState::File { name, size, left, crc } => {
                let n = least(*left);
                crc.update(&bytes[..n]);
                *left -= n as u64;
                if *left == 0 {
                    self.record.file(name, *size, crc.finalize())?;
                    self.state = kept(padding(*size));
                }
                Ok(n)
            }
        }
    }

    /// What follows a header.
    fn header(&mut self, header: &[u8]) -> io::Result<SplitState> {
        if header.iter().all(|byte| *byte == 0) {
            return Ok(SplitState::Rest);
        }
        let kind = header[156];
        let size = number(&header[124..136]).ok_or_else(|| broken("a size is malformed"))?;
        if matches!(kind, b'x' | b'g' | b'L' | b'K') {
            if size > EXTENSION {
                return Err(broken("an extended header is too large"));
            }
            let left = size + padding(size);
            let (size, content) = (usize::try_from(size).unwrap_or(0), Vec::new());
            return Ok(match left {
                0 => SplitState::Header(Vec::new()),
                _ => SplitState::Extension { kind, size, content, left },
            });
        }
        let next = std::mem::take(&mut self.next);
        self.owners.0.extend(number(&header[108..116]));
        self.owners.1.extend(number(&header[116..124]));
        let (size, name) = (next.size.unwrap_or(size), next.name.unwrap_or_else(|| name(header)));
        if size > i64::MAX.unsigned_abs() {
            return Err(broken("a size is malformed"));
        }
        if !matches!(kind, 0 | b'0' | b'7' | b'S') || name.ends_with(b"/") || size == 0 {
            return Ok(SplitState::Header(Vec::new()));
        }
        // The file is longer than what stands here: the pieces of it are kept.
        if next.sparse || kind == b'S' {
            return match kind {
                b'S' => Err(broken("a sparse file of the old format cannot be kept")),
                _ => Ok(SplitState::Kept(size + padding(size))),
            };
        }
        self.record.flush()?;
        let crc = Box::new(Crc::new(CrcAlgorithm::Crc64GoIso));
        Ok(SplitState::File { name, size, left: size, crc })
    }
}

impl NextEntry {
    fn learn(&mut self, kind: u8, content: &[u8]) {
        match kind {
            b'L' => self.name = content.split(|byte| *byte == 0).next().map(<[u8]>::to_vec),
            b'x' => {
                for (key, value) in records(content) {
                    match key {
                        b"path" => self.name = Some(value.to_vec()),
                        b"size" => self.size = decimal(value),
                        key if key.starts_with(b"GNU.sparse.") => self.sparse = true,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
}

/// The records of an extended header, as far as they are well-formed.
fn records(mut content: &[u8]) -> Vec<(&[u8], &[u8])> {
    let mut records = Vec::new();
    while let Some(space) = content.iter().position(|byte| *byte == b' ') {
        let Some(length) = decimal(&content[..space]).and_then(|n| usize::try_from(n).ok()) else {
            break;
        };
        let Some(record) = content.get(space + 1..length.saturating_sub(1)) else { break };
        if let Some(equals) = record.iter().position(|byte| *byte == b'=') {
            records.push((&record[..equals], &record[equals + 1..]));
        }
        content = content.get(length..).unwrap_or_default();
    }
    records
}

fn decimal(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A number of a header: octal, or binary where the first bit is set.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let rest = field[1..].iter().try_fold(u64::from(field[0] & 0x7f), |sum, byte| {
            sum.checked_mul(256).map(|sum| sum + u64::from(*byte))
        });
        return rest;
    }
    let text = field.split(|byte| *byte == 0).next().unwrap_or_default().trim_ascii();
    match text {
        [] => Some(0),
        text => u64::from_str_radix(std::str::from_utf8(text).ok()?, 8).ok(),
    }
}

/// The name in a header, with the prefix that POSIX has.
fn name(header: &[u8]) -> Vec<u8> {
    let text = |field: &[u8]| field.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
    let name = text(&header[..100]);
    let prefix = match &header[257..263] == b"ustar\0" {
        true => text(&header[345..500]),
        false => Vec::new(),
    };
    match prefix.is_empty() {
        true => name,
        false => [prefix, name].join(&b'/'),
    }
}

fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK as u64) - size
}

fn kept(length: u64) -> SplitState {
    match length {
        0 => SplitState::Header(Vec::new()),
        length => SplitState::Kept(length),
    }
}

impl<R: Read, W: Write> Read for Split<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(buffer)?;
        let mut passed = &buffer[..n];
        while !passed.is_empty() {
            let taken = self.step(passed)?;
            passed = &passed[taken..];
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_and_the_files_make_the_archive_again() {
        let long = format!("{}/file", "d".repeat(180));
        let mut builder = tar::Builder::new(Vec::new());
        let files: [(&str, Vec<u8>); 4] = [
            ("a", b"hello".to_vec()),
            (&long, vec![7; 512]),
            ("empty", Vec::new()),
            ("b", vec![9; 3 << 20]),
        ];
        for (name, content) in &files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_uid(3_000_000);
            builder.append_data(&mut header, name, &content[..]).unwrap();
        }
        let archive = builder.into_inner().unwrap();
        // However the bytes come.
        for step in [1000, 1 << 20] {
            let mut split = Split::new(&archive[..], Vec::new());
            let mut piece = vec![0; step];
            while split.read(&mut piece).unwrap() > 0 {}
            let (record, owners) = split.finish().unwrap();
            assert_eq!(owners.0.into_iter().collect::<Vec<_>>(), [3_000_000]);
            let mut made = Vec::new();
            for line in record.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let line: serde_json::Value = serde_json::from_slice(line).unwrap();
                let payload = BASE64_STANDARD.decode(line["payload"].as_str().unwrap()).unwrap();
                match line["name"].as_str() {
                    None => made.extend(payload),
                    Some(name) => {
                        let (_, content) = files.iter().find(|(known, _)| *known == name).unwrap();
                        assert_eq!(line["size"], content.len());
                        made.extend(content);
                    }
                }
            }
            assert!(made == archive, "{step}");
        }
    }

    #[test]
    fn the_checksum_of_a_file_is_the_one_of_containers_storage() {
        // What buildah recorded of a file with this content.
        let mut crc = Crc::new(CrcAlgorithm::Crc64GoIso);
        crc.update(b"FROM scratch\nCOPY busybox /bin/busybox\n");
        assert_eq!(BASE64_STANDARD.encode(crc.finalize().to_be_bytes()), "tIpXHsRgtZs=");
    }

    #[test]
    fn a_size_that_no_file_has_is_refused() {
        let record = |text: &str| format!("{} {text}\n", text.len() + 4);
        let size = record("size=18446744073709551615");
        for extension in [size.clone(), format!("{size}{}", record("GNU.sparse.major=1"))] {
            let mut builder = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(tar::EntryType::XHeader);
            header.set_size(extension.len() as u64);
            builder.append_data(&mut header, "x", extension.as_bytes()).unwrap();
            let mut header = tar::Header::new_ustar();
            header.set_size(5);
            builder.append_data(&mut header, "a", &b"hello"[..]).unwrap();
            let archive = builder.into_inner().unwrap();
            let mut split = Split::new(&archive[..], Vec::new());
            let error = io::copy(&mut split, &mut io::sink()).unwrap_err();
            assert!(error.to_string().contains("size"), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_archive_comes_to_an_end(
            edits in proptest::collection::vec((0usize..4096, proptest::num::u8::ANY), 0..24),
        ) {
            let mut builder = tar::Builder::new(Vec::new());
            for (name, kind) in [("x", tar::EntryType::XHeader), ("a", tar::EntryType::Regular)] {
                let content = "27 size=9223372036854775807\n22 GNU.sparse.major=1\n".repeat(12);
                let mut header = tar::Header::new_ustar();
                header.set_entry_type(kind);
                header.set_size(content.len() as u64);
                builder.append_data(&mut header, name, content.as_bytes()).unwrap();
            }
            let mut archive = builder.into_inner().unwrap();
            for (at, byte) in edits {
                let at = at % archive.len();
                archive[at] = byte;
            }
            let mut split = Split::new(&archive[..], Vec::new());
            if io::copy(&mut split, &mut io::sink()).is_ok() {
                let _ = split.finish();
            }
        }
    }

    #[test]
    fn an_archive_that_is_cut_has_no_record() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(700);
        builder.append_data(&mut header, "a", &[1; 700][..]).unwrap();
        let archive = builder.into_inner().unwrap();
        let mut split = Split::new(&archive[..900], Vec::new());
        io::copy(&mut split, &mut io::sink()).unwrap();
        assert!(split.finish().is_err());
    }
}
