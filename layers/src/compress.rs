use std::fmt;
use std::io::{self, BufReader, Chain, Cursor, Read};

use crate::{Error, Result};

/// Bytes read at once from a compressed stream.
const BUFFER: usize = 128 * 1024;
/// The largest zstd window that is accepted: 128 MiB, as in the zstd program.
const ZSTD_WINDOW_LOG: u32 = 27;
/// The most memory that an xz stream may ask for.
const XZ_MEMORY: u64 = 128 << 20;

/// A compression format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamFormat {
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
}

impl StreamFormat {
    /// The format's name.
    pub fn as_str(self) -> &'static str {
        match self {
            StreamFormat::Gzip => "gzip",
            StreamFormat::Zstd => "zstd",
            StreamFormat::Bzip2 => "bzip2",
            StreamFormat::Xz => "xz",
        }
    }
}

/// Which compression a stream that starts with `head` (6 bytes suffice) has; `None` for none.
pub fn sniff(head: &[u8]) -> Option<StreamFormat> {
    match head {
        [0x1f, 0x8b, ..] => Some(StreamFormat::Gzip),
        // The second is a skippable frame, which chunked layers may start with.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            Some(StreamFormat::Zstd)
        }
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => Some(StreamFormat::Bzip2),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(StreamFormat::Xz),
        _ => None,
    }
}

/// The uncompressed bytes of a stream, whatever its compression; plain streams pass through.
///
/// Checksums are checked, concatenated members and frames are one stream, and anything behind the
/// last one is an error, which like all others of the format carries [`Error::Compressed`].
///
/// # Errors
/// When the start of the stream cannot be read.
pub fn decompress(reader: impl Read) -> Result<impl Read> {
    DecompressReader::new(reader)
}

/// The start that was looked at, then the rest; errors of the source are marked.
type Input<R> = BufReader<Chain<Cursor<Vec<u8>>, TaggedReader<R>>>;

struct DecompressReader<R: Read> {
    format: &'static str,
    decoder: Decoder<R>,
}

enum Decoder<R: Read> {
    Plain(Input<R>),
    Gzip(flate2::bufread::MultiGzDecoder<Input<R>>),
    Zstd(zstd::stream::read::Decoder<'static, Input<R>>),
    Bzip2(bzip2::bufread::MultiBzDecoder<Input<R>>),
    Xz(liblzma::bufread::XzDecoder<Input<R>>),
}

impl<R: Read> DecompressReader<R> {
    fn new(reader: R) -> Result<Self> {
        let mut source = TaggedReader(reader);
        let mut head = Vec::with_capacity(6);
        source.by_ref().take(6).read_to_end(&mut head).map_err(|e| Error::read(unmark(e)))?;
        let format = sniff(&head);
        let input = BufReader::with_capacity(BUFFER, Cursor::new(head).chain(source));
        let broken = |error: io::Error| Error::Compressed { reason: error.to_string() };
        let decoder = match format {
            None => Decoder::Plain(input),
            Some(StreamFormat::Gzip) => Decoder::Gzip(flate2::bufread::MultiGzDecoder::new(input)),
            Some(StreamFormat::Zstd) => {
                let mut decoder =
                    zstd::stream::read::Decoder::with_buffer(input).map_err(broken)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(broken)?;
                Decoder::Zstd(decoder)
            }
            Some(StreamFormat::Bzip2) => Decoder::Bzip2(bzip2::bufread::MultiBzDecoder::new(input)),
            Some(StreamFormat::Xz) => {
                let flags = liblzma::stream::CONCATENATED;
                let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, flags)
                    .map_err(|error| broken(error.into()))?;
                Decoder::Xz(liblzma::bufread::XzDecoder::new_stream(input, stream))
            }
        };
        Ok(DecompressReader { format: format.map_or("plain", StreamFormat::as_str), decoder })
    }
}

impl<R: Read> Read for DecompressReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match &mut self.decoder {
            Decoder::Plain(reader) => reader.read(buffer),
            Decoder::Gzip(reader) => reader.read(buffer),
            Decoder::Zstd(reader) => reader.read(buffer),
            Decoder::Bzip2(reader) => reader.read(buffer),
            Decoder::Xz(reader) => reader.read(buffer),
        };
        read.map_err(|error| match error.downcast::<SourceError>() {
            Ok(SourceError(error)) => error,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => error,
            Err(error) => {
                let reason = format!("the {} stream is broken: {error}", self.format);
                io::Error::new(error.kind(), Error::Compressed { reason })
            }
        })
    }
}

/// Marks the errors of a stream, to tell them from those of its decoder.
struct TaggedReader<R>(R);

#[derive(Debug)]
struct SourceError(io::Error);

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl std::error::Error for SourceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

impl<R: Read> Read for TaggedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => error,
            kind => io::Error::new(kind, SourceError(error)),
        })
    }
}

fn unmark(error: io::Error) -> io::Error {
    match error.downcast::<SourceError>() {
        Ok(SourceError(error)) => error,
        Err(error) => error,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    fn bz2(bytes: &[u8]) -> Vec<u8> {
        let mut out = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    fn xz(bytes: &[u8]) -> Vec<u8> {
        let mut out = liblzma::write::XzEncoder::new(Vec::new(), 0);
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    fn zst(bytes: &[u8]) -> Vec<u8> {
        let mut out = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        out.include_checksum(true).unwrap();
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        decompress(bytes).unwrap().read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn members_and_frames_make_one_stream() {
        let (a, b) = (vec![7u8; 300_000], b"tail".to_vec());
        for (name, compress) in
            [("gzip", gzip as fn(&[u8]) -> Vec<u8>), ("bzip2", bz2), ("xz", xz), ("zstd", zst)]
        {
            let both = [compress(&a), compress(&b)].concat();
            assert!(read(&both).unwrap() == [a.clone(), b.clone()].concat(), "{name}");
        }
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 1, 2][..], &zst(&b)].concat();
        assert_eq!(read(&skippable).unwrap(), b);
        assert_eq!(read(b"").unwrap(), b"");
        assert_eq!(read(b"plain").unwrap(), b"plain");
    }

    #[test]
    fn broken_streams_are_refused() {
        let content: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        for compress in [gzip as fn(&[u8]) -> Vec<u8>, bz2, xz, zst] {
            let whole = compress(&content);
            let name = sniff(&whole).unwrap();
            let mut flipped = whole.clone();
            let last = flipped.len() - 3;
            flipped[last] ^= 0x40;
            let mut garbage = whole.clone();
            garbage.extend_from_slice(b"garbage behind the end");
            let cut = whole[..whole.len() - 1].to_vec();
            let half = whole[..whole.len() / 2].to_vec();
            for (what, bytes) in
                [("flipped", flipped), ("garbage", garbage), ("cut", cut), ("half", half)]
            {
                let error = read(&bytes).expect_err(&format!("{name:?} {what}"));
                let error = Error::read(error);
                assert!(matches!(error, Error::Compressed { .. }), "{name:?} {what}: {error:?}");
            }
        }
    }

    #[test]
    fn large_windows_are_refused() {
        // A frame header that asks for a window of 2 GiB.
        let bytes = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 1, 0, 0];
        let error = Error::read(read(&bytes).expect_err("a window of 2 GiB"));
        assert!(matches!(error, Error::Compressed { .. }), "{error:?}");
    }

    #[test]
    fn errors_of_the_source_are_not_of_the_format() {
        struct Fails;
        impl Read for Fails {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("gone"))
            }
        }
        let whole = gzip(&[1; 1000]);
        let mut out = Vec::new();
        let mut reader = decompress(whole[..20].chain(Fails)).unwrap();
        let error = Error::read(reader.read_to_end(&mut out).unwrap_err());
        assert!(matches!(error, Error::Read { .. }), "{error:?}");
    }
}
