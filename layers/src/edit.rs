//! The same layer with changes to some entries.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use task::Task;

use crate::tar::{Header, Reader, ReaderLimits, TypeFlag, Writer};
use crate::tree::contents;
use crate::{Error, Limits, Result, decompress};

/// What is done to the entries of a layer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LayerEdit {
    /// These paths go, with everything below them. They are relative to the root.
    pub strip: BTreeSet<Vec<u8>>,
    /// No entry is younger than this, in seconds since 1970.
    pub clamp: Option<i64>,
}

impl LayerEdit {
    /// A path as entries are compared with it: without `.`, doubled slashes and a slash at an end.
    pub fn path(text: &[u8]) -> Vec<u8> {
        let parts = text.split(|byte| *byte == b'/');
        let parts: Vec<_> = parts.filter(|part| !part.is_empty() && *part != b".").collect();
        parts.join(&b'/')
    }

    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.strip.is_empty() && self.clamp.is_none()
    }

    fn strips(&self, path: &[u8]) -> bool {
        let path = LayerEdit::path(path);
        self.strip.iter().any(|gone| {
            path.strip_prefix(&gone[..]).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
        })
    }
}

/// Writes a layer's archive again with the changes; gives back whether an entry is another one.
///
/// # Errors
/// The stream is no archive, `out` fails, or a hard link that stays is to a file that goes.
pub fn edit_layer<W: Write>(
    layer: impl Read,
    out: W,
    edit: &LayerEdit,
    task: &Task,
) -> Result<(W, bool)> {
    let limits = Limits::default();
    let limits = ReaderLimits { entries: limits.entries, path: limits.path, xattrs: limits.xattrs };
    let input = BufReader::with_capacity(256 * 1024, decompress(task.reading(layer))?);
    let (mut reader, mut writer) = (Reader::new(input, limits), Writer::new(out));
    let mut changed = false;
    while let Some(found) = reader.next()? {
        task.check()?;
        if edit.strips(&found.path) {
            changed = true;
            continue;
        }
        if found.kind == TypeFlag::HardLink && edit.strips(&found.link) {
            let [path, target] = [&found.path, &found.link].map(|name| path_of(name));
            return Err(Error::LinkTarget { path, target });
        }
        let mut header = Header { sparse: None, ..found.clone() };
        if let Some(sparse) = &found.sparse {
            header.size = sparse.size;
        }
        if let Some(clamp) = edit.clamp.filter(|clamp| found.mtime > (*clamp, 0)) {
            (header.mtime, changed) = ((clamp, 0), true);
        }
        writer.entry(&header).map_err(Error::write)?;
        if found.kind == TypeFlag::File {
            contents(&found, &mut reader, &mut |bytes| {
                writer.contents(bytes).map_err(Error::write)
            })?;
        }
    }
    Ok((writer.finish().map_err(Error::write)?, changed))
}

fn path_of(name: &[u8]) -> PathBuf {
    OsStr::from_bytes(name).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(entries: &[(&str, TypeFlag, &str, i64)]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        for (path, kind, text, mtime) in entries {
            let mut header = Header::new(*kind);
            (header.path, header.mtime) = (path.as_bytes().to_vec(), (*mtime, 0));
            match kind {
                TypeFlag::File => header.size = text.len() as u64,
                _ => header.link = text.as_bytes().to_vec(),
            }
            writer.entry(&header).unwrap();
            if *kind == TypeFlag::File {
                writer.contents(text.as_bytes()).unwrap();
            }
        }
        writer.finish().unwrap()
    }

    fn edited(layer: &[u8], strip: &[&str], clamp: Option<i64>) -> Result<(Vec<u8>, bool)> {
        let strip = strip.iter().map(|path| LayerEdit::path(path.as_bytes())).collect();
        edit_layer(layer, Vec::new(), &LayerEdit { strip, clamp }, &Task::silent())
    }

    #[test]
    fn paths_go_with_what_is_below_and_times_are_clamped() {
        let file = TypeFlag::File;
        let all = archive(&[
            ("./etc/", TypeFlag::Directory, "", 5),
            ("etc/secret", file, "s", 5),
            ("etc/secrets", file, "kept", 50),
            ("etc/dir/", TypeFlag::Directory, "", 5),
            ("etc/dir/a", file, "a", 5),
        ]);
        let (left, changed) = edited(&all, &["/etc/secret", "etc/dir/"], None).unwrap();
        let expected =
            archive(&[("./etc/", TypeFlag::Directory, "", 5), ("etc/secrets", file, "kept", 50)]);
        assert!(changed && left == expected);
        let (left, changed) = edited(&left, &[], Some(7)).unwrap();
        let expected =
            archive(&[("./etc/", TypeFlag::Directory, "", 5), ("etc/secrets", file, "kept", 7)]);
        assert!(changed && left == expected);
        assert!(!edited(&left, &["none"], Some(7)).unwrap().1);
    }

    #[test]
    fn a_link_to_what_goes_is_not_left_alone() {
        let all = archive(&[("a", TypeFlag::File, "x", 0), ("b", TypeFlag::HardLink, "a", 0)]);
        let error = edited(&all, &["a"], None).unwrap_err().to_string();
        assert!(error.contains("not in this layer"), "{error}");
        assert!(edited(&all, &["a", "b"], None).unwrap().1);
    }
}
