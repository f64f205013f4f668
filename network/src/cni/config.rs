//! Configurations of networks in the format of CNI: one plugin, or a list of them.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Error, Result};

/// What the names of files with a configuration end with.
const ENDINGS: [&str; 3] = ["conf", "conflist", "json"];
/// No configuration is larger.
const MOST: u64 = 1 << 20;

/// A network: its plugins, in the order in which they add a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Configuration {
    pub(super) name: String,
    pub(super) version: String,
    /// Whether a container on it cannot be checked.
    pub(super) unchecked: bool,
    pub(super) plugins: Vec<Map<String, Value>>,
}

impl Configuration {
    /// The network of this name in a directory.
    ///
    /// # Errors
    /// [`Error::InvalidNetwork`]: there is none, or its configuration makes no sense.
    pub(super) fn find(name: &str, directory: &Path) -> Result<Configuration> {
        let wrong = |reason: String| Error::InvalidNetwork { name: format!("cni:{name}"), reason };
        let mut names = Vec::new();
        for path in files(directory) {
            // As with other programs, a file that cannot be read hides no other.
            let Some(document) = read(&path) else { continue };
            let found = document.get("name").and_then(Value::as_str).unwrap_or_default();
            if found == name {
                let read = Configuration::read(name, document);
                return read.map_err(|reason| wrong(format!("{}: {reason}", path.display())));
            }
            names.push(found.to_owned());
        }
        let place = directory.display();
        let known = match names.as_slice() {
            [] => "there are no others".to_owned(),
            names => format!("there are {}", names.join(", ")),
        };
        Err(wrong(format!("no configuration in {place} has this name: {known}")))
    }

    fn read(name: &str, mut document: Map<String, Value>) -> Result<Configuration, String> {
        let version = document.get("cniVersion").and_then(Value::as_str).unwrap_or("0.1.0");
        let (name, version) = (name.to_owned(), version.to_owned());
        let unchecked = document.get("disableCheck").and_then(Value::as_bool).unwrap_or(false);
        let plugins = match document.remove("plugins") {
            None => vec![document],
            Some(Value::Array(list)) => {
                let each = list.into_iter().map(|plugin| match plugin {
                    Value::Object(plugin) => Ok(plugin),
                    _ => Err("a plugin is not an object".to_owned()),
                });
                each.collect::<Result<_, String>>()?
            }
            Some(_) => return Err("plugins is not a list".to_owned()),
        };
        if plugins.is_empty() {
            return Err("it names no plugin".to_owned());
        }
        for plugin in &plugins {
            let kind = plugin.get("type").and_then(Value::as_str).unwrap_or_default();
            if kind.is_empty() || kind.contains('/') || kind.starts_with('.') {
                return Err(format!("type {kind:?} is not the name of a plugin"));
            }
        }
        Ok(Configuration { name, version, unchecked, plugins })
    }

    /// Whether a plugin can do something on demand.
    pub(super) fn can(&self, capability: &str) -> bool {
        self.plugins.iter().any(|plugin| declares(plugin, capability))
    }

    /// Whether its version has at least this minor number, before 1.0.
    pub(super) fn is_at_least(&self, minor: u32) -> bool {
        let mut numbers = self.version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        let (major, own) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        major > 0 || own >= minor
    }
}

/// Whether a plugin says that it can do something on demand.
pub(super) fn declares(plugin: &Map<String, Value>, capability: &str) -> bool {
    let all = plugin.get("capabilities");
    all.and_then(|all| all.get(capability)).and_then(Value::as_bool).unwrap_or(false)
}

/// The files of a directory that may hold configurations, by name.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let fits = |path: &PathBuf| {
        path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known))
    };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(fits).collect();
    files.sort();
    files
}

fn read(path: &Path) -> Option<Map<String, Value>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(MOST).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_found_by_name_among_lists_and_single_plugins() {
        let place = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(place.path().join(name), text).unwrap();
        write("00-broken.conf", "{");
        write("10-a.conf", r#"{"cniVersion": "0.3.1", "name": "a", "type": "bridge"}"#);
        write(
            "20-b.conflist",
            r#"{"cniVersion": "1.0.0", "name": "b", "disableCheck": true, "plugins": [
                {"type": "ptp"}, {"type": "portmap", "capabilities": {"portMappings": true}}]}"#,
        );
        write("30-c.txt", r#"{"name": "c", "type": "bridge"}"#);
        write("40-d.json", r#"{"name": "d", "plugins": [{"type": "../sh"}]}"#);
        let find = |name: &str| Configuration::find(name, place.path());
        let a = find("a").unwrap();
        assert_eq!((a.plugins.len(), a.can("portMappings"), a.is_at_least(4)), (1, false, false));
        let b = find("b").unwrap();
        assert_eq!((b.plugins.len(), b.can("portMappings"), b.is_at_least(4)), (2, true, true));
        assert!(b.unchecked);
        let error = find("c").unwrap_err().to_string();
        assert!(error.contains("there are a, b, d"), "{error}");
        let error = find("d").unwrap_err().to_string();
        assert!(error.contains("40-d.json") && error.contains("../sh"), "{error}");
    }
}
