//! The archive of a layer, put together again from its record and its files.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use layers::Root;
use rustix::fs::{Mode, OFlags};
use serde::Deserialize;

use super::super::files;
use crate::{Error, Result};

/// The largest record of one piece of an archive.
const RECORD: u64 = 32 << 20;

/// Where a layer's record and its files are.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub(super) record: PathBuf,
    pub(super) files: PathBuf,
}

/// A piece of an archive: bytes of it, or a file whose content comes next.
#[derive(Debug, Deserialize)]
struct Piece {
    #[serde(rename = "type")]
    kind: u8,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    name_raw: Option<String>,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    payload: Option<String>,
}

pub(super) const FILE: u8 = 1;
pub(super) const SEGMENT: u8 = 2;

pub(super) fn broken(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

impl Piece {
    fn segment(&self) -> io::Result<Vec<u8>> {
        let payload = self.payload.as_deref().unwrap_or_default();
        BASE64_STANDARD.decode(payload).map_err(|_| broken("a segment is not base64"))
    }

    fn path(&self) -> io::Result<PathBuf> {
        match (&self.name, &self.name_raw) {
            (_, Some(raw)) => {
                let bytes =
                    BASE64_STANDARD.decode(raw).map_err(|_| broken("a name is not base64"))?;
                Ok(std::ffi::OsString::from_vec(bytes).into())
            }
            (Some(name), None) => Ok(name.into()),
            (None, None) => Err(broken("a file has no name")),
        }
    }
}

/// The pieces of a record.
struct Pieces(Box<dyn BufRead + Send>);

impl Pieces {
    fn open(record: &Path) -> Result<Pieces> {
        let file = files::open(record)?.ok_or_else(|| Error::Malformed {
            place: record.display().to_string(),
            reason: "the record of the layer's archive is missing".to_owned(),
        })?;
        let named = |source: layers::Error| Error::Layer {
            name: record.display().to_string(),
            source: source.into(),
        };
        Ok(Pieces(Box::new(BufReader::new(layers::decompress(file).map_err(named)?))))
    }

    fn next(&mut self) -> io::Result<Option<Piece>> {
        let mut line = Vec::new();
        let read = self.0.by_ref().take(RECORD).read_until(b'\n', &mut line)?;
        if read as u64 == RECORD {
            return Err(broken("a piece of it is too large"));
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            return if read == 0 { Ok(None) } else { self.next() };
        }
        serde_json::from_slice(&line).map(Some).map_err(|error| broken(error.to_string()))
    }
}

/// How large the archive is.
pub(super) fn size(record: &Path) -> Result<u64> {
    let mut pieces = Pieces::open(record)?;
    let failed = Error::file("reading", record);
    let mut count = move || {
        let mut size: u64 = 0;
        while let Some(piece) = pieces.next()? {
            let more = match piece.kind {
                FILE => piece.size.unwrap_or(0),
                SEGMENT => piece.segment()?.len() as u64,
                other => return Err(broken(format!("a piece of kind {other}"))),
            };
            size = size.checked_add(more).ok_or_else(|| broken("it is too large"))?;
        }
        Ok(size)
    };
    count().map_err(failed)
}

/// Reads the archive of a layer as it was: the tar-split data with the contents of the files.
pub(super) struct TarSplitReader {
    pieces: Pieces,
    files: Root,
    segment: io::Cursor<Vec<u8>>,
    file: Option<(io::Take<File>, PathBuf)>,
}

impl TarSplitReader {
    pub(super) fn open(layer: &Layer) -> Result<TarSplitReader> {
        let files = Root::open(&layer.files).map_err(|error| Error::Layer {
            name: layer.files.display().to_string(),
            source: error.into(),
        })?;
        let (pieces, segment) = (Pieces::open(&layer.record)?, io::Cursor::default());
        Ok(TarSplitReader { pieces, files, segment, file: None })
    }
}

impl Read for TarSplitReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let n = self.segment.read(buffer)?;
            if n > 0 {
                return Ok(n);
            }
            if let Some((file, path)) = &mut self.file {
                let n = file.read(buffer)?;
                if n > 0 {
                    return Ok(n);
                }
                if file.limit() > 0 {
                    return Err(broken(format!("{} is shorter than it was", path.display())));
                }
                self.file = None;
            }
            let Some(piece) = self.pieces.next()? else { return Ok(0) };
            match (piece.kind, piece.size.unwrap_or(0)) {
                (SEGMENT, _) => self.segment = io::Cursor::new(piece.segment()?),
                (FILE, 0) => {}
                (FILE, size) => {
                    let path = piece.path()?;
                    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
                    let opened = self.files.open_at(&path, flags, Mode::empty());
                    let file = File::from(opened.map_err(io::Error::other)?);
                    if !file.metadata()?.is_file() {
                        return Err(broken(format!("{} is no longer a file", path.display())));
                    }
                    self.file = Some((file.take(size), path));
                }
                (other, _) => return Err(broken(format!("a piece of kind {other}"))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_record_puts_an_archive_together_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let files = directory.path().join("files");
        fs::create_dir_all(files.join("d")).unwrap();
        fs::write(files.join("d/a"), "hello").unwrap();
        fs::write(directory.path().join("secret"), "secret").unwrap();
        std::os::unix::fs::symlink("../secret", files.join("link")).unwrap();
        let record = directory.path().join("record");
        let layer = Layer { record: record.clone(), files };
        let read = |text: &str| {
            fs::write(&record, text).unwrap();
            let mut all = Vec::new();
            let read =
                TarSplitReader::open(&layer).map_err(io::Error::other)?.read_to_end(&mut all);
            read.map(|_| String::from_utf8(all).unwrap())
        };
        let segment = r#"{"type":2,"payload":"PDw="}"#;
        let end = r#"{"type":2,"payload":"Pj4="}"#;
        let file = |name: &str, size| {
            format!("{segment}\n{{\"type\":1,\"name\":\"{name}\",\"size\":{size}}}\n\n{end}")
        };
        assert_eq!(read(&file("d/a", 5)).unwrap(), "<<hello>>");
        assert_eq!(size(&record).unwrap(), 9);
        assert_eq!(read(&file("d/a", 3)).unwrap(), "<<hel>>");
        for (name, bytes) in [("d/a", 6), ("d", 1), ("link", 6), ("../secret", 6), ("missing", 1)] {
            assert!(read(&file(name, bytes)).is_err(), "{name}");
        }
        for text in ["nonsense", r#"{"type":7}"#, r#"{"type":2,"payload":"!"}"#] {
            assert!(read(text).is_err() && size(&record).is_err(), "{text}");
        }
    }
}
