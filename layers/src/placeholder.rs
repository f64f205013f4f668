//! What is in an upper directory only because something was mounted there.

use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use crate::Root;

/// Where a link leads that every container gets which has none.
const MOUNTS: &str = "/proc/mounts";

/// Whether a path of an upper directory is there because something is mounted at it or below it: it
/// is empty, or holds only such paths. `places` and `path` are relative to the root.
pub(crate) fn is_placeholder(upper: &Root, places: &[PathBuf], path: &Path) -> bool {
    let itself = || places.iter().any(|place| place == path);
    match upper.entries(path) {
        Ok(entries) if entries.is_empty() => itself(),
        Ok(entries) => {
            places.iter().any(|place| place.starts_with(path))
                && entries
                    .iter()
                    .all(|entry| is_placeholder(upper, places, &path.join(&entry.name)))
        }
        Err(_) => {
            let empty = |stat: rustix::fs::Stat| {
                FileType::from_raw_mode(stat.st_mode).is_file() && stat.st_size == 0
            };
            let leads_to_proc = || upper.read_link(path).is_ok_and(|to| to == Path::new(MOUNTS));
            itself() && (upper.symlink_metadata(path).is_ok_and(empty) || leads_to_proc())
        }
    }
}
