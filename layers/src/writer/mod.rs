mod chunked;
mod deflate;
mod frames;
mod gzip;
mod indexed;
mod zstd;

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use image::{Descriptor, Digest, Digester, Encoding, MediaType};
use serde::{Deserialize, Serialize};

pub use self::chunked::write_chunked;
use self::gzip::Gzip;
pub use self::indexed::{GzipIndex, index_gzip};
use self::zstd::Zstd;
use crate::blocks::Block;
use crate::{Error, Result};

/// Bytes of a tar stream that are digested and compressed together. Part of what decides the
/// compressed bytes.
const BLOCK: usize = 1 << 20;
/// Pieces on their way to the digests.
const QUEUE: usize = 8;

/// How to compress a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compression {
    /// The format.
    pub encoding: Encoding,
    /// The format's own scale; `None` for the usual one (5 for gzip, 3 for zstd). What is out of
    /// the scale is taken as its end.
    pub level: Option<i32>,
}

/// What a written layer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerInfo {
    /// Of the compressed stream; the media type is one of `OCI_LAYER*`.
    pub descriptor: Descriptor,
    /// Digest of the uncompressed stream.
    pub diff_id: Digest,
    /// Length of the uncompressed stream in bytes.
    pub uncompressed: u64,
}

/// Takes the bytes of a tar stream, compresses them on several threads, digests both sides on
/// another one and passes the result on, on the caller's thread. The bytes do not depend on the
/// number of threads nor on the sizes of the writes. At most a few MiB per thread are held.
pub struct LayerWriter<W> {
    out: DigestTee<W>,
    encoder: Encoder,
    encoding: Encoding,
    block: Vec<u8>,
    digests: SyncSender<Piece>,
    digested: JoinHandle<(Digest, Digest)>,
    uncompressed: u64,
}

/// Bytes for one of the two digests.
enum Piece {
    Plain(Block),
    Packed(Block),
}

enum Encoder {
    Plain,
    Gzip(Gzip),
    Zstd(Zstd),
}

/// Where compressed bytes go: to the caller's writer and to their digest.
struct DigestTee<W> {
    out: W,
    digests: SyncSender<Piece>,
    length: u64,
}

impl<W: Write> DigestTee<W> {
    fn put(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        self.out.write_all(&bytes)?;
        self.length += bytes.len() as u64;
        self.digests.send(Piece::Packed(Arc::new(bytes))).map_err(|_| died())
    }
}

/// A thread of ours is gone, which only happens when it panics.
fn died() -> io::Error {
    io::Error::other("a thread that compresses died")
}

impl<W: Write + Send> LayerWriter<W> {
    /// A layer that is written to `out`, compressed on `threads` threads (at least one).
    pub fn new(out: W, c: Compression, threads: usize) -> Self {
        let (digests, pieces) = sync_channel(QUEUE);
        let digested = thread::spawn(move || {
            let (mut plain, mut packed) = (Digester::default(), Digester::default());
            for piece in pieces {
                match piece {
                    Piece::Plain(bytes) => plain.update(&bytes),
                    Piece::Packed(bytes) => packed.update(&bytes),
                }
            }
            (plain.finish(), packed.finish())
        });
        let threads = threads.max(1);
        let encoder = match c.encoding {
            Encoding::Plain => Encoder::Plain,
            Encoding::Gzip => Encoder::Gzip(Gzip::new(c.level, threads)),
            Encoding::Zstd => Encoder::Zstd(Zstd::new(c.level, threads)),
        };
        LayerWriter {
            out: DigestTee { out, digests: digests.clone(), length: 0 },
            encoder,
            encoding: c.encoding,
            block: Vec::with_capacity(BLOCK),
            digests,
            digested,
            uncompressed: 0,
        }
    }

    /// Ends the stream and says what it is. Every byte is in `out` then; it was not flushed.
    ///
    /// # Errors
    /// When `out` failed.
    pub fn finish(mut self) -> Result<(W, LayerInfo)> {
        if !self.block.is_empty() {
            self.submit().map_err(Error::write)?;
        }
        match &mut self.encoder {
            Encoder::Plain => {}
            Encoder::Gzip(gzip) => gzip.finish(&mut self.out).map_err(Error::write)?,
            Encoder::Zstd(zstd) => zstd.finish(&mut self.out).map_err(Error::write)?,
        }
        let DigestTee { out, digests, length } = self.out;
        drop((digests, self.digests));
        let (diff_id, packed) = self.digested.join().map_err(|_| Error::write(died()))?;
        let (digest, size) = match self.encoding {
            Encoding::Plain => (diff_id, self.uncompressed),
            _ => (packed, length),
        };
        let media_type = MediaType::layer(self.encoding, false);
        let descriptor = Descriptor::new(media_type, digest, size);
        Ok((out, LayerInfo { descriptor, diff_id, uncompressed: self.uncompressed }))
    }

    fn submit(&mut self) -> io::Result<()> {
        let block = Arc::new(std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK)));
        self.uncompressed += block.len() as u64;
        self.digests.send(Piece::Plain(Arc::clone(&block))).map_err(|_| died())?;
        match &mut self.encoder {
            // One digest serves both sides.
            Encoder::Plain => self.out.out.write_all(&block),
            Encoder::Gzip(gzip) => gzip.block(block, &mut self.out),
            Encoder::Zstd(zstd) => zstd.block(&block, &mut self.out),
        }
    }
}

impl<W: Write + Send> Write for LayerWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..length]);
        if self.block.len() == BLOCK {
            self.submit()?;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        // Where a block ends decides the bytes, so nothing is passed on early.
        Ok(())
    }
}

impl<W> fmt::Debug for LayerWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("LayerWriter");
        debug.field("encoding", &self.encoding).finish_non_exhaustive()
    }
}
