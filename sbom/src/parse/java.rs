//! Java archives (jar, war, ear, and Jenkins' hpi and jpi), and the archives in them.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use flate2::bufread::DeflateDecoder;
use rawzip::{CompressionMethod, ZipArchive, ZipFileHeaderRecord, ZipSliceArchive};

use crate::package::field;
use crate::version::numbers;
use crate::{Ecosystem, Package};

/// Archives in archives are read down to this depth; a jar in a war in an ear has depth 2.
const DEPTH: usize = 4;
/// No more than this is read from an archive and all archives in it, in bytes.
const UNPACKED: usize = 256 << 20;
/// No larger manifest is read, in bytes.
const TEXT: usize = 1 << 20;
/// No more packages are listed of an archive and all archives in it.
const PACKAGES: usize = 20_000;

/// What a Java archive says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct JavaArchive {
    /// What it contains, sorted, none twice.
    pub(crate) packages: Vec<Package>,
    /// Whether all of it was read.
    pub(crate) whole: bool,
}

/// Whether a name is that of a Java archive.
pub(crate) fn is_java_archive(name: &str) -> bool {
    let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    matches!(extension.as_deref(), Some("jar" | "war" | "ear" | "hpi" | "jpi"))
}

/// Reads a Java archive. Its central directory counts, as for `java`.
pub(crate) fn java_archive(path: &str, bytes: &[u8]) -> JavaArchive {
    let mut walk = Walk { left: UNPACKED, packages: BTreeSet::new(), whole: true };
    walk.archive(path, bytes, 0);
    JavaArchive { packages: walk.packages.into_iter().collect(), whole: walk.whole }
}

struct Walk {
    /// Bytes that may still be read.
    left: usize,
    packages: BTreeSet<Package>,
    whole: bool,
}

impl Walk {
    fn archive(&mut self, path: &str, bytes: &[u8], depth: usize) {
        let Ok(archive) = ZipArchive::from_slice(bytes) else {
            self.whole = false;
            return;
        };
        let (mut by_maven, mut manifest) = (Vec::new(), None);
        for entry in archive.entries() {
            let Ok(entry) = entry else {
                self.whole = false;
                break;
            };
            let name = String::from_utf8_lossy(entry.file_path().as_ref()).into_owned();
            if name.starts_with("META-INF/maven/") && name.ends_with("/pom.properties") {
                let text = self.content(&archive, &entry, TEXT);
                let package = text.and_then(|text| of_maven(&String::from_utf8_lossy(&text)));
                by_maven.extend(package.clone().filter(|_| by_maven.len() < PACKAGES));
                self.add(package);
            } else if name.eq_ignore_ascii_case("META-INF/MANIFEST.MF") && manifest.is_none() {
                manifest = self.content(&archive, &entry, TEXT);
            } else if is_java_archive(&name) && !entry.is_dir() {
                self.nested(&archive, &entry, &name, depth + 1);
            }
        }
        let manifest = manifest.unwrap_or_default();
        let own = of_manifest(path, &attributes(&String::from_utf8_lossy(&manifest)));
        self.add(own.filter(|own| by_maven.iter().all(|other| !is_same(path, own, other))));
    }

    fn nested(
        &mut self,
        archive: &ZipSliceArchive<&[u8]>,
        entry: &ZipFileHeaderRecord<'_>,
        name: &str,
        depth: usize,
    ) {
        if depth > DEPTH {
            self.whole = false;
        } else if let Some(content) = self.content(archive, entry, usize::MAX) {
            self.archive(name, &content, depth);
        }
    }

    fn add(&mut self, package: Option<Package>) {
        let Some(package) = package else { return };
        if self.packages.len() < PACKAGES {
            self.packages.insert(package);
        } else {
            self.whole = false;
        }
    }

    /// The content of an entry, at most `most` bytes. All content counts, also what several entries
    /// share, so that the work is bounded.
    fn content<'a>(
        &mut self,
        archive: &'a ZipSliceArchive<&[u8]>,
        entry: &ZipFileHeaderRecord<'_>,
        most: usize,
    ) -> Option<Cow<'a, [u8]>> {
        let most = most.min(self.left);
        let content = unpack(archive, entry, most).filter(|content| content.len() <= most);
        match &content {
            Some(content) => self.left -= content.len(),
            None => self.whole = false,
        }
        content
    }
}

/// The content of an entry; of a compressed one no more than a byte above `most`.
fn unpack<'a>(
    archive: &'a ZipSliceArchive<&[u8]>,
    entry: &ZipFileHeaderRecord<'_>,
    most: usize,
) -> Option<Cow<'a, [u8]>> {
    let found = archive.get_entry(entry.wayfinder()).ok()?;
    match entry.compression_method() {
        CompressionMethod::STORE => Some(Cow::Borrowed(found.data())),
        CompressionMethod::DEFLATE => {
            let limit = u64::try_from(most).ok()?.checked_add(1)?;
            let reader = found.verifying_reader(DeflateDecoder::new(found.data()));
            let mut content = Vec::new();
            reader.take(limit).read_to_end(&mut content).ok()?;
            Some(Cow::Owned(content))
        }
        _ => None,
    }
}

/// A package by its Maven coordinates; `None` where a name or a placeholder stands for one.
fn package(group: Option<&str>, artifact: &str, version: &str) -> Option<Package> {
    let artifact = artifact.trim();
    if artifact.is_empty() || [artifact, version].iter().any(|text| text.contains("${")) {
        return None;
    }
    match group.map(str::trim).filter(|group| !group.is_empty() && !group.contains("${")) {
        Some(group) => Package::new(Ecosystem::Maven, &format!("{group}:{artifact}"), version),
        None => Package::new(Ecosystem::Maven, artifact, version),
    }
}

/// `pom.properties`, which Maven writes into what it builds.
fn of_maven(text: &str) -> Option<Package> {
    let get = |name: &str| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once(['=', ':'])?;
            (key.trim() == name).then_some(value.trim())
        })
    };
    package(Some(get("groupId")?), get("artifactId")?, get("version")?)
}

/// The main attributes of a manifest, by their names in lower case. A line that begins with a
/// space continues the one before; an empty line ends them.
fn attributes(text: &str) -> BTreeMap<String, String> {
    let mut attributes = BTreeMap::new();
    let mut last = None;
    for line in text.lines().take_while(|line| !line.is_empty()) {
        if let Some(more) = line.strip_prefix(' ') {
            let value = last.as_ref().and_then(|name| attributes.get_mut(name));
            value.into_iter().for_each(|value: &mut String| value.push_str(more));
        } else if let Some((name, value)) = line.split_once(':') {
            let name = name.to_ascii_lowercase();
            attributes.insert(name.clone(), value.trim_start().to_owned());
            last = Some(name);
        }
    }
    attributes
}

/// What the name of an archive has before its version, and the version.
fn parts_of_name(path: &str) -> (&str, Option<&str>) {
    let file = path.rsplit('/').next().unwrap_or(path);
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    let versions = stem.match_indices('-').map(|(at, _)| (&stem[..at], &stem[at + 1..]));
    let is_version = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    match versions.into_iter().find(|(_, version)| is_version(version)) {
        Some((artifact, version)) => (artifact, Some(version)),
        None => (stem, None),
    }
}

/// Whether what the manifest describes has these Maven coordinates. If not, they are of what was
/// copied into the archive. A manifest may write the version in another way.
fn is_same(path: &str, own: &Package, coordinates: &Package) -> bool {
    let artifact = coordinates.name.rsplit(':').next().unwrap_or_default();
    artifact == parts_of_name(path).0 || numbers(&own.version).0 == numbers(&coordinates.version).0
}

/// What a manifest says of its archive. The name of the file counts where it has the form
/// `ARTIFACT-VERSION.jar`.
fn of_manifest(path: &str, attributes: &BTreeMap<String, String>) -> Option<Package> {
    let get = |name: &str| {
        let text = attributes.get(name).map(|text| text.trim());
        text.filter(|text| !text.is_empty() && !text.contains("${"))
    };
    let (stem, of_name) = parts_of_name(path);
    // `org.example.a;singleton:=true`
    let bundle = get("bundle-symbolicname").and_then(|text| text.split(';').next());
    let title = get("implementation-title").filter(|title| !title.contains(char::is_whitespace));
    let artifact = of_name.map(|_| stem).or(title).or(bundle).unwrap_or(stem);
    let declared = get("implementation-version").or_else(|| get("bundle-version"));
    let version = declared.or(of_name)?;
    let of_bundle = || bundle?.rsplit_once('.').map(|(group, _)| group);
    let group = get("implementation-vendor-id").or_else(of_bundle);
    let mut package = package(group, artifact, version)?;
    package.supplier = field(get("implementation-vendor").or_else(|| get("bundle-vendor")));
    package.license = field(get("bundle-license").and_then(|text| text.split(';').next()));
    package.homepage = field(get("bundle-docurl"));
    Some(package)
}

#[cfg(test)]
mod tests;
