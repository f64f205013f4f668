//! Room set aside for the catalog, so that on a full disk images can still be listed and removed.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// What is set aside. A collection notes what it condemns before anything is freed: some dozens of
/// bytes a thing.
const SIZE: u64 = 4 << 20;

/// With less than this free, opening and writing the catalog may fail.
const LITTLE: u64 = 256 << 10;

/// How much of the reserve one command gets. Something else may take what is freed at once, so there is
/// more for the next.
const PIECE: u64 = 512 << 10;

/// Bytes that are free where the store is.
fn free(root: &Path) -> Option<u64> {
    let system = statvfs(root).ok()?;
    Some(system.f_bavail.saturating_mul(system.f_frsize))
}

/// Whether there may be no room for writing the catalog.
pub(crate) fn is_full(root: &Path) -> bool {
    free(root).is_some_and(|free| free < LITTLE)
}

/// Leaves this much of the reserve.
fn shrink(path: &Path, to: u64) {
    let shrunk = match to {
        0 => std::fs::remove_file(path),
        to => File::options().write(true).open(path).and_then(|file| file.set_len(to)),
    };
    if let Err(error) = shrunk {
        tracing::debug!(%error, "the reserve cannot be made smaller");
    }
}

/// Gives away all of the reserve if the disk is full: what removes much at once notes it all first.
pub(crate) fn release(root: &Path) {
    if free(root).is_some_and(|free| free < SIZE) && bytes(root) > 0 {
        shrink(&root.join("reserve"), 0);
    }
}

/// Gives away a part of the reserve if the disk is full, and creates it again if there is space. A failure does
/// not stop the store from opening.
pub(crate) fn tend(root: &Path) {
    let path = root.join("reserve");
    let Some(free) = free(root) else { return };
    let kept = bytes(root);
    if free < LITTLE && kept > 0 {
        shrink(&path, kept.saturating_sub(PIECE));
    } else if kept < SIZE && free > 4 * SIZE {
        let mut options = File::options();
        options.write(true).create(true).truncate(false).mode(0o600);
        let made = options.open(&path);
        let made = made.and_then(|file| {
            fallocate(&file, FallocateFlags::empty(), 0, SIZE).map_err(std::io::Error::from)
        });
        if let Err(error) = made {
            tracing::debug!(%error, "there is no reserve");
        }
    }
}

/// Bytes that are set aside.
pub(crate) fn bytes(root: &Path) -> u64 {
    std::fs::metadata(root.join("reserve")).map_or(0, |metadata| metadata.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_set_aside_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("reserve");
        for _ in 0..2 {
            tend(directory.path());
            assert_eq!(std::fs::metadata(&path).unwrap().len(), SIZE);
        }
        std::fs::remove_file(&path).unwrap();
        tend(Path::new("/nowhere"));
        assert!(!path.exists());
    }
}
