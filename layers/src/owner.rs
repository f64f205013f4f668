//! Owners that this process cannot set: if only one id is mapped, an attribute of the file records
//! the owner, and the layer made from the tree contains it.
//!
//! The kernel allows such attributes on plain files and directories only; links, pipes and devices
//! belong to root there.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid, chownat, fstat, open, statat};
use rustix::io::Errno;

use crate::root::list;
use crate::xattr::At;
use crate::{Error, Result, Root};

/// Holds `UID:GID`. No archive can set it and no layer carries it.
pub(crate) const NAME: &[u8] = b"user.rbuild.owner";

/// What became of an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ownership {
    /// The file has it.
    Really,
    /// It is kept beside the file.
    Recorded,
}

/// Whether this process has one user id only, so that all files it can make are its own.
pub(crate) fn single() -> bool {
    static SINGLE: OnceLock<bool> = OnceLock::new();
    *SINGLE.get_or_init(|| {
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        is_single(&map)
    })
}

fn is_single(map: &str) -> bool {
    let mut lines = map.lines();
    let one = lines.next().is_some_and(|line| line.split_whitespace().nth(2) == Some("1"));
    one && lines.next().is_none()
}

/// Gives a file to a user and group; a link is not followed.
pub(crate) fn give(at: At<'_>, uid: u32, gid: u32) -> Result<Ownership, Errno> {
    let done = change(at, uid, gid);
    if !single() {
        return done.map(|()| Ownership::Really);
    }
    match done {
        Ok(()) => {
            // What was kept of a former owner does not hold any more.
            at.unset(NAME)?;
            Ok(Ownership::Really)
        }
        Err(Errno::INVAL | Errno::PERM) => {
            let record = format!("{uid}:{gid}");
            at.set(NAME, record.as_bytes()).map(|()| Ownership::Recorded)
        }
        Err(errno) => Err(errno),
    }
}

/// Which owners of one tree are which of another: what a mount with mapped ids does where there can be
/// none. A range is the first id inside, the first outside, and how many there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnerMap {
    /// Users.
    pub uids: Vec<[u32; 3]>,
    /// Groups.
    pub gids: Vec<[u32; 3]>,
}

impl OwnerMap {
    /// The owner outside of one inside, if both ids have one.
    pub fn outside(&self, (uid, gid): (u32, u32)) -> Option<(u32, u32)> {
        let found = |ranges: &[[u32; 3]], id| {
            ranges
                .iter()
                .find_map(|[inside, outside, count]| shift(id, (*inside, *outside), *count))
        };
        Some((found(&self.uids, uid)?, found(&self.gids, gid)?))
    }

    /// The owner outside of one inside; that of root where an id has none.
    pub fn outside_or_root(&self, owner: (u32, u32)) -> (u32, u32) {
        self.outside(owner).or_else(|| self.outside((0, 0))).unwrap_or(owner)
    }

    /// The owner inside of one outside; an id that has none stays.
    pub fn inside(&self, (uid, gid): (u32, u32)) -> (u32, u32) {
        let found = |ranges: &[[u32; 3]], id| {
            let mut ranges = ranges.iter();
            ranges
                .find_map(|[inside, outside, count]| shift(id, (*outside, *inside), *count))
                .unwrap_or(id)
        };
        (found(&self.uids, uid), found(&self.gids, gid))
    }
}

fn shift(id: u32, (from, to): (u32, u32), count: u32) -> Option<u32> {
    id.checked_sub(from).filter(|distance| *distance < count)?.checked_add(to)
}

fn change(at: At<'_>, uid: u32, gid: u32) -> Result<(), Errno> {
    let (user, group) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    match at {
        At::Fd(fd) => chownat(fd, c"", user, group, AtFlags::EMPTY_PATH),
        At::Name(dir, name) => chownat(dir, name, user, group, AtFlags::SYMLINK_NOFOLLOW),
    }
}

/// The owner of a file.
pub(crate) fn of(at: At<'_>, stat: &Stat) -> Result<(u32, u32), Errno> {
    let own = (stat.st_uid, stat.st_gid);
    if !single() {
        return Ok(own);
    }
    Ok(at.get(NAME)?.and_then(|record| read(&record)).unwrap_or(own))
}

fn read(record: &[u8]) -> Option<(u32, u32)> {
    let (uid, gid) = std::str::from_utf8(record).ok()?.split_once(':')?;
    let id = |text: &str| text.parse::<u32>().ok().filter(|id| *id != u32::MAX);
    Some((id(uid)?, id(gid)?))
}

/// Changes the owner of what a program made to its intended user, if only one id is mapped:
/// everything in `upper` that is not in `below` and has no recorded owner yet.
///
/// # Errors
/// When the tree cannot be read or changed.
pub fn give_new(upper: &Root, below: Option<&Root>, owner: (u32, u32)) -> Result<()> {
    if !single() {
        return Ok(());
    }
    let mut directories = vec![PathBuf::new()];
    while let Some(path) = directories.pop() {
        let failed = |errno| Error::file("changing the owner of the files in", &path, errno);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let here = upper.lookup(&path, flags, Mode::empty()).map_err(failed)?;
        for entry in list(&here).map_err(failed)? {
            let inner = path.join(&entry.name);
            let stat = statat(&here, &entry.name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
            let kind = FileType::from_raw_mode(stat.st_mode);
            let known = below.is_some_and(|below| {
                let flags = OFlags::PATH | OFlags::NOFOLLOW;
                below.lookup(&inner, flags, Mode::empty()).is_ok()
            });
            let at = At::Name(here.as_fd(), &entry.name);
            let keeps = matches!(kind, FileType::RegularFile | FileType::Directory);
            if keeps && !known && at.get(NAME).map_err(failed)?.is_none() {
                give(at, owner.0, owner.1).map_err(failed)?;
            }
            if kind == FileType::Directory {
                directories.push(inner);
            }
        }
    }
    Ok(())
}

/// Gives a file, or a directory and everything below it, to a user and group. Links are given
/// themselves and never followed, `path` itself must be none.
///
/// # Errors
/// When the tree cannot be read or changed.
pub fn give_all(path: &Path, owner: (u32, u32)) -> Result<()> {
    let failed = |below: &Path| {
        let at = if below.as_os_str().is_empty() { path.to_owned() } else { path.join(below) };
        move |errno| Error::file("changing the owner of", &at, errno)
    };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = open(path, flags, Mode::empty()).map_err(failed(Path::new("")))?;
    let stat = fstat(&top).map_err(failed(Path::new("")))?;
    let change = |at: At<'_>, stat: &Stat| match (stat.st_uid, stat.st_gid) == owner {
        true => Ok(()),
        false => change(at, owner.0, owner.1),
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => return Err(failed(Path::new(""))(Errno::LOOP)),
        FileType::Directory => {}
        _ => return change(At::Fd(top.as_fd()), &stat).map_err(failed(Path::new(""))),
    }
    change(At::Fd(top.as_fd()), &stat).map_err(failed(Path::new("")))?;
    let root = Root::from_fd(top);
    let mut directories = vec![PathBuf::new()];
    while let Some(here) = directories.pop() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let fd = root.lookup(&here, flags, Mode::empty()).map_err(failed(&here))?;
        for entry in list(&fd).map_err(failed(&here))? {
            let inner = here.join(&entry.name);
            let stat =
                statat(&fd, &entry.name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed(&inner))?;
            change(At::Name(fd.as_fd(), &entry.name), &stat).map_err(failed(&inner))?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                directories.push(inner);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_mapped_both_ways() {
        let map = OwnerMap {
            uids: vec![[0, 1, 1000], [1000, 0, 1], [1001, 1001, 10]],
            gids: vec![[0, 7, 2]],
        };
        for (inside, outside) in [((0, 0), (1, 7)), ((1000, 1), (0, 8)), ((1005, 0), (1005, 7))] {
            assert_eq!(map.outside(inside), Some(outside));
            assert_eq!(map.inside(outside), inside);
        }
        assert_eq!((map.outside((2000, 0)), map.outside((0, 2))), (None, None));
        assert_eq!(map.inside((5000, 9)), (5000, 9));
        let all = OwnerMap { uids: vec![[0, u32::MAX, 5]], gids: vec![[0, 0, u32::MAX]] };
        assert_eq!(all.outside((1, 0)), None);
    }

    #[test]
    fn all_is_given_and_links_are_not_followed() {
        use std::os::unix::fs::{MetadataExt, symlink};
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        std::fs::create_dir_all(at("tree/a/b")).unwrap();
        std::fs::write(at("outside"), "").unwrap();
        std::fs::write(at("tree/a/b/file"), "").unwrap();
        symlink(at("outside"), at("tree/link")).unwrap();
        symlink(at("tree"), at("to-tree")).unwrap();
        let own = std::fs::metadata(place.path()).unwrap();
        // What is there already needs no privilege.
        give_all(&at("tree"), (own.uid(), own.gid())).unwrap();
        assert!(give_all(&at("to-tree"), (own.uid(), own.gid())).is_err());
        assert!(give_all(&at("absent"), (own.uid(), own.gid())).is_err());
        if !requires::root() {
            return;
        }
        if single() {
            return requires::cannot("needs more than one user id");
        }
        give_all(&at("tree"), (7, 8)).unwrap();
        let owner = |name: &str| {
            let meta = std::fs::symlink_metadata(at(name)).unwrap();
            (meta.uid(), meta.gid())
        };
        for name in ["tree", "tree/a", "tree/a/b", "tree/a/b/file", "tree/link"] {
            assert_eq!(owner(name), (7, 8), "{name}");
        }
        assert_eq!(owner("outside"), (0, 0));
        give_all(&at("outside"), (9, 9)).unwrap();
        assert_eq!(owner("outside"), (9, 9));
    }

    #[test]
    fn records_are_read_strictly() {
        assert_eq!(read(b"1000:42"), Some((1000, 42)));
        for wrong in [&b""[..], b"1", b"1:", b":1", b"1:2:3", b"-1:0", b"4294967295:0", b"\xff:1"] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn one_id_is_one_line_of_one() {
        assert!(is_single("         0       1000          1\n"));
        assert!(!is_single("0 1000 1\n1 100000 65536\n"));
        assert!(!is_single("0 0 4294967295\n"));
        assert!(!is_single(""));
    }
}
