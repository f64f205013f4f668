use std::io::{self, Write};

use super::header::sums;
use super::{BLOCK, Header, TypeFlag, XATTR, pax};

/// Writes an archive: plain ustar headers where they suffice, PAX records where they do not,
/// always the same bytes for the same entries. No user and group names.
#[derive(Debug)]
pub(crate) struct Writer<W> {
    out: W,
    padding: usize,
}

/// The largest number that a field of so many octal digits holds.
const OCTAL_7: u64 = 0o7_777_777;
const OCTAL_11: u64 = 0o77_777_777_777;

impl<W: Write> Writer<W> {
    pub(crate) fn new(out: W) -> Self {
        Writer { out, padding: 0 }
    }

    /// Writes an entry; exactly `header.size` bytes of contents must follow.
    pub(crate) fn entry(&mut self, header: &Header) -> io::Result<()> {
        self.pad()?;
        let records = records(header);
        if !records.is_empty() {
            let extended = Header {
                path: b"PaxHeaders/0".to_vec(),
                size: records.len() as u64,
                mode: 0o644,
                ..Header::new(TypeFlag::File)
            };
            self.out.write_all(&block(&extended, b'x'))?;
            self.out.write_all(&records)?;
            self.padding = padding(records.len() as u64);
            self.pad()?;
        }
        let flag = match header.kind {
            TypeFlag::File => b'0',
            TypeFlag::HardLink => b'1',
            TypeFlag::Symlink => b'2',
            TypeFlag::Char => b'3',
            TypeFlag::Block => b'4',
            TypeFlag::Directory => b'5',
            TypeFlag::Fifo => b'6',
        };
        self.out.write_all(&block(header, flag))?;
        self.padding = padding(header.size);
        Ok(())
    }

    /// Writes a piece of the current entry's contents.
    pub(crate) fn contents(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.pad()?;
        self.out.write_all(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }

    fn pad(&mut self) -> io::Result<()> {
        let padding = std::mem::take(&mut self.padding);
        self.out.write_all(&[0; BLOCK][..padding])
    }
}

fn padding(size: u64) -> usize {
    // Below 512.
    usize::try_from(size.next_multiple_of(BLOCK as u64) - size).unwrap_or(0)
}

/// The PAX records an entry needs, sorted by key.
fn records(header: &Header) -> Vec<u8> {
    let mut records: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut push = |key: &str, value: Vec<u8>| records.push((key.as_bytes().to_vec(), value));
    if split(&header.path).is_none() {
        push("path", header.path.clone());
    }
    if header.link.len() > 100 || !header.link.is_ascii() {
        push("linkpath", header.link.clone());
    }
    if header.size > OCTAL_11 {
        push("size", header.size.to_string().into_bytes());
    }
    if u64::from(header.uid) > OCTAL_7 {
        push("uid", header.uid.to_string().into_bytes());
    }
    if u64::from(header.gid) > OCTAL_7 {
        push("gid", header.gid.to_string().into_bytes());
    }
    let (seconds, nanos) = header.mtime;
    if nanos != 0 || u64::try_from(seconds).map_or(true, |seconds| seconds > OCTAL_11) {
        push("mtime", time(seconds, nanos).into_bytes());
    }
    for (name, value) in &header.xattrs {
        let key = [XATTR.as_bytes(), name].concat();
        records.push((key, value.clone()));
    }
    records.sort();
    let mut bytes = Vec::new();
    for (key, value) in records {
        pax::push(&mut bytes, &key, &value);
    }
    bytes
}

/// Seconds with a fraction that has no zeros at its end.
fn time(seconds: i64, nanos: u32) -> String {
    let (sign, seconds, nanos) = match (seconds < 0, nanos) {
        (true, 0) => ("-", seconds.unsigned_abs(), 0),
        (true, nanos) => ("-", seconds.unsigned_abs() - 1, 1_000_000_000 - nanos),
        (false, nanos) => ("", seconds.unsigned_abs(), nanos),
    };
    if nanos == 0 {
        return format!("{sign}{seconds}");
    }
    format!("{sign}{seconds}.{nanos:09}").trim_end_matches('0').to_owned()
}

/// A name as ustar's prefix and name; `None` when it does not fit or is not ASCII.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if !path.is_ascii() {
        return None;
    }
    if path.len() <= 100 {
        return Some((b"", path));
    }
    // The slash between the two is not stored; a directory's last slash is not one of them.
    let body = &path[..path.len() - 1];
    let longest = body.len().min(155);
    let at = body[..=longest.min(body.len() - 1)].iter().rposition(|byte| *byte == b'/')?;
    let (prefix, name) = (&path[..at], &path[at + 1..]);
    (!prefix.is_empty() && name.len() <= 100).then_some((prefix, name))
}

fn block(header: &Header, flag: u8) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let (prefix, name) = split(&header.path).unwrap_or((b"", &header.path));
    // A name that does not fit is in a PAX record; what stands here is only for old readers.
    put(&mut block[..100], name);
    octal(&mut block[100..108], u64::from(header.mode));
    octal(&mut block[108..116], capped(u64::from(header.uid), OCTAL_7));
    octal(&mut block[116..124], capped(u64::from(header.gid), OCTAL_7));
    octal(&mut block[124..136], capped(header.size, OCTAL_11));
    let seconds = u64::try_from(header.mtime.0).unwrap_or(0);
    octal(&mut block[136..148], capped(seconds, OCTAL_11));
    block[156] = flag;
    put(&mut block[157..257], &header.link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    if matches!(header.kind, TypeFlag::Char | TypeFlag::Block) {
        octal(&mut block[329..337], u64::from(header.device.0) & OCTAL_7);
        octal(&mut block[337..345], u64::from(header.device.1) & OCTAL_7);
    }
    put(&mut block[345..500], prefix);
    let (sum, _) = sums(&block);
    octal(&mut block[148..155], sum.unsigned_abs());
    block[155] = b' ';
    block
}

/// Zero where a number does not fit: a PAX record holds it.
fn capped(number: u64, limit: u64) -> u64 {
    if number > limit { 0 } else { number }
}

fn put(field: &mut [u8], bytes: &[u8]) {
    let length = bytes.len().min(field.len());
    field[..length].copy_from_slice(&bytes[..length]);
}

/// Octal digits and a NUL.
fn octal(field: &mut [u8], number: u64) {
    let digits = field.len() - 1;
    let text = format!("{number:0digits$o}");
    field[..digits].copy_from_slice(&text.as_bytes()[text.len() - digits..]);
}
