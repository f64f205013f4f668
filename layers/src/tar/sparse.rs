//! Sparse files, as GNU tar stores them: a map of where the stored bytes belong.

use super::number;

/// Offset and length of each stored piece of a file, in order.
pub(super) type Pieces = Vec<(u64, u64)>;

/// Where the stored bytes of a file belong; everything else is zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sparse {
    /// Length of the file.
    pub(crate) size: u64,
    pub(crate) pieces: Pieces,
}

impl Sparse {
    /// Checks a map: in order, without overlap, within the file, and of `stored` bytes in all.
    pub(super) fn new(size: u64, pieces: Pieces, stored: u64) -> Result<Sparse, &'static str> {
        if i64::try_from(size).is_err() {
            return Err("a sparse file's size is too large");
        }
        let (mut end, mut total) = (0u64, 0u64);
        for (offset, length) in &pieces {
            if *offset < end {
                return Err("a sparse file's map is out of order");
            }
            end = offset.checked_add(*length).ok_or("a sparse file's map overflows")?;
            // Cannot overflow: pieces do not overlap.
            total += length;
        }
        if end > size {
            return Err("a sparse file's map is longer than the file");
        }
        if total != stored {
            return Err("a sparse file's map does not cover what is stored");
        }
        Ok(Sparse { size, pieces })
    }
}

/// The map of formats 0.0 and 0.1: offsets and lengths in turn.
pub(super) fn pairs(numbers: &[u64]) -> Result<Pieces, &'static str> {
    if !numbers.len().is_multiple_of(2) {
        return Err("a sparse file's map has half a piece");
    }
    Ok(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

/// The map of format 0.1: numbers between commas.
pub(super) fn listed(value: &[u8]) -> Result<Pieces, &'static str> {
    let numbers: Option<Vec<u64>> =
        value.split(|byte| *byte == b',').map(number::decimal).collect();
    pairs(&numbers.ok_or("a sparse file's map is not a list of numbers")?)
}

/// Four or twenty-one pieces of an old GNU header; a piece of NULs ends them early.
pub(super) fn old(bytes: &[u8], pieces: &mut Pieces) -> Result<(), &'static str> {
    for piece in bytes.chunks_exact(24) {
        if piece[0] == 0 {
            break;
        }
        let number = |bytes| number::field(bytes).and_then(|value| u64::try_from(value).ok());
        match (number(&piece[..12]), number(&piece[12..])) {
            (Some(offset), Some(length)) => pieces.push((offset, length)),
            _ => return Err("a sparse file's map has a malformed number"),
        }
    }
    Ok(())
}
