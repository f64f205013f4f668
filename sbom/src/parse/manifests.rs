//! The manifests that languages leave beside what they install.

use serde::Deserialize;
use serde_json::Value;

use crate::package::field;
use crate::{Ecosystem, Package};

/// `METADATA` of a wheel or `PKG-INFO` of an egg: headers, then a description.
pub(crate) fn python_metadata(text: &str) -> Option<Package> {
    let head = text.split("\n\n").next()?.split("\r\n\r\n").next()?;
    let get = |name: &str| {
        head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    };
    let mut package = Package::new(Ecosystem::Pypi, get("Name")?, get("Version")?)?;
    let license = get("License-Expression").or_else(|| get("License"));
    package.license =
        field(license).filter(|text| text.len() < 200 && !text.eq_ignore_ascii_case("unknown"));
    package.supplier = field(get("Author-email").or_else(|| get("Author")));
    package.homepage = field(get("Home-page"));
    Some(package)
}

/// `package.json` of an installed Node package.
pub(crate) fn node_package(bytes: &[u8]) -> Option<Package> {
    let json: Value = serde_json::from_slice(bytes).ok()?;
    let text = |key: &str| json.get(key).and_then(Value::as_str);
    let mut package = Package::new(Ecosystem::Npm, text("name")?, text("version")?)?;
    let license = json.get("license");
    package.license = field(
        license.and_then(Value::as_str).or_else(|| license?.get("type").and_then(Value::as_str)),
    );
    let author = json.get("author");
    package.supplier = field(
        author.and_then(Value::as_str).or_else(|| author?.get("name").and_then(Value::as_str)),
    );
    package.homepage = field(text("homepage"));
    Some(package)
}

#[derive(Deserialize)]
struct CargoLock {
    #[serde(default)]
    package: Vec<LockedPackage>,
}

#[derive(Deserialize)]
struct LockedPackage {
    name: String,
    version: String,
}

/// `Cargo.lock`.
pub(crate) fn cargo_lock(text: &str) -> Vec<Package> {
    let lock: CargoLock = toml::from_str(text).unwrap_or(CargoLock { package: Vec::new() });
    let packages = lock.package.iter();
    packages.filter_map(|p| Package::new(Ecosystem::Cargo, &p.name, &p.version)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_metadata_ends_at_the_description() {
        let text = "Metadata-Version: 2.1\nName: requests\nVersion: 2.31.0\nLicense: Apache 2.0\n\
            Author-email: me@example.org\n\nName: other\nVersion: 9\n";
        let package = python_metadata(text).unwrap();
        assert_eq!((package.name.as_str(), package.version.as_str()), ("requests", "2.31.0"));
        assert_eq!(package.license.as_deref(), Some("Apache 2.0"));
        assert_eq!(python_metadata("Name: x\n\nVersion: 1"), None);
    }

    #[test]
    fn node_packages_have_two_ways_to_say_a_licence() {
        let one = node_package(br#"{"name":"@a/b","version":"1.0.0","license":"MIT"}"#).unwrap();
        let two = br#"{"name":"c","version":"2","license":{"type":"ISC"},"author":{"name":"N"}}"#;
        let two = node_package(two).unwrap();
        assert_eq!((one.name.as_str(), one.license.as_deref()), ("@a/b", Some("MIT")));
        assert_eq!((two.license.as_deref(), two.supplier.as_deref()), (Some("ISC"), Some("N")));
        for bad in [&b"{"[..], b"[]", b"{\"name\":1}", b"{\"name\":\"x\"}", b"\xff"] {
            assert_eq!(node_package(bad), None);
        }
    }

    #[test]
    fn cargo_lock_lists_crates() {
        let text = "version = 4\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\n\
            dependencies = [\"b\"]\n[[package]]\nname = \"b\"\nversion = \"0.2.0\"\n";
        assert_eq!(cargo_lock(text).len(), 2);
        assert!(cargo_lock("garbage [").is_empty());
    }
}
