//! Known vulnerabilities of packages: a database in the format of OSV (OSV schema 1.x), matched
//! without a network.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::package::clean;
use crate::version::compare;
use crate::{Ecosystem, Inventory, LocatedPackage, Package, Release};

/// No larger database is read, in bytes.
pub const MAX_DATABASE: u64 = 1 << 30;

/// A database of vulnerabilities.
#[derive(Debug, Default)]
pub struct Vulnerabilities {
    /// By the ecosystem, without its release, and the name of the package.
    affected: BTreeMap<(String, String), Vec<Advisory>>,
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
    affected: Vec<OsvAffected>,
}

#[derive(Deserialize)]
struct OsvAffected {
    package: Option<OsvPackage>,
    #[serde(default)]
    ranges: Vec<Range>,
    #[serde(default)]
    versions: Vec<String>,
}

#[derive(Deserialize)]
struct OsvPackage {
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
struct Advisory {
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
            self.affected.entry(key).or_default().push(Advisory {
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

    /// What in an image no database of this format can be asked about: one line each.
    pub fn unmatched(inventory: &Inventory) -> Vec<String> {
        let count = |is: &dyn Fn(&Package) -> bool| {
            inventory.packages.iter().filter(|located| is(&located.package)).count()
        };
        let release = &inventory.release;
        let distribution = match release.id.as_str() {
            "" => "an unknown distribution".to_owned(),
            id => format!("{id} {}", release.version).trim_end().to_owned(),
        };
        let without_records = count(&|package| ecosystem(package.ecosystem, release).is_none());
        let without_group =
            count(&|package| package.ecosystem == Ecosystem::Maven && !package.name.contains(':'));
        let lines = [
            (
                without_records,
                format!(
                    "packages of {distribution} are not matched: it is not among the known distributions"
                ),
            ),
            (
                without_group,
                "Java archives are not matched: they do not name their group".to_owned(),
            ),
        ];
        let some = lines.into_iter().filter(|(count, _)| *count > 0);
        some.map(|(count, line)| format!("{count} {line}")).collect()
    }

    /// The vulnerabilities of what an image contains, in order.
    pub fn of(&self, inventory: &Inventory) -> Vec<Finding> {
        let mut found = BTreeSet::new();
        for located in &inventory.packages {
            let Some(ecosystem) = ecosystem(located.package.ecosystem, &inventory.release) else {
                continue;
            };
            for (name, version) in names(&located.package) {
                let known = self.affected.get(&(ecosystem.to_owned(), name));
                let known = known.into_iter().flatten();
                let known = known.filter(|affected| affected.is_of(ecosystem, &inventory.release));
                found.extend(known.filter_map(|affected| affected.finding(located, &version)));
            }
        }
        found.into_iter().collect()
    }
}

/// How OSV calls the ecosystem of a package; `None` where it has no records of the distribution. An
/// image without a name of its distribution has the one that the packages come from.
fn ecosystem(of: Ecosystem, release: &Release) -> Option<&'static str> {
    Some(match (of, release.id.as_str()) {
        (Ecosystem::Deb, "" | "debian") => "Debian",
        (Ecosystem::Deb, "ubuntu") => "Ubuntu",
        (Ecosystem::Apk, "" | "alpine") => "Alpine",
        (Ecosystem::Apk, "wolfi") => "Wolfi",
        (Ecosystem::Apk, "chainguard") => "Chainguard",
        (Ecosystem::Rpm, "rhel") => "Red Hat",
        (Ecosystem::Rpm, "rocky") => "Rocky Linux",
        (Ecosystem::Rpm, "almalinux") => "AlmaLinux",
        (Ecosystem::Rpm, id) if id.starts_with("opensuse") => "openSUSE",
        (Ecosystem::Rpm, id) if id.starts_with("sle") || id == "sl-micro" => "SUSE",
        (Ecosystem::Deb | Ecosystem::Apk | Ecosystem::Rpm, _) => return None,
        (Ecosystem::Pypi, _) => "PyPI",
        (Ecosystem::Npm, _) => "npm",
        (Ecosystem::Cargo, _) => "crates.io",
        (Ecosystem::Golang, _) => "Go",
        (Ecosystem::Maven, _) => "Maven",
        (Ecosystem::Composer, _) => "Packagist",
        (Ecosystem::Gem, _) => "RubyGems",
    })
}

/// The names that OSV may call a package by, each with the version that belongs to it. Of RPM some
/// distributions name the packages, some their sources.
fn names(package: &Package) -> Vec<(String, String)> {
    let (name, version) = (package.name.clone(), full_version(package));
    let name = match package.ecosystem {
        Ecosystem::Deb | Ecosystem::Apk => package.source.clone().unwrap_or(name),
        Ecosystem::Pypi => name.to_lowercase().replace(['_', '.'], "-"),
        Ecosystem::Composer => name.to_lowercase(),
        _ => name,
    };
    let mut names = vec![(name, version)];
    if package.ecosystem == Ecosystem::Rpm {
        let source = package.source.as_deref().and_then(|file| source_rpm(file, package.epoch));
        names.extend(source.filter(|(source, _)| *source != package.name));
    }
    names
}

/// The name and version of a source package, from the name of its file: `bash-5.1.8-9.el9.src.rpm`.
fn source_rpm(file: &str, epoch: Option<u32>) -> Option<(String, String)> {
    let stem = file.strip_suffix(".src.rpm").or_else(|| file.strip_suffix(".nosrc.rpm"))?;
    let (rest, release) = stem.rsplit_once('-')?;
    let (name, version) = rest.rsplit_once('-')?;
    Some((name.to_owned(), with_epoch(epoch, &format!("{version}-{release}"))))
}

fn full_version(package: &Package) -> String {
    with_epoch(package.epoch, &package.version)
}

fn with_epoch(epoch: Option<u32>, version: &str) -> String {
    let epoch = epoch.map(|epoch| format!("{epoch}:")).unwrap_or_default();
    format!("{epoch}{version}")
}

/// Whether a product of Red Hat, the end of a CPE such as `enterprise_linux:9::baseos`, is in an
/// image of a release. Of the products on top of it an image does not say whether it has them.
fn is_red_hat(product: &str, version: &str) -> bool {
    let mut parts = product.split(':');
    let (name, of) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let major = |version: &str| version.split('.').next().unwrap_or_default().to_owned();
    match name {
        "enterprise_linux" => major(of) == major(version),
        "rhel_eus" | "rhel_e4s" | "rhel_aus" | "rhel_tus" | "rhel_els" => of == version,
        _ => false,
    }
}

/// Whether a product of SUSE, such as `Linux Enterprise Module for Basesystem 15 SP5`, is of a
/// release. Every module belongs to the server of its service pack.
fn is_suse(product: &str, release: &Release) -> bool {
    let micro = release.id.contains("micro");
    if micro != product.contains("Micro") {
        return false;
    }
    let version = match release.version.split_once('.') {
        Some((major, pack)) if !micro && major.parse().is_ok_and(|major: u32| major < 16) => {
            format!(" {major} SP{pack}")
        }
        _ => format!(" {}", release.version),
    };
    // `…-LTSS` is what the release gets at the end of its life.
    product.match_indices(&version).any(|(at, found)| {
        let rest = &product[at + found.len()..];
        rest.is_empty() || rest.starts_with('-')
    })
}

/// Whether a release of a distribution is the wanted one, or a minor release of it.
fn is_release(wanted: &str, version: &str) -> bool {
    let rest = version.strip_prefix(wanted.trim_start_matches('v'));
    wanted.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

impl Advisory {
    /// Whether it speaks of this release of a distribution.
    fn is_of(&self, ecosystem: &str, release: &Release) -> bool {
        let version = release.version.as_str();
        match (ecosystem, self.release.as_str()) {
            (_, "") => true,
            ("Red Hat", product) => is_red_hat(product, version),
            ("SUSE", product) => is_suse(product, release),
            ("openSUSE", "Tumbleweed") => release.id == "opensuse-tumbleweed",
            ("openSUSE", product) => match product.rsplit_once(' ') {
                Some(("Leap", wanted)) => release.id == "opensuse-leap" && wanted == version,
                Some(("Leap Micro", wanted)) => {
                    release.id == "opensuse-leap-micro" && wanted == version
                }
                _ => false,
            },
            // `Pro:…` is fixed for customers alone.
            ("Ubuntu", wanted) => wanted.split(':').next() == Some(version),
            (_, wanted) => is_release(wanted, version),
        }
    }

    fn finding(&self, located: &LocatedPackage, version: &str) -> Option<Finding> {
        let package = &located.package;
        let fixed = self.hits(package.ecosystem, version)?;
        Some(Finding {
            id: self.id.clone(),
            aliases: self.aliases.clone(),
            package: package.name.clone(),
            version: full_version(package),
            fixed,
            summary: self.summary.clone(),
            path: located.path.clone(),
        })
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn located(ecosystem: Ecosystem, name: &str, version: &str) -> LocatedPackage {
        let package = Package::new(ecosystem, name, version).unwrap();
        LocatedPackage { package, layer: 0, path: "var/lib/dpkg/status".to_owned() }
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

    /// The records, of those of one package in these ecosystems, that an image hits.
    fn hits(package: &LocatedPackage, id: &str, version: &str, ecosystems: &[&str]) -> Vec<String> {
        let release = Release { id: id.into(), version: version.into(), name: String::new() };
        let packages = vec![package.clone()];
        let inventory = Inventory { release, packages, ..Inventory::default() };
        let lines = ecosystems.iter().map(|ecosystem| {
            let events = json!([{ "introduced": "0" }, { "fixed": "1:3.0.7-25.el9_3" }]);
            json!({ "id": ecosystem, "affected": [{
                "package": { "ecosystem": ecosystem, "name": "openssl" },
                "ranges": [{ "type": "ECOSYSTEM", "events": events }],
            }] })
        });
        let lines: String = lines.map(|record| format!("{record}\n")).collect();
        let database = Vulnerabilities::read(lines.as_bytes()).unwrap();
        database.of(&inventory).into_iter().map(|found| found.id).collect()
    }

    #[test]
    fn rpm_packages_are_matched_by_distribution_and_release() {
        let mut openssl = located(Ecosystem::Rpm, "openssl", "3.0.7-6.el9_2");
        openssl.package.epoch = Some(1);
        let records = [
            "AlmaLinux:8",
            "AlmaLinux:9",
            "Debian:9",
            "Red Hat:enterprise_linux:8::baseos",
            "Red Hat:enterprise_linux:9::baseos",
            "Red Hat:rhel_eus:9.2::baseos",
            "Red Hat:openshift:4.14::el9",
            "Rocky Linux:9",
            "SUSE:Linux Enterprise Micro 5.5",
            "SUSE:Linux Enterprise Module for Basesystem 15 SP5",
            "SUSE:Linux Enterprise Server 15 SP4-LTSS",
            "SUSE:Linux Enterprise Server 15 SP5-LTSS",
            "SUSE:Linux Enterprise Server 16.0",
            "openSUSE:Leap 15.5",
            "openSUSE:Leap Micro 5.5",
            "openSUSE:Tumbleweed",
        ];
        let cases: [(&str, &str, &[&str]); 12] = [
            ("almalinux", "9.3", &["AlmaLinux:9"]),
            ("rhel", "9.3", &["Red Hat:enterprise_linux:9::baseos"]),
            (
                "rhel",
                "9.2",
                &["Red Hat:enterprise_linux:9::baseos", "Red Hat:rhel_eus:9.2::baseos"],
            ),
            ("rocky", "9.3", &["Rocky Linux:9"]),
            ("rocky", "8.9", &[]),
            (
                "sles",
                "15.5",
                &[
                    "SUSE:Linux Enterprise Module for Basesystem 15 SP5",
                    "SUSE:Linux Enterprise Server 15 SP5-LTSS",
                ],
            ),
            ("sles", "16.0", &["SUSE:Linux Enterprise Server 16.0"]),
            ("sl-micro", "5.5", &["SUSE:Linux Enterprise Micro 5.5"]),
            ("opensuse-leap", "15.5", &["openSUSE:Leap 15.5"]),
            ("opensuse-leap-micro", "5.5", &["openSUSE:Leap Micro 5.5"]),
            ("opensuse-tumbleweed", "20240101", &["openSUSE:Tumbleweed"]),
            ("fedora", "39", &[]),
        ];
        for (id, version, expected) in cases {
            assert_eq!(hits(&openssl, id, version, &records), expected, "{id} {version}");
        }
        openssl.package.version = "3.0.7-25.el9_3".to_owned();
        assert!(hits(&openssl, "rocky", "9.3", &records).is_empty());
    }

    #[test]
    fn rpm_packages_are_matched_by_their_source_package_and_its_version() {
        let mut libs = located(Ecosystem::Rpm, "openssl-perl", "9.9-1.el9");
        libs.package.epoch = Some(1);
        assert!(hits(&libs, "rocky", "9.3", &["Rocky Linux:9"]).is_empty());
        libs.package.source = Some("openssl-3.0.7-6.el9_2.src.rpm".to_owned());
        assert_eq!(hits(&libs, "rocky", "9.3", &["Rocky Linux:9"]), ["Rocky Linux:9"]);
        libs.package.source = Some("openssl-3.0.7-27.el9.src.rpm".to_owned());
        assert!(hits(&libs, "rocky", "9.3", &["Rocky Linux:9"]).is_empty());
    }

    #[test]
    fn packages_that_cannot_be_matched_are_counted() {
        let packages = vec![
            located(Ecosystem::Rpm, "bash", "5-1"),
            located(Ecosystem::Maven, "guava", "31"),
            located(Ecosystem::Maven, "com.google.guava:guava", "31"),
        ];
        let of = |id: &str| {
            let release = Release { id: id.into(), version: "39".into(), name: String::new() };
            let packages = packages.clone();
            Vulnerabilities::unmatched(&Inventory { release, packages, ..Inventory::default() })
        };
        let java = "1 Java archives are not matched: they do not name their group";
        assert_eq!(of("rocky"), [java]);
        let fedora = of("fedora");
        assert!(fedora[0].starts_with("1 packages of fedora 39 are not"), "{fedora:?}");
        assert_eq!(fedora[1..], [java]);
        assert!(of("")[0].contains("an unknown distribution"));
        assert!(Vulnerabilities::unmatched(&Inventory::default()).is_empty());
    }

    #[test]
    fn distributions_made_of_others_have_records_of_their_own() {
        let deb = located(Ecosystem::Deb, "openssl", "3.0.2-0ubuntu1");
        let records =
            ["Debian", "Debian:12", "Ubuntu:22.04:LTS", "Ubuntu:24.04:LTS", "Ubuntu:Pro:22.04:LTS"];
        assert_eq!(hits(&deb, "ubuntu", "22.04", &records), ["Ubuntu:22.04:LTS"]);
        assert_eq!(hits(&deb, "debian", "12", &records), ["Debian", "Debian:12"]);
        let apk = located(Ecosystem::Apk, "openssl", "3.0.2-r0");
        let records = ["Alpine", "Alpine:v3.18", "Chainguard", "Wolfi"];
        assert_eq!(hits(&apk, "wolfi", "20230201", &records), ["Wolfi"]);
        assert_eq!(hits(&apk, "alpine", "3.18.4", &records), ["Alpine", "Alpine:v3.18"]);
        let gem = located(Ecosystem::Gem, "openssl", "0.9");
        assert_eq!(hits(&gem, "alpine", "3.18.4", &["RubyGems", "Alpine"]), ["RubyGems"]);
    }
}
