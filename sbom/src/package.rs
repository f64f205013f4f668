use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Who packaged it: decides how a package is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ecosystem {
    /// Debian's packages.
    Deb,
    /// Alpine's packages.
    Apk,
    /// RPM packages.
    Rpm,
    /// Python distributions.
    Pypi,
    /// Node packages.
    Npm,
    /// Rust crates.
    Cargo,
    /// Go modules.
    Golang,
    /// Java archives, by their Maven coordinates `GROUP:ARTIFACT`.
    Maven,
    /// PHP packages.
    Composer,
    /// Ruby gems.
    Gem,
}

impl Ecosystem {
    /// The name, as in package URLs.
    pub fn as_str(self) -> &'static str {
        match self {
            Ecosystem::Deb => "deb",
            Ecosystem::Apk => "apk",
            Ecosystem::Rpm => "rpm",
            Ecosystem::Pypi => "pypi",
            Ecosystem::Npm => "npm",
            Ecosystem::Cargo => "cargo",
            Ecosystem::Golang => "golang",
            Ecosystem::Maven => "maven",
            Ecosystem::Composer => "composer",
            Ecosystem::Gem => "gem",
        }
    }

    /// Whether its packages come from the distribution that `os-release` names.
    pub(crate) fn is_of_distribution(self) -> bool {
        matches!(self, Ecosystem::Deb | Ecosystem::Apk | Ecosystem::Rpm)
    }
}

/// One package that is installed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Package {
    /// Who packaged it.
    pub ecosystem: Ecosystem,
    /// Its name, with the scope or path that belongs to it.
    pub name: String,
    /// Its version; empty where nothing tells.
    pub version: String,
    /// The epoch of an RPM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u32>,
    /// What it was built for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// The source package it was built from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Who maintains or distributes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supplier: Option<String>,
    /// Its licence as the package says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// Its home page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub homepage: Option<String>,
}

/// No text about a package is longer than this, in characters.
const LONGEST: usize = 1024;

/// Text from a layer, fit to be shown and compared: no control characters, not too long.
pub(crate) fn clean(text: &str) -> String {
    text.trim().chars().filter(|c| !c.is_control()).take(LONGEST).collect()
}

impl Package {
    /// A package with its name and version. `None` without a name.
    pub(crate) fn new(ecosystem: Ecosystem, name: &str, version: &str) -> Option<Package> {
        let name = clean(name);
        if name.is_empty() {
            return None;
        }
        Some(Package {
            ecosystem,
            name,
            version: clean(version),
            epoch: None,
            architecture: None,
            source: None,
            supplier: None,
            license: None,
            homepage: None,
        })
    }

    /// The package URL.
    pub fn purl(&self, release: &Release) -> String {
        crate::purl::purl(self, release)
    }

    /// How much it takes to keep.
    pub(crate) fn weight(&self) -> usize {
        let texts =
            [&self.architecture, &self.source, &self.supplier, &self.license, &self.homepage];
        let optional: usize = texts.iter().filter_map(|text| text.as_ref()).map(String::len).sum();
        size_of::<Package>() + self.name.len() + self.version.len() + optional
    }
}

/// A field that may be missing or empty.
pub(crate) fn field(text: Option<&str>) -> Option<String> {
    text.map(clean).filter(|text| !text.is_empty())
}

/// The distribution, from `os-release`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// `ID`, such as `debian`.
    pub id: String,
    /// `VERSION_ID`, such as `12`.
    pub version: String,
    /// `PRETTY_NAME`.
    pub name: String,
}

impl Release {
    pub(crate) fn parse(text: &str) -> Release {
        let mut fields = BTreeMap::new();
        for line in text.lines() {
            if let Some((key, value)) = line.trim().split_once('=') {
                let value = value.trim_matches(|c| c == '"' || c == '\'');
                fields.insert(key, clean(value));
            }
        }
        let mut take = |key| fields.remove(key).unwrap_or_default();
        Release { id: take("ID"), version: take("VERSION_ID"), name: take("PRETTY_NAME") }
    }
}
