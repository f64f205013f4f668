//! Reading a layer entry by entry, without unpacking it.

use std::io::{self, BufReader, Read, Write};

use crate::tar::{Header, Reader, ReaderLimits, TypeFlag, Writer};
use crate::unpack::EntryName;
use crate::{Error, Limits, Result};

/// What an entry of a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// Another name of a file of the same layer.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A directory.
    Directory,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// Takes away what lower layers have under this name.
    Whiteout,
    /// Takes away everything that lower layers have in this directory.
    Opaque,
}

impl EntryKind {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            EntryKind::File => "file",
            EntryKind::HardLink => "hard link",
            EntryKind::Symlink => "symbolic link",
            EntryKind::Directory => "directory",
            EntryKind::CharDevice => "character device",
            EntryKind::BlockDevice => "block device",
            EntryKind::Fifo => "named pipe",
            EntryKind::Whiteout => "whiteout",
            EntryKind::Opaque => "opaque directory",
        }
    }
}

/// One entry of a layer, everything about it but its contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerEntry {
    /// Relative to the root, without `.` and `..`; empty is the root. Of a whiteout: what it hides.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// What a link points to, as it stands there.
    pub link: Vec<u8>,
    /// Permission bits (07777).
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Length of the contents that can be read.
    pub size: u64,
    /// Whether only pieces of the file are stored; the contents are then those pieces.
    pub sparse: bool,
    /// Seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes, in the archive's order.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The entries of a layer, in their order. Between two calls of [`LayerEntries::next`] the contents
/// of the last entry can be read.
#[derive(Debug)]
pub struct LayerEntries<R> {
    reader: Reader<BufReader<R>>,
}

impl<R: Read> LayerEntries<R> {
    /// Over an uncompressed stream; see [`crate::decompress`].
    pub fn new(stream: R, limits: Limits) -> Self {
        let stream = BufReader::with_capacity(256 * 1024, stream);
        let Limits { entries, path, xattrs, .. } = limits;
        LayerEntries { reader: Reader::new(stream, ReaderLimits { entries, path, xattrs }) }
    }

    /// The next entry; what was not read of the last one's contents is passed over.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Compressed`], [`Error::Malformed`], [`Error::Limit`], and
    /// [`Error::Entry`] for a name that leads out of the tree.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<LayerEntry>> {
        loop {
            let Some(header) = self.reader.next()? else { return Ok(None) };
            if let Some(entry) = entry(header)? {
                return Ok(Some(entry));
            }
        }
    }
}

impl<R: Read> Read for LayerEntries<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let piece = self.reader.fill().map_err(io::Error::other)?;
        let length = piece.len().min(buffer.len());
        buffer[..length].copy_from_slice(&piece[..length]);
        self.reader.consume(length);
        Ok(length)
    }
}

/// `None` for names that mean nothing to a layer (AUFS kept its own files beside the whiteouts).
pub(crate) fn entry(header: Header) -> Result<Option<LayerEntry>> {
    let name = EntryName::new(&header.path).map_err(|reason| Error::Entry {
        path: std::path::PathBuf::from(String::from_utf8_lossy(&header.path).into_owned()),
        reason: reason.to_owned(),
    })?;
    let mut kind = match header.kind {
        TypeFlag::File => EntryKind::File,
        TypeFlag::HardLink => EntryKind::HardLink,
        TypeFlag::Symlink => EntryKind::Symlink,
        TypeFlag::Directory => EntryKind::Directory,
        TypeFlag::Char => EntryKind::CharDevice,
        TypeFlag::Block => EntryKind::BlockDevice,
        TypeFlag::Fifo => EntryKind::Fifo,
    };
    if name.leads_through_whiteout() {
        return Ok(None);
    }
    let mut path = name.path.clone();
    if let Some(hidden) = name.last().strip_prefix(b".wh.") {
        path = name.parent().to_vec();
        match hidden {
            b".wh..opq" => kind = EntryKind::Opaque,
            b"" | b"." | b".." => return Ok(None),
            hidden if hidden.starts_with(b".wh.") => return Ok(None),
            hidden => {
                kind = EntryKind::Whiteout;
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(hidden);
            }
        }
    }
    Ok(Some(LayerEntry {
        path,
        kind,
        link: header.link,
        mode: header.mode,
        uid: header.uid,
        gid: header.gid,
        size: header.size,
        sparse: header.sparse.is_some(),
        mtime: header.mtime,
        device: header.device,
        xattrs: header.xattrs,
    }))
}

/// Writes files as an archive: entries of kind [`EntryKind::File`] with their contents.
///
/// # Errors
/// Of either side; [`Error::Read`] for content that is shorter than its entry says.
pub fn write_files<W: Write, R: Read>(
    files: impl IntoIterator<Item = (LayerEntry, R)>,
    out: W,
) -> Result<W> {
    let mut writer = Writer::new(out);
    for (entry, mut content) in files {
        let mut header = Header::new(TypeFlag::File);
        (header.path, header.size, header.mode) = (entry.path, entry.size, entry.mode);
        (header.uid, header.gid) = (entry.uid, entry.gid);
        (header.mtime, header.xattrs) = (entry.mtime, entry.xattrs);
        writer.entry(&header).map_err(Error::write)?;
        let mut buffer = vec![0; 128 << 10];
        let mut left = entry.size;
        while left > 0 {
            let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let n = content.read(&mut buffer[..most]).map_err(Error::read)?;
            if n == 0 {
                return Err(Error::read(io::ErrorKind::UnexpectedEof.into()));
            }
            writer.contents(&buffer[..n]).map_err(Error::write)?;
            left -= n as u64;
        }
    }
    writer.finish().map_err(Error::write)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_mode(0o640);
            header.set_entry_type(match name.ends_with('/') {
                true => tar::EntryType::Directory,
                false => tar::EntryType::Regular,
            });
            builder.append_data(&mut header, name, *content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn entries_come_with_their_contents_and_whiteouts_are_told() {
        let bytes = archive(&[
            ("./a/", b""),
            ("a/one", b"first"),
            ("a/.wh.gone", b""),
            (".wh..wh..opq", b""),
            ("a/.wh..wh.plnk/x", b""),
            ("a/two", b"second"),
        ]);
        let mut entries = LayerEntries::new(&bytes[..], Limits::default());
        let mut seen = Vec::new();
        while let Some(entry) = entries.next().unwrap() {
            let mut text = String::new();
            if entry.path != b"a/one" {
                entries.read_to_string(&mut text).unwrap();
            }
            seen.push((String::from_utf8(entry.path).unwrap(), entry.kind, text));
        }
        let expected = [
            ("a", EntryKind::Directory, ""),
            ("a/one", EntryKind::File, ""),
            ("a/gone", EntryKind::Whiteout, ""),
            ("", EntryKind::Opaque, ""),
            ("a/two", EntryKind::File, "second"),
        ];
        let expected = expected.map(|(path, kind, text)| (path.to_owned(), kind, text.to_owned()));
        assert_eq!(seen, expected);
    }

    #[test]
    fn written_files_are_read_again() {
        let plain = archive(&[("a/one", b"first"), ("two", b"")]);
        let mut entries = LayerEntries::new(&plain[..], Limits::default());
        let mut files = Vec::new();
        while let Some(entry) = entries.next().unwrap() {
            let mut content = Vec::new();
            entries.read_to_end(&mut content).unwrap();
            files.push((entry, content));
        }
        let given = files.iter().map(|(entry, content)| (entry.clone(), &content[..]));
        let again = write_files(given, Vec::new()).unwrap();
        let mut entries = LayerEntries::new(&again[..], Limits::default());
        for (entry, content) in &files {
            assert_eq!(entries.next().unwrap().as_ref(), Some(entry));
            let mut read = Vec::new();
            entries.read_to_end(&mut read).unwrap();
            assert_eq!(read, *content);
        }
        assert!(write_files([(files[0].0.clone(), &b"firs"[..])], Vec::new()).is_err());
    }

    #[test]
    fn cut_archives_are_errors() {
        let bytes = archive(&[("a", &[7; 2000])]);
        let mut entries = LayerEntries::new(&bytes[..1000], Limits::default());
        entries.next().unwrap();
        assert!(io::copy(&mut entries, &mut io::sink()).is_err());
    }
}
