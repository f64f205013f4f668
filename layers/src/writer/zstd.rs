use std::io::{self, Write};

use zstd::stream::raw::{CParameter, Encoder, InBuffer, Operation, OutBuffer};

use super::Counted;

/// Bytes that are compressed as one job: part of what decides the compressed bytes.
const JOB: u32 = 4 << 20;
const USUAL: i32 = 3;
const OUTPUT: usize = 256 * 1024;

/// One zstd frame, compressed by the library's own threads, whose number does not show in it.
pub(super) struct Zstd {
    /// The error of making it is told by the first use.
    encoder: io::Result<Encoder<'static>>,
    output: Vec<u8>,
}

impl Zstd {
    pub(super) fn new(level: Option<i32>, threads: usize) -> Self {
        let range = zstd::compression_level_range();
        let level = level.unwrap_or(USUAL).clamp(*range.start(), *range.end());
        let workers = u32::try_from(threads).unwrap_or(1).clamp(1, 64);
        let make = || {
            let mut encoder = Encoder::new(level)?;
            encoder.set_parameter(CParameter::ChecksumFlag(true))?;
            encoder.set_parameter(CParameter::NbWorkers(workers))?;
            encoder.set_parameter(CParameter::JobSize(JOB))?;
            Ok(encoder)
        };
        Zstd { encoder: make(), output: Vec::with_capacity(OUTPUT) }
    }

    fn encoder(&mut self) -> io::Result<&mut Encoder<'static>> {
        self.encoder.as_mut().map_err(|error| io::Error::new(error.kind(), error.to_string()))
    }

    pub(super) fn block<W: Write>(&mut self, block: &[u8], out: &mut Counted<W>) -> io::Result<()> {
        let mut input = InBuffer::around(block);
        while input.pos() < block.len() {
            let mut output = std::mem::take(&mut self.output);
            self.encoder()?.run(&mut input, &mut OutBuffer::around(&mut output))?;
            self.pass(output, out)?;
        }
        Ok(())
    }

    pub(super) fn finish<W: Write>(&mut self, out: &mut Counted<W>) -> io::Result<()> {
        loop {
            let mut output = std::mem::take(&mut self.output);
            let left = self.encoder()?.finish(&mut OutBuffer::around(&mut output), true)?;
            self.pass(output, out)?;
            if left == 0 {
                return Ok(());
            }
        }
    }

    /// Passes on what came out, and keeps the buffer if nothing did.
    fn pass<W: Write>(&mut self, output: Vec<u8>, out: &mut Counted<W>) -> io::Result<()> {
        if output.is_empty() {
            self.output = output;
            return Ok(());
        }
        self.output = Vec::with_capacity(OUTPUT);
        out.put(output)
    }
}
