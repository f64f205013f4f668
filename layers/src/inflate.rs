//! Gzip streams that can be entered in their middle.
//!
//! Deflate may refer to the 32 KiB of text before. So a place to enter is a border between two
//! blocks, with the bits of the byte that it lies in and the window of text before it; where a
//! member starts, none of that is needed.

use std::io::{self, BufRead, Read};
use std::ops::Range;

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{
    TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY,
};
use miniz_oxide::inflate::core::{BlockBoundaryState, DecompressorOxide, decompress};

/// As far back as deflate refers.
pub(crate) const WINDOW: usize = 32 << 10;
/// Decompressed bytes that are held; a power of two, larger than the window.
const RING: usize = 256 << 10;

/// No more places are noted: their windows are held in memory.
pub(crate) const MOST_PLACES: usize = 4096;

/// A place where a gzip stream can be entered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// Bytes of the stream before it.
    pub(crate) packed: u64,
    /// Decompressed bytes before it.
    pub(crate) plain: u64,
    /// `None` where a member starts.
    pub(crate) within: Option<WithinMember>,
}

/// What must be known to enter a member at one of its blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WithinMember {
    /// Bits of the byte before that belong to the next block, fewer than 8.
    pub(crate) bits: u8,
    /// Those bits.
    pub(crate) rest: u8,
    /// The decompressed bytes before it, as many as may be referred to.
    pub(crate) window: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Before the header of a member, or the end.
    Member,
    Blocks,
    /// The checksum and length behind the blocks.
    Trailer,
}

/// The decompressed bytes of a gzip stream of one or more members. Checksums are not looked at: who
/// enters a stream in its middle cannot check them, and who reads it whole knows its digest.
pub(crate) struct Inflate<R> {
    input: R,
    phase: Phase,
    state: Box<DecompressorOxide>,
    ring: Vec<u8>,
    /// What is decompressed and not yet taken.
    ready: Range<usize>,
    /// Bytes that were taken and made since this began.
    packed: u64,
    plain: u64,
    /// Decompressed bytes of this member.
    of_member: u64,
    /// Decompressed bytes between two places that are noted; none are where it is `None`.
    every: Option<u64>,
    noted: Vec<Checkpoint>,
}

impl<R: BufRead> Inflate<R> {
    /// From the start of a stream.
    pub(crate) fn new(input: R) -> Inflate<R> {
        Inflate {
            input,
            phase: Phase::Member,
            state: Box::default(),
            ring: vec![0; RING],
            ready: 0..0,
            packed: 0,
            plain: 0,
            of_member: 0,
            every: None,
            noted: Vec::new(),
        }
    }

    /// Notes places to enter, at least this many decompressed bytes apart.
    pub(crate) fn noting(self, every: u64) -> Inflate<R> {
        let start = Checkpoint { packed: 0, plain: 0, within: None };
        Inflate { every: Some(every), noted: vec![start], ..self }
    }

    /// From a place; `input` starts with the byte behind it.
    pub(crate) fn enter(input: R, at: &Checkpoint) -> Inflate<R> {
        let mut inflate = Inflate::new(input);
        let Some(within) = &at.within else { return inflate };
        let bits = within.bits.min(7);
        let boundary = BlockBoundaryState {
            num_bits: bits,
            bit_buf: within.rest & ((1 << bits) - 1),
            ..BlockBoundaryState::default()
        };
        *inflate.state = DecompressorOxide::from_block_boundary_state(&boundary);
        let window = &within.window[within.window.len().saturating_sub(WINDOW)..];
        inflate.ring[..window.len()].copy_from_slice(window);
        inflate.ready = window.len()..window.len();
        inflate.of_member = window.len() as u64;
        inflate.phase = Phase::Blocks;
        inflate
    }

    /// The places noted so far.
    pub(crate) fn noted(&mut self) -> Vec<Checkpoint> {
        std::mem::take(&mut self.noted)
    }

    /// Decompresses some more; `false` at the end of the stream.
    fn more(&mut self) -> io::Result<bool> {
        loop {
            match self.phase {
                Phase::Member => {
                    if self.input.fill_buf()?.is_empty() {
                        return Ok(false);
                    }
                    self.note(|_| None);
                    self.member()?;
                }
                Phase::Trailer => {
                    self.skip(8)?;
                    self.phase = Phase::Member;
                }
                Phase::Blocks => {
                    if self.blocks()? {
                        return Ok(true);
                    }
                }
            }
        }
    }

    /// Decompresses within a member; whether that gave anything.
    fn blocks(&mut self) -> io::Result<bool> {
        let from = self.ready.end % RING;
        let input = self.input.fill_buf()?;
        if input.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut flags = TINFL_FLAG_HAS_MORE_INPUT;
        if self.every.is_some() {
            flags |= TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY;
        }
        let (status, taken, made) = decompress(&mut self.state, input, &mut self.ring, from, flags);
        self.input.consume(taken);
        self.packed += taken as u64;
        self.plain += made as u64;
        self.of_member += made as u64;
        self.ready = from..from + made;
        match status {
            TINFLStatus::BlockBoundary => self.note(Self::boundary),
            TINFLStatus::Done => self.phase = Phase::Trailer,
            TINFLStatus::NeedsMoreInput | TINFLStatus::HasMoreOutput if taken + made > 0 => {}
            _ => return Err(broken("its blocks are malformed")),
        }
        Ok(made > 0)
    }

    /// Notes this place if the last one is far enough away.
    fn note(&mut self, within: impl FnOnce(&Self) -> Option<WithinMember>) {
        let last = self.noted.last().map_or(0, |last| last.plain);
        let room = self.noted.len() < MOST_PLACES;
        if room && self.every.is_some_and(|every| self.plain - last >= every) {
            let within = within(self);
            self.noted.push(Checkpoint { packed: self.packed, plain: self.plain, within });
        }
    }

    /// What must be known to go on from here, between two blocks.
    fn boundary(&self) -> Option<WithinMember> {
        let state = self.state.block_boundary_state()?;
        let length = usize::try_from(self.of_member).unwrap_or(WINDOW).min(WINDOW);
        let end = self.ready.end;
        let mut window = Vec::with_capacity(length);
        if let Some(wrapped) = length.checked_sub(end) {
            window.extend_from_slice(&self.ring[RING - wrapped..]);
        }
        window.extend_from_slice(&self.ring[end.saturating_sub(length)..end]);
        Some(WithinMember { bits: state.num_bits, rest: state.bit_buf, window })
    }

    /// Reads the header of a member (RFC 1952, section 2.3).
    fn member(&mut self) -> io::Result<()> {
        let mut head = [0; 10];
        self.input.read_exact(&mut head)?;
        self.packed += 10;
        let [0x1f, 0x8b, 8, flags, ..] = head else { return Err(broken("a member has no header")) };
        if flags & 0xe0 != 0 {
            return Err(broken("the header of a member has unknown flags"));
        }
        if flags & 4 != 0 {
            let mut length = [0; 2];
            self.input.read_exact(&mut length)?;
            self.packed += 2;
            self.skip(u16::from_le_bytes(length).into())?;
        }
        // A name and a comment.
        for flag in [8, 16] {
            if flags & flag != 0 {
                self.skip_text()?;
            }
        }
        if flags & 2 != 0 {
            self.skip(2)?;
        }
        self.state.init();
        self.of_member = 0;
        self.phase = Phase::Blocks;
        Ok(())
    }

    fn skip(&mut self, length: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.input.by_ref().take(length), &mut io::sink())?;
        self.packed += skipped;
        if skipped == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Skips what ends with a zero.
    fn skip_text(&mut self) -> io::Result<()> {
        loop {
            let input = self.input.fill_buf()?;
            if input.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let end = input.iter().position(|byte| *byte == 0);
            let length = end.map_or(input.len(), |end| end + 1);
            self.input.consume(length);
            self.packed += length as u64;
            if end.is_some() {
                return Ok(());
            }
        }
    }
}

impl<R: BufRead> Read for Inflate<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ready.is_empty() && !buffer.is_empty() && !self.more()? {
            return Ok(0);
        }
        let length = self.ready.len().min(buffer.len());
        let start = self.ready.start;
        buffer[..length].copy_from_slice(&self.ring[start..start + length]);
        self.ready.start += length;
        Ok(length)
    }
}

fn broken(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the gzip stream is broken: {reason}"))
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Write};

    use super::*;

    /// Text that compresses somewhat, other for each seed.
    fn text(length: usize, mut seed: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(length + 8);
        while out.len() < length {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let (word, noise) = (seed >> 40 & 0x3f, seed >> 33 & 7);
            out.extend_from_slice(format!("{word:x}").repeat(1 + noise as usize).as_bytes());
            if noise == 3 {
                out.extend_from_slice(&seed.to_le_bytes());
            }
        }
        out.truncate(length);
        out
    }

    fn gzip(bytes: &[u8], level: u32) -> Vec<u8> {
        let builder = flate2::GzBuilder::new().filename("name").comment("text").extra(*b"abc");
        let mut out = builder.write(Vec::new(), flate2::Compression::new(level));
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    fn noted(packed: &[u8], buffer: usize, every: u64) -> (Vec<u8>, Vec<Checkpoint>) {
        let mut inflate = Inflate::new(BufReader::with_capacity(buffer, packed)).noting(every);
        let mut plain = Vec::new();
        inflate.read_to_end(&mut plain).unwrap();
        assert_eq!(inflate.packed, packed.len() as u64);
        (plain, inflate.noted())
    }

    #[test]
    fn a_place_that_says_it_is_at_the_end_of_all_numbers_is_entered() {
        let packed = gzip(b"text", 6);
        let at = Checkpoint { packed: u64::MAX, plain: u64::MAX, within: None };
        let mut plain = Vec::new();
        Inflate::enter(&packed[..], &at).read_to_end(&mut plain).unwrap();
        assert_eq!(plain, b"text");
    }

    #[test]
    fn a_stream_goes_on_the_same_from_every_place_that_was_noted() {
        for level in [0, 1, 6, 9] {
            let all = [text(700_000, 1), text(0, 2), text(40_000, 3), text(900_000, 4)];
            let packed: Vec<u8> = all.iter().flat_map(|part| gzip(part, level)).collect();
            let whole = all.concat();
            let (plain, places) = noted(&packed, 4096, 50_000);
            assert!(plain == whole, "{level}");
            assert!(places.len() > 2, "{level}: {}", places.len());
            assert!(places.windows(2).all(|two| two[1].plain - two[0].plain >= 50_000));
            for place in &places {
                let rest = BufReader::with_capacity(777, &packed[place.packed as usize..]);
                let mut plain = Vec::new();
                Inflate::enter(rest, place).read_to_end(&mut plain).unwrap();
                assert!(plain == whole[place.plain as usize..], "{level}: {}", place.plain);
            }
        }
    }

    #[test]
    fn places_do_not_depend_on_how_the_bytes_arrive() {
        let packed = [gzip(&text(150_000, 5), 6), gzip(&text(90_000, 6), 1)].concat();
        let expected = noted(&packed, 1 << 20, 1);
        for buffer in [1, 2, 3, 64, 5000] {
            assert!(noted(&packed, buffer, 1) == expected, "{buffer}");
        }
    }

    #[test]
    fn broken_streams_are_errors() {
        let whole = gzip(&text(20_000, 7), 6);
        let read = |bytes: &[u8]| io::copy(&mut Inflate::new(bytes).noting(1), &mut io::sink());
        assert!(read(&whole).is_ok());
        for cut in [1, 5, 9, 12, 40, 1000, whole.len() - 1] {
            assert!(read(&whole[..cut]).is_err(), "{cut}");
        }
        assert!(read(&[&whole[..], b"garbage that is no member"].concat()).is_err());
        // Whatever else is wrong must not panic.
        for at in (0..whole.len()).step_by(29) {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x41;
            let _ = read(&flipped);
        }
    }
}
