//! The ids of commands with a user namespace of their own: files keep those of inside on the disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use layers::IdMap;
use runtime::{IdMaps, Ids, Isolation, Join, Mount};

use crate::error::ErrorContext;
use crate::{Error, Result};

/// Finds the ids of a user namespace that is joined by its path. That of this program is none.
pub(crate) fn resolve(isolation: &mut Isolation) -> Result<()> {
    let Some(Ids::Join(Join::Path(path))) = &isolation.ids else { return Ok(()) };
    if is_own(path)? {
        isolation.ids = None;
        return Ok(());
    }
    let maps = IdMaps::of_namespace(path).during("reading the ids of a user namespace")?;
    (isolation.user, isolation.ids) = (Some(path.clone()), Some(Ids::Maps(maps)));
    Ok(())
}

/// Whether a user namespace is that of this program.
fn is_own(path: &Path) -> Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let of = |path: PathBuf| std::fs::metadata(&path).map_err(Error::file("examining", &path));
    let (own, other) = (of("/proc/self/ns/user".into())?, of(path.to_owned())?);
    Ok((own.dev(), own.ino()) == (other.dev(), other.ino()))
}

/// How the files of commands are mapped; not at all where ids are the same inside and outside.
pub(crate) fn map(isolation: &Isolation) -> Result<Option<IdMap>> {
    let Some(Ids::Maps(maps)) = &isolation.ids else { return Ok(None) };
    let same = maps.uids.iter().chain(&maps.gids).all(|range| range.inside == range.outside);
    if same {
        return Ok(None);
    }
    let missing = || Error::malformed("the map of ids", "0, root, is not in it".to_owned());
    let root = maps.outside(0, 0).ok_or_else(missing)?;
    let namespace = maps.namespace().during("mapping the ids of commands")?;
    Ok(Some(IdMap { namespace: Arc::new(namespace), root }))
}

/// Has what is mounted mapped as the files of the command.
pub(crate) fn mark(mount: &mut Mount) {
    if let Mount::Bind { options, .. } = mount {
        options.push("idmap".to_owned());
    }
}
