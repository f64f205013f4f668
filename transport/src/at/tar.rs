//! Tar files that hold images: found by name, written at any place in any order.
//!
//! Layers have the `layers` crate; here only names, places and lengths of whole files matter.
//! What the files hold is checked by digest, so this reader need not be as strict as that one,
//! but like that one it bounds everything and never seeks outside the file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::files::NewFile;
use crate::{Error, Result};

const BLOCK: u64 = 512;
/// Files in one archive.
const MAX_ENTRIES: usize = 200_000;
/// Bytes of one long name or extended header.
const MAX_EXTENSION: u64 = 64 << 10;
/// Bytes from which a size no longer fits into its field.
const MAX_OCTAL: u64 = 1 << 33;

/// The files of an archive by name.
#[derive(Debug)]
pub(crate) struct TarIndex {
    file: Arc<File>,
    path: PathBuf,
    entries: BTreeMap<String, TarEntry>,
}

#[derive(Debug, Clone)]
enum TarEntry {
    File(u64, u64),
    Link(String),
}

impl TarIndex {
    /// Reads the headers of an archive and skips its contents.
    pub(crate) fn open(file: File, path: &Path) -> Result<TarIndex> {
        let length = file.metadata().map_err(Error::file("reading", path))?.len();
        let mut scan =
            Scan { file: &file, path, length, offset: 0, name: None, link: None, size: None };
        let mut entries = BTreeMap::new();
        while let Some((name, entry)) = scan.next()? {
            if entries.len() == MAX_ENTRIES {
                return Err(scan.refuse(format!("it has more than {MAX_ENTRIES} files")));
            }
            entries.insert(name, entry);
        }
        Ok(TarIndex { file: Arc::new(file), path: path.to_owned(), entries })
    }

    /// Where a file's content is: offset and length. Follows links a few steps.
    pub(crate) fn find(&self, name: &str) -> Option<(u64, u64)> {
        let mut name = clean(name)?;
        for _ in 0..8 {
            match self.entries.get(&name)? {
                TarEntry::File(offset, size) => return Some((*offset, *size)),
                TarEntry::Link(target) => name = target.clone(),
            }
        }
        None
    }

    pub(crate) fn reader(&self, offset: u64, size: u64) -> Section {
        Section { file: Arc::clone(&self.file), offset, left: size }
    }

    /// The content of a small file, if it is there.
    pub(crate) fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some((offset, size)) = self.find(name) else { return Ok(None) };
        if size > limit {
            let reason = format!("{name:?} has {size} bytes, more than the {limit} allowed");
            return Err(Error::Malformed { place: self.path.display().to_string(), reason });
        }
        let mut content = Vec::new();
        let read = self.reader(offset, size).read_to_end(&mut content);
        read.map_err(Error::file("reading", &self.path))?;
        Ok(Some(content))
    }
}

/// A part of a file.
#[derive(Debug)]
pub(crate) struct Section {
    file: Arc<File>,
    offset: u64,
    left: u64,
}

impl Section {
    /// The whole file from its start, independently of other readers.
    pub(crate) fn whole(file: &Arc<File>) -> Section {
        Section { file: Arc::clone(file), offset: 0, left: u64::MAX }
    }
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let n = self.file.read_at(&mut buffer[..most], self.offset)?;
        self.offset += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}

struct Scan<'a> {
    file: &'a File,
    path: &'a Path,
    length: u64,
    offset: u64,
    name: Option<String>,
    link: Option<String>,
    size: Option<u64>,
}

impl Scan<'_> {
    fn refuse(&self, reason: impl Into<String>) -> Error {
        Error::Malformed { place: self.path.display().to_string(), reason: reason.into() }
    }

    fn read(&self, offset: u64, length: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        self.file
            .read_exact_at(&mut bytes, offset)
            .map_err(|_| self.refuse("it ends in the middle of a file"))?;
        Ok(bytes)
    }

    /// The next file or link with a usable name.
    fn next(&mut self) -> Result<Option<(String, TarEntry)>> {
        while self.offset + BLOCK <= self.length {
            let header = self.read(self.offset, BLOCK)?;
            if header.iter().all(|byte| *byte == 0) {
                return Ok(None);
            }
            self.check(&header)?;
            let kind = header[156];
            let stored =
                number(&header[124..136]).ok_or_else(|| self.refuse("a size is not a number"))?;
            let size = match kind {
                b'0' | 0 | b'7' => self.size.take().unwrap_or(stored),
                b'1'..=b'6' => 0,
                _ => stored,
            };
            let content = self.offset + BLOCK;
            let end = content.checked_add(size).filter(|end| *end <= self.length);
            let end = end.ok_or_else(|| self.refuse("it ends in the middle of a file"))?;
            self.offset = end.div_ceil(BLOCK) * BLOCK;
            match kind {
                b'L' | b'K' | b'x' | b'g' => self.extension(kind, content, size)?,
                b'S' => return Err(self.refuse("it has a sparse file")),
                _ => {
                    if let Some(entry) = self.entry(&header, kind, content, size) {
                        return Ok(Some(entry));
                    }
                }
            }
        }
        Ok(None)
    }

    fn check(&self, header: &[u8]) -> Result<()> {
        let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
        let field: u64 = header[148..156].iter().map(|byte| u64::from(*byte)).sum();
        let sum = sum - field + 8 * u64::from(b' ');
        if number(&header[148..156]) == Some(sum) {
            return Ok(());
        }
        Err(self.refuse(format!("there is no tar header at byte {}", self.offset)))
    }

    fn extension(&mut self, kind: u8, content: u64, size: u64) -> Result<()> {
        if size > MAX_EXTENSION {
            return Err(self.refuse("it has an extended header of more than 64 KiB"));
        }
        let bytes = self.read(content, size)?;
        match kind {
            b'L' => self.name = Some(text(&bytes)),
            b'K' => self.link = Some(text(&bytes)),
            b'x' => {
                let records =
                    pax(&bytes).ok_or_else(|| self.refuse("an extended header is broken"))?;
                for (key, value) in records {
                    match key {
                        b"path" => self.name = Some(text(value)),
                        b"linkpath" => self.link = Some(text(value)),
                        b"size" => {
                            let size = std::str::from_utf8(value).ok().and_then(|v| v.parse().ok());
                            let size = size.ok_or_else(|| self.refuse("a size is not a number"))?;
                            self.size = Some(size);
                        }
                        key if key.starts_with(b"GNU.sparse.") => {
                            return Err(self.refuse("it has a sparse file"));
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn entry(&mut self, header: &[u8], kind: u8, at: u64, size: u64) -> Option<(String, TarEntry)> {
        let (long_name, long_link) = (self.name.take(), self.link.take());
        self.size = None;
        let name = long_name.unwrap_or_else(|| {
            let name = text(&header[..100]);
            let prefix = text(&header[345..500]);
            let posix = header[257..262] == *b"ustar" && header[262] == 0;
            if posix && !prefix.is_empty() { format!("{prefix}/{name}") } else { name }
        });
        let name = clean(&name)?;
        let link = || long_link.unwrap_or_else(|| text(&header[157..257]));
        let entry = match kind {
            b'0' | 0 | b'7' => TarEntry::File(at, size),
            b'1' => TarEntry::Link(clean(&link())?),
            b'2' => {
                let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
                TarEntry::Link(clean(&format!("{parent}/{}", link()))?)
            }
            _ => return None,
        };
        Some((name, entry))
    }
}

/// A name relative to the archive, without `.` and `..`; `None` where it leads out of it.
fn clean(name: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

fn text(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

/// An octal number, or a large one in base 256 (GNU).
fn number(field: &[u8]) -> Option<u64> {
    if field[0] == 0x80 {
        let (high, low) = field[1..].split_at(field.len() - 9);
        let low = u64::from_be_bytes(low.try_into().ok()?);
        return high.iter().all(|byte| *byte == 0).then_some(low);
    }
    let digits = text(field);
    let digits = digits.trim_matches(' ');
    if digits.is_empty() { Some(0) } else { u64::from_str_radix(digits, 8).ok() }
}

/// The `length key=value\n` records of an extended header.
fn pax(mut bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
        let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
        let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        records.push((&record[..equals], &record[equals + 1..]));
        bytes = &bytes[length..];
    }
    Some(records)
}

/// An archive being written under a temporary name. Files get their place when they are announced
/// and are filled in any order, several at a time; the name appears when all of them are whole.
#[derive(Debug)]
pub(crate) struct TarWriter {
    new: NewFile,
    state: Mutex<TarState>,
}

#[derive(Debug, Default)]
struct TarState {
    end: u64,
    places: BTreeMap<String, Reservation>,
}

#[derive(Debug, Clone, Copy)]
struct Reservation {
    offset: u64,
    size: u64,
    whole: bool,
}

impl TarWriter {
    /// Starts an archive that will appear at `path`.
    pub(crate) fn create(path: &Path) -> Result<TarWriter> {
        Ok(TarWriter { new: NewFile::create(path)?, state: Mutex::default() })
    }

    pub(crate) fn path(&self) -> &Path {
        self.new.path()
    }

    fn write(&self, bytes: &[u8], at: u64) -> Result<()> {
        let written = self.new.file().write_all_at(bytes, at);
        written.map_err(Error::file("writing", self.path()))
    }

    /// Finds room for a file, or the room it was given before.
    pub(crate) fn reserve(&self, name: &str, size: u64) -> Result<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = state.places.get(name).filter(|place| place.size == size) {
            return Ok(place.offset);
        }
        let header = header(name, size);
        let offset = state.end + header.len() as u64;
        self.write(&header, state.end)?;
        state.places.insert(name.to_owned(), Reservation { offset, size, whole: false });
        state.end = (offset + size).div_ceil(BLOCK) * BLOCK;
        Ok(offset)
    }

    /// Fills a file's room from a reader that gives exactly `size` bytes or fails.
    pub(crate) fn fill(&self, name: &str, size: u64, mut content: impl Read) -> Result<()> {
        let offset = self.reserve(name, size)?;
        let mut written = 0;
        let mut buffer = vec![0; 256 << 10];
        loop {
            let n = match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::Stream(error)),
            };
            if written + n as u64 > size {
                return Err(Error::Stream(io::ErrorKind::InvalidData.into()));
            }
            self.write(&buffer[..n], offset + written)?;
            written += n as u64;
        }
        if written != size {
            return Err(Error::Stream(io::ErrorKind::UnexpectedEof.into()));
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = state.places.get_mut(name) {
            place.whole = true;
        }
        Ok(())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.places.get(name).is_some_and(|place| place.whole)
    }

    /// Whether everything that was announced is there.
    pub(crate) fn first_gap(&self) -> Option<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.places.iter().find(|(_, place)| !place.whole).map(|(name, _)| name.clone())
    }

    /// Ends the archive, brings it to the disk and gives it its name.
    pub(crate) fn finish(&self) -> Result<()> {
        self.end()?;
        self.new.appear()
    }

    /// Ends the archive, which never gets its name.
    pub(crate) fn finish_unnamed(&self) -> Result<File> {
        self.end()?;
        self.new.file().try_clone().map_err(Error::file("reading", self.path()))
    }

    fn end(&self) -> Result<()> {
        let end = self.state.lock().unwrap_or_else(PoisonError::into_inner).end + 2 * BLOCK;
        // Also extends the file, so that the end marks and all padding read as zero.
        self.new.file().set_len(end).map_err(Error::file("writing", self.path()))
    }
}

/// The header of a plain file of ours: mode 0644, no owner, no time.
fn header(name: &str, size: u64) -> Vec<u8> {
    let mut records = Vec::new();
    if name.len() > 100 {
        records.extend(record("path", name));
    }
    if size >= MAX_OCTAL {
        records.extend(record("size", &size.to_string()));
    }
    let mut bytes = Vec::new();
    if !records.is_empty() {
        bytes.extend(block(b'x', "pax", records.len() as u64));
        bytes.extend(&records);
        bytes.resize(bytes.len().div_ceil(512) * 512, 0);
    }
    bytes.extend(block(b'0', name, size));
    bytes
}

fn record(key: &str, value: &str) -> Vec<u8> {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len();
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    format!("{length}{rest}").into_bytes()
}

fn block(kind: u8, name: &str, size: u64) -> [u8; 512] {
    let mut header = [0; 512];
    let short = name.len().min(100);
    header[..short].copy_from_slice(&name.as_bytes()[..short]);
    let mut put =
        |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(100, "0000644");
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{:011o}", if size >= MAX_OCTAL { 0 } else { size }));
    put(136, "00000000000");
    put(148, "        ");
    put(257, "ustar");
    put(263, "00");
    header[156] = kind;
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_in_any_order_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.tar");
        let writer = TarWriter::create(&path).unwrap();
        let long = format!("blobs/sha512/{}", "a".repeat(128));
        writer.reserve("first", 700).unwrap();
        writer.reserve(&long, 3).unwrap();
        assert!(writer.fill("first", 700, &[1; 699][..]).is_err());
        assert!(writer.fill("first", 700, &[1; 701][..]).is_err());
        writer.fill(&long, 3, &b"abc"[..]).unwrap();
        assert_eq!(writer.first_gap().as_deref(), Some("first"));
        writer.fill("first", 700, &[2; 700][..]).unwrap();
        writer.fill("empty", 0, &b""[..]).unwrap();
        assert!(!path.exists());
        writer.finish().unwrap();
        let index = TarIndex::open(File::open(&path).unwrap(), &path).unwrap();
        assert_eq!(index.read("./first", 1000).unwrap().unwrap(), [2; 700]);
        assert_eq!(index.read(&long, 3).unwrap().unwrap(), b"abc");
        assert_eq!(index.read("empty", 3).unwrap().unwrap(), b"");
        assert!(index.read("first", 699).is_err());
        assert!(index.read("other", 1).unwrap().is_none());
        // The other reader at hand agrees.
        let mut other = tar::Archive::new(File::open(&path).unwrap());
        let names: Vec<_> = other
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["first", &long, "empty"]);
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(left.len(), 1);
    }

    #[test]
    fn an_archive_that_was_not_finished_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let writer = TarWriter::create(&dir.path().join("x.tar")).unwrap();
        writer.fill("first", 3, &b"abc"[..]).unwrap();
        drop(writer);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn links_are_followed_inside_the_archive_only() {
        let mut tar = tar::Builder::new(Vec::new());
        let mut add = |kind, name: &str, link: &str, content: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            if link.is_empty() {
                tar.append_data(&mut header, name, content).unwrap();
            } else {
                tar.append_link(&mut header, name, link).unwrap();
            }
        };
        use tar::EntryType as E;
        add(E::Regular, "a/layer.tar", "", b"content");
        add(E::Symlink, "b/layer.tar", "../a/layer.tar", b"");
        add(E::Link, "c/layer.tar", "b/layer.tar", b"");
        add(E::Symlink, "out", "../../etc/passwd", b"");
        add(E::Symlink, "loop", "loop", b"");
        let long = format!("d/{}", "x".repeat(150));
        add(E::Regular, &long, "", b"long");
        let bytes = tar.into_inner().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.tar");
        std::fs::write(&path, &bytes).unwrap();
        let open = || TarIndex::open(File::open(&path).unwrap(), &path);
        let index = open().unwrap();
        for name in ["a/layer.tar", "b/layer.tar", "c/layer.tar", "x/../a/layer.tar"] {
            assert_eq!(index.read(name, 100).unwrap().as_deref(), Some(&b"content"[..]), "{name}");
        }
        assert_eq!(index.read(&long, 100).unwrap().as_deref(), Some(&b"long"[..]));
        for name in ["out", "loop", "../a/layer.tar", "", "/"] {
            assert!(index.find(name).is_none(), "{name}");
        }
        for cut in [1, 511, 513, 515] {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            assert_eq!(open().is_err(), cut > 512, "{cut}");
        }
        let mut broken = bytes;
        broken[0] ^= 1;
        std::fs::write(&path, &broken).unwrap();
        assert!(open().is_err());
    }
}
