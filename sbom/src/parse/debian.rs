//! The package databases that are plain text: dpkg's and apk's.

use std::collections::BTreeSet;

use crate::package::field;
use crate::{Ecosystem, Package};

/// The fields of one paragraph, by name; continuation lines are left out.
fn fields<'a>(paragraph: &'a str, separator: char) -> impl Fn(&str) -> Option<&'a str> {
    move |name: &str| {
        paragraph.lines().find_map(|line| {
            let (key, value) = line.split_once(separator)?;
            (key == name).then_some(value)
        })
    }
}

/// Paragraphs are set apart by empty lines.
fn paragraphs(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(['\n', '\r']);
        if rest.is_empty() {
            return None;
        }
        let end = [rest.find("\n\n"), rest.find("\n\r\n")].into_iter().flatten().min();
        let (paragraph, after) = rest.split_at(end.unwrap_or(rest.len()));
        rest = after;
        Some(paragraph)
    })
}

/// `var/lib/dpkg/status`, and the one-package files of `status.d`.
pub(crate) fn dpkg_status(text: &str) -> Vec<Package> {
    paragraphs(text)
        .filter_map(|paragraph| {
            let get = fields(paragraph, ':');
            // Want, flag, state. Where there is no such line (status.d), it is installed.
            let state = get("Status").and_then(|status| status.split_whitespace().nth(2));
            if matches!(state, Some("not-installed" | "config-files" | "half-installed")) {
                return None;
            }
            let mut package = Package::new(Ecosystem::Deb, get("Package")?, get("Version")?)?;
            package.architecture = field(get("Architecture"));
            package.source = field(get("Source")).map(|source| match source.split_once(" (") {
                Some((name, version)) => format!("{name}@{}", version.trim_end_matches(')')),
                None => source,
            });
            package.supplier = field(get("Maintainer"));
            package.homepage = field(get("Homepage"));
            Some(package)
        })
        .collect()
}

/// `lib/apk/db/installed`: fields of one letter.
pub(crate) fn apk_installed(text: &str) -> Vec<Package> {
    paragraphs(text)
        .filter_map(|paragraph| {
            let get = fields(paragraph, ':');
            let mut package = Package::new(Ecosystem::Apk, get("P")?, get("V")?)?;
            package.architecture = field(get("A"));
            package.source = field(get("o")).filter(|origin| *origin != package.name);
            package.supplier = field(get("m"));
            package.license = field(get("L"));
            package.homepage = field(get("U"));
            Some(package)
        })
        .collect()
}

/// The licences a machine-readable `copyright` file names, joined by `AND`.
pub(crate) fn copyright(text: &str) -> Option<String> {
    if !text.starts_with("Format:") {
        return None;
    }
    let names = text.lines().filter_map(|line| line.strip_prefix("License:"));
    let names: BTreeSet<_> =
        names.map(str::trim).filter(|name| !name.is_empty() && name.len() < 200).take(50).collect();
    let names: Vec<_> = names
        .into_iter()
        .map(|name| match name.contains(" or ") || name.contains(" and ") {
            true => format!("({})", name.replace(" or ", " OR ").replace(" and ", " AND ")),
            false => name.to_owned(),
        })
        .collect();
    field(Some(&names.join(" AND ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_installed_is_listed() {
        let text = "Package: bash\nStatus: install ok installed\nArchitecture: amd64\n\
            Version: 5.2-1+b1\nMaintainer: M <m@example.org>\nSource: bash (5.2-1)\n\
            Description: a shell\n with many\n .\n words\n\n\
            Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n\n\
            Package: half\nStatus: install ok unpacked\nVersion: 2\n\n\
            Version: 3\n\nPackage:\nVersion: 4\n\nPackage: static\nVersion: 5\n";
        let found = dpkg_status(text);
        let names: Vec<_> = found.iter().map(|p| (p.name.as_str(), p.version.as_str())).collect();
        assert_eq!(names, [("bash", "5.2-1+b1"), ("half", "2"), ("static", "5")]);
        assert_eq!(found[0].source.as_deref(), Some("bash@5.2-1"));
        assert_eq!(found[0].architecture.as_deref(), Some("amd64"));
    }

    #[test]
    fn apk_databases_are_read() {
        let text = "C:Q1abc=\nP:musl\nV:1.2.4-r2\nA:x86_64\nL:MIT\no:musl\nU:https://musl.libc.org/\n\
            F:lib\nR:libc.so\n\nP:musl-utils\nV:1.2.4-r2\no:musl\nL:MIT AND BSD-2-Clause\n";
        let found = apk_installed(text);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].license.as_deref(), Some("MIT"));
        assert_eq!((found[0].source.as_deref(), found[1].source.as_deref()), (None, Some("musl")));
    }

    #[test]
    fn licences_of_copyright_files_are_joined() {
        let text = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n\
            Files: *\nLicense: GPL-3+\n\nFiles: x\nLicense: Expat or BSD-3\n\nLicense: GPL-3+\n text\n";
        assert_eq!(copyright(text).unwrap(), "(Expat OR BSD-3) AND GPL-3+");
        assert_eq!(copyright("This package is free.\nLicense: x"), None);
    }
}
