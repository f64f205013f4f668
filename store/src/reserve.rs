//! Room set aside for the catalog, so that on a full disk images can still be listed and removed.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// What is set aside. A collection notes what it condemns before anything is freed: some dozens of
/// bytes a thing.
const SIZE: u64 = 4 << 20;

/// With less than this free, opening and writing the catalog may fail.
const LITTLE: u64 = 1 << 20;

/// Deletes the reserve if the disk is full, and creates it again if there is space. A failure does
/// not stop the store from opening.
pub(crate) fn tend(root: &Path) {
    let path = root.join("reserve");
    let Ok(system) = statvfs(root) else { return };
    let free = system.f_bavail.saturating_mul(system.f_frsize);
    let kept = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
    if free < LITTLE && kept > 0 {
        if let Err(error) = std::fs::remove_file(&path) {
            tracing::debug!(%error, "the reserve cannot be removed");
        }
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
