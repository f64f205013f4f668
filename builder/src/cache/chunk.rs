//! Cutting a stream where its content says so: a change in the middle moves no later cut, so that
//! all other pieces stay what they were.

use std::io::{self, Write};

/// No piece but the last is smaller than this, at scale 0; each scale doubles the sizes.
const LEAST: usize = 64 << 10;
/// No piece is larger than this, at scale 0.
pub(super) const MOST: usize = 1 << 20;
/// A cut falls on average once in this many bytes behind the least, at scale 0.
const AVERAGE: u64 = 256 << 10;
/// The largest scale: a piece stays below what is read as one document.
pub(super) const SCALES: u32 = 2;

/// Takes a stream and hands on its pieces.
pub(super) struct Chunker<F> {
    piece: Vec<u8>,
    hash: u64,
    table: [u64; 256],
    scale: u32,
    take: F,
}

impl<F: FnMut(&[u8]) -> io::Result<()>> Chunker<F> {
    /// Pieces go to `take`, in their order.
    pub(super) fn new(scale: u32, take: F) -> Chunker<F> {
        Chunker { piece: Vec::with_capacity(MOST), hash: 0, table: table(), scale, take }
    }

    /// The end of the stream: the rest is the last chunk.
    pub(super) fn finish(mut self) -> io::Result<()> {
        if self.piece.is_empty() { Ok(()) } else { (self.take)(&self.piece) }
    }
}

impl<F: FnMut(&[u8]) -> io::Result<()>> Write for Chunker<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (least, most) = (LEAST << self.scale, MOST << self.scale);
        let bits = AVERAGE.trailing_zeros() + self.scale;
        for (at, byte) in bytes.iter().enumerate() {
            self.piece.push(*byte);
            if self.piece.len() < least {
                continue;
            }
            // The last 64 bytes decide: every shift drops one of them.
            self.hash = (self.hash << 1).wrapping_add(self.table[usize::from(*byte)]);
            let cut = self.hash >> (64 - bits) == 0;
            if cut || self.piece.len() == most {
                (self.take)(&self.piece)?;
                self.piece.clear();
                self.hash = 0;
                return Ok(at + 1);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A number without pattern for each byte; part of where cuts fall, so never to be changed.
fn table() -> [u64; 256] {
    let mut seed: u64 = 0x005e_ed0f_5eed;
    std::array::from_fn(|_| {
        // Splitmix64.
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = seed;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn pieces(bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        let mut chunker = Chunker::new(0, |piece: &[u8]| {
            found.push(piece.to_vec());
            Ok(())
        });
        // However the stream arrives.
        for part in bytes.chunks(10_007) {
            chunker.write_all(part).unwrap();
        }
        chunker.finish().unwrap();
        found
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut seed = 88_172_645_463_325_252u64;
        let words = (0..length.div_ceil(8)).map(|_| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        });
        words.flat_map(u64::to_le_bytes).take(length).collect()
    }

    #[test]
    fn pieces_are_the_stream_and_of_bounded_size() {
        for bytes in [Vec::new(), noise(10), noise(LEAST), vec![0; 5 * MOST + 1], noise(20 << 20)] {
            let pieces = pieces(&bytes);
            assert!(pieces.concat() == bytes, "{}", bytes.len());
            assert!(pieces.iter().all(|piece| piece.len() <= MOST));
            assert!(pieces.iter().rev().skip(1).all(|piece| piece.len() >= LEAST));
        }
        let count = pieces(&noise(32 << 20)).len();
        assert!((60..=200).contains(&count), "{count} pieces of about 320 KiB");
    }

    #[test]
    fn a_change_costs_the_pieces_around_it() {
        let before = noise(24 << 20);
        let known: BTreeSet<Vec<u8>> = pieces(&before).into_iter().collect();
        let mut longer = before.clone();
        longer.splice(9_000_000..9_000_000, *b"something new");
        let mut shorter = before.clone();
        shorter.drain(100..5_000);
        let mut other = before.clone();
        other[20_000_000] ^= 1;
        for after in [longer, shorter, other] {
            let new = pieces(&after).into_iter().filter(|piece| !known.contains(piece));
            let new: usize = new.map(|piece| piece.len()).sum();
            assert!(new <= 3 * MOST, "{new} bytes are new");
        }
    }
}
