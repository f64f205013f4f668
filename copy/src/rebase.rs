//! Putting an image's own layers on another base, after looking whether that is safe.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use image::{ContainerConfig, Digest, Image, Platform, Reference, history_behind};
use layers::{FileKind, Tree};
use serde_json::Value;
use task::Task;

use crate::{Draft, Error, Location, PathChange, Result, Source, Trees};

/// Names the base of an image (image-spec, annotations.md).
pub const BASE_NAME: &str = "org.opencontainers.image.base.name";
/// The digest of the base.
pub const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";

impl Draft<'_> {
    /// Says in the manifest what the base is.
    pub fn name_base(&mut self, location: &Location, base: &Image) {
        let annotations = &mut self.manifest.annotations;
        annotations.insert(BASE_DIGEST.to_owned(), base.descriptor().digest.to_string());
        if let Location::Registry(reference) = location {
            let name = Reference { digest: None, ..reference.clone() }.or_latest();
            annotations.insert(BASE_NAME.to_owned(), name.to_string());
        }
    }
}

/// Reads an image back from where it was written: every digest and every diffID.
///
/// # Errors
/// [`Error::Place`], [`Error::Layer`], [`Error::Content`] when it is another image.
pub async fn read_back(
    source: &dyn Source,
    platform: &Platform,
    expected: Digest,
    task: &Task,
) -> Result<()> {
    let (_, image) = crate::open(source, platform).await?;
    let found = image.descriptor().digest;
    if found != expected {
        return Err(image::Error::DigestMismatch { expected, found }.into());
    }
    Trees::default().of(source, &image, task).await.map(drop)
}

/// An image and where it is.
#[derive(Clone, Copy)]
pub struct Base<'a> {
    /// Where it is.
    pub source: &'a dyn Source,
    /// The image.
    pub image: &'a Image,
}

impl std::fmt::Debug for Base<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.image.descriptor().digest.fmt(f)
    }
}

/// What a rebase found.
#[derive(Debug, Clone, Default)]
pub struct RebaseReport {
    /// What would go wrong: the image and the new base disagree.
    pub conflicts: Vec<String>,
    /// What is different but most likely meant so.
    pub notes: Vec<String>,
    /// What cannot be checked and is taken to be so.
    pub assumptions: Vec<String>,
    /// Names that the image's own layers touch.
    pub touched: usize,
}

/// A rebased image that is not published yet.
#[derive(Debug)]
pub struct Rebase<'a> {
    /// What was found.
    pub report: RebaseReport,
    /// The image.
    pub draft: Draft<'a>,
}

/// More lines than this a report does not have of one kind.
const LINES: usize = 1000;

/// Takes the layers of `image` above `old` and puts them on `new`. The file systems of both bases
/// are compared wherever the image's own layers touch them, and the configurations are merged
/// three ways: what the image left as its base had it becomes as the new base has it.
///
/// Nothing is refused here but what cannot be done at all; the report says whether it is safe.
///
/// # Errors
/// [`Error::Rebase`] when `old` is not the base of the image or the platforms differ;
/// [`Error::Place`], [`Error::Layer`].
pub async fn rebase<'a>(
    image: Base<'a>,
    old: Base<'a>,
    new: Base<'a>,
    room: &Path,
    task: &Task,
) -> Result<Rebase<'a>> {
    let refuse = |reason: String| Error::Rebase { digest: image.image.descriptor().digest, reason };
    let own: Vec<_> = image.image.layers().map(|l| (l.descriptor.clone(), l.diff_id)).collect();
    let below: Vec<_> = old.image.layers().map(|l| l.diff_id).collect();
    if own.len() < below.len() || own.iter().zip(&below).any(|(own, below)| own.1 != *below) {
        let base = old.image.descriptor().digest;
        return Err(refuse(format!("{base} is not its base: their lowest layers differ")));
    }
    let (platform, other) = (image.image.platform(), new.image.platform());
    if platform.os != other.os
        || platform.architecture != other.architecture
        || platform.variant != other.variant
    {
        return Err(refuse(format!("it is for {platform}, the new base is for {other}")));
    }
    let trees = Trees { digests: true };
    let both = ((old.source, old.image), (new.source, new.image));
    let (before, after) = trees.of_both(both.0, both.1, task).await?;
    // On the new base: this also shows that every layer is what it should be and fits.
    let above = &own[below.len()..];
    let plain = Trees { digests: false };
    let (_, touched) = plain.on(after.clone(), image.source, above, task).await?;
    let mut report = RebaseReport { touched: touched.len(), ..RebaseReport::default() };
    compare(&before, &after, &touched, &mut report);
    let mut draft = Draft::new(image.source, image.image, room);
    draft.replace_base(below.len(), new.source, new.image);
    let (a, b) = (&old.image.config().config, &new.image.config().config);
    draft.config.config = merge_config(a, b, &draft.config.config, &mut report);
    history(image.image, old.image, new.image, &mut draft, &mut report);
    report.assumptions.push(
        "programs of the image run with the libraries and interpreters of the new base".to_owned(),
    );
    for lines in [&mut report.conflicts, &mut report.notes] {
        lines.sort();
        lines.dedup();
        let more = lines.len().saturating_sub(LINES);
        lines.truncate(LINES);
        lines.extend((more > 0).then(|| format!("and {more} more")));
    }
    Ok(Rebase { report, draft })
}

/// What the image's layers touch and the bases do not agree on.
fn compare(old: &Tree, new: &Tree, changes: &[PathChange], report: &mut RebaseReport) {
    let mut seen = BTreeSet::new();
    for touch in changes {
        let path = touch.path();
        if !seen.insert((path, matches!(touch, PathChange::Brings(_)))) {
            continue;
        }
        let name = format!("/{}", String::from_utf8_lossy(path));
        if let Some(above) = moved(old, new, path) {
            let above = String::from_utf8_lossy(above);
            report
                .conflicts
                .push(format!("/{above}: is not a directory in the new base, and {name} is in it"));
            continue;
        }
        let (was, is) = (old.get(path), new.get(path));
        match touch {
            PathChange::Brings(_) => match (was, is) {
                (None, None) => {}
                (None, Some(is)) if is.inode.kind == FileKind::Directory => {}
                (None, Some(_)) => report
                    .conflicts
                    .push(format!("{name}: the image replaces what only the new base has")),
                (Some(was), None) if was.inode.kind == FileKind::Directory => {}
                (Some(_), None) => report
                    .conflicts
                    .push(format!("{name}: the image changed what the new base no longer has")),
                (Some(was), Some(is)) if was.inode.same(is.inode) => {}
                (Some(was), Some(is)) => {
                    let (was, is) = (was.inode, is.inode);
                    let directories =
                        was.kind == FileKind::Directory && is.kind == FileKind::Directory;
                    let same_owner = (was.mode, was.uid, was.gid) == (is.mode, is.uid, is.gid);
                    match (directories, same_owner) {
                        (true, true) => {}
                        (true, false) => report.notes.push(format!(
                            "{name}: mode {:o} owner {}:{} of the old base are kept, the new one has {:o} {}:{}",
                            was.mode, was.uid, was.gid, is.mode, is.uid, is.gid
                        )),
                        (false, _) => report
                            .conflicts
                            .push(format!("{name}: the image and the new base changed it differently")),
                    }
                }
            },
            PathChange::Removes(_) | PathChange::Empties(_) => {
                let same = match (was, is) {
                    (None, None) => true,
                    (Some(was), Some(is)) => was.inode.same(is.inode) && alike(old, new, path),
                    _ => false,
                };
                if !same {
                    report
                        .notes
                        .push(format!("{name}: the image removes it, and the bases differ in it"));
                }
            }
        }
    }
}

/// The directory above a name that is none in the new base.
fn moved<'a>(old: &Tree, new: &Tree, path: &'a [u8]) -> Option<&'a [u8]> {
    let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    let mut above = ends.map(|at| &path[..at]);
    let directory = |tree: &Tree, path: &[u8]| {
        tree.get(path).map(|named| named.inode.kind == FileKind::Directory)
    };
    above.find(|above| directory(old, above) == Some(true) && directory(new, above) == Some(false))
}

/// Whether everything below a directory is the same in both.
fn alike(old: &Tree, new: &Tree, path: &[u8]) -> bool {
    let (mut a, mut b) = (old.below(path), new.below(path));
    loop {
        match (a.next(), b.next()) {
            (None, None) => return true,
            (Some(a), Some(b)) if a.path == b.path && a.inode.same(b.inode) => {}
            _ => return false,
        }
    }
}

/// Three values of one field: the old base's, the new base's, the image's. What the image left
/// alone follows the base.
fn three<T: Clone + PartialEq>(old: &T, new: &T, own: &T, conflict: impl FnOnce()) -> T {
    if own == old {
        return new.clone();
    }
    if new != old && new != own {
        conflict();
    }
    own.clone()
}

fn merge_config(
    old: &ContainerConfig,
    new: &ContainerConfig,
    own: &ContainerConfig,
    report: &mut RebaseReport,
) -> ContainerConfig {
    let mut conflict = |what: &str| {
        let line = format!("{what}: the image and the new base changed it differently");
        report.conflicts.push(line);
    };
    macro_rules! field {
        ($name:ident, $word:literal) => {
            three(&old.$name, &new.$name, &own.$name, || conflict($word))
        };
    }
    let mut merged = ContainerConfig {
        user: field!(user, "config User"),
        entrypoint: field!(entrypoint, "config Entrypoint"),
        cmd: field!(cmd, "config Cmd"),
        healthcheck: field!(healthcheck, "config Healthcheck"),
        args_escaped: field!(args_escaped, "config ArgsEscaped"),
        working_dir: field!(working_dir, "config WorkingDir"),
        on_build: field!(on_build, "config OnBuild"),
        stop_signal: field!(stop_signal, "config StopSignal"),
        shell: field!(shell, "config Shell"),
        ..own.clone()
    };
    merged.env = env(&old.env, &new.env, &own.env, &mut conflict);
    merged.labels = keys("label", &old.labels, &new.labels, &own.labels, &mut conflict);
    let mut sets = |word: &str, pick: fn(&ContainerConfig) -> &BTreeMap<String, Value>| {
        keys(word, pick(old), pick(new), pick(own), &mut conflict)
    };
    merged.exposed_ports = sets("port", |config| &config.exposed_ports);
    merged.volumes = sets("volume", |config| &config.volumes);
    merged
}

fn keys<V: Clone + PartialEq>(
    word: &str,
    old: &BTreeMap<String, V>,
    new: &BTreeMap<String, V>,
    own: &BTreeMap<String, V>,
    conflict: &mut dyn FnMut(&str),
) -> BTreeMap<String, V> {
    let all: BTreeSet<&String> = old.keys().chain(new.keys()).chain(own.keys()).collect();
    let mut merged = BTreeMap::new();
    for key in all {
        let value = three(&old.get(key), &new.get(key), &own.get(key), || {
            conflict(&format!("{word} {key}"));
        });
        merged.extend(value.map(|value| (key.clone(), value.clone())));
    }
    merged
}

/// Variables by name, in the order of the new base, then of the image.
fn env(
    old: &[String],
    new: &[String],
    own: &[String],
    conflict: &mut dyn FnMut(&str),
) -> Vec<String> {
    let pairs = |lines: &[String]| {
        let pair = |line: &String| {
            let (name, value) = line.split_once('=').unwrap_or((line, ""));
            (name.to_owned(), value.to_owned())
        };
        lines.iter().map(pair).collect::<BTreeMap<_, _>>()
    };
    let merged = keys("env", &pairs(old), &pairs(new), &pairs(own), conflict);
    let mut lines = Vec::with_capacity(merged.len());
    let mut done = BTreeSet::new();
    for line in new.iter().chain(own) {
        let name = line.split_once('=').map_or(line.as_str(), |(name, _)| name);
        if let Some(value) = merged.get(name).filter(|_| done.insert(name.to_owned())) {
            lines.push(format!("{name}={value}"));
        }
    }
    lines
}

/// The new base's history and behind it the image's own.
fn history(
    image: &Image,
    old: &Image,
    new: &Image,
    draft: &mut Draft<'_>,
    report: &mut RebaseReport,
) {
    let base = old.config().history.len();
    let own = &image.config().history;
    let starts = own.len() >= base && own[..base] == old.config().history[..];
    let behind = match starts {
        true => Some(&own[base..]),
        false => history_behind(image.config(), old.config().rootfs.diff_ids.len()),
    };
    draft.config.history.clone_from(&new.config().history);
    match behind {
        Some(behind) => draft.config.history.extend(behind.to_vec()),
        None => {
            draft.config.history.clear();
            report.notes.push("history: it does not match the layers and is omitted".to_owned());
        }
    }
}

/// Whether the base of an image is still what its name points at, and the digest of that.
/// `expected` is the digest the base had: its own, or that of the index it is in. Without one, the
/// layers of the base are to be the first ones of the image.
///
/// # Errors
/// The base is not there, or not for the platform.
pub async fn check_base(
    image: &Image,
    base: &dyn Source,
    expected: Option<Digest>,
    platform: &Platform,
) -> Result<(bool, Digest)> {
    let (named, now) = crate::open(base, platform).await?;
    let mut own = image.layers().map(|layer| layer.diff_id);
    let same = match expected {
        Some(digest) => digest == named.digest || digest == now.manifest().digest(),
        None => now.layers().all(|layer| own.next() == Some(layer.diff_id)),
    };
    Ok((same, named.digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_image_left_alone_follows_the_base() {
        let lines = |lines: &[&str]| lines.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (old, new) = (lines(&["PATH=/bin", "V=1", "GONE=1"]), lines(&["PATH=/usr/bin", "V=2"]));
        let own = lines(&["PATH=/bin", "V=1", "GONE=1", "APP=1"]);
        let mut conflicts = Vec::new();
        let merged = env(&old, &new, &own, &mut |what| conflicts.push(what.to_owned()));
        assert_eq!(merged, ["PATH=/usr/bin", "V=2", "APP=1"]);
        assert!(conflicts.is_empty());
        let own = lines(&["PATH=/app:/bin", "V=1"]);
        let merged = env(&old, &new, &own, &mut |what| conflicts.push(what.to_owned()));
        assert_eq!(merged, ["PATH=/app:/bin", "V=2"]);
        assert_eq!(conflicts, ["env PATH"]);
        assert_eq!(three(&1, &2, &2, || panic!("both did the same")), 2);
        assert_eq!(three(&1, &1, &3, || panic!("the base did nothing")), 3);
    }
}
