//! One 512-byte header, taken apart.

use super::sparse::Pieces;
use super::{BLOCK, number};

/// Which dialect a header is written in; it decides what lies behind the link name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    V7,
    Ustar,
    Star,
    Gnu,
}

/// A header whose checksum is right, not yet interpreted.
pub(super) struct Raw<'a>(&'a [u8; BLOCK]);

/// The reading of a header by itself, without what extended headers say.
#[derive(Debug)]
pub(super) struct Fields {
    pub(super) flag: u8,
    pub(super) dialect: Dialect,
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) mode: u32,
    pub(super) uid: i64,
    pub(super) gid: i64,
    pub(super) size: u64,
    pub(super) mtime: i64,
    pub(super) device: (u32, u32),
}

impl<'a> Raw<'a> {
    /// Checks the checksum, as a sum of unsigned or of signed bytes.
    pub(super) fn check(block: &'a [u8; BLOCK]) -> Result<Raw<'a>, &'static str> {
        let stored = number::field(&block[148..156]).ok_or("the checksum is malformed")?;
        let (unsigned, signed) = sums(block);
        if stored == unsigned || stored == signed {
            Ok(Raw(block))
        } else {
            Err("the checksum is wrong: this is not a tar archive, or it is damaged")
        }
    }

    pub(super) fn fields(&self) -> Result<Fields, &'static str> {
        let block = self.0;
        let dialect = self.dialect();
        let number =
            |range: std::ops::Range<usize>, reason| number::field(&block[range]).ok_or(reason);
        let size = number(124..136, "the size is malformed")?;
        let mode = number(100..108, "the mode is malformed")?;
        let flag = block[156];
        let mut device = (0, 0);
        if matches!(flag, b'3' | b'4') {
            let part = |range| {
                number(range, "the device number is malformed")
                    .and_then(|n| u32::try_from(n).map_err(|_| "the device number is out of range"))
            };
            device = (part(329..337)?, part(337..345)?);
        }
        Ok(Fields {
            flag,
            dialect,
            path: self.path(dialect)?,
            link: text(&block[157..257]).to_vec(),
            mode: u32::try_from(mode & 0o7777).map_err(|_| "the mode is out of range")?,
            uid: number(108..116, "the user is malformed")?,
            gid: number(116..124, "the group is malformed")?,
            size: u64::try_from(size).map_err(|_| "the size is negative")?,
            mtime: number(136..148, "the time is malformed")?,
            device,
        })
    }

    fn dialect(&self) -> Dialect {
        match (&self.0[257..263], &self.0[263..265], &self.0[508..512]) {
            (b"ustar\0", _, b"tar\0") => Dialect::Star,
            (b"ustar\0", ..) => Dialect::Ustar,
            (b"ustar ", b" \0", _) => Dialect::Gnu,
            _ => Dialect::V7,
        }
    }

    fn path(&self, dialect: Dialect) -> Result<Vec<u8>, &'static str> {
        let block = self.0;
        let prefix = match dialect {
            Dialect::Ustar => text(&block[345..500]),
            Dialect::Star => text(&block[345..476]),
            // Go before 1.8 put a prefix where GNU has two times; Go tells them apart like this.
            Dialect::Gnu => {
                let times = [&block[345..357], &block[357..369]];
                let prefix = text(&block[345..500]);
                if times.iter().all(|time| number::field(time).is_some()) || !prefix.is_ascii() {
                    b""
                } else {
                    prefix
                }
            }
            // Some readers use it, others do not.
            Dialect::V7 if block[345..500].iter().any(|byte| *byte != 0) => {
                return Err("a header without magic has something in place of a prefix");
            }
            Dialect::V7 => b"",
        };
        let name = text(&block[..100]);
        if prefix.is_empty() {
            return Ok(name.to_vec());
        }
        Ok([prefix, b"/", name].concat())
    }

    /// The old GNU sparse map in this header: its pieces, the file's size, and whether more
    /// pieces follow.
    pub(super) fn sparse(&self) -> Result<(Pieces, u64, bool), &'static str> {
        let mut pieces = Vec::new();
        super::sparse::old(&self.0[386..482], &mut pieces)?;
        let size = number::field(&self.0[483..495]).and_then(|size| u64::try_from(size).ok());
        Ok((pieces, size.ok_or("a sparse file's size is malformed")?, self.0[482] != 0))
    }
}

/// Bytes up to the first NUL.
fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    &field[..end]
}

/// The sums of a header's bytes, unsigned and signed, its checksum field counted as blanks.
pub(super) fn sums(block: &[u8; BLOCK]) -> (i64, i64) {
    let (mut unsigned, mut signed) = (0, 0);
    for (index, byte) in block.iter().enumerate() {
        let byte = if (148..156).contains(&index) { b' ' } else { *byte };
        unsigned += i64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    (unsigned, signed)
}
