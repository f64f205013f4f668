//! The files of a context, brought here.

use std::sync::Arc;

use layers::{ApplyOptions, Root, Whiteouts};
use store::{Active, SnapshotId, Store};
use task::Task;

use super::digests::Digests;
use super::http::Download;
use crate::error::ErrorContext;
use crate::plan::key::KeyBuilder;
use crate::{Result, SourceFile};

/// The files of a context.
pub(crate) struct ContextFiles {
    pub(crate) root: Root,
    /// Digests of files remembered from other builds.
    pub(crate) digests: Arc<Digests>,
    /// The time every file has, instead of the one of its fetching.
    pub(crate) modified: Option<i64>,
    /// The time of the content as stated by its source: the time of the commit, `Last-Modified`.
    pub(crate) published: Option<i64>,
    /// Whether permission bits are those git knows: executable or not.
    pub(crate) git: bool,
    /// The file that was there instead of an archive.
    pub(crate) alone: Option<SourceFile>,
    /// Keeps what is only here for this build.
    pub(crate) _kept: Option<Active>,
}

impl ContextFiles {
    pub(crate) fn new(root: Root) -> ContextFiles {
        let digests = Arc::new(Digests::empty());
        ContextFiles {
            root,
            digests,
            modified: None,
            published: None,
            git: false,
            alone: None,
            _kept: None,
        }
    }

    /// No files at all.
    pub(crate) fn nothing(store: &Store, action: &str) -> Result<ContextFiles> {
        let active = store.begin().during(action)?;
        let root = active.root().during(action)?;
        Ok(ContextFiles { _kept: Some(active), ..ContextFiles::new(root) })
    }

    /// Unpacks an archive for this build alone.
    pub(crate) fn unpacked(
        archive: impl std::io::Read,
        store: &Store,
        action: &str,
        task: &Task,
    ) -> Result<ContextFiles> {
        let fetched = ContextFiles::nothing(store, action)?;
        let options = ApplyOptions { whiteouts: Whiteouts::Literal, ..ApplyOptions::default() };
        let applied = layers::apply(archive, &fetched.root, &options).during(action)?;
        for skipped in applied.skipped {
            task.warn(skipped);
        }
        Ok(fetched)
    }

    /// The files of a downloaded archive, unpacked unless the store has them; or the one file
    /// that was downloaded.
    pub(crate) fn downloaded(
        download: &Download,
        store: &Store,
        action: &str,
        task: &Task,
    ) -> Result<ContextFiles> {
        if !super::archive::holds(store.open_blob(download.digest).during(action)?) {
            return ContextFiles::one(download, store, action);
        }
        let mut key = KeyBuilder::new("archive");
        key.part(download.digest.as_bytes());
        let id = SnapshotId(key.finish().0);
        if !store.has_snapshot(id).during(action)? {
            let child = task.child(action);
            let active = store.begin().during(action)?;
            let root = active.root().during(action)?;
            let options = ApplyOptions { whiteouts: Whiteouts::Literal, ..ApplyOptions::default() };
            let archive = child.reading(store.open_blob(download.digest).during(action)?);
            let applied = layers::apply(archive, &root, &options).during(action)?;
            for skipped in applied.skipped {
                child.warn(skipped);
            }
            active.commit(id, None).during(action)?;
            child.done();
        }
        let root = store.stack(id).during(action)?.mount().during(action)?;
        Ok(ContextFiles { published: download.modified, ..ContextFiles::new(root) })
    }

    fn one(download: &Download, store: &Store, action: &str) -> Result<ContextFiles> {
        let fetched = ContextFiles::nothing(store, action)?;
        let name = download.name.as_deref().unwrap_or("download");
        let mut source = store.open_blob(download.digest).during(action)?;
        let flags = layers::OFlags::WRONLY | layers::OFlags::CREATE;
        let mode = layers::Mode::from_raw_mode(0o600);
        let file = fetched.root.open_at(std::path::Path::new(name), flags, mode).during(action)?;
        std::io::copy(&mut source, &mut std::fs::File::from(file))
            .map_err(crate::Error::file("writing", name))?;
        let alone = super::dockerfile::read_from(&fetched.root, name)?;
        let modified = download.modified;
        Ok(ContextFiles { alone, modified, published: modified, ..fetched })
    }
}
