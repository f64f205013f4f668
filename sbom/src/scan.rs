//! One layer: what it brings, and what it hides of the layers below.

use std::collections::BTreeMap;
use std::io::{self, Read};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use image::{Algorithm, Digest, DigestReader};
use layers::{EntryKind, LayerEntries, LayerEntry, Limits, decompress};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use task::Task;

use crate::parse::{self, Binary};
use crate::{Error, Package, Release, Result, rpm};

/// Changes whenever the same layer would be scanned to something else.
pub const SCAN_VERSION: u32 = 3;

/// No more than this is kept of the packages of one layer, in bytes.
const MOST: usize = 256 << 20;
/// No more notes than this are kept of one layer.
const NOTES: usize = 20;

/// What one layer says, whatever lies below or above it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerScan {
    /// By the file that says it.
    pub(crate) findings: BTreeMap<String, Finding>,
    /// Names that nothing below remains under: whiteouts, and everything but directories.
    pub(crate) replaced: Names,
    /// Directories whose contents below are gone.
    pub(crate) emptied: Names,
    /// What could not be read.
    pub(crate) notes: Vec<String>,
}

/// What one file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Finding {
    /// A list that every change writes again.
    Database(Vec<Package>),
    /// Packages that the file is a part of.
    Packages(Vec<Package>),
    /// The distribution.
    Release(Release),
    /// The licence of the Debian package with this name.
    License(String, String),
}

/// A set of names, each as the start of its digest: many files, little room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Names(Vec<u64>);

fn mark(path: &[u8]) -> u64 {
    let digest = Digest::of(path).hex();
    digest.bytes().take(16).fold(0, |mark, digit| {
        mark << 4 | u64::from(char::from(digit).to_digit(16).unwrap_or_default())
    })
}

impl Names {
    fn insert(&mut self, path: &[u8]) {
        self.0.push(mark(path));
    }

    fn close(&mut self) {
        self.0.sort_unstable();
        self.0.dedup();
    }

    fn contains(&self, path: &[u8]) -> bool {
        self.0.binary_search(&mark(path)).is_ok()
    }
}

impl Serialize for Names {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes: Vec<u8> = self.0.iter().flat_map(|mark| mark.to_be_bytes()).collect();
        serializer.serialize_str(&BASE64.encode(bytes))
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = BASE64.decode(text).map_err(serde::de::Error::custom)?;
        let marks = bytes.chunks_exact(8).filter_map(|mark| mark.try_into().ok());
        let mut names = Names(marks.map(u64::from_be_bytes).collect());
        names.close();
        Ok(names)
    }
}

impl LayerScan {
    /// Whether a file of a lower layer is out of sight because of this layer.
    pub(crate) fn hides(&self, path: &str) -> bool {
        let path = path.as_bytes();
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        let mut directories = slashes.map(|(at, _)| &path[..at]);
        self.emptied.contains(b"")
            || self.replaced.contains(path)
            || directories.any(|dir| self.replaced.contains(dir) || self.emptied.contains(dir))
    }

    fn note(&mut self, note: String) {
        if self.notes.len() < NOTES {
            self.notes.push(note);
        }
    }
}

/// What a name lets expect in a file, and how much of it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Interest {
    Dpkg,
    Apk,
    Rpm,
    Release,
    Copyright,
    Python,
    Node,
    NodeCopy,
    Cargo,
    Java,
    Composer,
    Gemspec,
    Gemfile,
}

impl Interest {
    fn of(path: &str) -> Option<Interest> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        Some(match (parent, name) {
            ("var/lib/dpkg", "status") => Interest::Dpkg,
            ("var/lib/dpkg/status.d", name) if !name.ends_with(".md5sums") => Interest::Dpkg,
            ("lib/apk/db" | "usr/lib/apk/db", "installed") => Interest::Apk,
            (
                "var/lib/rpm" | "usr/lib/sysimage/rpm" | "usr/share/rpm",
                "rpmdb.sqlite" | "Packages.db" | "Packages",
            ) => Interest::Rpm,
            ("etc" | "usr/lib", "os-release") => Interest::Release,
            (parent, "copyright") if parent.starts_with("usr/share/doc/") => Interest::Copyright,
            (parent, "METADATA") if parent.ends_with(".dist-info") => Interest::Python,
            (parent, "PKG-INFO") if parent.ends_with(".egg-info") => Interest::Python,
            (_, name) if name.ends_with(".egg-info") => Interest::Python,
            (parent, "package.json") if is_node_package(parent) => Interest::Node,
            (parent, "package.json") if is_in_node_package(parent) => Interest::NodeCopy,
            (_, "Cargo.lock") => Interest::Cargo,
            (_, "composer.lock") => Interest::Composer,
            (parent, "installed.json") if is_or_ends_with(parent, "composer") => Interest::Composer,
            (parent, name) if name.ends_with(".gemspec") && is_of_installed_gems(parent) => {
                Interest::Gemspec
            }
            (_, "Gemfile.lock" | "gems.locked") => Interest::Gemfile,
            (_, name) if parse::is_java_archive(name) => Interest::Java,
            _ => return None,
        })
    }

    /// Larger files are not what they seem.
    fn limit(self) -> u64 {
        match self {
            Interest::Rpm => 512 << 20,
            Interest::Java => 256 << 20,
            Interest::Dpkg | Interest::Apk | Interest::Composer => 64 << 20,
            Interest::Cargo | Interest::Gemfile => 16 << 20,
            Interest::Node | Interest::NodeCopy => 8 << 20,
            Interest::Python | Interest::Copyright | Interest::Gemspec => 4 << 20,
            Interest::Release => 64 << 10,
        }
    }

    fn read(self, path: &str, bytes: &[u8], mut note: impl FnMut(String)) -> Option<Finding> {
        let text = || String::from_utf8_lossy(bytes);
        let some = |packages: Vec<Package>| (!packages.is_empty()).then_some(packages);
        match self {
            Interest::Dpkg => some(parse::dpkg_status(&text())).map(Finding::Database),
            Interest::Apk => some(parse::apk_installed(&text())).map(Finding::Database),
            Interest::Rpm => {
                let found = rpm::packages(bytes).and_then(some).map(Finding::Database);
                if found.is_none() {
                    note(format!("{path} is not a supported RPM database"));
                }
                found
            }
            Interest::Release => Some(Finding::Release(Release::parse(&text()))),
            Interest::Copyright => {
                let package = path.rsplit('/').nth(1)?;
                Some(Finding::License(package.to_owned(), parse::copyright(&text())?))
            }
            Interest::Python => Some(Finding::Packages(vec![parse::python_metadata(&text())?])),
            Interest::Node => Some(Finding::Packages(vec![parse::node_package(bytes)?])),
            Interest::NodeCopy => {
                let package = parse::node_package(bytes)?;
                let directory = path.rsplit_once('/')?.0;
                is_or_ends_with(directory, &package.name).then(|| Finding::Packages(vec![package]))
            }
            Interest::Cargo => some(parse::cargo_lock(&text())).map(Finding::Packages),
            Interest::Composer => some(parse::composer(bytes)).map(Finding::Packages),
            Interest::Gemspec => Some(Finding::Packages(vec![parse::gemspec(&text())?])),
            Interest::Gemfile => some(parse::gemfile_lock(&text())).map(Finding::Packages),
            Interest::Java => {
                let archive = parse::java_archive(path, bytes);
                if !archive.whole {
                    note(format!("{path} is damaged or too large and was not read to its end"));
                }
                some(archive.packages).map(Finding::Packages)
            }
        }
    }
}

/// Whether a path is `end`, or ends with it as a whole name.
fn is_or_ends_with(path: &str, end: &str) -> bool {
    path.strip_suffix(end).is_some_and(|before| before.is_empty() || before.ends_with('/'))
}

/// Whether a directory is where RubyGems writes what it installed. The `.gemspec` files elsewhere are
/// programs.
fn is_of_installed_gems(directory: &str) -> bool {
    let ends = |end| is_or_ends_with(directory, end);
    ends("specifications") || ends("specifications/default")
}

/// Whether a directory is `node_modules/NAME` or `node_modules/@SCOPE/NAME`.
fn is_node_package(directory: &str) -> bool {
    let mut parts = directory.rsplit('/').skip(1);
    match parts.next() {
        Some("node_modules") => true,
        Some(scope) if scope.starts_with('@') => parts.next() == Some("node_modules"),
        _ => false,
    }
}

/// Whether a directory is below a package of Node. A copy of another package there is in a directory
/// of its name; the other `package.json` say how to load files, or are test data.
fn is_in_node_package(directory: &str) -> bool {
    directory.starts_with("node_modules/") || directory.contains("/node_modules/")
}

/// Scans one layer, compressed or not; its bytes, as read, count on `task`. Also returns the digest
/// of the uncompressed layer, which identifies what was scanned.
///
/// # Errors
/// [`Error::Layer`] when the layer cannot be read, [`Error::Limit`], [`Error::Cancelled`].
pub fn scan(layer: impl Read, task: &Task) -> Result<(LayerScan, Digest)> {
    let stream = decompress(task.reading(layer))?;
    let mut stream = DigestReader::new(stream, Algorithm::Sha256);
    let mut scan = LayerScan::default();
    let mut weight = 0;
    let mut entries = LayerEntries::new(&mut stream, Limits::default());
    while let Some(entry) = entries.next()? {
        match entry.kind {
            EntryKind::Opaque => scan.emptied.insert(&entry.path),
            EntryKind::Directory => {}
            _ => scan.replaced.insert(&entry.path),
        }
        let Ok(path) = str::from_utf8(&entry.path) else { continue };
        let found = match entry.kind {
            EntryKind::File => file(&mut scan, &mut entries, &entry, path)?,
            EntryKind::HardLink => linked(&scan, path, &entry.link),
            _ => continue,
        };
        // A later entry of the same name takes the place of an earlier one.
        scan.findings.remove(path);
        if let Some(found) = found {
            weight += path.len() + found.weight();
            if weight > MOST {
                return Err(Error::Limit { what: "bytes of package data", limit: MOST });
            }
            scan.findings.insert(path.to_owned(), found);
        }
    }
    drop(entries);
    // What stands behind the archive's end belongs to the stream all the same.
    io::copy(&mut stream, &mut io::sink()).map_err(failed)?;
    scan.replaced.close();
    scan.emptied.close();
    Ok((scan, stream.finish().1))
}

/// What stopped a read: the layer, its stream, or the user.
pub(crate) fn failed(error: io::Error) -> Error {
    match error.downcast::<layers::Error>() {
        Ok(error) => error.into(),
        Err(error) if task::Cancelled::is_in(&error) => Error::Cancelled(task::Cancelled),
        Err(source) => layers::Error::Read { source }.into(),
    }
}

impl Finding {
    fn weight(&self) -> usize {
        match self {
            Finding::Database(packages) | Finding::Packages(packages) => {
                packages.iter().map(Package::weight).sum()
            }
            Finding::Release(_) => size_of::<Release>(),
            Finding::License(name, license) => name.len() + license.len(),
        }
    }
}

fn file<R: Read>(
    scan: &mut LayerScan,
    entries: &mut LayerEntries<R>,
    entry: &LayerEntry,
    path: &str,
) -> Result<Option<Finding>> {
    if let Some(interest) = Interest::of(path) {
        if entry.size > interest.limit() || entry.sparse {
            scan.note(format!("{path} has {} bytes and was not read", entry.size));
            return Ok(None);
        }
        let mut bytes = Vec::new();
        entries.read_to_end(&mut bytes).map_err(failed)?;
        return Ok(interest.read(path, &bytes, |note| scan.note(note)));
    }
    if entry.size < 64 || entry.sparse {
        return Ok(None);
    }
    let mut piece = vec![0; 256 << 10];
    let mut binary = Binary::default();
    let mut first = true;
    loop {
        let length = fill(entries, &mut piece).map_err(failed)?;
        if length == 0 || first && !Binary::is_one(&piece[..length]) {
            break;
        }
        first = false;
        binary.feed(&piece[..length]);
    }
    let packages = binary.finish();
    Ok((!packages.is_empty()).then_some(Finding::Packages(packages)))
}

/// Reads until the buffer is full or the contents end.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..])? {
            0 => break,
            length => filled += length,
        }
    }
    Ok(filled)
}

/// A hard link says what the file says that it is a link to, if its name lets us ask.
fn linked(scan: &LayerScan, path: &str, target: &[u8]) -> Option<Finding> {
    let target = str::from_utf8(target).ok()?;
    let target = target.trim_start_matches("./").trim_start_matches('/');
    Interest::of(path)?;
    scan.findings.get(target).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_what_to_expect() {
        let cases = [
            ("var/lib/dpkg/status", Some(Interest::Dpkg)),
            ("var/lib/dpkg/status.d/base", Some(Interest::Dpkg)),
            ("var/lib/dpkg/status.d/base.md5sums", None),
            ("var/lib/dpkg/status-old", None),
            ("lib/apk/db/installed", Some(Interest::Apk)),
            ("usr/lib/sysimage/rpm/rpmdb.sqlite", Some(Interest::Rpm)),
            ("usr/share/doc/bash/copyright", Some(Interest::Copyright)),
            ("x/site-packages/a-1.dist-info/METADATA", Some(Interest::Python)),
            ("x/a.egg-info/PKG-INFO", Some(Interest::Python)),
            ("x/a.egg-info", Some(Interest::Python)),
            ("app/node_modules/a/package.json", Some(Interest::Node)),
            ("node_modules/@s/a/package.json", Some(Interest::Node)),
            ("app/node_modules/a/lib/package.json", Some(Interest::NodeCopy)),
            ("app/package.json", None),
            ("src/Cargo.lock", Some(Interest::Cargo)),
            ("app/composer.lock", Some(Interest::Composer)),
            ("app/vendor/composer/installed.json", Some(Interest::Composer)),
            ("app/mycomposer/installed.json", None),
            ("usr/lib/ruby/gems/3.2.0/specifications/rake-13.0.6.gemspec", Some(Interest::Gemspec)),
            ("gems/specifications/default/json-2.6.gemspec", Some(Interest::Gemspec)),
            ("gems/rake-13.0.6/rake.gemspec", None),
            ("app/Gemfile.lock", Some(Interest::Gemfile)),
            ("app/lib/a.jar", Some(Interest::Java)),
            ("app.WAR", Some(Interest::Java)),
            ("jar", None),
        ];
        for (path, expected) in cases {
            assert_eq!(Interest::of(path), expected, "{path}");
        }
    }

    #[test]
    fn hidden_is_what_is_removed_replaced_or_emptied() {
        let mut scan = LayerScan::default();
        scan.replaced.insert(b"a/file");
        scan.replaced.insert(b"b");
        scan.emptied.insert(b"c/d");
        scan.replaced.close();
        scan.emptied.close();
        for hidden in ["a/file", "a/file/x", "b", "b/x/y", "c/d/e"] {
            assert!(scan.hides(hidden), "{hidden}");
        }
        for seen in ["a", "a/files", "bb", "c/d", "c/e"] {
            assert!(!scan.hides(seen), "{seen}");
        }
        let again: LayerScan = serde_json::from_slice(&serde_json::to_vec(&scan).unwrap()).unwrap();
        assert_eq!(again, scan);
    }
}
