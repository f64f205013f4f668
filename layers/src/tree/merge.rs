//! Several layers as one archive.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};

use task::Task;

use super::{FileKind, Inode, Tree, TreeOptions};
use crate::tar::{Header, Reader, ReaderLimits, TypeFlag, Writer};
use crate::{Error, Result, decompress};

static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// A file whose contents are needed, and its names in order.
type NamedFile<'a> = (&'a Inode, Vec<&'a [u8]>);

/// Writes the file system of a tree as one archive: directories first, then every file in the order
/// of the layers, hard links after their targets. `layers` are the streams of the tree, once more;
/// the same layers always give the same bytes.
///
/// # Errors
/// When a stream is not what it was, or `out` fails.
pub fn merge<R: Read, W: Write>(
    tree: &Tree,
    layers: impl IntoIterator<Item = R>,
    out: W,
    options: &TreeOptions,
    task: &Task,
) -> Result<W> {
    let mut writer = Writer::new(out);
    // Who needs contents: by layer and entry, the names in order.
    let mut wanted: HashMap<(u32, u64), NamedFile<'_>> = HashMap::new();
    for named in tree.iter() {
        if named.inode.kind != FileKind::Directory {
            let entry = wanted.entry(named.inode.origin).or_insert((named.inode, Vec::new()));
            entry.1.push(named.path);
            continue;
        }
        let path = match named.path {
            b"" => b"./".to_vec(),
            path => [path, b"/"].concat(),
        };
        writer.entry(&header(named.inode, TypeFlag::Directory, path)).map_err(Error::write)?;
    }
    let limits = options.limits;
    for (layer, stream) in (0u32..).zip(layers) {
        let input = BufReader::with_capacity(256 * 1024, decompress(task.reading(stream))?);
        let known =
            ReaderLimits { entries: limits.entries, path: limits.path, xattrs: limits.xattrs };
        let mut reader = Reader::new(input, known);
        let mut entry = 0;
        while let Some(found) = reader.next()? {
            task.check()?;
            if let Some((inode, names)) = wanted.remove(&(layer, entry)) {
                write(&mut writer, &found, inode, &names, &mut reader)?;
            }
            entry += 1;
        }
    }
    if let Some((_, (_, names))) = wanted.iter().next() {
        let reason = "it was in its layer before and is gone now";
        return Err(super::names::refuse(names.first().copied().unwrap_or_default(), reason));
    }
    writer.finish().map_err(Error::write)
}

fn write<W: Write>(
    writer: &mut Writer<W>,
    found: &Header,
    inode: &Inode,
    names: &[&[u8]],
    reader: &mut Reader<impl BufRead>,
) -> Result<()> {
    let kind = match inode.kind {
        FileKind::File => TypeFlag::File,
        FileKind::Directory => TypeFlag::Directory,
        FileKind::Symlink => TypeFlag::Symlink,
        FileKind::Char => TypeFlag::Char,
        FileKind::Block => TypeFlag::Block,
        FileKind::Fifo => TypeFlag::Fifo,
    };
    let Some((first, others)) = names.split_first() else { return Ok(()) };
    writer.entry(&header(inode, kind, first.to_vec())).map_err(Error::write)?;
    if kind == TypeFlag::File {
        let size = found.sparse.as_ref().map_or(found.size, |sparse| sparse.size);
        if size != inode.size {
            return Err(super::names::refuse(first, "it has another size than before"));
        }
        contents(found, reader, &mut |bytes| writer.contents(bytes).map_err(Error::write))?;
    }
    for other in others {
        let mut link = header(inode, TypeFlag::HardLink, other.to_vec());
        (link.link, link.size, link.xattrs) = (first.to_vec(), 0, Vec::new());
        writer.entry(&link).map_err(Error::write)?;
    }
    Ok(())
}

fn header(inode: &Inode, kind: TypeFlag, path: Vec<u8>) -> Header {
    Header {
        path,
        link: inode.link.clone(),
        mode: inode.mode,
        uid: inode.uid,
        gid: inode.gid,
        size: if kind == TypeFlag::File { inode.size } else { 0 },
        mtime: inode.mtime,
        device: inode.device,
        xattrs: inode.xattrs.clone(),
        ..Header::new(kind)
    }
}

/// Passes a file's contents on, holes as zeros.
pub(crate) fn contents(
    header: &Header,
    reader: &mut Reader<impl BufRead>,
    pass: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let Some(sparse) = &header.sparse else { return take(reader, header.size, pass) };
    let mut position = 0;
    for (offset, length) in &sparse.pieces {
        zeros(offset - position, pass)?;
        take(reader, *length, pass)?;
        position = offset + length;
    }
    zeros(sparse.size - position, pass)
}

fn take(
    reader: &mut Reader<impl BufRead>,
    mut length: u64,
    pass: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    while length > 0 {
        let bytes = reader.fill()?;
        let n = bytes.len().min(usize::try_from(length).unwrap_or(usize::MAX));
        if n == 0 {
            return Err(Error::read(std::io::ErrorKind::UnexpectedEof.into()));
        }
        pass(&bytes[..n])?;
        reader.consume(n);
        length -= n as u64;
    }
    Ok(())
}

fn zeros(mut length: u64, pass: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    while length > 0 {
        let n = ZEROS.len().min(usize::try_from(length).unwrap_or(usize::MAX));
        pass(&ZEROS[..n])?;
        length -= n as u64;
    }
    Ok(())
}
