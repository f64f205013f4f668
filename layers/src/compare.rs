//! What differs between two layers, entry by entry.

use std::collections::BTreeMap;
use std::io::{self, Read};

use image::Digest;
use task::Task;

use crate::entries::{EntryKind, LayerEntries, LayerEntry};
use crate::{Error, Limits, Result, decompress};

/// Contents of so many bytes in all are held to find where they part.
const HELD: u64 = 64 << 20;
/// Values longer than this are shown by their digest.
const SHOWN: usize = 80;

/// Every entry is remembered: of a layer with more than this it is not worth it.
fn limits() -> Limits {
    Limits { entries: 2_000_000, ..Limits::default() }
}

/// One thing that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The file, from the root.
    pub path: String,
    /// What of it: `missing`, `added`, `kind`, `mode`, `owner`, `mtime`, `link`, `device`,
    /// `xattr NAME`, `content`, or `order`.
    pub aspect: String,
    /// What the first layer has; empty where there is nothing to show.
    pub before: String,
    /// What the second layer has.
    pub after: String,
}

/// Everything that differs, up to a limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// In the order of the paths.
    pub differences: Vec<Difference>,
    /// How many more there are.
    pub more: u64,
}

/// Whether times of files count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Times {
    /// They do.
    #[default]
    Compared,
    /// They do not.
    Ignored,
}

/// Opens one of the two layers, compressed or not; the first if `true`. Called at most twice for
/// each.
pub type OpenSide<'a> = dyn FnMut(bool) -> Result<Box<dyn Read>> + 'a;

/// An entry as the comparison remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ComparedEntry {
    entry: LayerEntry,
    content: Option<Digest>,
    position: usize,
}

/// Compares two layers; of many differences only the first `most` are kept.
///
/// # Errors
/// A layer cannot be read.
pub fn compare(
    open: &mut OpenSide<'_>,
    most: usize,
    times: Times,
    task: &Task,
) -> Result<Comparison> {
    let first = read(open(true)?, task)?;
    let second = read(open(false)?, task)?;
    let mut found = Comparison::default();
    let mut parted = Vec::new();
    let mut add = |difference: Difference| {
        if found.differences.len() < most {
            found.differences.push(difference);
        } else {
            found.more += 1;
        }
    };
    let mut same = true;
    for (path, one) in &first {
        let Some(other) = second.get(path) else {
            same = false;
            add(difference(path, "missing", one.entry.kind.as_str(), ""));
            continue;
        };
        let differences = attributes(path, one, other, times);
        same &= differences.is_empty() && one.content == other.content;
        differences.into_iter().for_each(&mut add);
        if one.content != other.content && one.entry.kind == other.entry.kind {
            let sizes = [one, other].map(|seen| format!("{} bytes", seen.entry.size));
            add(difference(path, "content", &sizes[0], &sizes[1]));
            parted.push(path.clone());
        }
    }
    for (path, other) in second.iter().filter(|(path, _)| !first.contains_key(*path)) {
        same = false;
        add(difference(path, "added", "", other.entry.kind.as_str()));
    }
    if same && let Some((path, one, other)) = moved(&first, &second) {
        let place = |seen: &ComparedEntry| format!("entry {}", seen.position);
        add(difference(path, "order", &place(one), &place(other)));
    }
    found.differences.sort_by(|a, b| a.path.cmp(&b.path));
    if !parted.is_empty() {
        locate(open, &parted, &mut found.differences, task)?;
    }
    Ok(found)
}

fn difference(path: &[u8], aspect: &str, before: &str, after: &str) -> Difference {
    let path = format!("/{}", String::from_utf8_lossy(path));
    let [before, after] = [before, after].map(str::to_owned);
    Difference { path, aspect: aspect.to_owned(), before, after }
}

/// The entries of a layer by name; of several with one name the last counts.
fn read(layer: Box<dyn Read>, task: &Task) -> Result<BTreeMap<Vec<u8>, ComparedEntry>> {
    let mut entries = LayerEntries::new(decompress(task.reading(layer))?, limits());
    let mut seen = BTreeMap::new();
    let mut position = 0;
    let mut buffer = vec![0; 256 << 10];
    while let Some(entry) = entries.next()? {
        let mut digester = image::Digester::new(image::Algorithm::Sha256);
        let mut content = None;
        if entry.kind == EntryKind::File {
            loop {
                match entries.read(&mut buffer).map_err(Error::read)? {
                    0 => break,
                    length => digester.update(&buffer[..length]),
                }
            }
            content = Some(digester.finish());
        }
        position += 1;
        seen.insert(entry.path.clone(), ComparedEntry { entry, content, position });
    }
    Ok(seen)
}

/// Differences in everything but the contents.
fn attributes(
    path: &[u8],
    one: &ComparedEntry,
    other: &ComparedEntry,
    times: Times,
) -> Vec<Difference> {
    let (a, b) = (&one.entry, &other.entry);
    let mut all = Vec::new();
    let mut check = |aspect: &str, before: String, after: String| {
        if before != after {
            all.push(difference(path, aspect, &before, &after));
        }
    };
    check("kind", a.kind.as_str().to_owned(), b.kind.as_str().to_owned());
    check("mode", format!("{:04o}", a.mode), format!("{:04o}", b.mode));
    check("owner", format!("{}:{}", a.uid, a.gid), format!("{}:{}", b.uid, b.gid));
    let time = |(seconds, nanos): (i64, u32)| match nanos {
        0 => seconds.to_string(),
        nanos => format!("{seconds}.{nanos:09}"),
    };
    if times == Times::Compared {
        check("mtime", time(a.mtime), time(b.mtime));
    }
    check("link", shown(&a.link), shown(&b.link));
    check("device", format!("{:?}", a.device), format!("{:?}", b.device));
    let (before, after): (BTreeMap<_, _>, BTreeMap<_, _>) =
        (a.xattrs.iter().cloned().collect(), b.xattrs.iter().cloned().collect());
    for name in before.keys().chain(after.keys().filter(|name| !before.contains_key(*name))) {
        let value = |map: &BTreeMap<Vec<u8>, Vec<u8>>| match map.get(name) {
            Some(value) => shown(value),
            None => "none".to_owned(),
        };
        let aspect = format!("xattr {}", shown(name));
        check(&aspect, value(&before), value(&after));
    }
    all
}

fn shown(value: &[u8]) -> String {
    match str::from_utf8(value) {
        Ok(text) if text.len() <= SHOWN && !text.chars().any(char::is_control) => text.to_owned(),
        _ => format!("{} bytes, {}", value.len(), Digest::of(value)),
    }
}

/// The first entry that stands at another place, where all else is the same.
fn moved<'a>(
    first: &'a BTreeMap<Vec<u8>, ComparedEntry>,
    second: &'a BTreeMap<Vec<u8>, ComparedEntry>,
) -> Option<(&'a [u8], &'a ComparedEntry, &'a ComparedEntry)> {
    let pairs = first.iter().filter_map(|(path, one)| Some((&path[..], one, second.get(path)?)));
    pairs
        .filter(|(_, one, other)| one.position != other.position)
        .min_by_key(|(_, one, _)| one.position)
}

/// Reads the contents that differ again, to say where they part.
fn locate(
    open: &mut OpenSide<'_>,
    paths: &[Vec<u8>],
    differences: &mut [Difference],
    task: &Task,
) -> Result<()> {
    let mut held: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut left = HELD;
    each(open(true)?, paths, task, &mut |path, size, content| {
        held.remove(path);
        if size > left {
            return Ok(());
        }
        left -= size;
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        held.insert(path.to_vec(), bytes);
        Ok(())
    })?;
    each(open(false)?, paths, task, &mut |path, _, content| {
        let Some(before) = held.get(path) else { return Ok(()) };
        let mut after = Vec::new();
        content.take(before.len() as u64 + 1).read_to_end(&mut after)?;
        let same = before.iter().zip(&after).take_while(|(a, b)| a == b).count();
        let shown = format!("/{}", String::from_utf8_lossy(path));
        let about = differences.iter_mut().find(|d| d.aspect == "content" && d.path == shown);
        if let Some(about) = about {
            let mut place = format!("byte {same}");
            if !before[..same].contains(&0) {
                let line = before[..same].iter().filter(|byte| **byte == b'\n').count() + 1;
                place = format!("line {line}, {place}");
            }
            about.before = format!("{}, differs at {place}", about.before);
        }
        Ok(())
    })
}

type Visit<'a> = dyn FnMut(&[u8], u64, &mut dyn Read) -> io::Result<()> + 'a;

fn each(layer: Box<dyn Read>, paths: &[Vec<u8>], task: &Task, visit: &mut Visit<'_>) -> Result<()> {
    let mut entries = LayerEntries::new(decompress(task.reading(layer))?, limits());
    while let Some(entry) = entries.next()? {
        if entry.kind == EntryKind::File && paths.binary_search(&entry.path).is_ok() {
            visit(&entry.path, entry.size, &mut entries).map_err(Error::read)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    type File = (&'static str, &'static str, u32, u64);

    fn layer(files: &[File]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content, mode, mtime) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_mode(*mode);
            header.set_mtime(*mtime);
            header.set_uid(0);
            header.set_gid(0);
            builder.append_data(&mut header, name, content.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn compared(one: &[File], other: &[File]) -> Vec<String> {
        compared_with(one, other, Times::Compared)
    }

    fn compared_with(one: &[File], other: &[File], times: Times) -> Vec<String> {
        let (one, other) = (layer(one), layer(other));
        let mut open = |first| -> Result<Box<dyn Read>> {
            Ok(Box::new(io::Cursor::new(if first { one.clone() } else { other.clone() })))
        };
        let found = compare(&mut open, 100, times, &Task::silent()).unwrap();
        let line = |d: &Difference| format!("{} {}: {} -> {}", d.path, d.aspect, d.before, d.after);
        found.differences.iter().map(line).collect()
    }

    #[test]
    fn every_aspect_is_told() {
        let one: &[File] =
            &[("a", "same\nline two\n", 0o644, 1), ("b", "x", 0o644, 1), ("gone", "", 0o644, 1)];
        let other: &[File] =
            &[("a", "same\nline 2\n", 0o644, 1), ("b", "x", 0o755, 2), ("new", "", 0o644, 1)];
        let expected = [
            "/a content: 14 bytes, differs at line 2, byte 10 -> 12 bytes",
            "/b mode: 0644 -> 0755",
            "/b mtime: 1 -> 2",
            "/gone missing: file -> ",
            "/new added:  -> file",
        ];
        assert_eq!(compared(one, other), expected);
        assert!(compared(one, one).is_empty());
        let without = compared_with(one, other, Times::Ignored);
        assert_eq!(without, [&expected[..2], &expected[3..]].concat());
    }

    #[test]
    fn the_order_counts_where_nothing_else_differs() {
        let (a, b) = (("a", "", 0o644, 1), ("b", "", 0o644, 1));
        assert_eq!(compared(&[a, b], &[b, a]), ["/a order: entry 1 -> entry 2"]);
    }

    #[test]
    fn many_differences_are_counted_and_not_kept() {
        let (one, other) = (layer(&[("a", "1", 0, 0), ("b", "1", 0, 0)]), layer(&[]));
        let mut open = |first| -> Result<Box<dyn Read>> {
            Ok(Box::new(io::Cursor::new(if first { one.clone() } else { other.clone() })))
        };
        let found = compare(&mut open, 1, Times::Compared, &Task::silent()).unwrap();
        assert_eq!((found.differences.len(), found.more), (1, 1));
    }
}
