//! File systems that are made when they are first needed: those of images and of linked copies.

use std::path::Path;
use std::sync::Arc;

use futures::future::BoxFuture;
use layers::{Root, Stack};
use store::{SnapshotId, Store};
use task::Task;
use transport::bridge;

use crate::error::ErrorContext;
use crate::job::{Build, StepResult};
use crate::plan::key::KeyBuilder;
use crate::plan::{Op, StepId};
use crate::{Error, Result, images};

impl Build {
    /// The file system of a step that was solved, made available if it is an image's.
    pub(crate) fn available<'a>(
        self: &'a Arc<Self>,
        id: StepId,
        task: &'a Arc<Task>,
    ) -> BoxFuture<'a, Result<Option<SnapshotId>>> {
        Box::pin(async move {
            let Some(known) = self.ledger.unpacked.get(&id) else {
                return match self.made(id) {
                    Some(StepResult { snapshot: None, .. }) => self.arrive(id, task).await,
                    None => self.demand(id, task).await,
                    Some(made) => Ok(made.snapshot),
                };
            };
            let mut known = known.lock().await;
            if let Some(snapshot) = *known {
                return Ok(snapshot);
            }
            let step = self.step(id);
            let snapshot = match (&step.op, step.parent) {
                (Op::Image(key), _) => images::unpack(&self.env, &self.bases[key], task).await?,
                (_, below) => {
                    let layer = self.available(step.reads[0], task).await?;
                    let layer =
                        layer.ok_or(Error::internal("a step that is grafted has a layer"))?;
                    let below = match below {
                        Some(below) => self.available(below, task).await?,
                        None => None,
                    };
                    let (store, task) = (self.env.store.clone(), Arc::clone(task));
                    let graft = move || graft(&store, layer, below, &task);
                    Some(bridge::blocking(graft).await?)
                }
            };
            *known = Some(snapshot);
            Ok(snapshot)
        })
    }
}

/// Puts the files of a snapshot that lies on nothing on another one.
fn graft(
    store: &Store,
    layer: SnapshotId,
    below: Option<SnapshotId>,
    task: &Task,
) -> Result<SnapshotId> {
    let action = "putting a linked layer on its base";
    let Some(below) = below else { return Ok(layer) };
    let mut key = KeyBuilder::new("graft");
    key.part(layer.0.as_bytes()).part(below.0.as_bytes());
    let id = SnapshotId(key.finish().0);
    if !store.has_snapshot(id).during(action)? {
        let from = store.stack(layer).and_then_mount(action)?;
        let active = store.begin().during(action)?;
        let to = active.root().during(action)?;
        let options = layers::copy::CopyOptions::default();
        layers::copy::copy(&from, Path::new(""), &to, Path::new(""), &options, task)
            .during(action)?;
        active.commit(id, Some(below)).during(action)?;
    }
    Ok(id)
}

/// Mounting a stack that may not have been made.
pub(super) trait AndThenMount {
    fn and_then_mount(self, action: &str) -> Result<Root>;
}

impl AndThenMount for store::Result<Stack> {
    fn and_then_mount(self, action: &str) -> Result<Root> {
        self.during(action)?.mount().during(action)
    }
}
