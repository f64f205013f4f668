//! Which files the sources of `COPY` and `ADD` mean, and what they are called in the image.

use std::path::{Component, Path, PathBuf};

use dockerfile::glob::{Pattern, is_pattern};
use layers::copy::Keep;
use layers::{FileType, Root, Stat};

use crate::context::Tree;
use crate::context::scan::{Filter, is};
use crate::error::ErrorContext;
use crate::{Error, Result};

/// One thing to be copied.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    /// Below the root of its tree, without links.
    pub(crate) source: PathBuf,
    /// Whether it is a directory, whose contents are copied.
    pub(crate) directory: bool,
    /// Where below the destination (`--parents`).
    pub(crate) prefix: PathBuf,
    /// The name of the copy in a destination that is a directory.
    pub(crate) name: PathBuf,
}

/// As many links are followed as the kernel would.
const LINKS: usize = 40;

/// Finds what one source means. A pattern may match nothing; a plain path must exist.
pub(crate) fn select(tree: &Tree, path: &str, parents: bool) -> Result<Vec<Item>> {
    let (pivot, pattern) = match path.split_once("/./") {
        Some((before, after)) if parents => (before, format!("{before}/{after}")),
        _ => ("", path.replace("/./", "/")),
    };
    let pattern = pattern.trim_end_matches('/');
    let found = if is_pattern(pattern) {
        matches(tree, pattern)?
    } else {
        let missing = |ignored: Option<String>| Error::Missing {
            path: path.to_owned(),
            place: tree.name.clone(),
            near: if ignored.is_some() { None } else { near(tree, Path::new(pattern)) },
            ignored,
        };
        let Some((source, stat)) = locate(&tree.root, Path::new(pattern))? else {
            return Err(missing(None));
        };
        let directory = is(&stat, FileType::Directory);
        if path.ends_with('/') && !directory {
            return Err(Error::NotDirectory { path: format!("{path:?} in {}", tree.name) });
        }
        let leads_to = source.to_string_lossy();
        if let Some(path) =
            [pattern, &*leads_to].into_iter().find(|path| hidden(tree, path, directory))
        {
            return Err(missing(tree.ignored_by(path)));
        }
        vec![(PathBuf::from(pattern), source, directory)]
    };
    let item = |(written, source, directory): (PathBuf, PathBuf, bool)| {
        let name = written.file_name().map(PathBuf::from).unwrap_or_default();
        let shown = written.strip_prefix(pivot).unwrap_or(&written);
        let prefix = match (parents, directory) {
            (false, _) => PathBuf::new(),
            (true, true) => shown.to_owned(),
            (true, false) => shown.parent().map(Path::to_owned).unwrap_or_default(),
        };
        Item { source, directory, prefix, name }
    };
    Ok(found.into_iter().map(item).collect())
}

/// What lies beside a path that is missing and has nearly its name.
fn near(tree: &Tree, path: &Path) -> Option<String> {
    let parent = path.parent().unwrap_or(Path::new(""));
    let (parent, _) = locate(&tree.root, parent).ok()??;
    let entries = tree.root.entries(&parent).ok()?;
    let names: Vec<String> =
        entries.iter().filter_map(|entry| entry.name.to_str().map(str::to_owned)).collect();
    let name = dockerfile::closest(path.file_name()?.to_str()?, names.iter().map(String::as_str))?;
    let beside = path.with_file_name(name);
    (!tree.ignores(&beside.to_string_lossy(), false)).then(|| beside.to_string_lossy().into_owned())
}

/// Whether a path is ignored, and everything below it too.
fn hidden(tree: &Tree, path: &str, directory: bool) -> bool {
    let below = || tree.ignore.as_ref().is_some_and(|ignore| ignore.may_include_below(path));
    tree.ignores(path, directory) && !(directory && below())
}

/// Where a path leads, links followed inside the root, and what is there.
pub(crate) fn locate(root: &Root, path: &Path) -> Result<Option<(PathBuf, Stat)>> {
    let mut at = PathBuf::new();
    let mut rest: Vec<PathBuf> = parts(path);
    let mut links = 0;
    while let Some(part) = rest.pop() {
        if part == Path::new("..") {
            at.pop();
            continue;
        }
        let next = at.join(&part);
        let stat = match root.symlink_metadata(&next) {
            Ok(stat) => stat,
            Err(error) if gone(&error) => return Ok(None),
            Err(error) => return Err(error).during("looking for files to copy"),
        };
        if !is(&stat, FileType::Symlink) {
            at = next;
            continue;
        }
        links += 1;
        if links > LINKS {
            return Err(Error::Loop { path: path.to_owned() });
        }
        let target = root.read_link(&next).during("looking for files to copy")?;
        if target.is_absolute() {
            at = PathBuf::new();
        }
        rest.extend(parts(&target));
    }
    match root.metadata(&at) {
        Ok(stat) => Ok(Some((at, stat))),
        Err(error) if gone(&error) => Ok(None),
        Err(error) => Err(error).during("looking for files to copy"),
    }
}

/// Whether there is nothing at a path.
pub(crate) fn gone(error: &layers::Error) -> bool {
    use rustix::io::Errno;
    matches!(error.errno(), Some(Errno::NOENT | Errno::NOTDIR))
}

/// The components of a path that mean something, last first.
fn parts(path: &Path) -> Vec<PathBuf> {
    let mut parts: Vec<PathBuf> = path
        .components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(PathBuf::from(name)),
            Component::ParentDir => Some(PathBuf::from("..")),
            _ => None,
        })
        .collect();
    parts.reverse();
    parts
}

/// The paths a pattern matches, in order. What lies in a directory that matches comes with it.
fn matches(tree: &Tree, text: &str) -> Result<Vec<(PathBuf, PathBuf, bool)>> {
    // The part of the pattern before its first wildcard leads to one directory.
    let literal = |component: &Component<'_>| !is_pattern(&component.as_os_str().to_string_lossy());
    let literal: PathBuf = Path::new(text).components().take_while(literal).collect();
    let plain = literal.to_string_lossy();
    let rest = text.strip_prefix(&*plain).unwrap_or(text);
    let pattern = format!("{}{rest}", plain.replace('\\', "\\\\"));
    let pattern = Pattern::parse(&pattern).map_err(|error| {
        Error::malformed(format!("the pattern {text:?}"), error.reason.to_owned())
    })?;
    let filter = Filter { ignore: tree.ignore.as_ref(), base: "", exclude: None, prefix: "" };
    let mut found = Vec::new();
    let mut pending = vec![literal];
    while let Some(directory) = pending.pop() {
        let Some((real, stat)) = locate(&tree.root, &directory)? else { continue };
        if !is(&stat, FileType::Directory) {
            continue;
        }
        for entry in tree.root.entries(&real).during(format!("searching {}", tree.name))? {
            let path = directory.join(&entry.name);
            let Some((source, stat)) = locate(&tree.root, &path)? else { continue };
            let is_dir = is(&stat, FileType::Directory);
            let keep = filter.keep(&path, is_dir);
            if keep == Keep::No || hidden(tree, &source.to_string_lossy(), is_dir) {
                continue;
            }
            let shown = path.to_string_lossy();
            if pattern.matches(&shown) && (keep == Keep::Yes || is_dir) {
                found.push((path, source, is_dir));
            } else if entry.kind == FileType::Directory && pattern.may_match_below(&shown) {
                pending.push(path);
            }
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}
