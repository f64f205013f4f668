//! Blocks of bytes handed from one thread to others.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use image::{Digest, Digester};

/// Bytes in one block.
pub(crate) const BLOCK: usize = 256 * 1024;
/// Blocks on their way between two threads.
const QUEUE: usize = 8;

/// A block that several threads read.
pub(crate) type Block = Arc<Vec<u8>>;

/// A queue of blocks of bounded length.
pub(crate) fn queue() -> (SyncSender<Block>, Receiver<Block>) {
    sync_channel(QUEUE)
}

/// Digests all blocks of a queue.
pub(crate) fn digest(blocks: &Receiver<Block>) -> Digest {
    let mut digester = Digester::default();
    for block in blocks {
        digester.update(&block);
    }
    digester.finish()
}

/// Reads a block full, or as much as there is.
pub(crate) fn fill(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut block = Vec::with_capacity(BLOCK);
    // Read::take restarts interrupted reads in read_to_end.
    reader.by_ref().take(BLOCK as u64).read_to_end(&mut block)?;
    Ok(block)
}

/// A stream from a queue of blocks. It ends with the queue; only the sender knows whether that was
/// the end of its input.
#[derive(Debug)]
pub(crate) struct Stream {
    blocks: Receiver<Block>,
    current: Block,
    position: usize,
}

impl Stream {
    pub(crate) fn new(blocks: Receiver<Block>) -> Self {
        Stream { blocks, current: Block::default(), position: 0 }
    }

    /// Takes everything that is left, so that the sender gets to its end.
    pub(crate) fn drain(&mut self) {
        while self.blocks.recv().is_ok() {}
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let length = bytes.len().min(buffer.len());
        buffer[..length].copy_from_slice(&bytes[..length]);
        self.consume(length);
        Ok(length)
    }
}

impl BufRead for Stream {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.position == self.current.len() {
            match self.blocks.recv() {
                Ok(block) => (self.current, self.position) = (block, 0),
                Err(_) => return Ok(&[]),
            }
        }
        Ok(&self.current[self.position..])
    }

    fn consume(&mut self, n: usize) {
        self.position += n;
    }
}
