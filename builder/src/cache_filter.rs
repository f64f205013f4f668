//! Conditions on the build cache and on what failing steps left: `type=step`, `until=24h`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use store::{CacheEntry, CollectionFilter, ItemKind, Store};
use task::SyntaxError;

use crate::Result;
use crate::debug::KeptFailure;

/// Which entries of the build cache, and which kept failures, are meant; by default all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheFilter {
    /// The entries by type, id and whether they are shared.
    pub only: Option<CollectionFilter>,
    /// What was used less than this ago is not meant.
    pub until: Option<Duration>,
    /// Nothing is meant: an entry that is in use is never removed.
    pub nothing: bool,
    /// Whether types are named.
    pub typed: bool,
    /// Whether kept failures are named among the types.
    failed: bool,
}

impl CacheFilter {
    /// Adds a condition: `until=AGE`, `type=step|mount|blob|snapshot|failed`, `id=PREFIX`,
    /// `shared=true|false` or `inuse=true|false`. BuildKit's names of types are understood.
    ///
    /// # Errors
    /// It is none of these.
    pub fn add(&mut self, text: &str) -> std::result::Result<(), SyntaxError> {
        let (key, value) =
            text.split_once('=').ok_or_else(|| SyntaxError::new("expected KEY=VALUE"))?;
        match key {
            "until" => self.until = Some(task::span(value).map_err(SyntaxError::new)?),
            "type" => self.add_type(value)?,
            "id" => self.only.get_or_insert_default().ids.push(value.to_owned()),
            "shared" => self.only.get_or_insert_default().shared = Some(truth(value)?),
            "inuse" => self.nothing |= truth(value)?,
            "label" | "label!" => return Err(SyntaxError::new("the build cache has no labels")),
            _ => return Err(SyntaxError::new("this filter is not supported")),
        }
        Ok(())
    }

    fn add_type(&mut self, name: &str) -> std::result::Result<(), SyntaxError> {
        let kind = match name {
            "step" | "regular" => Some(ItemKind::Step),
            "mount" | "exec.cachemount" => Some(ItemKind::Mount),
            "blob" => Some(ItemKind::Blob),
            "snapshot" => Some(ItemKind::Snapshot),
            "failed" => None,
            _ => {
                let known = "the types are step, mount, blob, snapshot and failed";
                return Err(SyntaxError::new(known));
            }
        };
        self.typed = true;
        match kind {
            Some(kind) => self.only.get_or_insert_default().kinds.push(kind),
            None => self.failed = true,
        }
        Ok(())
    }

    /// Whether only kept failures are meant.
    #[must_use]
    pub fn only_failed(&self) -> bool {
        self.failed && self.only.is_none()
    }

    /// Whether an entry of the build cache is meant at this time.
    #[must_use]
    pub fn means(&self, entry: &CacheEntry, now: SystemTime) -> bool {
        let old = self.until.is_none_or(|until| unused_for(entry.used, now) > until);
        let known = |only: &CollectionFilter| only.means(entry.kind, &entry.id, entry.shared);
        old && !self.only_failed() && self.only.as_ref().is_none_or(known)
    }

    /// The kept failures that are meant, of those older than this at this time.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn kept(
        &self,
        store: &Store,
        older: Option<Duration>,
        now: SystemTime,
    ) -> Result<Vec<KeptFailure>> {
        // But for types nothing is known of them by which they could be picked.
        let meant = self.failed || (!self.typed && self.only.is_none());
        if !meant || self.nothing {
            return Ok(Vec::new());
        }
        let old = |failure: &KeptFailure| {
            let time = i64::try_from(failure.failed.time).unwrap_or(i64::MAX);
            older.is_none_or(|age| unused_for(time, now) > age)
        };
        Ok(KeptFailure::all(store)?.into_iter().filter(old).collect())
    }
}

/// How long ago this was, in seconds since 1970, at this time.
#[must_use]
pub fn unused_for(used: i64, now: SystemTime) -> Duration {
    let used = Duration::from_secs(u64::try_from(used).unwrap_or(0));
    now.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(used)
}

fn truth(text: &str) -> std::result::Result<bool, SyntaxError> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(SyntaxError::new("expected true or false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(texts: &[&str]) -> CacheFilter {
        let mut filter = CacheFilter::default();
        texts.iter().for_each(|text| filter.add(text).unwrap());
        filter
    }

    #[test]
    fn conditions_of_one_key_are_alternatives_and_those_of_several_hold_together() {
        let step = CacheEntry {
            kind: ItemKind::Step,
            id: "sha256:abc".to_owned(),
            bytes: 1,
            used: 100,
            shared: false,
            about: String::new(),
        };
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        for (texts, meant) in [
            (&[][..], true),
            (&["type=step"], true),
            (&["type=regular", "type=mount"], true),
            (&["type=mount"], false),
            (&["type=failed"], false),
            (&["type=failed", "type=step"], true),
            (&["id=abc"], true),
            (&["id=b", "id=ab"], true),
            (&["id=b"], false),
            (&["id=abc", "type=mount"], false),
            (&["shared=0"], true),
            (&["shared=true"], false),
            (&["until=1h"], false),
            (&["until=1m"], true),
        ] {
            assert_eq!(read(texts).means(&step, at(200)), meant, "{texts:?}");
        }
        assert!(read(&["type=failed"]).only_failed());
        assert!(!read(&["type=failed", "id=a"]).only_failed());
        for text in ["type", "type=x", "until=x", "shared=x", "label=x", "colour=x"] {
            assert!(CacheFilter::default().add(text).is_err(), "{text}");
        }
    }
}
