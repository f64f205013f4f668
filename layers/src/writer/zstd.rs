use std::io::{self, Write};

use zstd::stream::raw::{CParameter, Encoder, InBuffer, Operation, OutBuffer};

use super::DigestTee;

/// Bytes that are compressed as one job: part of what decides the compressed bytes.
const JOB: u32 = 4 << 20;
const USUAL: i32 = 3;
const OUTPUT: usize = 256 * 1024;

/// One zstd frame, compressed by the library's own threads, whose number does not show in it.
pub(super) struct Zstd {
    /// The first use reports an error of its creation.
    encoder: io::Result<Encoder<'static>>,
    output: Vec<u8>,
}

impl Zstd {
    pub(super) fn new(level: Option<i32>, threads: usize) -> Self {
        Self::with_jobs(level, threads, JOB)
    }

    fn with_jobs(level: Option<i32>, threads: usize, job: u32) -> Self {
        let range = zstd::compression_level_range();
        let level = level.unwrap_or(USUAL).clamp(*range.start(), *range.end());
        let workers = u32::try_from(threads).unwrap_or(1).clamp(1, 64);
        let make = || {
            let mut encoder = Encoder::new(level)?;
            encoder.set_parameter(CParameter::ChecksumFlag(true))?;
            encoder.set_parameter(CParameter::NbWorkers(workers))?;
            encoder.set_parameter(CParameter::JobSize(job))?;
            Ok(encoder)
        };
        Zstd { encoder: make(), output: Vec::with_capacity(OUTPUT) }
    }

    fn encoder(&mut self) -> io::Result<&mut Encoder<'static>> {
        self.encoder.as_mut().map_err(|error| io::Error::new(error.kind(), error.to_string()))
    }

    pub(super) fn block<W: Write>(
        &mut self,
        block: &[u8],
        out: &mut DigestTee<W>,
    ) -> io::Result<()> {
        let mut input = InBuffer::around(block);
        while input.pos() < block.len() {
            let mut output = std::mem::take(&mut self.output);
            self.encoder()?.run(&mut input, &mut OutBuffer::around(&mut output))?;
            self.pass(output, out)?;
        }
        Ok(())
    }

    pub(super) fn finish<W: Write>(&mut self, out: &mut DigestTee<W>) -> io::Result<()> {
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
    fn pass<W: Write>(&mut self, output: Vec<u8>, out: &mut DigestTee<W>) -> io::Result<()> {
        if output.is_empty() {
            self.output = output;
            return Ok(());
        }
        self.output = Vec::with_capacity(OUTPUT);
        out.put(output)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use proptest::prelude::*;

    use super::*;

    /// The smallest job that the library takes.
    const SMALL: u32 = 512 << 10;

    fn zstd(bytes: &[u8], piece: usize, level: i32, threads: usize) -> Vec<u8> {
        let (digests, _pieces) = sync_channel(bytes.len() / piece * 2 + 64);
        let mut out = DigestTee { out: Vec::new(), digests, length: 0 };
        let mut zstd = Zstd::with_jobs(Some(level), threads, SMALL);
        for block in bytes.chunks(piece) {
            zstd.block(block, &mut out).unwrap();
        }
        zstd.finish(&mut out).unwrap();
        out.out
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 100, failure_persistence: None, ..ProptestConfig::default()
        })]

        #[test]
        fn zstd_bytes_depend_on_content_and_level_alone(
            seed in any::<u32>(),
            length in 0..3 * SMALL as usize,
            piece in 10_000..2 * SMALL as usize,
            level in -1..8,
            threads in 2..6_usize,
        ) {
            let mut state = seed;
            let mut next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                b'a' + (state >> 29) as u8
            };
            let bytes: Vec<u8> = (0..length).map(|_| next()).collect();
            let once = zstd(&bytes, SMALL as usize, level, 1);
            prop_assert!(zstd(&bytes, piece, level, threads) == once);
            prop_assert!(::zstd::decode_all(&once[..]).unwrap() == bytes);
        }
    }
}
