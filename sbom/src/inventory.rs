//! The layers of an image over each other.

use std::collections::{BTreeMap, BTreeSet};

use image::Digest;

use crate::scan::Finding;
use crate::{Ecosystem, LayerScan, Package, Release};

/// What is installed in an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The distribution, where the image says it.
    pub release: Release,
    /// The packages, sorted, none twice.
    pub packages: Vec<LocatedPackage>,
    /// What could not be read: one line each.
    pub notes: Vec<String>,
}

/// A package and where it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocatedPackage {
    /// The package.
    pub package: Package,
    /// The file that says so, from the root.
    pub path: String,
    /// The layer that brought it, counted from the base.
    pub layer: usize,
}

/// The image an inventory is of.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Its name, or its digest where it has none.
    pub name: &'a str,
    /// Its manifest.
    pub digest: Digest,
    /// The digests of its uncompressed layers, base first.
    pub diff_ids: &'a [Digest],
    /// What it is for, as `os/architecture`.
    pub platform: &'a str,
    /// When this was written down, RFC 3339 in UTC.
    pub created: &'a str,
    /// The version of this program.
    pub version: &'a str,
}

impl Inventory {
    /// Puts the layers, base first, over each other: what a layer hides of those below it is
    /// not there.
    pub fn merge(layers: &[LayerScan]) -> Inventory {
        let mut inventory = Inventory::default();
        let mut licenses: BTreeMap<&str, &str> = BTreeMap::new();
        let mut packages = BTreeSet::new();
        let mut release: Option<(&str, &Release)> = None;
        for (index, layer) in layers.iter().enumerate() {
            let (below, above) = (&layers[..index], &layers[index + 1..]);
            for (path, finding) in &layer.findings {
                if above.iter().any(|above| above.hides(path)) {
                    continue;
                }
                match finding {
                    Finding::License(package, license) => {
                        licenses.insert(package, license);
                    }
                    Finding::Release(found) => {
                        // `etc/os-release` comes before what the distribution ships.
                        if release.is_none_or(|(known, _)| path.as_str() <= known) {
                            release = Some((path, found));
                        }
                    }
                    Finding::Packages(found) => {
                        let path = format!("/{path}");
                        packages.extend(found.iter().map(|package| LocatedPackage {
                            package: package.clone(),
                            path: path.clone(),
                            layer: index,
                        }));
                    }
                    Finding::Database(found) => {
                        packages.extend(attribute(found, path, index, below));
                    }
                }
            }
            let note = |note: &String| format!("layer {index}: {note}");
            inventory.notes.extend(layer.notes.iter().map(note));
        }
        inventory.release = release.map(|(_, release)| release.clone()).unwrap_or_default();
        inventory.packages = packages.into_iter().collect();
        for located in &mut inventory.packages {
            let package = &mut located.package;
            if package.ecosystem == Ecosystem::Deb && package.license.is_none() {
                let license = licenses.get(package.name.as_str());
                package.license = license.map(|license| (*license).to_owned());
            }
        }
        inventory
    }
}

/// Every layer that installs something writes the database again: a package came with the lowest
/// layer since which it is always in the list.
fn attribute(
    found: &[Package],
    path: &str,
    index: usize,
    below: &[LayerScan],
) -> Vec<LocatedPackage> {
    let mut located: BTreeMap<&Package, usize> =
        found.iter().map(|package| (package, index)).collect();
    let mut open: BTreeSet<&Package> = found.iter().collect();
    for (lower, layer) in below.iter().enumerate().rev() {
        match layer.findings.get(path) {
            Some(Finding::Database(packages)) => {
                let packages: BTreeSet<_> = packages.iter().collect();
                open.retain(|package| packages.contains(package));
                for package in &open {
                    located.insert(*package, lower);
                }
            }
            _ if layer.hides(path) => break,
            _ => {}
        }
    }
    let path = format!("/{path}");
    located
        .into_iter()
        .map(|(package, layer)| LocatedPackage {
            package: package.clone(),
            path: path.clone(),
            layer,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use task::Task;

    use super::*;
    use crate::scan;

    /// A layer of files; a name that ends with a slash is a directory.
    fn layer(files: &[(&str, &str)]) -> LayerScan {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            if name.ends_with('/') {
                header.set_entry_type(tar::EntryType::Directory);
            }
            builder.append_data(&mut header, name, content.as_bytes()).unwrap();
        }
        scan(&builder.into_inner().unwrap()[..], &Task::silent()).unwrap().0
    }

    fn listed(layers: &[LayerScan]) -> Vec<(String, usize)> {
        let packages = Inventory::merge(layers).packages.into_iter();
        packages
            .map(|found| (format!("{}@{}", found.package.name, found.package.version), found.layer))
            .collect()
    }

    fn status(packages: &[(&str, &str)]) -> String {
        packages
            .iter()
            .map(|(name, version)| {
                format!("Package: {name}\nStatus: install ok installed\nVersion: {version}\n\n")
            })
            .collect()
    }

    #[test]
    fn a_package_belongs_to_the_layer_that_installed_it() {
        let dpkg = "var/lib/dpkg/status";
        let base = layer(&[(dpkg, &status(&[("a", "1"), ("b", "1"), ("c", "1")]))]);
        let other = layer(&[("etc/os-release", "ID=debian\nVERSION_ID=\"12\"\n")]);
        let top = layer(&[(dpkg, &status(&[("a", "1"), ("b", "2"), ("d", "1")]))]);
        let layers = [base, other, top];
        let expected = [("a@1", 0), ("b@2", 2), ("d@1", 2)];
        assert_eq!(listed(&layers), expected.map(|(name, layer)| (name.to_owned(), layer)));
        assert_eq!(Inventory::merge(&layers).release.id, "debian");
        let purl = Inventory::merge(&layers).packages[0].package.purl(&Release {
            id: "debian".into(),
            version: "12".into(),
            name: String::new(),
        });
        assert_eq!(purl, "pkg:deb/debian/a@1?distro=debian-12");
    }

    #[test]
    fn what_a_higher_layer_takes_away_is_not_there() {
        let package = |name: &str| format!(r#"{{"name":"{name}","version":"1"}}"#);
        let base = layer(&[
            ("app/node_modules/a/package.json", &package("a")),
            ("app/node_modules/b/package.json", &package("b")),
            ("old/node_modules/c/package.json", &package("c")),
            ("whole/node_modules/d/package.json", &package("d")),
            ("x/node_modules/e/package.json", &package("e")),
        ]);
        let top = layer(&[
            ("app/node_modules/.wh.b", ""),
            ("old/.wh..wh..opq", ""),
            ("old/node_modules/f/package.json", &package("f")),
            ("whole", "now a file"),
            ("x/node_modules/e/package.json", "now nothing"),
        ]);
        assert_eq!(listed(&[base, top]), [("a@1".to_owned(), 0), ("f@1".to_owned(), 1)]);
    }

    #[test]
    fn copies_of_packages_in_a_package_of_node_are_listed() {
        let package = |name: &str| format!(r#"{{"name":"{name}","version":"1"}}"#);
        let base = layer(&[
            ("app/node_modules/a/package.json", &package("a")),
            ("app/node_modules/a/dist/compiled/@s/k/package.json", &package("@s/k")),
            ("app/node_modules/a/dist/compiled/n/package.json", r#"{"name":"n"}"#),
            ("app/node_modules/a/test/one/package.json", &package("fixture")),
            ("app/dist/k/package.json", &package("k")),
        ]);
        assert_eq!(listed(&[base]), [("@s/k@1".to_owned(), 0), ("a@1".to_owned(), 0)]);
    }

    #[test]
    fn licences_come_from_copyright_files() {
        let text = "Format: x\nFiles: *\nLicense: GPL-2+\n";
        let base = layer(&[
            ("var/lib/dpkg/status", &status(&[("a", "1")])),
            ("usr/share/doc/a/copyright", text),
        ]);
        let inventory = Inventory::merge(&[base]);
        assert_eq!(inventory.packages[0].package.license.as_deref(), Some("GPL-2+"));
    }

    #[test]
    fn a_java_archive_that_cannot_be_read_is_noted() {
        let inventory = Inventory::merge(&[layer(&[("app/a.jar", "PK\x03\x04")])]);
        assert_eq!(inventory.notes.len(), 1);
        assert!(inventory.notes[0].starts_with("layer 0: app/a.jar "), "{:?}", inventory.notes);
    }

    #[test]
    fn packages_of_languages_are_found_in_their_files() {
        let base = layer(&[
            ("app/Gemfile.lock", "GEM\n  specs:\n    rake (13.0.6)\n"),
            ("gems/specifications/json-2.6.gemspec", "# stub: json 2.6 ruby lib\n"),
            ("app/vendor/composer/installed.json", r#"[{"name":"a/b","version":"v1"}]"#),
            ("app/a.gemspec", "# stub: not-installed 1 ruby lib\n"),
        ]);
        let listed: Vec<_> = listed(&[base]).into_iter().map(|(package, _)| package).collect();
        assert_eq!(listed, ["a/b@v1", "json@2.6", "rake@13.0.6"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// Whatever the files hold, the scan ends and what it says can be written down.
        #[test]
        fn hostile_files_are_survived(
            name in prop::sample::select(vec![
                "var/lib/dpkg/status", "lib/apk/db/installed", "var/lib/rpm/Packages",
                "var/lib/rpm/rpmdb.sqlite", "etc/os-release", "a/node_modules/b/package.json",
                "x.dist-info/METADATA", "Cargo.lock", "a.jar", "composer.lock", "Gemfile.lock",
                "specifications/x.gemspec", "bin/x", "usr/share/doc/x/copyright",
            ]),
            head in prop::sample::select(vec![
                "", "Package: a\nVersion: ", "P:a\nV:", "SQLite format 3\0", "RpmP", "ID=",
                "{\"name\":\"a\",\"version\":\"", "Name: a\nVersion: ", "[[package]]\n",
                "\x7fELF\x02\x01", "PK\x05\x06", "{\"packages\":[{\"name\":\"a/b\",\"version\":\"1\"}", "GEM\n  specs:\n    a (",
                "# stub: a ", "Format: x\nLicense: ",
            ]),
            bytes in prop::collection::vec(any::<u8>(), 0..600),
        ) {
            let content: Vec<u8> = [head.as_bytes(), &bytes].concat();
            let mut builder = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, name, &content[..]).unwrap();
            let layer = scan(&builder.into_inner().unwrap()[..], &Task::silent()).unwrap().0;
            let again: LayerScan = serde_json::from_slice(&serde_json::to_vec(&layer).unwrap()).unwrap();
            prop_assert_eq!(&again, &layer);
            let inventory = Inventory::merge(&[layer]);
            let subject = Subject {
                name: "x", digest: Digest::of(b"x"), diff_ids: &[Digest::of(b"y")],
                platform: "linux/amd64", created: "1970-01-01T00:00:00Z", version: "0",
            };
            for document in [crate::spdx(&inventory, &subject), crate::cyclonedx(&inventory, &subject)] {
                let text = document.to_string();
                prop_assert!(!text.contains("\\u00"), "control characters: {}", text);
            }
        }

        /// Content that is not a layer is an error, never a panic.
        #[test]
        fn hostile_streams_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let _ = scan(&bytes[..], &Task::silent());
        }
    }
}
