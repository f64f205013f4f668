//! Digests of files, cached by their `stat` data, as in git's index.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use image::Digest;
use layers::Stat;
use store::Store;

/// Where the store keeps them.
const SPACE: &str = "context-files-2";
/// A file changed less than this long before the build may change again without a trace.
const SETTLED: i64 = 1_000_000_000;
/// With more files than this, those that this build did not see are forgotten.
const KEEP: usize = 200_000;
const MARK: usize = 16;
const RECORD: usize = MARK + 32;

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    dev: u64,
    ino: u64,
    size: u64,
    mtime: i64,
    ctime: i64,
}

impl Identity {
    pub(crate) fn of(stat: &Stat) -> Identity {
        let nanos = |seconds: i64, nanos: u64| {
            seconds.wrapping_mul(1_000_000_000).wrapping_add(i64::try_from(nanos).unwrap_or(0))
        };
        #[allow(clippy::unnecessary_cast, clippy::cast_sign_loss)]
        Identity {
            dev: stat.st_dev,
            ino: stat.st_ino,
            size: stat.st_size as u64,
            mtime: nanos(stat.st_mtime as i64, stat.st_mtime_nsec as u64),
            ctime: nanos(stat.st_ctime as i64, stat.st_ctime_nsec as u64),
        }
    }

    /// A short name of it: two states of files with the same one are not met with.
    fn mark(&self) -> [u8; MARK] {
        let mut bytes = [0; 40];
        let words = [self.dev.to_le_bytes(), self.ino.to_le_bytes(), self.size.to_le_bytes()];
        let times = [self.mtime.to_le_bytes(), self.ctime.to_le_bytes()];
        for (slot, word) in bytes.chunks_exact_mut(8).zip(words.iter().chain(&times)) {
            slot.copy_from_slice(word);
        }
        let mut mark = [0; MARK];
        mark.copy_from_slice(&Digest::of(&bytes).as_bytes()[..MARK]);
        mark
    }
}

#[derive(Debug, Clone, Copy)]
struct KnownDigest {
    digest: [u8; 32],
    seen: bool,
    /// Whether it cannot have changed again without a trace.
    settled: bool,
}

/// The digests of one context.
#[derive(Debug)]
pub(crate) struct Digests {
    key: Option<Vec<u8>>,
    /// Nanoseconds since 1970: files changed later are not remembered.
    settled: i64,
    known: Mutex<(HashMap<[u8; MARK], KnownDigest>, bool)>,
}

impl Digests {
    /// Nothing remembered, and nothing to be.
    pub(crate) fn empty() -> Digests {
        Digests { key: None, settled: i64::MIN, known: Mutex::default() }
    }

    /// What the store remembers of a directory.
    pub(crate) fn load(store: &Store, directory: &Path, now: SystemTime) -> Digests {
        let key = directory.as_os_str().as_bytes().to_vec();
        let table = store.memo(SPACE, &key).ok().flatten().unwrap_or_default();
        let known = table.chunks_exact(RECORD).filter_map(|record| {
            let (mark, digest) = record.split_at(MARK);
            let known = KnownDigest { digest: digest.try_into().ok()?, seen: false, settled: true };
            Some((mark.try_into().ok()?, known))
        });
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let settled = i64::try_from(now).unwrap_or(i64::MAX).saturating_sub(SETTLED);
        Digests { key: Some(key), settled, known: Mutex::new((known.collect(), false)) }
    }

    pub(crate) fn get(&self, identity: &Identity) -> Option<[u8; 32]> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.0.get_mut(&identity.mark())?;
        found.seen = true;
        Some(found.digest)
    }

    pub(crate) fn set(&self, identity: Identity, digest: &Digest) {
        let Ok(digest) = <[u8; 32]>::try_from(digest.as_bytes()) else { return };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let settled = identity.ctime < self.settled;
        known.0.insert(identity.mark(), KnownDigest { digest, seen: true, settled });
        known.1 = true;
    }

    /// Hands what is new to the store. A failure only costs time in the next build.
    pub(crate) fn save(&self, store: &Store) {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(key), true) = (&self.key, known.1) else { return };
        let all = known.0.len() <= KEEP;
        let mut table = Vec::with_capacity(known.0.len() * RECORD);
        for (mark, entry) in &known.0 {
            if (all || entry.seen) && entry.settled {
                table.extend_from_slice(mark);
                table.extend_from_slice(&entry.digest);
            }
        }
        if let Err(error) = store.set_memo(SPACE, key, &table) {
            tracing::debug!(%error, "the digests of the context are not cached");
        }
    }
}
