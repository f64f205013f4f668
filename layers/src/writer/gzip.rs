use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use flate2::{Compress, Compression, Crc, FlushCompress};

use super::{Counted, died};
use crate::blocks::Block;

const USUAL: i32 = 6;
/// What one block may refer to in the block before it.
const WINDOW: usize = 32 * 1024;
/// No flags, no name, no time, system unknown.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// The last block of a deflate stream, empty.
const END: [u8; 2] = [3, 0];

/// One gzip member whose blocks are compressed by several threads. Each block ends on a byte and
/// starts from the last bytes of the one before it.
pub(super) struct Gzip {
    jobs: Option<Sender<Job>>,
    pieces: Receiver<Piece>,
    /// Pieces that came before their turn.
    early: BTreeMap<u64, Piece>,
    submitted: u64,
    passed: u64,
    ahead: u64,
    last: Option<Block>,
    crc: Crc,
}

struct Job {
    index: u64,
    block: Block,
    before: Option<Block>,
}

struct Piece {
    index: u64,
    bytes: io::Result<Vec<u8>>,
    crc: Crc,
}

impl Gzip {
    pub(super) fn new(level: Option<i32>, threads: usize) -> Self {
        let level = u32::try_from(level.unwrap_or(USUAL)).unwrap_or(0).min(9);
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
            last: None,
            crc: Crc::new(),
        }
    }

    pub(super) fn block<W: Write>(&mut self, block: Block, out: &mut Counted<W>) -> io::Result<()> {
        if self.submitted == 0 {
            out.put(HEADER.to_vec())?;
        }
        let before = self.last.replace(Arc::clone(&block));
        let job = Job { index: self.submitted, block, before };
        self.jobs.as_ref().ok_or_else(died)?.send(job).map_err(|_| died())?;
        self.submitted += 1;
        self.pass(self.ahead, out)
    }

    pub(super) fn finish<W: Write>(&mut self, out: &mut Counted<W>) -> io::Result<()> {
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
    fn pass<W: Write>(&mut self, ahead: u64, out: &mut Counted<W>) -> io::Result<()> {
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

fn work(level: u32, queue: &Mutex<Receiver<Job>>, done: &Sender<Piece>) {
    let mut usual = Compress::new(Compression::new(level), false);
    let mut stored = Compress::new(Compression::none(), false);
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        let mut crc = Crc::new();
        crc.update(&job.block);
        let before = job.before.as_deref().map(Vec::as_slice).unwrap_or_default();
        let compress = if is_noise(&job.block) { &mut stored } else { &mut usual };
        let bytes = deflate(compress, &before[before.len().saturating_sub(WINDOW)..], &job.block);
        if done.send(Piece { index: job.index, bytes, crc }).is_err() {
            return;
        }
    }
}

/// Whether deflate could not make a block smaller: its bytes are as evenly spread as random ones.
///
/// Deflate gains by unequal frequencies or by repetition within its window. A block that repeats
/// what is in a window of 32 KiB has at most the entropy of 32 Ki random bytes, 7.994 bits each;
/// 1 MiB of random or compressed bytes has 7.9998. Between the two lies the limit.
fn is_noise(block: &[u8]) -> bool {
    const LIMIT: f64 = 7.998;
    if block.len() < super::BLOCK {
        return false;
    }
    let mut counts = [[0_u32; 256]; 4];
    for bytes in block.chunks_exact(4) {
        for (count, byte) in counts.iter_mut().zip(bytes) {
            count[usize::from(*byte)] += 1;
        }
    }
    let length = block.len() as f64;
    let entropy: f64 = (0..256)
        .map(|byte| f64::from(counts.iter().map(|count| count[byte]).sum::<u32>()))
        .filter(|count| *count > 0.0)
        .map(|count| -(count / length) * (count / length).log2())
        .sum();
    entropy > LIMIT
}

/// Compresses one block as if it came after `before`, up to a byte boundary.
fn deflate(compress: &mut Compress, before: &[u8], block: &[u8]) -> io::Result<Vec<u8>> {
    compress.reset();
    if !before.is_empty() {
        compress.set_dictionary(before).map_err(io::Error::other)?;
    }
    let mut out = Vec::with_capacity(block.len() / 2 + 1024);
    loop {
        let taken = usize::try_from(compress.total_in()).unwrap_or(usize::MAX);
        if taken == block.len() && out.len() < out.capacity() && !out.is_empty() {
            return Ok(out);
        }
        if out.len() == out.capacity() {
            out.reserve(block.len() / 2 + 1024);
        }
        compress.compress_vec(&block[taken..], &mut out, FlushCompress::Sync)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::writer::BLOCK;

    /// xorshift64, repeated after `period` bytes.
    fn bytes(period: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        let once: Vec<u8> = std::iter::from_fn(|| Some(next())).flatten().take(period).collect();
        once.into_iter().cycle().take(BLOCK).collect()
    }

    #[test]
    fn only_what_deflate_cannot_make_smaller_is_noise() {
        assert!(is_noise(&bytes(BLOCK)));
        assert!(!is_noise(&bytes(WINDOW)), "repeats within the window");
        assert!(!is_noise(&bytes(BLOCK)[..BLOCK / 2]), "too short to tell");
        let mut mostly = bytes(BLOCK);
        mostly[..BLOCK / 16].fill(b'a');
        assert!(!is_noise(&mostly), "a sixteenth compresses");
    }
}
