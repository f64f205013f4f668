//! Names in a tree: relative, without `.` and `..`.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::Error;

/// Links that one name may lead through, as the kernel has it.
const LINKS: usize = 40;

/// The range of names below a directory; the root's is all but itself.
pub(super) fn below(directory: &[u8]) -> (Vec<u8>, Vec<u8>) {
    if directory.is_empty() {
        // No name is longer than 4 KiB, and none has a byte above 0xff.
        return (vec![0], vec![0xff; 4097]);
    }
    ([directory, b"/"].concat(), [directory, b"0"].concat())
}

/// The directory a name lies in.
pub(super) fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').map_or(b"", |at| &path[..at])
}

/// A name in a directory.
pub(super) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    match directory {
        b"" => name.to_vec(),
        _ => [directory, b"/", name].concat(),
    }
}

/// Where a directory's name leads when links are followed within the root.
pub(super) fn through(
    links: &HashMap<Vec<u8>, Vec<u8>>,
    path: &[u8],
) -> Result<Vec<u8>, &'static str> {
    if links.is_empty() {
        return Ok(path.to_vec());
    }
    let mut todo: Vec<Vec<u8>> = components(path);
    todo.reverse();
    let (mut done, mut followed): (Vec<Vec<u8>>, usize) = (Vec::new(), 0);
    while let Some(part) = todo.pop() {
        if part == b".." {
            done.pop();
            continue;
        }
        done.push(part);
        let Some(link) = links.get(&done.join(&b'/')) else { continue };
        followed += 1;
        if followed > LINKS {
            return Err("its name leads through too many links");
        }
        done.pop();
        if link.starts_with(b"/") {
            done.clear();
        }
        todo.extend(components(link).into_iter().rev());
    }
    Ok(done.join(&b'/'))
}

fn components(path: &[u8]) -> Vec<Vec<u8>> {
    let parts = path.split(|byte| *byte == b'/');
    parts.filter(|part| !matches!(*part, b"" | b".")).map(<[u8]>::to_vec).collect()
}

pub(super) fn shown(name: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(name.to_vec()))
}

pub(super) fn refuse(name: &[u8], reason: &str) -> Error {
    Error::Entry { path: shown(name), reason: reason.to_owned() }
}
