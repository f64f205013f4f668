//! What a mirror remembers of its last run, so that an unchanged tag costs one question.

use std::collections::BTreeMap;
use std::path::Path;

use image::Digest;
use serde::{Deserialize, Serialize};

use crate::at::files;
use crate::{Error, Result};

const VERSION: u32 = 1;
/// A larger file is none of ours: a million tags take a third of this.
const LARGEST: u64 = 512 << 20;

/// What was copied, by the name it has at the destination.
///
/// It only saves requests: a run that loses it, or starts with another one, queries both ends for
/// every tag and finds the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorState {
    version: u32,
    entries: BTreeMap<String, TagState>,
}

/// One name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TagState {
    /// What the source's name pointed at.
    pub(super) source: Digest,
    /// What the destination's name points at since.
    pub(super) copy: Digest,
    /// What was copied of it, and how.
    pub(super) how: String,
    /// What stood for everything attached to it at the source, where that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) attached: Option<Digest>,
    /// When the destination was looked at last, seconds since 1970.
    pub(super) seen: i64,
}

impl MirrorState {
    /// Reads a file; an absent one is empty, and so is one of another version.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Malformed`].
    pub fn open(path: &Path) -> Result<MirrorState> {
        let Some(bytes) = files::read(path, LARGEST)? else { return Ok(MirrorState::default()) };
        let read: Result<MirrorState, _> = serde_json::from_slice(&bytes);
        let state = read.map_err(|error| Error::Malformed {
            place: path.display().to_string(),
            reason: format!("it is not the state of a mirror: {error}"),
        })?;
        Ok(if state.version == VERSION { state } else { MirrorState::default() })
    }

    /// Writes the file in one visible step.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn save(&self, path: &Path) -> Result<()> {
        let whole = MirrorState { version: VERSION, entries: self.entries.clone() };
        let bytes = serde_json::to_vec(&whole).unwrap_or_default();
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(Error::file("creating", parent))?;
        }
        files::write(path, &bytes)
    }

    pub(super) fn entry(&self, name: &str) -> Option<&TagState> {
        self.entries.get(name)
    }

    pub(super) fn keep(&mut self, name: String, entry: TagState) {
        self.entries.insert(name, entry);
    }

    pub(super) fn forget(&mut self, name: &str) {
        self.entries.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_is_kept_and_what_is_none_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b/state.json");
        assert_eq!(MirrorState::open(&path).unwrap(), MirrorState::default());
        let mut state = MirrorState { version: VERSION, ..MirrorState::default() };
        let digest = Digest::of(b"x");
        let entry =
            TagState { source: digest, copy: digest, how: "all".into(), attached: None, seen: 7 };
        state.keep("r/a:1".into(), entry.clone());
        state.save(&path).unwrap();
        assert_eq!(MirrorState::open(&path).unwrap().entry("r/a:1"), Some(&entry));
        std::fs::write(&path, "{").unwrap();
        assert!(matches!(MirrorState::open(&path), Err(Error::Malformed { .. })));
        std::fs::write(&path, r#"{"version":9,"entries":{}}"#).unwrap();
        assert_eq!(MirrorState::open(&path).unwrap(), MirrorState::default());
    }
}
