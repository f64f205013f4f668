//! Deflate streams (RFC 1951) that can be joined. libdeflate writes whole streams only; here the
//! last block of one is found and reopened, so that another stream may follow in the same member.

use std::io;

/// An empty stored block behind its three header bits: it ends on a byte.
const EMPTY_STORED: [u8; 4] = [0, 0, 0xff, 0xff];
/// In which order the lengths of the code for lengths stand (RFC 1951, 3.2.7).
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// Makes a whole deflate stream one that another may follow: its last block is no longer marked as
/// the last, and it ends on a byte.
///
/// # Errors
/// When `bytes` is not exactly one deflate stream.
pub(super) fn reopen(bytes: &mut Vec<u8>) -> io::Result<()> {
    let broken = || io::Error::other("finding the last block of a deflate stream: it is malformed");
    let (start, end) = last_block(bytes).ok_or_else(broken)?;
    if end.div_ceil(8) != bytes.len() {
        return Err(broken());
    }
    bytes[start / 8] &= !(1 << (start % 8));
    // The three bits of a header that is not the last one's, all zero, as are those that fill up.
    if !(1..=5).contains(&(end % 8)) {
        bytes.push(0);
    }
    bytes.extend_from_slice(&EMPTY_STORED);
    Ok(())
}

/// The bits at which the last block starts and behind which it ends.
fn last_block(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut bits = Bits { bytes, next: 0, buffer: 0, have: 0 };
    loop {
        let start = bits.position();
        let last = bits.take(1)? == 1;
        match bits.take(2)? {
            0 => skip_stored(&mut bits)?,
            1 => fixed()?.skip(&mut bits)?,
            2 => dynamic(&mut bits)?.skip(&mut bits)?,
            _ => return None,
        }
        if last {
            return Some((start, bits.position()));
        }
    }
}

fn skip_stored(bits: &mut Bits<'_>) -> Option<()> {
    let fields = bits.position().div_ceil(8);
    let length = bits.bytes.get(fields..fields + 2)?;
    let length = usize::from(u16::from_le_bytes([length[0], length[1]]));
    let end = fields + 4 + length;
    (end <= bits.bytes.len()).then(|| *bits = Bits { next: end, buffer: 0, have: 0, ..*bits })
}

fn fixed() -> Option<Codes> {
    let mut lengths = [8; 288];
    lengths[144..256].fill(9);
    lengths[256..280].fill(7);
    Codes::new(&lengths, &[5; 30])
}

fn dynamic(bits: &mut Bits<'_>) -> Option<Codes> {
    let symbols = bits.take(5)? + 257;
    let distances = bits.take(5)? + 1;
    let mut pre = [0; 19];
    for at in ORDER.iter().take(bits.take(4)? + 4) {
        pre[*at] = u8::try_from(bits.take(3)?).ok()?;
    }
    let pre = Code::new(&pre, |symbol| Some((0, u16::try_from(symbol).ok()?)))?;
    let mut lengths: Vec<u8> = Vec::with_capacity(symbols + distances);
    while lengths.len() < symbols + distances {
        bits.refill();
        let (value, times) = match pre.next(bits)? {
            16 => (*lengths.last()?, bits.take(2)? + 3),
            17 => (0, bits.take(3)? + 3),
            18 => (0, bits.take(7)? + 11),
            length => (u8::try_from(length).ok()?, 1),
        };
        lengths.extend(std::iter::repeat_n(value, times));
    }
    let (symbols, distances) = lengths.split_at_checked(symbols)?;
    Codes::new(symbols, distances)
}

/// The two codes of a block.
struct Codes {
    symbols: Code,
    distances: Code,
}

const LITERAL: u16 = 0;
const MATCH: u16 = 1;
const END: u16 = 2;

impl Codes {
    fn new(symbols: &[u8], distances: &[u8]) -> Option<Codes> {
        let symbols = Code::new(symbols, |symbol| match symbol {
            0..256 => Some((0, LITERAL)),
            256 => Some((0, END)),
            257..265 | 285 => Some((0, MATCH)),
            265..285 => Some(((symbol - 261) / 4, MATCH)),
            _ => None,
        })?;
        let distances = Code::new(distances, |symbol| match symbol {
            0..4 => Some((0, MATCH)),
            4..30 => Some((symbol / 2 - 1, MATCH)),
            _ => None,
        })?;
        Some(Codes { symbols, distances })
    }

    /// Reads up to the end of the block.
    fn skip(&self, bits: &mut Bits<'_>) -> Option<()> {
        loop {
            // A symbol takes at most 20 bits with its extra ones, a distance 28.
            bits.refill();
            match self.symbols.next(bits)? {
                LITERAL => {}
                MATCH => {
                    self.distances.next(bits)?;
                }
                _ => return Some(()),
            }
        }
    }
}

/// A prefix code as a table of what each next `width` bits mean: how many bits the symbol takes with
/// its extra ones in the low five bits, above them its meaning. 0 is a code that is not used.
struct Code {
    table: Vec<u16>,
    mask: u64,
}

impl Code {
    /// The canonical code of these lengths (RFC 1951, 3.2.2). `meaning` gives a symbol's number of
    /// extra bits and what [`Code::next`] returns for it.
    fn new(lengths: &[u8], meaning: impl Fn(usize) -> Option<(usize, u16)>) -> Option<Code> {
        let width = u32::from(*lengths.iter().max()?);
        if width > 15 {
            return None;
        }
        let mut counts = [0_u32; 16];
        lengths.iter().filter(|length| **length > 0).for_each(|n| counts[usize::from(*n)] += 1);
        let mut next = [0_u32; 16];
        for length in 1..16 {
            next[length] = (next[length - 1] + counts[length - 1]) << 1;
        }
        let mut table = vec![0; 1 << width];
        for (symbol, length) in lengths.iter().enumerate().filter(|(_, length)| **length > 0) {
            let code = &mut next[usize::from(*length)];
            let first = code.reverse_bits() >> (32 - u32::from(*length));
            *code += 1;
            if let Some((extra, meaning)) = meaning(symbol) {
                let taken = u16::from(*length) + u16::try_from(extra).ok()?;
                let entries = table.get_mut(first as usize..)?.iter_mut();
                entries.step_by(1 << length).for_each(|entry| *entry = meaning << 5 | taken);
            }
        }
        Some(Code { table, mask: (1 << width) - 1 })
    }

    /// What the next symbol means; it and its extra bits are taken. The bits must be in the buffer.
    fn next(&self, bits: &mut Bits<'_>) -> Option<u16> {
        let entry = self.table[(bits.buffer & self.mask) as usize];
        let taken = u32::from(entry & 31);
        if taken == 0 || taken > bits.have {
            return None;
        }
        bits.drop(taken);
        Some(entry >> 5)
    }
}

/// Bits of bytes, the lowest first.
struct Bits<'a> {
    bytes: &'a [u8],
    next: usize,
    buffer: u64,
    have: u32,
}

impl Bits<'_> {
    fn position(&self) -> usize {
        self.next * 8 - self.have as usize
    }

    /// Gets at least 56 bits into the buffer, or all that are left.
    fn refill(&mut self) {
        if let Some(eight) = self.bytes.get(self.next..self.next + 8) {
            let mut word = [0; 8];
            word.copy_from_slice(eight);
            self.buffer |= u64::from_le_bytes(word) << self.have;
            let whole = (63 - self.have) / 8;
            self.next += whole as usize;
            self.have += whole * 8;
            return;
        }
        while self.have < 56 && self.next < self.bytes.len() {
            self.buffer |= u64::from(self.bytes[self.next]) << self.have;
            self.next += 1;
            self.have += 8;
        }
    }

    fn drop(&mut self, n: u32) {
        self.buffer >>= n;
        self.have -= n;
    }

    /// The next bits, at most 16, as a number.
    fn take(&mut self, n: u32) -> Option<usize> {
        if self.have < n {
            self.refill();
        }
        let value = (self.buffer & ((1 << n) - 1)) as usize;
        (self.have >= n).then(|| self.drop(n))?;
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn deflate(bytes: &[u8], level: u32) -> Vec<u8> {
        let mut out = Vec::new();
        let level = flate2::Compression::new(level);
        flate2::read::DeflateEncoder::new(bytes, level).read_to_end(&mut out).unwrap();
        out
    }

    #[test]
    fn streams_of_stored_fixed_and_dynamic_blocks_are_joined() {
        let text: Vec<u8> =
            (0..200_000_u32).flat_map(|n| (n / 3).to_string().into_bytes()).collect();
        // Level 0 stores; few bytes get the fixed code; many a code of their own. The lengths end on
        // every bit.
        for (level, length) in
            (0..200).map(|n| (n % 10, n as usize)).chain([(0, 70_000), (6, 900_000)])
        {
            let content = &text[..length];
            let mut stream = deflate(content, level);
            reopen(&mut stream).unwrap();
            stream.extend_from_slice(&deflate(b"behind", 6));
            let mut back = Vec::new();
            flate2::read::DeflateDecoder::new(&stream[..]).read_to_end(&mut back).unwrap();
            assert!(back == [content, b"behind"].concat(), "{length} bytes, level {level}");
        }
    }

    #[test]
    fn what_is_no_deflate_stream_is_refused() {
        let whole = deflate(b"some text, some text, some other text", 9);
        let longer = [&whole[..], b"x"].concat();
        for bytes in [&whole[..whole.len() - 1], &longer, &[], &[7], &[5, 0xff, 0xff, 0xff]] {
            assert!(reopen(&mut bytes.to_vec()).is_err(), "{bytes:?}");
        }
        for seed in 0..5_000_u32 {
            let mut bytes = deflate(&seed.to_le_bytes().repeat(50), seed % 10);
            let at = seed as usize * 7 % bytes.len();
            bytes[at] ^= 1 << (seed % 8);
            // Whatever comes of it, nothing panics.
            let _ = reopen(&mut bytes);
        }
    }
}
