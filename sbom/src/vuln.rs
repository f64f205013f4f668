//! Known vulnerabilities of packages: a database in the format of OSV (OSV schema 1.x), matched
//! without a network.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use semver::Version;
use serde::{Deserialize, Serialize};

use crate::package::clean;
use crate::{Ecosystem, Inventory, Package, Release};

/// No larger database is read, in bytes.
pub const MAX_DATABASE: u64 = 1 << 30;

/// A database of vulnerabilities.
#[derive(Debug, Default)]
pub struct Vulnerabilities {
    /// By the ecosystem, without its release, and the name of the package.
    affected: BTreeMap<(String, String), Vec<Affected>>,
}

/// A package that has a known vulnerability.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// The vulnerability: `CVE-…`, `GHSA-…`.
    pub id: String,
    /// Other names of it.
    pub aliases: Vec<String>,
    /// The package as it is installed.
    pub package: String,
    /// Its version.
    pub version: String,
    /// The first version without it, if there is one.
    pub fixed: Option<String>,
    /// What it is.
    pub summary: String,
    /// The file that lists the package.
    pub path: String,
}

#[derive(Deserialize)]
struct OsvRecord {
    id: String,
    #[serde(default)]
    aliases: Vec<String>,
    #[serde(default)]
    summary: String,
    withdrawn: Option<String>,
    #[serde(default)]
    affected: Vec<WrittenAffected>,
}

#[derive(Deserialize)]
struct WrittenAffected {
    package: Option<WrittenPackage>,
    #[serde(default)]
    ranges: Vec<Range>,
    #[serde(default)]
    versions: Vec<String>,
}

#[derive(Deserialize)]
struct WrittenPackage {
    ecosystem: String,
    name: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Range {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    events: Vec<Event>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Event {
    introduced: Option<String>,
    fixed: Option<String>,
    last_affected: Option<String>,
}

#[derive(Debug)]
struct Affected {
    id: String,
    aliases: Vec<String>,
    summary: String,
    /// The release of a distribution: `12`, `v3.18`; empty where there is none.
    release: String,
    ranges: Vec<Range>,
    versions: BTreeSet<String>,
}

impl Vulnerabilities {
    /// Reads a database: an array of records, or a record after the other, as lines are.
    ///
    /// # Errors
    /// It is malformed; in words.
    pub fn read(json: &[u8]) -> Result<Vulnerabilities, String> {
        let mut all = Vulnerabilities::default();
        let begins = json.iter().find(|byte| !byte.is_ascii_whitespace());
        if begins == Some(&b'[') {
            let records: Vec<OsvRecord> =
                serde_json::from_slice(json).map_err(|error| error.to_string())?;
            records.into_iter().for_each(|record| all.add(record));
        } else {
            for record in serde_json::Deserializer::from_slice(json).into_iter::<OsvRecord>() {
                all.add(record.map_err(|error| error.to_string())?);
            }
        }
        Ok(all)
    }

    fn add(&mut self, record: OsvRecord) {
        if record.withdrawn.is_some() {
            return;
        }
        for affected in record.affected {
            let Some(package) = affected.package else { continue };
            let (ecosystem, release) = match package.ecosystem.split_once(':') {
                Some((ecosystem, release)) => (ecosystem.to_owned(), release.to_owned()),
                None => (package.ecosystem, String::new()),
            };
            let key = (ecosystem, package.name);
            self.affected.entry(key).or_default().push(Affected {
                id: clean(&record.id),
                aliases: record.aliases.iter().map(|alias| clean(alias)).collect(),
                summary: clean(&record.summary),
                release,
                ranges: affected.ranges,
                versions: affected.versions.into_iter().collect(),
            });
        }
    }

    /// How many packages it knows something about.
    pub fn packages(&self) -> usize {
        self.affected.len()
    }

    /// The vulnerabilities of what an image contains, in order.
    pub fn of(&self, inventory: &Inventory) -> Vec<Finding> {
        let mut found = BTreeSet::new();
        for located in &inventory.packages {
            let package = &located.package;
            let Some((ecosystem, name)) = key(package) else { continue };
            let known = self.affected.get(&(ecosystem.to_owned(), name));
            let version = full_version(package);
            for affected in known.into_iter().flatten() {
                if !affected.is_of(&inventory.release) {
                    continue;
                }
                let Some(fixed) = affected.hits(package.ecosystem, &version) else { continue };
                found.insert(Finding {
                    id: affected.id.clone(),
                    aliases: affected.aliases.clone(),
                    package: package.name.clone(),
                    version: version.clone(),
                    fixed,
                    summary: affected.summary.clone(),
                    path: located.path.clone(),
                });
            }
        }
        found.into_iter().collect()
    }
}

/// How OSV calls the ecosystem and the package. Of RPM it has every distribution by its own name.
fn key(package: &Package) -> Option<(&'static str, String)> {
    let source = || package.source.clone().unwrap_or_else(|| package.name.clone());
    Some(match package.ecosystem {
        Ecosystem::Deb => ("Debian", source()),
        Ecosystem::Apk => ("Alpine", source()),
        Ecosystem::Pypi => ("PyPI", package.name.to_lowercase().replace(['_', '.'], "-")),
        Ecosystem::Npm => ("npm", package.name.clone()),
        Ecosystem::Cargo => ("crates.io", package.name.clone()),
        Ecosystem::Golang => ("Go", package.name.clone()),
        Ecosystem::Rpm => return None,
    })
}

fn full_version(package: &Package) -> String {
    let epoch = package.epoch.map(|epoch| format!("{epoch}:")).unwrap_or_default();
    format!("{epoch}{}", package.version)
}

impl Affected {
    /// Whether it speaks of this release of a distribution.
    fn is_of(&self, release: &Release) -> bool {
        let wanted = self.release.trim_start_matches('v');
        wanted.is_empty()
            || release.version == wanted
            || release.version.strip_prefix(wanted).is_some_and(|rest| rest.starts_with('.'))
    }

    /// Whether a version is affected; then the first one that is not, if that is known.
    fn hits(&self, ecosystem: Ecosystem, version: &str) -> Option<Option<String>> {
        for range in self.ranges.iter().filter(|range| range.kind != "GIT") {
            if let Some(fixed) = range.hits(ecosystem, version) {
                return Some(fixed);
            }
        }
        self.versions.contains(version).then_some(None)
    }
}

impl Range {
    fn hits(&self, ecosystem: Ecosystem, version: &str) -> Option<Option<String>> {
        let (mut inside, mut fixed) = (false, None);
        for event in &self.events {
            let at_least = |other: &str| compare(ecosystem, version, other).is_ge();
            if let Some(introduced) = &event.introduced {
                if introduced == "0" || at_least(introduced) {
                    (inside, fixed) = (true, None);
                }
            } else if let Some(end) = &event.fixed {
                if inside && at_least(end) {
                    inside = false;
                } else if inside && fixed.is_none() {
                    fixed = Some(end.clone());
                }
            } else if let Some(last) = &event.last_affected
                && inside
                && compare(ecosystem, version, last).is_gt()
            {
                inside = false;
            }
        }
        inside.then_some(fixed)
    }
}

/// The order of versions of an ecosystem.
fn compare(ecosystem: Ecosystem, one: &str, other: &str) -> Ordering {
    match ecosystem {
        Ecosystem::Npm | Ecosystem::Cargo | Ecosystem::Golang => {
            let read = |text: &str| Version::parse(text.trim_start_matches('v'));
            match (read(one), read(other)) {
                (Ok(one), Ok(other)) => one.cmp(&other),
                _ => debian(one, other),
            }
        }
        Ecosystem::Pypi => debian(&python(one), &python(other)),
        Ecosystem::Apk => debian(&alpine(one), &alpine(other)),
        Ecosystem::Deb | Ecosystem::Rpm => debian(one, other),
    }
}

/// A version of PEP 440 in Debian's order: what comes before a release behind a tilde.
fn python(version: &str) -> String {
    let text = version.to_lowercase().replace(['-', '_'], ".");
    let text = text.trim_start_matches('v').split('+').next().unwrap_or_default();
    let text = text.replace(".dev", "~~dev").replace("rc", "~rc").replace(".post", "+post");
    let mut written = String::new();
    let mut before = ' ';
    for (at, character) in text.char_indices() {
        let next = text[at + character.len_utf8()..].starts_with(|c: char| c.is_ascii_digit());
        if matches!(character, 'a' | 'b') && before.is_ascii_digit() && next {
            written.push('~');
        }
        written.push(character);
        before = character;
    }
    written.replace(".~", "~")
}

/// A version of Alpine in Debian's order.
fn alpine(version: &str) -> String {
    let mut text = version.to_owned();
    for before in ["alpha", "beta", "pre", "rc"] {
        text = text.replace(&format!("_{before}"), &format!("~{before}"));
    }
    text.replace("_p", "+p")
}

/// Debian's order of versions (deb-version(7)).
fn debian(one: &str, other: &str) -> Ordering {
    let split = |text: &str| {
        let (epoch, rest) = text.split_once(':').unwrap_or(("0", text));
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, "0"));
        (epoch.parse::<u64>().unwrap_or(0), upstream.to_owned(), revision.to_owned())
    };
    let (one, other) = (split(one), split(other));
    let upstream = || part(one.1.as_bytes(), other.1.as_bytes());
    one.0.cmp(&other.0).then_with(upstream).then_with(|| part(one.2.as_bytes(), other.2.as_bytes()))
}

/// Letters before all other characters, a tilde before everything, also the end.
fn weight(byte: Option<&u8>) -> i32 {
    match byte {
        Some(b'~') => -1,
        None => 0,
        Some(byte) if byte.is_ascii_digit() => 0,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(*byte),
        Some(byte) => i32::from(*byte) + 256,
    }
}

fn part(mut one: &[u8], mut other: &[u8]) -> Ordering {
    while !one.is_empty() || !other.is_empty() {
        let digit = |text: &[u8]| text.first().is_none_or(u8::is_ascii_digit);
        while !digit(one) || !digit(other) {
            let order = weight(one.first()).cmp(&weight(other.first()));
            if order.is_ne() {
                return order;
            }
            one = one.get(1..).unwrap_or_default();
            other = other.get(1..).unwrap_or_default();
        }
        let (first, second) = (number(&mut one), number(&mut other));
        let order = first.len().cmp(&second.len()).then_with(|| first.cmp(second));
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

/// Takes the digits at the start, without leading zeros.
fn number<'a>(text: &mut &'a [u8]) -> &'a [u8] {
    let end = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = text.split_at(end);
    *text = rest;
    let zeros = digits.iter().take_while(|byte| **byte == b'0').count();
    &digits[zeros..]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Located;

    #[test]
    fn versions_are_in_the_order_of_their_ecosystem() {
        use Ecosystem::{Apk, Deb, Npm, Pypi};
        for (ecosystem, smaller, larger) in [
            (Deb, "1.0~rc1-1", "1.0-1"),
            (Deb, "1.0-1", "1.0-1+deb12u1"),
            (Deb, "1.9-1", "1.10-1"),
            (Deb, "9:1-1", "10:0-1"),
            (Deb, "1.0a-1", "1.0.1-1"),
            (Deb, "1.2-9", "1.2-10"),
            (Apk, "1.2.3_rc1-r0", "1.2.3-r0"),
            (Apk, "1.2.3-r0", "1.2.3_p1-r0"),
            (Apk, "1.2.3-r9", "1.2.3-r10"),
            (Pypi, "1.0.dev1", "1.0a1"),
            (Pypi, "1.0a1", "1.0rc1"),
            (Pypi, "1.0rc1", "1.0"),
            (Pypi, "1.0", "1.0.post1"),
            (Npm, "1.0.0-alpha.9", "1.0.0-alpha.10"),
            (Npm, "1.0.0-rc.1", "1.0.0"),
        ] {
            assert!(compare(ecosystem, smaller, larger).is_lt(), "{smaller} < {larger}");
            assert!(compare(ecosystem, larger, smaller).is_gt(), "{larger} > {smaller}");
            assert!(compare(ecosystem, larger, larger).is_eq(), "{larger}");
        }
    }

    fn located(ecosystem: Ecosystem, name: &str, version: &str) -> Located {
        let package = Package::new(ecosystem, name, version).unwrap();
        Located { package, layer: 0, path: "var/lib/dpkg/status".to_owned() }
    }

    #[test]
    fn packages_are_matched_by_ecosystem_release_and_range() {
        let mut openssl = located(Ecosystem::Deb, "libssl3", "3.0.9-1");
        openssl.package.source = Some("openssl".to_owned());
        let inventory = Inventory {
            packages: vec![
                openssl,
                located(Ecosystem::Npm, "left-pad", "1.2.0"),
                located(Ecosystem::Pypi, "Some_Thing", "2.0rc1"),
            ],
            release: Release { version: "12".to_owned(), ..Release::default() },
            ..Inventory::default()
        };
        let record = |id: &str, ecosystem: &str, name: &str, events: serde_json::Value| {
            json!({
                "id": id, "summary": "a hole", "affected": [{
                    "package": { "ecosystem": ecosystem, "name": name },
                    "ranges": [{ "type": "ECOSYSTEM", "events": events }],
                }],
            })
        };
        let before = |fixed: &str| json!([{ "introduced": "0" }, { "fixed": fixed }]);
        let mut withdrawn = record("CVE-6", "npm", "left-pad", before("9.9.9"));
        withdrawn["withdrawn"] = "2024-01-01T00:00:00Z".into();
        let records = [
            record("CVE-1", "Debian:12", "openssl", before("3.0.10-1")),
            record("CVE-2", "Debian:11", "openssl", before("3.0.10-1")),
            record("CVE-3", "Debian:12", "openssl", before("3.0.9-1")),
            record(
                "CVE-4",
                "npm",
                "left-pad",
                json!([{ "introduced": "1.0.0" }, { "last_affected": "1.2.0" }]),
            ),
            record("CVE-5", "PyPI", "some-thing", before("2.0")),
            withdrawn,
            record("CVE-7", "PyPI", "left-pad", before("9")),
        ];
        let lines: String = records.iter().map(|record| format!("{record}\n")).collect();
        for database in [json!(records).to_string(), lines] {
            let database = Vulnerabilities::read(database.as_bytes()).unwrap();
            let found = database.of(&inventory);
            let ids: Vec<_> = found.iter().map(|one| one.id.as_str()).collect();
            assert_eq!(ids, ["CVE-1", "CVE-4", "CVE-5"]);
            assert_eq!(found[0].fixed.as_deref(), Some("3.0.10-1"));
            assert_eq!((found[1].fixed.as_deref(), &*found[1].package), (None, "left-pad"));
        }
        assert!(Vulnerabilities::read(b"[{").is_err());
    }
}
