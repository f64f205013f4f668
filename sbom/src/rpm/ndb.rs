use super::{le32, spend};

/// Starts a `Packages.db`.
pub(super) const MAGIC: &[u8] = b"RpmP";

/// Hands over each blob: slots of 16 bytes after a header of 32 say where they are.
pub(super) fn blobs(file: &[u8], budget: &mut usize, take: &mut dyn FnMut(&[u8])) -> Option<()> {
    let slots_end = le32(file, 12)?.checked_mul(4096)?.min(file.len());
    let mut slot = 32usize;
    while slot + 16 <= slots_end {
        let (index, block) = (le32(file, slot + 4)?, le32(file, slot + 8)?);
        if file.get(slot..slot + 4)? == b"Slot" && index != 0 {
            let at = block.checked_mul(16)?;
            let length = le32(file, at.checked_add(12)?)?;
            let start = at.checked_add(16)?;
            if file.get(at..at + 4)? == b"BlbS" && le32(file, at + 4)? == index {
                spend(budget, length)?;
                take(file.get(start..start.checked_add(length)?)?);
            }
        }
        slot += 16;
    }
    Some(())
}
