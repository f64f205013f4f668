use std::io::{BufRead, ErrorKind};

use super::header::{Dialect, Fields, Raw};
use super::pax::{self, PaxRecord};
use super::sparse::{self, Sparse};
use super::{BLOCK, EXTENSION, Header, TypeFlag, XATTR, Xattrs, number};
use crate::{Error, Result};

/// More pieces than this no sparse file may have.
const PIECES: usize = 1 << 20;

/// Limits of an archive.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReaderLimits {
    pub(crate) entries: u64,
    pub(crate) path: usize,
    pub(crate) xattrs: usize,
}

/// Reads an archive entry by entry.
#[derive(Debug)]
pub(crate) struct Reader<R> {
    input: R,
    limits: ReaderLimits,
    position: u64,
    entries: u64,
    /// Bytes of the current entry's contents, and of padding after them.
    left: u64,
    padding: u64,
    ended: bool,
}

/// What the extended headers before an entry say about it.
#[derive(Debug, Default)]
struct ExtendedHeaders {
    any: bool,
    pax: bool,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Xattrs,
    sparse: PaxSparse,
}

/// The `GNU.sparse.` records.
#[derive(Debug, Default)]
struct PaxSparse {
    any: bool,
    major: Option<u64>,
    minor: Option<u64>,
    name: Option<Vec<u8>>,
    size: Option<u64>,
    real: Option<u64>,
    map: Option<Vec<(u64, u64)>>,
    /// Offsets and lengths of format 0.0, in turn.
    numbers: Vec<u64>,
    blocks: Option<u64>,
}

impl<R: BufRead> Reader<R> {
    pub(crate) fn new(input: R, limits: ReaderLimits) -> Self {
        Reader { input, limits, position: 0, entries: 0, left: 0, padding: 0, ended: false }
    }

    /// The next entry; skips the rest of the last one's content.
    pub(crate) fn next(&mut self) -> Result<Option<Header>> {
        if self.ended {
            return Ok(None);
        }
        self.skip()?;
        let start = self.position;
        let mut extended = ExtendedHeaders::default();
        loop {
            let at = self.position;
            let malformed = |reason: &str| malformed(at, reason);
            let Some(block) = self.block()? else {
                self.ended = true;
                if extended.any {
                    return Err(malformed("an extended header is not followed by an entry"));
                }
                return Ok(None);
            };
            let raw = Raw::check(&block).map_err(malformed)?;
            let fields = raw.fields().map_err(malformed)?;
            match fields.flag {
                b'x' | b'g' | b'L' | b'K' => self.extension(at, &fields, &mut extended)?,
                _ => {
                    self.count()?;
                    let header = self.entry(at, &raw, fields, extended)?;
                    return Ok(Some(Header { offset: start, ..header }));
                }
            }
        }
    }

    /// Bytes of the archive read so far.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The next piece of the current entry's contents; empty at their end.
    pub(crate) fn fill(&mut self) -> Result<&[u8]> {
        if self.left == 0 {
            return Ok(&[]);
        }
        loop {
            match self.input.fill_buf() {
                Ok(_) => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::read(error)),
            }
        }
        let bytes = self.input.fill_buf().map_err(Error::read)?;
        if bytes.is_empty() {
            return Err(malformed(self.position, "the archive ends within an entry"));
        }
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        Ok(&bytes[..length])
    }

    /// Marks `n` bytes of the last [`Reader::fill`] as taken.
    pub(crate) fn consume(&mut self, n: usize) {
        self.input.consume(n);
        self.position += n as u64;
        self.left -= n as u64;
    }

    fn skip(&mut self) -> Result<()> {
        self.left += std::mem::take(&mut self.padding);
        while self.left > 0 {
            let length = self.fill()?.len();
            self.consume(length);
        }
        Ok(())
    }

    fn count(&mut self) -> Result<()> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(Error::Limit { what: "entries", limit: self.limits.entries });
        }
        Ok(())
    }

    /// Sets the length of the contents that follow a header.
    fn contents(&mut self, size: u64) {
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
    }

    /// One block; `None` at the end of the archive: two blocks of zeros, or no more bytes.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let at = self.position;
        let Some(block) = self.take_block()? else { return Ok(None) };
        if block.iter().any(|byte| *byte != 0) {
            return Ok(Some(block));
        }
        match self.take_block()? {
            Some(block) if block.iter().any(|byte| *byte != 0) => {
                Err(malformed(at, "one block of zeros is followed by something else"))
            }
            _ => Ok(None),
        }
    }

    fn take_block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            let bytes = match self.input.fill_buf() {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::read(error)),
            };
            if bytes.is_empty() {
                if filled == 0 {
                    return Ok(None);
                }
                return Err(malformed(self.position, "the archive ends within a block"));
            }
            let length = bytes.len().min(BLOCK - filled);
            block[filled..filled + length].copy_from_slice(&bytes[..length]);
            self.input.consume(length);
            self.position += length as u64;
            filled += length;
        }
        Ok(Some(block))
    }

    /// Reads an extended header's contents.
    fn extension(
        &mut self,
        at: u64,
        fields: &Fields,
        extended: &mut ExtendedHeaders,
    ) -> Result<()> {
        let malformed = |reason: &str| malformed(at, reason);
        if fields.size > EXTENSION {
            return Err(Error::Limit { what: "bytes in an extended header", limit: EXTENSION });
        }
        self.contents(fields.size);
        let bytes = self.take_contents(fields.size)?;
        self.skip()?;
        if fields.flag == b'g' {
            self.count()?;
            if extended.any {
                return Err(malformed(
                    "a global header stands between an extended one and its entry",
                ));
            }
            return global(&pax::records(&bytes).map_err(malformed)?).map_err(|r| malformed(&r));
        }
        extended.any = true;
        let repeated = match fields.flag {
            b'x' => std::mem::replace(&mut extended.pax, true),
            b'L' => extended.long_name.replace(long(&bytes).map_err(malformed)?).is_some(),
            _ => extended.long_link.replace(long(&bytes).map_err(malformed)?).is_some(),
        };
        if repeated {
            return Err(malformed("an entry has two extended headers of one kind"));
        }
        if fields.flag == b'x' {
            for record in pax::records(&bytes).map_err(malformed)? {
                extended.record(&record).map_err(|reason| malformed(&reason))?;
            }
        }
        Ok(())
    }

    fn take_contents(&mut self, length: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < length {
            let piece = self.fill()?;
            let taken = piece.len().min(usize::try_from(length).unwrap_or(0) - bytes.len());
            if taken == 0 {
                return Err(malformed(self.position, "the archive ends within an entry"));
            }
            bytes.extend_from_slice(&piece[..taken]);
            self.consume(taken);
        }
        Ok(bytes)
    }

    /// Puts a header and its extensions together, and finds where its contents are.
    fn entry(
        &mut self,
        at: u64,
        raw: &Raw<'_>,
        fields: Fields,
        headers: ExtendedHeaders,
    ) -> Result<Header> {
        let malformed = |reason: &str| malformed(at, reason);
        let sparse = headers.sparse.check(&fields).map_err(malformed)?;
        let (flag, stored) = (fields.flag, headers.size.unwrap_or(fields.size));
        let (mut header, real) = headers.merge(fields, stored).map_err(malformed)?;
        if header.path.len() > self.limits.path || header.link.len() > self.limits.path {
            return Err(Error::Limit { what: "bytes in a name", limit: self.limits.path as u64 });
        }
        let xattrs: usize =
            header.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        if xattrs > self.limits.xattrs {
            let limit = self.limits.xattrs as u64;
            return Err(Error::Limit { what: "bytes of extended attributes in an entry", limit });
        }
        if header.kind != TypeFlag::File {
            header.size = 0;
        }
        if flag == b'S' {
            let (mut pieces, size, more) = raw.sparse().map_err(malformed)?;
            self.old_sparse(at, more, &mut pieces)?;
            header.sparse = Some(Sparse::new(size, pieces, header.size).map_err(malformed)?);
        }
        self.contents(header.size);
        if let Some(version) = sparse {
            let real = real.ok_or_else(|| malformed("a sparse file has no size"))?;
            let pieces = match version {
                SparseVersion::Listed(pieces) => pieces,
                SparseVersion::Leading => self.leading_map(at)?,
            };
            header.size = self.left;
            header.sparse = Some(Sparse::new(real, pieces, header.size).map_err(malformed)?);
        }
        Ok(header)
    }

    fn old_sparse(&mut self, at: u64, mut more: bool, pieces: &mut Vec<(u64, u64)>) -> Result<()> {
        while more {
            let block = self.take_block()?;
            let block = block.ok_or_else(|| malformed(at, "the archive ends within a header"))?;
            sparse::old(&block[..504], pieces).map_err(|reason| malformed(at, reason))?;
            more = block[504] != 0;
            if pieces.len() > PIECES {
                return Err(Error::Limit { what: "pieces in a sparse file", limit: PIECES as u64 });
            }
        }
        Ok(())
    }

    /// The map of format 1.0: decimal numbers on lines, the first one says how many pieces there
    /// are, padded to whole blocks, before the contents.
    fn leading_map(&mut self, at: u64) -> Result<Vec<(u64, u64)>> {
        let mut numbers: Vec<u64> = Vec::new();
        let (mut digits, mut expected, mut taken) = (Vec::new(), 1, 0u64);
        while numbers.len() < expected {
            if taken >= EXTENSION {
                return Err(Error::Limit {
                    what: "bytes in a sparse file's map",
                    limit: EXTENSION,
                });
            }
            let block = self.take_contents((BLOCK as u64).min(self.left))?;
            if block.len() < BLOCK {
                return Err(malformed(at, "a sparse file's map is cut short"));
            }
            taken += BLOCK as u64;
            for byte in block {
                if numbers.len() == expected {
                    break;
                }
                if byte != b'\n' {
                    digits.push(byte);
                    continue;
                }
                let value = number::decimal(&std::mem::take(&mut digits));
                let value =
                    value.ok_or_else(|| malformed(at, "a sparse file's map is malformed"))?;
                if numbers.is_empty() {
                    if value > PIECES as u64 {
                        let limit = PIECES as u64;
                        return Err(Error::Limit { what: "pieces in a sparse file", limit });
                    }
                    expected = usize::try_from(value).unwrap_or(0) * 2 + 1;
                }
                numbers.push(value);
            }
        }
        sparse::pairs(&numbers[1..]).map_err(|reason| malformed(at, reason))
    }
}

enum SparseVersion {
    /// 0.0 and 0.1: the map is in the extended header.
    Listed(Vec<(u64, u64)>),
    /// 1.0: the map stands before the contents.
    Leading,
}

impl PaxSparse {
    fn record(&mut self, key: &str, value: &[u8]) -> Option<()> {
        self.any = true;
        let number = || number::decimal(value);
        match key {
            "major" => self.major = Some(number()?),
            "minor" => self.minor = Some(number()?),
            "name" if value.is_empty() || value.contains(&0) => return None,
            "name" => self.name = Some(value.to_vec()),
            "size" => self.size = Some(number()?),
            "realsize" => self.real = Some(number()?),
            "map" => self.map = Some(sparse::listed(value).ok()?),
            "offset" if self.numbers.len().is_multiple_of(2) => self.numbers.push(number()?),
            "numbytes" if !self.numbers.len().is_multiple_of(2) => self.numbers.push(number()?),
            "numblocks" => self.blocks = Some(number()?),
            _ => return None,
        }
        Some(())
    }

    /// Which format this is, if any.
    fn check(&self, fields: &Fields) -> Result<Option<SparseVersion>, &'static str> {
        if fields.flag == b'S' && fields.dialect != Dialect::Gnu {
            return Err("a GNU sparse file has no GNU header");
        }
        if !self.any {
            return Ok(None);
        }
        if !matches!(fields.flag, b'0' | 0 | b'7') {
            return Err("something that is not a plain file is sparse");
        }
        let listed = match (self.major, self.minor) {
            (Some(1), Some(0)) if self.map.is_none() && self.numbers.is_empty() => {
                return Ok(Some(SparseVersion::Leading));
            }
            (None, None) | (Some(0), Some(0 | 1)) => match (&self.map, &self.numbers[..]) {
                (Some(map), []) => map.clone(),
                (None, [_, ..]) => sparse::pairs(&self.numbers)?,
                (None, []) if self.blocks == Some(0) => Vec::new(),
                _ => return Err("a sparse file has no map, or two"),
            },
            _ => return Err("a sparse file is of an unknown format"),
        };
        if self.blocks.is_some_and(|blocks| blocks != listed.len() as u64) {
            return Err("a sparse file's map has not as many pieces as it says");
        }
        Ok(Some(SparseVersion::Listed(listed)))
    }

    fn real_size(&self) -> Result<Option<u64>, &'static str> {
        match (self.size, self.real) {
            (Some(size), Some(real)) if size != real => Err("a sparse file has two sizes"),
            (size, real) => Ok(size.or(real)),
        }
    }
}

impl ExtendedHeaders {
    fn record(&mut self, record: &PaxRecord<'_>) -> Result<(), String> {
        let PaxRecord { key, value } = *record;
        let wrong = || format!("the PAX record {key} has a malformed value");
        if let Some(name) = key.strip_prefix(XATTR) {
            if name.is_empty() {
                return Err("a PAX record names no attribute".to_owned());
            }
            self.xattrs.retain(|(known, _)| known != name.as_bytes());
            self.xattrs.push((name.as_bytes().to_vec(), value.to_vec()));
            return Ok(());
        }
        if let Some(key) = key.strip_prefix("GNU.sparse.") {
            return self.sparse.record(key, value).ok_or_else(wrong);
        }
        match key {
            "path" | "linkpath" if value.is_empty() || value.contains(&0) => return Err(wrong()),
            "path" => self.path = Some(value.to_vec()),
            "linkpath" => self.link = Some(value.to_vec()),
            "size" => self.size = Some(number::decimal(value).ok_or_else(wrong)?),
            // An empty value takes back what was said before: the header counts.
            "uid" if value.is_empty() => self.uid = None,
            "uid" => self.uid = Some(number::decimal(value).ok_or_else(wrong)?),
            "gid" if value.is_empty() => self.gid = None,
            "gid" => self.gid = Some(number::decimal(value).ok_or_else(wrong)?),
            "mtime" if value.is_empty() => self.mtime = None,
            "mtime" => self.mtime = Some(number::time(value).ok_or_else(wrong)?),
            _ => {}
        }
        Ok(())
    }

    /// The entry, and the length of a sparse file's contents.
    fn merge(self, fields: Fields, stored: u64) -> Result<(Header, Option<u64>), &'static str> {
        let real = self.sparse.real_size()?;
        let named = agree(self.path, self.long_name)?;
        let path = self.sparse.name.or(named).unwrap_or(fields.path);
        let link = agree(self.link, self.long_link)?.unwrap_or(fields.link);
        let kind = kind(fields.flag, &path, stored)?;
        let linked = matches!(kind, TypeFlag::HardLink | TypeFlag::Symlink);
        if linked && link.is_empty() {
            return Err("a link has no target");
        }
        if i64::try_from(stored).is_err() {
            return Err("the size is too large");
        }
        let id = |extended: Option<u64>, own: i64| {
            let id = extended.map_or(Ok(own), i64::try_from).unwrap_or(-1);
            // The largest number means "leave it" to the kernel.
            u32::try_from(id).ok().filter(|id| *id != u32::MAX)
        };
        let header = Header {
            offset: 0,
            kind,
            path,
            link: if linked { link } else { Vec::new() },
            mode: fields.mode,
            uid: id(self.uid, fields.uid).ok_or("the user is out of range")?,
            gid: id(self.gid, fields.gid).ok_or("the group is out of range")?,
            size: stored,
            mtime: self.mtime.unwrap_or((fields.mtime, 0)),
            device: fields.device,
            xattrs: self.xattrs,
            sparse: None,
        };
        Ok((header, real))
    }
}

/// One name said in two ways; readers differ in which they believe.
fn agree(pax: Option<Vec<u8>>, gnu: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, &'static str> {
    match (&pax, &gnu) {
        (Some(pax), Some(gnu)) if pax != gnu => Err("an entry has two different long names"),
        _ => Ok(pax.or(gnu)),
    }
}

fn kind(flag: u8, path: &[u8], size: u64) -> Result<TypeFlag, &'static str> {
    let slash = path.ends_with(b"/");
    let kind = match flag {
        // Archives older than the directory type.
        0 if slash => return Ok(TypeFlag::Directory),
        0 | b'0' | b'7' | b'S' => TypeFlag::File,
        // Its size is not looked at: some writers state the file's.
        b'1' => TypeFlag::HardLink,
        b'2' => TypeFlag::Symlink,
        b'3' => TypeFlag::Char,
        b'4' => TypeFlag::Block,
        b'5' => return Ok(TypeFlag::Directory),
        b'6' => TypeFlag::Fifo,
        _ => return Err("the entry is of an unknown kind"),
    };
    if slash {
        return Err("a name ends in a slash but is not a directory's");
    }
    if size > 0 && !matches!(kind, TypeFlag::File | TypeFlag::HardLink) {
        return Err("an entry that has no contents has a size");
    }
    Ok(kind)
}

/// A GNU long name: everything up to a NUL, and nothing but NULs after it.
fn long(bytes: &[u8]) -> Result<Vec<u8>, &'static str> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (name, rest) = bytes.split_at(end);
    if name.is_empty() {
        return Err("a long name is empty");
    }
    if rest.iter().any(|byte| *byte != 0) {
        return Err("a long name has a NUL in it");
    }
    Ok(name.to_vec())
}

/// Global records: remarks are fine. What would change entries is refused, because POSIX and GNU
/// tar apply it to all that follow and Go does not.
fn global(records: &[PaxRecord<'_>]) -> Result<(), String> {
    const APPLIED: [&str; 6] = ["path", "linkpath", "size", "uid", "gid", "mtime"];
    const SPACES: [&str; 4] = ["GNU.", "SCHILY.", "LIBARCHIVE.", "RHT."];
    for PaxRecord { key, .. } in records {
        if APPLIED.contains(key) || SPACES.iter().any(|space| key.starts_with(space)) {
            return Err(format!("a global header sets {key}, which readers take differently"));
        }
    }
    Ok(())
}

fn malformed(offset: u64, reason: &str) -> Error {
    Error::Malformed { offset, reason: reason.to_owned() }
}
