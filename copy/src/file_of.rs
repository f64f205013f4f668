use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::Path;

use image::Image;
use layers::{EntryKind, LayerEntries, LayerEntry, Limits};
use task::{Cause, Task};

use crate::bridge::blocking;
use crate::{Error, LayerFile, Result, Source, layers_of, scratch};

/// As many symbolic links are followed as by the kernel.
const LINKS: usize = 40;

/// What a layer has at a path.
#[derive(Debug)]
enum Seen {
    /// Nothing: the layers below decide.
    Nothing,
    /// It takes away what layers below have there.
    Hidden,
    /// The content of a file.
    Content(File),
    /// The same as at another path of all layers.
    Link(Vec<u8>),
    /// The same as at another path of this layer.
    Same(Vec<u8>),
    /// Something that has no content.
    Other(EntryKind),
}

/// The content of one file of an image, following symbolic links, in an unnamed file in `room`.
/// Layers are fetched from the top, and checked, until one has the file; those below are not
/// fetched.
///
/// # Errors
/// [`Error::NoFile`], the errors of [`layers_of`], [`Error::Layer`] for a broken layer.
pub async fn file_of(
    source: &dyn Source,
    image: &Image,
    path: &str,
    room: &Path,
    task: &Task,
) -> Result<File> {
    let layers: Vec<_> = image.layers().map(|l| (l.descriptor.clone(), l.diff_id)).collect();
    let missing = |reason: &str| Error::NoFile { path: path.to_owned(), reason: reason.to_owned() };
    let mut fetched: Vec<LayerFile> = Vec::new();
    let mut wanted = normal(b"", path.as_bytes());
    'links: for _ in 0..LINKS {
        for (number, layer) in layers.iter().rev().enumerate() {
            if number == fetched.len() {
                fetched.extend(layers_of(source, std::slice::from_ref(layer), room, task).await?);
            }
            let (file, path, room) = (fetched[number].clone(), wanted.clone(), room.to_owned());
            match blocking(move || in_layer(&file, path, &room)).await? {
                Seen::Nothing => {}
                Seen::Content(file) => return Ok(file),
                Seen::Hidden => return Err(missing("there is no such file")),
                Seen::Other(kind) => return Err(missing(&format!("it is a {}", kind.as_str()))),
                Seen::Link(target) | Seen::Same(target) => {
                    wanted = target;
                    continue 'links;
                }
            }
        }
        return Err(missing("there is no such file"));
    }
    Err(missing("there are too many symbolic links on the way"))
}

/// What the layer has at a path; hard links are followed in it.
fn in_layer(layer: &LayerFile, mut path: Vec<u8>, room: &Path) -> Result<Seen> {
    for _ in 0..LINKS {
        match look(layer, &path, room)? {
            Seen::Same(target) => path = target,
            seen => return Ok(seen),
        }
    }
    Ok(Seen::Hidden)
}

fn look(layer: &LayerFile, path: &[u8], room: &Path) -> Result<Seen> {
    let failed = |source| Error::Layer {
        name: layer.descriptor.digest.to_string(),
        source: Cause::new(source),
    };
    let plain = layers::decompress(layer.open()?).map_err(failed)?;
    let mut entries = LayerEntries::new(plain, Limits::default());
    let mut seen = Seen::Nothing;
    while let Some(entry) = entries.next().map_err(failed)? {
        match seen_in(&entry, path) {
            Some(Seen::Other(EntryKind::File)) if !entry.sparse => {
                let mut file = scratch(room)?;
                std::io::copy(&mut entries, &mut file).map_err(Error::Stream)?;
                file.seek(SeekFrom::Start(0)).map_err(Error::Stream)?;
                seen = Seen::Content(file);
            }
            // What a layer takes away, it takes from those below it.
            Some(Seen::Hidden) if !matches!(seen, Seen::Nothing) => {}
            Some(other) => seen = other,
            None => {}
        }
    }
    Ok(seen)
}

/// What an entry says of a path; of a file's content, that it is a file.
fn seen_in(entry: &LayerEntry, path: &[u8]) -> Option<Seen> {
    let rest = path.strip_prefix(entry.path.as_slice())?;
    let parent = entry.path.rsplitn(2, |byte| *byte == b'/').nth(1).unwrap_or_default();
    match (entry.kind, rest) {
        (EntryKind::Symlink, []) => Some(Seen::Link(normal(parent, &entry.link))),
        (EntryKind::HardLink, []) => Some(Seen::Same(normal(b"", &entry.link))),
        (EntryKind::Whiteout, []) => Some(Seen::Hidden),
        (EntryKind::Opaque, []) => Some(Seen::Other(EntryKind::Directory)),
        (kind, []) => Some(Seen::Other(kind)),
        (kind, rest) if rest[0] == b'/' || entry.path.is_empty() => match kind {
            EntryKind::Symlink => {
                let target = [&normal(parent, &entry.link), rest].concat();
                Some(Seen::Link(normal(b"", &target)))
            }
            EntryKind::Directory => None,
            _ => Some(Seen::Hidden),
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
