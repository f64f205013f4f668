//! As much of SQLite's file format as it takes to read one table from front to end. The file comes
//! from a layer: reading it here keeps it away from a database engine.

use super::{be16, be32, spend};

/// Starts a database file.
pub(super) const MAGIC: &[u8] = b"SQLite format 3\0";

const INTERIOR: u8 = 5;
const LEAF: u8 = 13;
/// No tree is deeper.
const DEPTH: usize = 20;

struct Database<'a> {
    file: &'a [u8],
    page_size: usize,
    /// Bytes of a page that can be used.
    usable: usize,
    /// Pages that may still be visited: each is there once.
    pages: usize,
}

/// Hands over the second column of each row of a table.
pub(super) fn blobs(
    file: &[u8],
    table: &str,
    budget: &mut usize,
    take: &mut dyn FnMut(&[u8]),
) -> Option<()> {
    let page_size = match be16(file, 16)? {
        1 => 65_536,
        size if size.is_power_of_two() && size >= 512 => size,
        _ => return None,
    };
    let usable = page_size - usize::from(*file.get(20)?);
    let pages = file.len() / page_size;
    let mut database = Database { file, page_size, usable, pages };
    let mut root = None;
    database.rows(1, 0, budget, &mut |record| {
        let schema = columns::<4>(record)?;
        let name = schema[1] == table.as_bytes();
        if schema[0] == b"table" && name {
            let page = schema[3].iter().fold(0usize, |n, byte| n << 8 | usize::from(*byte));
            root = Some(page);
        }
        Some(())
    })?;
    database.pages = pages;
    database.rows(root?, 0, budget, &mut |record| {
        take(columns::<2>(record)?[1]);
        Some(())
    })
}

impl<'a> Database<'a> {
    fn page(&self, number: usize) -> Option<&'a [u8]> {
        let start = number.checked_sub(1)?.checked_mul(self.page_size)?;
        self.file.get(start..start.checked_add(self.page_size)?)
    }

    /// The records of the tree that starts at a page.
    fn rows(
        &mut self,
        number: usize,
        depth: usize,
        budget: &mut usize,
        take: &mut dyn FnMut(&[u8]) -> Option<()>,
    ) -> Option<()> {
        self.pages = self.pages.checked_sub(1).filter(|_| depth < DEPTH)?;
        // The first page starts with the header of the file.
        let start = if number == 1 { 100 } else { 0 };
        let page = self.page(number)?;
        let (kind, count) = (*page.get(start)?, be16(page, start + 3)?);
        let pointers = start + if kind == INTERIOR { 12 } else { 8 };
        let cells: Option<Vec<usize>> =
            (0..count).map(|index| be16(page, pointers + 2 * index)).collect();
        match kind {
            INTERIOR => {
                let mut below: Vec<usize> =
                    cells?.into_iter().map(|cell| be32(page, cell)).collect::<Option<_>>()?;
                below.push(be32(page, start + 8)?);
                below.into_iter().try_for_each(|page| self.rows(page, depth + 1, budget, take))
            }
            LEAF => cells?.into_iter().try_for_each(|cell| {
                let record = self.payload(self.page(number)?.get(cell..)?, budget)?;
                take(&record)
            }),
            _ => None,
        }
    }

    /// The payload of a cell, with what of it lies on overflow pages.
    fn payload(&self, cell: &[u8], budget: &mut usize) -> Option<Vec<u8>> {
        let (length, used) = varint(cell)?;
        let (_, key) = varint(cell.get(used..)?)?;
        let cell = cell.get(used + key..)?;
        let length = usize::try_from(length).ok()?;
        spend(budget, length)?;
        let most = self.usable.checked_sub(35)?;
        if length <= most {
            return cell.get(..length).map(<[u8]>::to_vec);
        }
        let least = (self.usable - 12) * 32 / 255 - 23;
        let local = least + (length - least) % (self.usable - 4);
        let local = if local <= most { local } else { least };
        let mut payload = cell.get(..local)?.to_vec();
        let mut next = be32(cell, local)?;
        while payload.len() < length {
            let page = self.page(next)?;
            let here = (length - payload.len()).min(self.usable - 4);
            payload.extend_from_slice(page.get(4..4 + here)?);
            next = be32(page, 0)?;
        }
        Some(payload)
    }
}

/// A number of one to nine bytes.
fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for index in 0..8 {
        let byte = *bytes.get(index)?;
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((value, index + 1));
        }
    }
    Some((value << 8 | u64::from(*bytes.get(8)?), 9))
}

/// The bytes of the first columns of a record.
fn columns<const N: usize>(record: &[u8]) -> Option<[&[u8]; N]> {
    let (header, mut at) = varint(record)?;
    let mut data = usize::try_from(header).ok()?;
    let mut columns = [&record[..0]; N];
    for column in &mut columns {
        let (kind, used) = varint(record.get(at..)?)?;
        at += used;
        let length = match kind {
            0 | 8 | 9 => 0,
            1..=4 => kind,
            5 => 6,
            6 | 7 => 8,
            10 | 11 => return None,
            kind => (kind - 12) / 2,
        };
        let length = usize::try_from(length).ok()?;
        *column = record.get(data..data.checked_add(length)?)?;
        data += length;
    }
    Some(columns)
}
