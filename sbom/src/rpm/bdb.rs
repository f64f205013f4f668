//! A Berkeley DB hash file, as far as RPM uses it: every header is too large for its page and lies
//! in a chain of overflow pages.

use super::{be16, be32, le16, le32, spend};

const MAGIC: usize = 0x0006_1561;
/// Before what is on a page.
const PAGE_HEADER: usize = 26;
const HASH_UNSORTED: u8 = 2;
const OVERFLOW: u8 = 7;
const HASH: u8 = 13;
/// The kind of an item that lies elsewhere.
const OFF_PAGE: u8 = 3;

pub(super) fn blobs(file: &[u8], budget: &mut usize, take: &mut dyn FnMut(&[u8])) -> Option<()> {
    let (short, long): (NumberReader, NumberReader) = match (le32(file, 12)?, be32(file, 12)?) {
        (MAGIC, _) => (le16, le32),
        (_, MAGIC) => (be16, be32),
        _ => return None,
    };
    let size = long(file, 20)?;
    if !size.is_power_of_two() || !(512..=65_536).contains(&size) {
        return None;
    }
    for page in file.chunks_exact(size) {
        if page[25] != HASH && page[25] != HASH_UNSORTED {
            continue;
        }
        // Keys and values in turn.
        for index in (1..short(page, 20)?).step_by(2) {
            let item = short(page, PAGE_HEADER + index * 2)?;
            if *page.get(item)? != OFF_PAGE {
                continue;
            }
            let (first, length) = (long(page, item + 4)?, long(page, item + 8)?);
            spend(budget, length)?;
            take(&chain(file, size, first, length, (short, long))?);
        }
    }
    Some(())
}

type NumberReader = fn(&[u8], usize) -> Option<usize>;

fn chain(
    file: &[u8],
    size: usize,
    first: usize,
    length: usize,
    (short, long): (NumberReader, NumberReader),
) -> Option<Vec<u8>> {
    let mut blob = Vec::new();
    let mut next = first;
    while blob.len() < length {
        let start = next.checked_mul(size)?;
        let page = file.get(start..start.checked_add(size)?)?;
        let here = short(page, 22)?.min(length - blob.len());
        // A page without bytes would never end.
        if page[25] != OVERFLOW || here == 0 {
            return None;
        }
        blob.extend_from_slice(page.get(PAGE_HEADER..PAGE_HEADER + here)?);
        next = long(page, 16)?;
    }
    Some(blob)
}
