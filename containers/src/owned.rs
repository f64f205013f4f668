//! The files of an image with other owners on the disk: what the kernel does for mounts of root, a copy
//! does for an ordinary user.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use layers::copy::{CopyOptions, copy};
use layers::{OwnerMap, Root, Stack};
use runtime::{IdMaps, IdRange};
use task::Task;

use crate::{Error, Result};

/// More threads do not copy faster.
const THREADS: usize = 4;

/// The owners that these ids stand for.
pub(crate) fn owners(maps: &IdMaps) -> OwnerMap {
    let all = |ranges: &[IdRange]| {
        ranges.iter().map(|range| [range.inside, range.outside, range.count]).collect()
    };
    OwnerMap { uids: all(&maps.uids), gids: all(&maps.gids) }
}

/// A stack whose lower directories have other owners: they are copied to `place`, once.
///
/// # Errors
/// They cannot be read or copied; an owner is not among the ids.
pub(crate) fn lay(stack: Stack, place: &Path, maps: &IdMaps, task: &Task) -> Result<Stack> {
    if stack.lower.is_empty() || stack.lower == [place] {
        return Ok(stack);
    }
    let below = Stack { top: None, ids: None, ..stack.clone() }.mount()?;
    let unfinished = place.with_extension("new");
    match std::fs::remove_dir_all(&unfinished) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::file("removing", &unfinished)(error));
        }
        _ => {}
    }
    std::fs::create_dir(&unfinished).map_err(Error::file("making", &unfinished))?;
    // On a full disk the rest of a copy would leave no room for taking the container back.
    copy_all(&below, &unfinished, maps, task)
        .inspect_err(|_| drop(std::fs::remove_dir_all(&unfinished)))?;
    let top = below.metadata(Path::new(""))?;
    let owner = maps.outside(top.st_uid, top.st_gid).unwrap_or((0, 0));
    // The root is that of the upper directory.
    for root in std::iter::once(unfinished.as_path()).chain(stack.top.iter().map(|top| &*top.upper))
    {
        chown(root, Some(owner.0), Some(owner.1))
            .map_err(Error::file("setting the owner of", root))?;
        let mode = PermissionsExt::from_mode(top.st_mode & 0o7777);
        std::fs::set_permissions(root, mode).map_err(Error::file("setting the mode of", root))?;
    }
    std::fs::rename(&unfinished, place).map_err(Error::file("making", place))?;
    Ok(Stack { lower: vec![place.to_owned()], ..stack })
}

fn copy_all(below: &Root, place: &Path, maps: &IdMaps, task: &Task) -> Result<()> {
    let owners = owners(maps);
    let threads = std::thread::available_parallelism().map_or(1, |all| all.get().min(THREADS));
    let outside = |owner| owners.outside(owner);
    let options = CopyOptions { owners: Some(&outside), threads, ..CopyOptions::default() };
    let here = Path::new("");
    copy(below, here, &Root::open(place)?, here, &options, task).map(drop).map_err(Error::Owners)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_that_fails_leaves_nothing() {
        let here = tempfile::tempdir().unwrap();
        let (image, place) = (here.path().join("image"), here.path().join("lower"));
        std::fs::create_dir(&image).unwrap();
        std::fs::write(image.join("file"), "of an owner who is not among the ids").unwrap();
        let range = |inside| vec![IdRange { inside, outside: 0, count: 1 }];
        let maps = IdMaps { uids: range(4_000_000_000), gids: range(4_000_000_000) };
        let stack = Stack { lower: vec![image], ..Stack::default() };
        let failed = lay(stack, &place, &maps, &Task::silent()).unwrap_err();
        assert!(matches!(failed, Error::Owners(_)), "{failed}");
        assert_eq!(std::fs::read_dir(here.path()).unwrap().count(), 1);
    }
}
