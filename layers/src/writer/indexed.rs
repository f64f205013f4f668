//! The index of a gzip layer: which files it has, where the content of each lies in the archive, what
//! that content's digests are, and places at which the compressed stream can be entered. With it,
//! one file is read without the rest, as of zstd:chunked and eStargz; the layer keeps its bytes.
//!
//! Format: docs/formats/gzip-index.md.

use std::io::{self, BufRead, BufReader, Read};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::{Algorithm, Descriptor, Digest, DigestReader, Digester};
use serde::Serialize;

use super::chunked::{Entry, EntryChunk};
use crate::inflate::{Checkpoint, Inflate, MOST_PLACES};
use crate::tar::{Header, Reader, ReaderLimits, TypeFlag};
use crate::{Error, Limits, Result};

/// Bytes of a file that have a digest of their own.
const CHUNK: u64 = 1 << 20;
/// Layers whose index would be larger have none (bytes of JSON).
const LARGEST: usize = 60 << 20;
const BUFFER: usize = 256 << 10;
/// Of windows, and of the index.
const LEVEL: i32 = 3;

/// An index that was made, and what was learned of the layer on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GzipIndex {
    /// The index.
    pub bytes: Vec<u8>,
    /// Digest of the uncompressed layer.
    pub diff_id: Digest,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IndexText<'a> {
    version: u32,
    layer: Digest,
    #[serde(rename = "diffID")]
    diff_id: Digest,
    checkpoints: &'a [PlaceRow],
    entries: &'a [Entry],
}

/// A place to enter the stream.
#[derive(Serialize)]
struct PlaceRow {
    packed: u64,
    plain: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bits: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rest: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<String>,
}

/// Reads a gzip layer whole and makes its index. `None` for a layer that a table cannot tell (sparse
/// files, names that are not UTF-8), or that is too large for one. The caller has to know that the
/// bytes are those of `layer`, and compares the digest of the uncompressed layer.
///
/// # Errors
/// When the stream is broken or no archive.
pub fn index_gzip(packed: impl Read, layer: &Descriptor) -> Result<Option<GzipIndex>> {
    let input = Inflate::new(BufReader::with_capacity(BUFFER, packed)).noting(span(layer.size));
    let plain = DigestReader::new(input, Algorithm::Sha256);
    let mut plain = BufReader::with_capacity(BUFFER, plain);
    let Some(entries) = entries(&mut plain)? else { return Ok(None) };
    // What stands behind the archive's end belongs to its bytes.
    io::copy(&mut plain, &mut io::sink()).map_err(broken)?;
    let (mut input, diff_id) = plain.into_inner().finish();
    let places = input.noted();
    if places.len() == MOST_PLACES {
        return Ok(None);
    }
    let places = places.iter().map(PlaceRow::new).collect::<io::Result<Vec<_>>>();
    let places = places.map_err(Error::write)?;
    let (layer, checkpoints, entries) = (layer.digest, &places[..], &entries[..]);
    let text = IndexText { version: 1, layer, diff_id, checkpoints, entries };
    let text = serde_json::to_vec(&text).map_err(|error| Error::write(error.into()))?;
    if text.len() > LARGEST {
        return Ok(None);
    }
    let bytes = zstd::bulk::compress(&text, LEVEL).map_err(Error::write)?;
    Ok(Some(GzipIndex { bytes, diff_id }))
}

/// Bytes of the archive between two places to enter it. A reader of one file fetches the index, some
/// 10 KiB for each place, and about the bytes between two of them: where these are equal, their sum
/// is least. Layers are taken to compress to a third.
fn span(layer: u64) -> u64 {
    layer.saturating_mul(3 * 3 * (10 << 10)).isqrt().clamp(1 << 20, 16 << 20)
}

/// A broken stream, or one whose source failed.
fn broken(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            Error::Compressed { reason: error.to_string() }
        }
        _ => Error::read(error),
    }
}

fn entries(plain: &mut impl BufRead) -> Result<Option<Vec<Entry>>> {
    let Limits { entries, path, xattrs, .. } = Limits::default();
    let mut reader = Reader::new(plain, ReaderLimits { entries, path, xattrs });
    let (mut rows, mut room) = (Vec::new(), 0);
    loop {
        let header = reader.next().map_err(|error| match error {
            Error::Read { source } => broken(source),
            error => error,
        })?;
        let Some(header) = header else { return Ok(Some(rows)) };
        let Some(row) = Entry::new(&header) else { return Ok(None) };
        let first = rows.len();
        rows.push(row);
        contents(&mut reader, &header, &mut rows)?;
        room += rows[first..].iter().map(Entry::room).sum::<usize>();
        if room > LARGEST {
            return Ok(None);
        }
    }
}

/// Digests the content of the file that the last row is of, and tells where it is.
fn contents<R: BufRead>(
    reader: &mut Reader<R>,
    header: &Header,
    rows: &mut Vec<Entry>,
) -> Result<()> {
    if header.kind != TypeFlag::File || header.size == 0 {
        return Ok(());
    }
    let (first, start) = (rows.len() - 1, reader.position());
    let mut at = 0;
    while at < header.size {
        let size = CHUNK.min(header.size - at);
        let digest = digest(reader, size)?;
        let chunk = EntryChunk { chunk_offset: at, chunk_size: size, chunk_digest: digest };
        match &mut rows[first] {
            row if at > 0 => {
                let row = Entry::of_chunk(&row.name, start + at, chunk);
                rows.push(row);
            }
            row if size == header.size => (row.offset, row.digest) = (start, Some(digest)),
            row => (row.offset, row.chunk) = (start, Some(chunk)),
        }
        at += size;
    }
    Ok(())
}

fn digest<R: BufRead>(reader: &mut Reader<R>, size: u64) -> Result<Digest> {
    let (mut digester, mut left) = (Digester::default(), size);
    while left > 0 {
        let piece = reader.fill()?;
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
        digester.update(&piece[..length]);
        reader.consume(length);
        left -= length as u64;
    }
    Ok(digester.finish())
}

impl PlaceRow {
    fn new(place: &Checkpoint) -> io::Result<PlaceRow> {
        let within = place.within.as_ref();
        let window =
            within.map(|within| zstd::bulk::compress(&within.window, LEVEL)).transpose()?;
        Ok(PlaceRow {
            packed: place.packed,
            plain: place.plain,
            bits: within.map(|within| within.bits),
            rest: within.map(|within| within.rest),
            window: window.map(|window| STANDARD.encode(window)),
        })
    }
}
