//! Files that a `COPY` takes out of an image that is not here: fetched alone, where the layers have
//! tables of contents or indexes.

use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::sync::Arc;

use image::{Image, Reference};
use layers::{ApplyOptions, LayerEntry, Whiteouts};
use store::SnapshotId;
use task::{Cause, Task};
use transport::{Indexes, Location, StoreIndexes, bridge};

use crate::images::Base;
use crate::job::Build;
use crate::plan::key::KeyBuilder;
use crate::plan::{CopyOp, CopySource, Op, StepId};
use crate::{Env, Result};

/// The plain files that a copy names; `None` if it may mean something else.
fn plain_files(op: &CopyOp) -> Option<Vec<String>> {
    let plain = |source: &CopySource| match source {
        CopySource::Path(path) if !path.ends_with('/') && !dockerfile::glob::is_pattern(path) => {
            Some(path.clone())
        }
        _ => None,
    };
    if op.parents || op.add || op.unpack.is_some() || !op.exclude.is_empty() {
        return None;
    }
    op.sources.iter().map(plain).collect()
}

impl Build {
    /// What a step reads of another: only the files that it names, if they can be fetched alone,
    /// else all of it.
    pub(super) async fn readable(
        self: &Arc<Self>,
        id: StepId,
        read: StepId,
        task: &Arc<Task>,
    ) -> Result<Option<SnapshotId>> {
        if let (Op::Copy(copy), Op::Image(key)) = (&self.step(id).op, &self.step(read).op)
            && let Some(paths) = plain_files(copy)
            && let Some(known) = self.ledger.unpacked.get(&read)
            && known.lock().await.is_none()
            && let Some(files) = self.files_of(self.bases[key].clone(), paths, task).await?
        {
            return Ok(Some(files));
        }
        self.available(read, task).await
    }

    /// A tree that has these files of an image and nothing else. `None` where the image is in the
    /// store, where its layers have no tables of contents, or where a path is no plain file: then
    /// the whole image is needed, if only to say what is wrong.
    async fn files_of(
        self: &Arc<Self>,
        base: Base,
        paths: Vec<String>,
        task: &Arc<Task>,
    ) -> Result<Option<SnapshotId>> {
        let Some(from @ Location::Registry(Reference { digest: Some(_), .. })) = base.elsewhere()
        else {
            return Ok(None);
        };
        let (build, task, from) = (Arc::clone(self), Arc::clone(task), from.clone());
        let (image, runtime) = (base.image.clone(), tokio::runtime::Handle::current());
        let made = bridge::blocking(move || {
            let env = &build.env;
            if image.chain_id().is_none_or(|chain| here(env, chain.into())) {
                return Ok(None);
            }
            let id = name(&image, &paths);
            if here(env, id) {
                return Ok(Some(id));
            }
            let source = env.places.source(&from)?;
            let active = env.store.begin()?;
            let kept = (active.dir(), &StoreIndexes::new(Some(&env.store)) as &dyn Indexes);
            let mut files: Vec<(LayerEntry, File)> = Vec::new();
            for path in &paths {
                let found = transport::part_of(&*source, &image, path, kept, &task);
                match runtime.block_on(found) {
                    Ok(Some(mut found)) => {
                        path.trim_start_matches('/').as_bytes().clone_into(&mut found.entry.path);
                        files.push((found.entry, found.content));
                    }
                    Ok(None) | Err(transport::Error::NoFile { .. }) => return Ok(None),
                    Err(error) => return Err(error.into()),
                }
            }
            let archive = transport::scratch(active.dir())?;
            let mut archive = layers::write_files(files, archive)?;
            archive.seek(SeekFrom::Start(0)).map_err(transport::Error::Stream)?;
            let options = ApplyOptions { whiteouts: Whiteouts::Literal, ..ApplyOptions::default() };
            layers::apply(task.reading(archive), &active.root()?, &options)?;
            active.commit(id, None)?;
            Ok::<_, Cause>(Some(id))
        });
        made.await.map_err(|cause| base.failure(cause))
    }
}

/// The tree with these files of an image.
fn name(image: &Image, paths: &[String]) -> SnapshotId {
    let mut key = KeyBuilder::new("files-of-image");
    key.part(image.descriptor().digest.to_string().as_bytes());
    for path in paths {
        key.part(path.as_bytes());
    }
    SnapshotId(key.finish().0)
}

fn here(env: &Env, id: SnapshotId) -> bool {
    env.store.has_snapshot(id).unwrap_or(false)
}
