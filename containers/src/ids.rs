//! The ids of containers with a user namespace of their own.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use layers::{IdMap, Stack};
use runtime::{IdMaps, IdRange, Ids, Isolation};
use serde::Deserialize;
use store::{ContainerRecord, Store};
use task::Task;

use crate::record::{RECORD, WORKING};

use crate::{Error, Result, owned};

/// Whose lines of `/etc/subuid` and `/etc/subgid` say which ids are for containers.
const OWNER: &str = "containers";

/// The ids for containers where no line says: the upper half.
const USUAL: IdRange = IdRange { inside: 0, outside: 1 << 31, count: (1 << 31) - (1 << 16) };

fn refuse(reason: impl Into<String>) -> Error {
    Error::Unsupported { what: "choosing ids", reason: reason.into() }
}

/// How the files of a container get the owners that its ids ask for.
#[derive(Debug)]
pub(crate) enum Owners {
    /// They have them.
    Same,
    /// The kernel maps them when they are mounted.
    Mapped(IdMap),
    /// They are copied: the kernel maps mounts of root only.
    Copied(IdMaps),
}

/// How the files of a container are mapped.
pub(crate) fn owners(isolation: &Isolation) -> Result<Owners> {
    let Some(Ids::Maps(maps)) = &isolation.ids else { return Ok(Owners::Same) };
    let root = maps.outside(0, 0).ok_or_else(|| refuse("0, root, is not among them"))?;
    if runtime::in_user_namespace() {
        within(maps)?;
        return Ok(Owners::Copied(maps.clone()));
    }
    Ok(Owners::Mapped(IdMap { namespace: Arc::new(maps.namespace()?), root }))
}

impl Owners {
    /// A stack with these owners; a copy is made at `place`.
    pub(crate) fn lay(self, stack: Stack, place: &Path, task: &Task) -> Result<Stack> {
        Ok(match self {
            Owners::Same => stack,
            Owners::Mapped(ids) => Stack { ids: Some(ids), ..stack },
            Owners::Copied(maps) => owned::lay(stack, place, &maps, task)?,
        })
    }
}

/// Refuses ids that an ordinary user does not have.
fn within(maps: &IdMaps) -> Result<()> {
    let count = runtime::mapped_ids();
    let end = |range: &IdRange| u64::from(range.outside) + u64::from(range.count);
    match maps.uids.iter().chain(&maps.gids).find(|range| end(range) > u64::from(count)) {
        None => Ok(()),
        Some(range) => Err(refuse(format!(
            "{} to {} are not all among your {count} ids: 0 is you, and 1 is the first of your \
             subordinate ids",
            range.outside,
            end(range) - 1
        ))),
    }
}

/// The ids that containers are given by themselves.
fn pool(file: &str) -> Vec<IdRange> {
    if runtime::in_user_namespace() {
        let count = runtime::mapped_ids().saturating_sub(1);
        return vec![IdRange { inside: 0, outside: 1, count }];
    }
    let pool = runtime::subordinate_ids(Path::new(file), OWNER);
    if pool.is_empty() { vec![USUAL] } else { pool }
}

/// Whether ids are for one container: not those of who keeps the machine's, or has all of a user's.
fn exclusive(maps: &IdMaps) -> bool {
    let all = runtime::in_user_namespace().then(|| runtime::mapped_ids().saturating_sub(1));
    let shared = |range: &IdRange| range.outside == 0 || Some(range.count) == all;
    !maps.uids.iter().chain(&maps.gids).any(shared)
}

/// What is read of a record to know its ids.
#[derive(Default, Deserialize)]
#[serde(default)]
struct RecordIds {
    spec: SpecIds,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SpecIds {
    isolation: IsolationIds,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct IsolationIds {
    ids: Option<Ids>,
}

/// Chooses ids that no container has, working containers included; nobody else does until the file is
/// closed.
///
/// # Errors
/// There are not so many; the store cannot be read.
pub fn free_ids(store: &Store, count: u32) -> Result<(IdMaps, File)> {
    let taken = || {
        let read = |row: &ContainerRecord| {
            let files = [RECORD, WORKING].map(|name| row.directory.join(name));
            let bytes = files.iter().find_map(|path| std::fs::read(path).ok())?;
            serde_json::from_slice::<RecordIds>(&bytes).ok()?.spec.isolation.ids
        };
        Ok(store.containers()?.iter().filter_map(read).collect())
    };
    choose(store.path(), taken, count)
}

fn choose(
    directory: &Path,
    taken: impl FnOnce() -> Result<Vec<Ids>>,
    count: u32,
) -> Result<(IdMaps, File)> {
    let path = directory.join("ids.lock");
    let lock = File::create(&path).map_err(Error::file("making", &path))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
        .map_err(|errno| Error::file("locking", &path)(errno.into()))?;
    let (mut uids, mut gids) = (Vec::new(), Vec::new());
    for ids in taken()? {
        if let Ids::Maps(maps) = ids
            && exclusive(&maps)
        {
            uids.extend(maps.uids);
            gids.extend(maps.gids);
        }
    }
    let free = |file: &str, taken: &[IdRange]| {
        let found = first_free(&pool(file), taken, count).ok_or_else(|| {
            let whose = if runtime::in_user_namespace() { "your" } else { OWNER };
            refuse(format!(
                "no {count} of {whose} ids in {file} are free: add a line, or use size="
            ))
        });
        found.map(|outside| vec![IdRange { inside: 0, outside, count }])
    };
    let maps = IdMaps { uids: free("/etc/subuid", &uids)?, gids: free("/etc/subgid", &gids)? };
    Ok((maps, lock))
}

/// Where the first ids in the pool begin of which none is taken.
fn first_free(pool: &[IdRange], taken: &[IdRange], count: u32) -> Option<u32> {
    let end = |range: &IdRange| u64::from(range.outside) + u64::from(range.count);
    pool.iter().find_map(|range| {
        let mut at = u64::from(range.outside);
        while at + u64::from(count) <= end(range) {
            let overlaps =
                |one: &&IdRange| u64::from(one.outside) < at + u64::from(count) && at < end(one);
            match taken.iter().filter(overlaps).map(end).max() {
                None => return u32::try_from(at).ok(),
                Some(after) => at = after,
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_do_not_overlap() {
        let range = |outside, count| IdRange { inside: 0, outside, count };
        let pool = [range(100, 50), range(1000, 100)];
        assert_eq!(first_free(&pool, &[], 50), Some(100));
        assert_eq!(first_free(&pool, &[range(120, 10)], 20), Some(100));
        assert_eq!(first_free(&pool, &[range(110, 10)], 20), Some(120));
        assert_eq!(first_free(&pool, &[range(100, 40)], 20), Some(1000));
        assert_eq!(first_free(&pool, &[range(0, 1050)], 50), Some(1050));
        assert_eq!(first_free(&pool, &[], 101), None);
        assert_eq!(
            first_free(&[USUAL], &[range(1 << 31, 65_536)], 65_536),
            Some((1 << 31) + 65_536)
        );
    }
}
