use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use image::{Descriptor, Digest, Image};
use layers::{EntryKind, LayerEntries, LayerEntry, Limits, TableEntry};
use task::{Cause, Task};

use crate::bridge::blocking;
use crate::edit::of_layer;
use crate::parts::{PartedLayer, content_of};
use crate::{Error, Indexes, LayerFile, Result, Source, gzip_index, layers_of, scratch};

/// As many symbolic links are followed as by the kernel.
const LINKS: usize = 40;

/// A file of an image.
#[derive(Debug)]
pub struct FoundFile {
    /// Everything about it but its content; its path is where it is once links are followed.
    pub entry: LayerEntry,
    /// Its content, in an unnamed file that is read from its start.
    pub content: File,
}

/// What a layer has at a path.
#[derive(Debug)]
enum PathInLayer {
    /// Nothing: the layers below decide.
    Nothing,
    /// It takes away what layers below have there.
    Hidden,
    /// A file.
    Content(Box<FoundFile>),
    /// The file of the entry of this number in the table of contents.
    At(usize),
    /// The same as at another path of all layers.
    Link { target: Vec<u8>, last: bool },
    /// The same as at another path of this layer.
    Same(Vec<u8>),
    /// Something that has no content.
    Other(EntryKind),
}

/// A layer that is open for looking up files.
enum LayerReader {
    Whole(LayerFile),
    /// It is here whole, and has an index.
    Indexed(LayerFile, PartedLayer),
    Parted(PartedLayer),
}

/// How files are looked for.
struct Search<'a> {
    source: &'a dyn Source,
    room: &'a Path,
    indexes: &'a dyn Indexes,
    task: &'a Task,
    /// Whether layers without a table of contents are fetched, and links at the path's end
    /// followed.
    whole: bool,
}

impl Search<'_> {
    /// Opens a layer; `None` if it would have to be fetched whole, and must not.
    async fn open(&self, layer: &(Descriptor, Digest)) -> Result<Option<LayerReader>> {
        if let Some(parted) =
            PartedLayer::open(self.source, &layer.0, self.indexes, self.task).await?
        {
            return Ok(Some(LayerReader::Parted(parted)));
        }
        if !self.whole {
            return Ok(None);
        }
        let layer = std::slice::from_ref(layer);
        let mut files = layers_of(self.source, layer, self.room, self.task).await?;
        let Some(file) = files.pop() else { return Ok(None) };
        let table = gzip_index::make(self.source, &file, self.indexes).await?;
        Ok(Some(match table {
            Some(table) => {
                let parted = PartedLayer::new(file.descriptor.clone(), table);
                LayerReader::Indexed(file, parted)
            }
            None => LayerReader::Whole(file),
        }))
    }

    /// What a layer has at a path.
    async fn seen(&self, layer: &LayerReader, path: Vec<u8>) -> Result<PathInLayer> {
        let (whole, parted) = match layer {
            LayerReader::Whole(file) => {
                let (file, room) = (file.clone(), self.room.to_owned());
                return blocking(move || in_layer(path, |path| look(&file, path, &room))).await;
            }
            LayerReader::Indexed(file, parted) => (Some(file), parted),
            LayerReader::Parted(parted) => (None, parted),
        };
        match in_layer(path, |path| Ok(look_up(parted.entries(), path)))? {
            PathInLayer::At(number) => {
                let entry = &parted.entries()[number];
                let content = match whole {
                    Some(file) => {
                        let (file, entry) = (file.clone(), entry.clone());
                        let room = self.room.to_owned();
                        blocking(move || content_of(&file, &entry, &room)).await?
                    }
                    None => parted.content(self.source, entry, self.room, self.task).await?,
                };
                let entry = entry.entry.clone();
                Ok(PathInLayer::Content(Box::new(FoundFile { entry, content })))
            }
            seen => Ok(seen),
        }
    }

    async fn find(&self, image: &Image, path: &str) -> Result<Option<FoundFile>> {
        let layers: Vec<_> = image.layers().map(|l| (l.descriptor.clone(), l.diff_id)).collect();
        let missing =
            |reason: &str| Error::NoFile { path: path.to_owned(), reason: reason.to_owned() };
        let mut opened: Vec<LayerReader> = Vec::new();
        let mut wanted = normal(b"", path.as_bytes());
        'links: for _ in 0..LINKS {
            for (number, layer) in layers.iter().rev().enumerate() {
                if number == opened.len() {
                    let Some(layer) = self.open(layer).await? else { return Ok(None) };
                    opened.push(layer);
                }
                match self.seen(&opened[number], wanted.clone()).await? {
                    PathInLayer::Nothing => {}
                    PathInLayer::Content(found) => return Ok(Some(*found)),
                    PathInLayer::Hidden | PathInLayer::At(_) => {
                        return Err(missing("there is no such file"));
                    }
                    PathInLayer::Other(kind) => {
                        return Err(missing(&format!("it is a {}", kind.as_str())));
                    }
                    PathInLayer::Link { last: true, .. } if !self.whole => return Ok(None),
                    PathInLayer::Link { target, .. } | PathInLayer::Same(target) => {
                        wanted = target;
                        continue 'links;
                    }
                }
            }
            return Err(missing("there is no such file"));
        }
        Err(missing("there are too many symbolic links on the way"))
    }
}

/// One file of an image, following symbolic links; its content is kept in `room`. Layers are
/// fetched from the top, and checked, until one has the file; those below are not fetched. Of
/// layers with a table of contents (zstd:chunked, eStargz) or an index (gzip) only that and the file
/// are fetched, where the place gives parts. Of a gzip layer that is fetched whole, an index is made
/// and kept in `indexes`.
///
/// # Errors
/// [`Error::NoFile`], the errors of [`layers_of`], [`Error::Layer`] for a broken layer.
pub async fn file_of(
    source: &dyn Source,
    image: &Image,
    path: &str,
    (room, indexes): (&Path, &dyn Indexes),
    task: &Task,
) -> Result<FoundFile> {
    let search = Search { source, room, indexes, task, whole: true };
    let reason = || "there is no such file".to_owned();
    search
        .find(image, path)
        .await?
        .ok_or_else(|| Error::NoFile { path: path.to_owned(), reason: reason() })
}

/// Writes an archive of these files of an image, under the paths given.
///
/// # Errors
/// As [`file_of`]; of `out`.
pub async fn export_files<W: Write>(
    source: &dyn Source,
    image: &Image,
    paths: &[String],
    (room, indexes, out): (&Path, &dyn Indexes, W),
    task: &Task,
) -> Result<W> {
    let mut files = Vec::new();
    for path in paths {
        let mut found = file_of(source, image, path, (room, indexes), task).await?;
        path.trim_start_matches('/').as_bytes().clone_into(&mut found.entry.path);
        files.push((found.entry, found.content));
    }
    layers::write_files(files, out).map_err(of_layer("the files"))
}

/// As [`file_of`], but `None` where a layer would have to be fetched whole, or where the path
/// itself is a symbolic link.
///
/// # Errors
/// As [`file_of`].
pub async fn part_of(
    source: &dyn Source,
    image: &Image,
    path: &str,
    (room, indexes): (&Path, &dyn Indexes),
    task: &Task,
) -> Result<Option<FoundFile>> {
    Search { source, room, indexes, task, whole: false }.find(image, path).await
}

/// What the layer has at a path; hard links are followed in it.
fn in_layer(mut path: Vec<u8>, look: impl Fn(&[u8]) -> Result<PathInLayer>) -> Result<PathInLayer> {
    for _ in 0..LINKS {
        match look(&path)? {
            PathInLayer::Same(target) => path = target,
            seen => return Ok(seen),
        }
    }
    Ok(PathInLayer::Hidden)
}

fn look(layer: &LayerFile, path: &[u8], room: &Path) -> Result<PathInLayer> {
    let failed = |source| Error::Layer {
        name: layer.descriptor.digest.to_string(),
        source: Cause::new(source),
    };
    let plain = layers::decompress(layer.open()?).map_err(failed)?;
    let mut entries = LayerEntries::new(plain, Limits::default());
    let mut seen = PathInLayer::Nothing;
    while let Some(entry) = entries.next().map_err(failed)? {
        match seen_in(&entry, path) {
            Some(PathInLayer::Other(EntryKind::File)) if !entry.sparse => {
                let mut file = scratch(room)?;
                std::io::copy(&mut entries, &mut file).map_err(Error::Stream)?;
                file.seek(SeekFrom::Start(0)).map_err(Error::Stream)?;
                seen = PathInLayer::Content(Box::new(FoundFile { entry, content: file }));
            }
            // What a layer takes away, it takes from those below it.
            Some(PathInLayer::Hidden) if !matches!(seen, PathInLayer::Nothing) => {}
            Some(other) => seen = other,
            None => {}
        }
    }
    Ok(seen)
}

/// As [`look`], in a table of contents.
fn look_up(entries: &[TableEntry], path: &[u8]) -> PathInLayer {
    let mut seen = PathInLayer::Nothing;
    for (number, entry) in entries.iter().enumerate() {
        match seen_in(&entry.entry, path) {
            Some(PathInLayer::Other(EntryKind::File)) => seen = PathInLayer::At(number),
            Some(PathInLayer::Hidden) if !matches!(seen, PathInLayer::Nothing) => {}
            Some(other) => seen = other,
            None => {}
        }
    }
    seen
}

/// What an entry says of a path; of a file's content, that it is a file.
fn seen_in(entry: &LayerEntry, path: &[u8]) -> Option<PathInLayer> {
    let rest = path.strip_prefix(entry.path.as_slice())?;
    let parent = entry.path.rsplitn(2, |byte| *byte == b'/').nth(1).unwrap_or_default();
    match (entry.kind, rest) {
        (EntryKind::Symlink, []) => {
            Some(PathInLayer::Link { target: normal(parent, &entry.link), last: true })
        }
        (EntryKind::HardLink, []) => Some(PathInLayer::Same(normal(b"", &entry.link))),
        (EntryKind::Whiteout, []) => Some(PathInLayer::Hidden),
        (EntryKind::Opaque, []) => Some(PathInLayer::Other(EntryKind::Directory)),
        (kind, []) => Some(PathInLayer::Other(kind)),
        (kind, rest) if rest[0] == b'/' || entry.path.is_empty() => match kind {
            EntryKind::Symlink => {
                let target = [&normal(parent, &entry.link), rest].concat();
                Some(PathInLayer::Link { target: normal(b"", &target), last: false })
            }
            EntryKind::Directory => None,
            _ => Some(PathInLayer::Hidden),
        },
        _ => None,
    }
}

/// A path from the root, `path` being taken from `directory`, without `.` and `..`.
fn normal(directory: &[u8], path: &[u8]) -> Vec<u8> {
    let start = if path.first() == Some(&b'/') { &b""[..] } else { directory };
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in start.split(|byte| *byte == b'/').chain(path.split(|byte| *byte == b'/')) {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

#[cfg(test)]
mod tests {
    use super::normal;

    #[test]
    fn paths_are_taken_from_the_directory_of_the_link() {
        for (directory, path, whole) in [
            ("usr/bin", "sh", "usr/bin/sh"),
            ("usr/bin", "../lib/./x", "usr/lib/x"),
            ("usr/bin", "/etc/x", "etc/x"),
            ("", "../../x", "x"),
        ] {
            assert_eq!(normal(directory.as_bytes(), path.as_bytes()), whole.as_bytes());
        }
    }
}
