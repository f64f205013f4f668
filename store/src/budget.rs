//! What a collection may remove, and the words for what it removed.

use std::time::Duration;

/// So many bytes of a blob are written between two looks at the bound.
pub(crate) const GRANT: u64 = 16 << 20;

/// What a collection may remove beside what nothing uses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Budget {
    /// The whole build cache: remembered steps and cache mounts; with an age, what is older.
    pub all: bool,
    /// Removes build cache until the rest takes no more than this many bytes; least recently used
    /// first.
    pub keep_bytes: Option<u64>,
    /// What of the build cache was not used for this long.
    pub older_than: Option<Duration>,
    /// So many bytes of the build cache stay in any case, those that were used last.
    pub reserved: u64,
    /// Only these things are removed.
    pub filter: Option<CollectionFilter>,
    /// Remove nothing, only say what would be removed.
    pub dry_run: bool,
}

/// Limits a collection to some things.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CollectionFilter {
    /// Of these kinds; of any without.
    pub kinds: Vec<ItemKind>,
    /// Whose id, or the digest in it, begins like one of these; any without.
    pub ids: Vec<String>,
    /// Whether its content is also part of images or containers.
    pub shared: Option<bool>,
}

impl CollectionFilter {
    /// Whether the filter matches an entry.
    pub fn means(&self, kind: ItemKind, id: &str, shared: bool) -> bool {
        let begins = |prefix: &String| {
            id.starts_with(prefix.as_str())
                || id.split_once(':').is_some_and(|(_, hex)| hex.starts_with(prefix.as_str()))
        };
        (self.kinds.is_empty() || self.kinds.contains(&kind))
            && (self.ids.is_empty() || self.ids.iter().any(begins))
            && self.shared.is_none_or(|wanted| wanted == shared)
    }
}

/// What a collection removed, or would remove.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CollectionReport {
    /// Each thing, by kind and name.
    pub removed: Vec<RemovedItem>,
    /// Bytes of all of it.
    pub bytes: u64,
}

/// One thing that was, or would be, removed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RemovedItem {
    /// What it is.
    pub kind: ItemKind,
    /// Its digest, or the id of a cache mount.
    pub id: String,
    /// The bytes it takes; of a step always 0, its content is listed by itself.
    pub bytes: u64,
    /// Why it goes.
    pub reason: RemovalReason,
}

/// Why something is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RemovalReason {
    /// Nothing needs it.
    Unneeded,
    /// All of its kind was to go, or it was named.
    Asked,
    /// It was not used for too long.
    Old,
    /// There is more than may stay, and other things were used later.
    Room,
    /// Part of its content is gone.
    Broken,
}

impl RemovalReason {
    /// In the words the user sees.
    pub fn as_str(self) -> &'static str {
        match self {
            RemovalReason::Unneeded => "nothing needs it",
            RemovalReason::Asked => "asked for",
            RemovalReason::Old => "not used for long",
            RemovalReason::Room => "over the limit",
            RemovalReason::Broken => "part of it is gone",
        }
    }
}

/// The kinds of things that can be collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ItemKind {
    /// A manifest, config, layer or other content.
    Blob,
    /// An unpacked layer, or the tree a step made.
    Snapshot,
    /// What was remembered of a step.
    Step,
    /// A cache mount.
    Mount,
}

/// Something of the build cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheEntry {
    /// A step or a cache mount.
    pub kind: ItemKind,
    /// The key of the step, or the directory of the mount.
    pub id: String,
    /// When it was used last, seconds since 1970.
    pub used: i64,
    /// Bytes that go when it alone goes.
    pub bytes: u64,
    /// Whether images or containers have all of its content.
    pub shared: bool,
    /// The step as the user saw it, or the id of the mount.
    pub about: String,
}
