//! One section of an ELF file.

/// Reads numbers of one byte order and word size.
struct ElfReader<'a> {
    bytes: &'a [u8],
    big: bool,
    wide: bool,
}

impl ElfReader<'_> {
    fn number(&self, at: usize, length: usize) -> Option<u64> {
        let bytes = self.bytes.get(at..at.checked_add(length)?)?;
        let fold = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        Some(match self.big {
            true => bytes.iter().fold(0, fold),
            false => bytes.iter().rev().fold(0, fold),
        })
    }

    /// A field that is at one place in 32-bit files and at another in 64-bit ones.
    fn word(&self, narrow: usize, wide: usize) -> Option<usize> {
        let number = match self.wide {
            true => self.number(wide, 8)?,
            false => self.number(narrow, 4)?,
        };
        usize::try_from(number).ok()
    }
}

/// Whether a file that starts so is an ELF file.
pub(super) fn is_elf(head: &[u8]) -> bool {
    head.starts_with(b"\x7fELF")
}

/// The bytes of the section of this name.
pub(super) fn section<'a>(file: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    if !is_elf(file) {
        return None;
    }
    let fields = ElfReader { bytes: file, big: *file.get(5)? == 2, wide: *file.get(4)? == 2 };
    let table = fields.word(0x20, 0x28)?;
    let at = |narrow: usize, wide: usize| if fields.wide { wide } else { narrow };
    let size = usize::try_from(fields.number(at(0x2e, 0x3a), 2)?).ok()?;
    let count = usize::try_from(fields.number(at(0x30, 0x3c), 2)?).ok()?;
    let names = usize::try_from(fields.number(at(0x32, 0x3e), 2)?).ok()?;
    let header = |index: usize| table.checked_add(index.checked_mul(size)?);
    let extent = |header: usize| {
        let offset = fields.word(header.checked_add(0x10)?, header.checked_add(0x18)?)?;
        let length = fields.word(header.checked_add(0x14)?, header.checked_add(0x20)?)?;
        file.get(offset..offset.checked_add(length)?)
    };
    let names = extent(header(names)?)?;
    (0..count).find_map(|index| {
        let header = header(index)?;
        let start = usize::try_from(fields.number(header, 4)?).ok()?;
        let own = names.get(start..)?;
        let own = &own[..own.iter().position(|byte| *byte == 0)?];
        (own == name).then(|| extent(header)).flatten()
    })
}
