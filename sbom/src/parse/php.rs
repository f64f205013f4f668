//! What Composer writes of PHP packages.

use serde_json::Value;

use crate::package::field;
use crate::{Ecosystem, Package};

/// `composer.lock`, or `vendor/composer/installed.json`: an object with a list, or the list alone
/// (Composer 1). What `composer.lock` lists for development alone is left out.
pub(crate) fn composer(bytes: &[u8]) -> Vec<Package> {
    let json: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let list = json.as_array().or_else(|| json.get("packages")?.as_array());
    list.into_iter().flatten().filter_map(package).collect()
}

fn package(json: &Value) -> Option<Package> {
    let text = |key: &str| json.get(key).and_then(Value::as_str);
    let mut package = Package::new(Ecosystem::Composer, text("name")?, text("version")?)?;
    // Several licences are a choice.
    let licenses = json.get("license").and_then(Value::as_array).into_iter().flatten();
    let licenses: Vec<_> = licenses.filter_map(Value::as_str).collect();
    package.license = field(text("license").or(Some(&licenses.join(" OR "))));
    let author = json.get("authors").and_then(|authors| authors.get(0)?.get("name")?.as_str());
    package.supplier = field(author);
    package.homepage = field(text("homepage"));
    Some(package)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn composer_has_two_files_and_three_forms() {
        let monolog = r#"{"name":"monolog/monolog","version":"2.9.1","license":["MIT"],
            "homepage":"https://example.org","authors":[{"name":"J","email":"j@example.org"}],
            "require":{"php":">=7.2"}}"#;
        let console =
            r#"{"name":"symfony/console","version":"v6.3.0","license":["MIT","GPL-2.0"]}"#;
        let lock = format!(
            r#"{{"content-hash":"x","packages":[{monolog},{console}],"packages-dev":[{{"name":"a/b","version":"1"}}]}}"#
        );
        let installed =
            format!(r#"{{"packages":[{monolog},{console}],"dev":true,"dev-package-names":[]}}"#);
        for text in [lock, installed, format!("[{monolog},{console}]")] {
            let found = composer(text.as_bytes());
            assert_eq!(found.len(), 2, "{text}");
            assert_eq!((&*found[0].name, &*found[0].version), ("monolog/monolog", "2.9.1"));
            assert_eq!(found[0].license.as_deref(), Some("MIT"));
            assert_eq!(found[0].supplier.as_deref(), Some("J"));
            assert_eq!(found[1].license.as_deref(), Some("MIT OR GPL-2.0"));
        }
        for bad in [&b"{"[..], b"[1]", b"{\"packages\":{}}", b"[{\"name\":\"a/b\"}]", b"\xff", b""]
        {
            assert!(composer(bad).is_empty());
        }
    }
}
