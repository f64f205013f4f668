//! Marks of values: enough to see a change, too little to find out the value.

use image::{Algorithm, Digest, Digester};

/// A few bits of a digest: enough to see a change, too few to recover the value.
pub(super) fn mark(value: &[u8]) -> u16 {
    let digest = Digest::of(value);
    u16::from_le_bytes([digest.as_bytes()[0], digest.as_bytes()[1]])
}

/// A longer mark, of the content of a file.
pub(crate) fn mark32(parts: &[&[u8]]) -> u32 {
    let mut digester = Digester::new(Algorithm::Sha256);
    for part in parts {
        digester.update(&(part.len() as u64).to_le_bytes());
        digester.update(part);
    }
    let digest = digester.finish();
    let bytes = digest.as_bytes();
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}
