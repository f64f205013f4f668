//! Frames of zstd, one after another, and what is counted of them.

use std::io::{self, Write};

use image::Digester;
use zstd::stream::raw::{CParameter, Encoder, InBuffer, Operation, OutBuffer};

/// Bytes that are compressed at a time, and a buffer of results.
pub(super) const OUTPUT: usize = 256 * 1024;

/// CRC-64 with the ISO polynomial, as tar-split keeps it.
pub(super) fn crc(mut crc: u64, bytes: &[u8]) -> u64 {
    static TABLE: std::sync::OnceLock<[u64; 256]> = std::sync::OnceLock::new();
    let table = TABLE.get_or_init(|| {
        let mut table = [0; 256];
        for (byte, slot) in (0u64..).zip(table.iter_mut()) {
            let mut value = byte;
            for _ in 0..8 {
                value =
                    if value & 1 == 1 { value >> 1 ^ 0xd800_0000_0000_0000 } else { value >> 1 };
            }
            *slot = value;
        }
        table
    });
    for byte in bytes {
        let index = usize::from(crc.to_le_bytes()[0] ^ byte);
        crc = table[index] ^ crc >> 8;
    }
    crc
}

/// A writer that counts and digests.
pub(super) struct DigestWriter<W> {
    pub(super) out: W,
    pub(super) digester: Digester,
    pub(super) length: u64,
}

impl<W: Write> DigestWriter<W> {
    pub(super) fn new(out: W) -> DigestWriter<W> {
        DigestWriter { out, digester: Digester::default(), length: 0 }
    }

    pub(super) fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.digester.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }
}

/// One zstd frame after another.
pub(super) struct Frames {
    encoder: Encoder<'static>,
    /// Whether the frame has begun.
    open: bool,
    buffer: Vec<u8>,
}

impl Frames {
    pub(super) fn new(level: i32) -> io::Result<Frames> {
        let mut encoder = Encoder::new(level)?;
        encoder.set_parameter(CParameter::ChecksumFlag(true))?;
        Ok(Frames { encoder, open: false, buffer: Vec::with_capacity(OUTPUT) })
    }

    pub(super) fn write<W: Write>(
        &mut self,
        bytes: &[u8],
        out: &mut DigestWriter<W>,
    ) -> io::Result<()> {
        let mut input = InBuffer::around(bytes);
        while input.pos() < bytes.len() {
            self.open = true;
            self.buffer.clear();
            self.encoder.run(&mut input, &mut OutBuffer::around(&mut self.buffer))?;
            out.put(&self.buffer)?;
        }
        Ok(())
    }

    pub(super) fn end<W: Write>(&mut self, out: &mut DigestWriter<W>) -> io::Result<()> {
        if !std::mem::take(&mut self.open) {
            return Ok(());
        }
        loop {
            self.buffer.clear();
            let left = self.encoder.finish(&mut OutBuffer::around(&mut self.buffer), true)?;
            out.put(&self.buffer)?;
            if left == 0 {
                return self.encoder.reinit();
            }
        }
    }
}
