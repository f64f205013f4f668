use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use flate2::Crc;
use libdeflater::{CompressionLvl, Compressor};

use super::deflate::reopen;
use super::{DigestTee, died};
use crate::blocks::Block;

const USUAL: i32 = 5;
/// No flags, no name, no time, system unknown.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// The last block of a deflate stream, empty.
const END: [u8; 2] = [3, 0];

/// One gzip member whose blocks are compressed by several threads. Each block ends on a byte and
/// refers to nothing before it, so its bytes depend on itself and the level alone.
pub(super) struct Gzip {
    jobs: Option<Sender<Job>>,
    pieces: Receiver<Piece>,
    /// Pieces that came before their turn.
    early: BTreeMap<u64, Piece>,
    submitted: u64,
    passed: u64,
    ahead: u64,
    crc: Crc,
}

struct Job {
    index: u64,
    block: Block,
}

struct Piece {
    index: u64,
    bytes: io::Result<Vec<u8>>,
    crc: Crc,
}

impl Gzip {
    pub(super) fn new(level: Option<i32>, threads: usize) -> Self {
        let level = level.unwrap_or(USUAL).clamp(0, 9);
        let (jobs, queue) = channel();
        let (done, pieces) = channel();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..threads {
            let (queue, done) = (Arc::clone(&queue), done.clone());
            thread::spawn(move || work(level, &queue, &done));
        }
        Gzip {
            jobs: Some(jobs),
            pieces,
            early: BTreeMap::new(),
            submitted: 0,
            passed: 0,
            ahead: threads as u64 + 2,
            crc: Crc::new(),
        }
    }

    pub(super) fn block<W: Write>(
        &mut self,
        block: Block,
        out: &mut DigestTee<W>,
    ) -> io::Result<()> {
        if self.submitted == 0 {
            out.put(HEADER.to_vec())?;
        }
        let job = Job { index: self.submitted, block };
        self.jobs.as_ref().ok_or_else(died)?.send(job).map_err(|_| died())?;
        self.submitted += 1;
        self.pass(self.ahead, out)
    }

    pub(super) fn finish<W: Write>(&mut self, out: &mut DigestTee<W>) -> io::Result<()> {
        if self.submitted == 0 {
            out.put(HEADER.to_vec())?;
        }
        self.pass(0, out)?;
        self.jobs = None;
        let mut end = END.to_vec();
        end.extend_from_slice(&self.crc.sum().to_le_bytes());
        end.extend_from_slice(&self.crc.amount().to_le_bytes());
        out.put(end)
    }

    /// Passes pieces on in their order until no more than `ahead` are under way.
    fn pass<W: Write>(&mut self, ahead: u64, out: &mut DigestTee<W>) -> io::Result<()> {
        loop {
            while let Some(piece) = self.early.remove(&self.passed) {
                self.crc.combine(&piece.crc);
                out.put(piece.bytes?)?;
                self.passed += 1;
            }
            let piece = if self.submitted - self.passed > ahead {
                self.pieces.recv().map_err(|_| died())?
            } else {
                match self.pieces.try_recv() {
                    Ok(piece) => piece,
                    Err(_) => return Ok(()),
                }
            };
            self.early.insert(piece.index, piece);
        }
    }
}

fn work(level: i32, queue: &Mutex<Receiver<Job>>, done: &Sender<Piece>) {
    let mut usual = Compressor::new(CompressionLvl::new(level).unwrap_or_default());
    let mut stored = Compressor::new(CompressionLvl::new(0).unwrap_or_default());
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        let mut crc = Crc::new();
        crc.update(&job.block);
        let compress = if is_noise(&job.block) { &mut stored } else { &mut usual };
        let bytes = deflate(compress, &job.block);
        if done.send(Piece { index: job.index, bytes, crc }).is_err() {
            return;
        }
    }
}

/// Whether deflate could not make a block smaller: its bytes are as evenly spread as random ones.
///
/// Deflate gains by unequal frequencies or by repetition within its window. A block that repeats a
/// window of 32 KiB has counts that are as uneven as those of 32 Ki random bytes: the sum of their
/// squares is 1/128 above the least possible. For 1 MiB of random or compressed bytes it is 1/4096
/// above. Between the two lies the limit. Whole numbers decide alike on every machine.
fn is_noise(block: &[u8]) -> bool {
    /// The part of the least possible sum by which the sum may be larger.
    const LIMIT: u64 = 360;
    if block.len() < super::BLOCK {
        return false;
    }
    let mut counts = [[0_u32; 256]; 4];
    for bytes in block.chunks_exact(4) {
        for (count, byte) in counts.iter_mut().zip(bytes) {
            count[usize::from(*byte)] += 1;
        }
    }
    let count = |byte: usize| counts.iter().map(|count| u64::from(count[byte])).sum::<u64>();
    let squares: u64 = (0..256).map(|byte| count(byte).pow(2)).sum();
    let least = (block.len() as u64).pow(2) / 256;
    squares < least + least / LIMIT
}

/// Compresses one block up to a byte boundary.
fn deflate(compress: &mut Compressor, block: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = vec![0; compress.deflate_compress_bound(block.len())];
    let length = compress.deflate_compress(block, &mut out).map_err(io::Error::other)?;
    out.truncate(length);
    reopen(&mut out)?;
    out.shrink_to_fit();
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::mpsc::sync_channel;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::writer::BLOCK;

    /// xorshift64.
    fn numbers(mut state: u64) -> impl Iterator<Item = u64> {
        std::iter::from_fn(move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            Some(state)
        })
    }

    /// Random bytes, repeated after `period` bytes.
    fn noise(period: usize) -> Vec<u8> {
        let numbers = numbers(0x9e37_79b9_7f4a_7c15).flat_map(u64::to_le_bytes);
        let once: Vec<u8> = numbers.take(period).collect();
        once.into_iter().cycle().take(BLOCK).collect()
    }

    #[test]
    fn only_what_deflate_cannot_make_smaller_is_noise() {
        assert!(is_noise(&noise(BLOCK)));
        assert!(!is_noise(&noise(32 * 1024)), "repeats within the window");
        assert!(!is_noise(&noise(BLOCK)[..BLOCK / 2]), "too short to tell");
        let mut mostly = noise(BLOCK);
        mostly[..BLOCK / 16].fill(b'a');
        assert!(!is_noise(&mostly), "a sixteenth compresses");
    }

    /// One gzip stream of these blocks.
    fn gzip(blocks: &[Block], level: i32, threads: usize) -> Vec<u8> {
        let (digests, _pieces) = sync_channel(blocks.len() + 2);
        let mut out = DigestTee { out: Vec::new(), digests, length: 0 };
        let mut gzip = Gzip::new(Some(level), threads);
        for block in blocks {
            gzip.block(Arc::clone(block), &mut out).unwrap();
        }
        gzip.finish(&mut out).unwrap();
        out.out
    }

    /// Text of few letters, so that a compressor finds again whatever it remembers.
    fn text((seed, length): (u64, usize)) -> Block {
        let words = ["a", "ab", "abb", "ba", "bca", "cab", "c", "\n"];
        let text = numbers(seed).flat_map(|n| words[(n % 8) as usize].bytes());
        Arc::new(text.take(length).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 1000, failure_persistence: None, ..ProptestConfig::default()
        })]

        #[test]
        fn gzip_bytes_depend_on_content_and_level_alone(
            blocks in vec((1..u64::MAX, 0..16 * 1024_usize).prop_map(text), 1..8),
            level in 0..=9,
            threads in 2..6_usize,
        ) {
            let bytes = gzip(&blocks, level, 1);
            prop_assert!(gzip(&blocks, level, threads) == bytes, "{threads} threads");
            let mut decoder = flate2::bufread::GzDecoder::new(&bytes[..]);
            let mut back = Vec::new();
            decoder.read_to_end(&mut back).unwrap();
            let content: Vec<u8> = blocks.iter().flat_map(|block| block.to_vec()).collect();
            prop_assert!(back == content && decoder.into_inner().is_empty(), "one member");
            // What stands between the header and the end is each block's, whatever came before it.
            let tail = END.len() + 8;
            let bodies: Vec<u8> = blocks
                .iter()
                .map(|block| gzip(&[Arc::clone(block)], level, 1))
                .flat_map(|one| one[HEADER.len()..one.len() - tail].to_vec())
                .collect();
            prop_assert!(bytes[HEADER.len()..bytes.len() - tail] == bodies[..]);
        }
    }
}
