//! `store.json`: which versions may use this store.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Error, Result, file};

/// The version of the directory tree. It changes only when old versions must not even look.
const VERSION: u32 = 1;

/// What this version can do with stores that need it.
const KNOWN: &[&str] = &["user-xattr"];

/// Content of `store.json` (docs/store-format.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoreFormat {
    version: u32,
    /// Features that versions without them may ignore.
    #[serde(default)]
    compat: Vec<String>,
    /// Features without which a version may only read.
    #[serde(default)]
    readonly: Vec<String>,
    /// Features without which a version must keep out.
    #[serde(default)]
    incompat: Vec<String>,
    /// For a store in a user namespace: how its ids map to ids outside, one range per line, as
    /// the kernel writes `uid_map` and `gid_map`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id_map: Option<IdMap>,
}

/// The kernel's `uid_map` and `gid_map`, one blank between numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct IdMap {
    uid: Vec<String>,
    gid: Vec<String>,
}

impl StoreFormat {
    /// The format of a store made now.
    pub(crate) fn new(user_xattr: bool) -> StoreFormat {
        let incompat = if user_xattr { vec!["user-xattr".to_owned()] } else { Vec::new() };
        StoreFormat {
            version: VERSION,
            compat: Vec::new(),
            readonly: Vec::new(),
            incompat,
            id_map: user_xattr.then(IdMap::current).flatten(),
        }
    }

    /// Reads the format of the store at `root`; `None` if there is no store yet.
    pub(crate) fn read(root: &Path) -> Result<Option<StoreFormat>> {
        let path = root.join("store.json");
        let Some(file) = file::open(&path)? else { return Ok(None) };
        let mut text = Vec::new();
        let mut limited = std::io::Read::take(file, 1 << 20);
        std::io::Read::read_to_end(&mut limited, &mut text)
            .map_err(|error| Error::file("reading", &path, error))?;
        serde_json::from_slice(&text).map(Some).map_err(|error| Error::Format {
            path: root.to_owned(),
            reason: format!("store.json is malformed: {error}"),
        })
    }

    /// Writes `store.json`.
    pub(crate) fn write(&self, root: &Path) -> Result<()> {
        let text = serde_json::to_vec_pretty(self).expect("the format is plain data");
        file::replace(&root.join("store.json"), &text, 0o600)
    }

    /// Refuses a store that this version, or this user namespace, would damage.
    pub(crate) fn admit(&self, root: &Path, user_xattr: bool) -> Result<()> {
        let refuse = |reason: String| Err(Error::Format { path: root.to_owned(), reason });
        if self.version != VERSION {
            let version = self.version;
            return refuse(format!(
                "its format version is {version}, this program supports {VERSION}"
            ));
        }
        let mut needed = self.incompat.iter().chain(&self.readonly);
        if let Some(feature) = needed.find(|feature| !KNOWN.contains(&feature.as_str())) {
            return refuse(format!("it needs the feature {feature:?}, which this program lacks"));
        }
        let has = self.incompat.iter().any(|feature| feature == "user-xattr");
        if has != user_xattr {
            return refuse(match has {
                true => "it was made without root; use it as that user".to_owned(),
                false => "it was made by root; use it as root, or another store".to_owned(),
            });
        }
        match (&self.id_map, user_xattr.then(IdMap::current).flatten()) {
            (Some(then), Some(now)) if *then != now => refuse(
                "it was made with other user or group id ranges, so its files have other owners"
                    .to_owned(),
            ),
            _ => Ok(()),
        }
    }
}

impl IdMap {
    fn current() -> Option<IdMap> {
        let lines = |path: &str| -> Option<Vec<String>> {
            let text = std::fs::read_to_string(path).ok()?;
            let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
            Some(text.lines().map(words).collect())
        };
        Some(IdMap { uid: lines("/proc/self/uid_map")?, gid: lines("/proc/self/gid_map")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_of_other_kinds_are_refused_and_say_why() {
        let cases = [
            (r#"{"version":1}"#, false, None),
            (r#"{"version":1,"compat":["new-index"]}"#, false, None),
            (r#"{"version":2}"#, false, Some("version is 2")),
            (r#"{"version":1,"incompat":["erofs"]}"#, false, Some("\"erofs\"")),
            (r#"{"version":1,"readonly":["packed"]}"#, false, Some("\"packed\"")),
            (r#"{"version":1,"incompat":["user-xattr"]}"#, true, None),
            (r#"{"version":1,"incompat":["user-xattr"]}"#, false, Some("without root")),
            (r#"{"version":1}"#, true, Some("by root")),
            (
                r#"{"version":1,"incompat":["user-xattr"],"id_map":{"uid":["0 7 1"],"gid":[]}}"#,
                true,
                Some("other user or group id"),
            ),
        ];
        for (text, user_xattr, reason) in cases {
            let format: StoreFormat = serde_json::from_str(text).unwrap();
            let found = format.admit(Path::new("/s"), user_xattr).err().map(|e| e.to_string());
            match reason {
                None => assert_eq!(found, None, "{text}"),
                Some(reason) => {
                    let fits = found.as_ref().is_some_and(|found| found.contains(reason));
                    assert!(fits, "{text}: {found:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_written_is_admitted_again() {
        let directory = tempfile::tempdir().unwrap();
        for user_xattr in [false, true] {
            StoreFormat::new(user_xattr).write(directory.path()).unwrap();
            let format = StoreFormat::read(directory.path()).unwrap().unwrap();
            assert_eq!(format, StoreFormat::new(user_xattr));
            format.admit(directory.path(), user_xattr).unwrap();
        }
        std::fs::write(directory.path().join("store.json"), "{").unwrap();
        assert!(StoreFormat::read(directory.path()).is_err());
    }
}
