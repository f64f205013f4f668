//! The files of a step that a cache elsewhere has the layer of, made available when a later step
//! needs them.

use std::sync::Arc;

use futures::future::BoxFuture;
use store::{SnapshotId, StepNote, StepRecord};
use task::Task;
use transport::bridge;

use super::Remote;
use crate::engine::Engine;
use crate::error::ErrorContext;
use crate::job::{Build, StepResult};
use crate::plan::StepId;
use crate::plan::key::{Key, KeyBuilder};
use crate::solve::Executor;
use crate::{Error, Result};

impl Build {
    /// Unpacks the layer of a step that a cache has, on what is below it. Where the cache does
    /// not give what it promised the step is run after all.
    pub(crate) fn arrive<'a>(
        self: &'a Arc<Self>,
        id: StepId,
        task: &'a Arc<Task>,
    ) -> BoxFuture<'a, Result<Option<SnapshotId>>> {
        Box::pin(async move {
            let _alone = self.ledger.arriving[&id].lock().await;
            let (Some(key), Some(made)) = (self.key_of(id), self.made(id)) else {
                return Err(Error::internal("a step that arrives was made"));
            };
            let Some(remote) = made.remote.clone().filter(|_| made.snapshot.is_none()) else {
                return Ok(made.snapshot);
            };
            let parent = match self.plan.steps[id.0].parent {
                Some(parent) => self.available(parent, task).await?,
                None => None,
            };
            match self.unpack(id, key, &made, &remote, parent, task).await {
                Ok(snapshot) => Ok(Some(snapshot)),
                Err(Error::Cancelled(cancelled)) => Err(cancelled.into()),
                Err(error) if self.request.cache.must_hit => Err(error),
                Err(error) => {
                    let name = self.imports(task).await.name(&remote).to_owned();
                    let why = task::chain(&error).join(": ");
                    task.warn(format!("the cache {name} is not used for a step: {why}"));
                    self.run_late(id, key, task).await
                }
            }
        })
    }

    /// The files of a step that was not done because nothing seemed to need it.
    pub(crate) fn demand<'a>(
        self: &'a Arc<Self>,
        id: StepId,
        task: &'a Arc<Task>,
    ) -> BoxFuture<'a, Result<Option<SnapshotId>>> {
        Box::pin(async move {
            let _alone = self.ledger.arriving[&id].lock().await;
            if let Some(made) = self.made(id) {
                return Ok(made.snapshot);
            }
            for input in self.plan.steps[id.0].inputs() {
                self.available(input, task).await?;
            }
            let inputs = self.input_keys(id)?;
            let own = Arc::new(task.child(&self.plan.steps[id.0].name));
            let key = Engine(Arc::clone(self)).key(id, &inputs, &own).await?;
            self.run(id, &inputs, key, &own).await?;
            Ok(self.made(id).and_then(|made| made.snapshot))
        })
    }

    async fn run_late(
        self: &Arc<Self>,
        id: StepId,
        key: Key,
        task: &Arc<Task>,
    ) -> Result<Option<SnapshotId>> {
        let own = Arc::new(task.child(&self.plan.steps[id.0].name));
        // A step that is read may have been left out until now.
        for input in self.plan.steps[id.0].inputs() {
            self.available(input, task).await?;
        }
        self.run(id, &self.input_keys(id)?, key, &own).await?;
        Ok(self.made(id).and_then(|made| made.snapshot))
    }

    fn input_keys(&self, id: StepId) -> Result<Vec<Key>> {
        let inputs = self.plan.steps[id.0].inputs();
        let keys: Option<Vec<Key>> = inputs.map(|input| self.key_of(input)).collect();
        keys.ok_or(Error::internal("the inputs of a step have keys"))
    }

    async fn unpack(
        self: &Arc<Self>,
        id: StepId,
        key: Key,
        made: &StepResult,
        remote: &Remote,
        parent: Option<SnapshotId>,
        task: &Arc<Task>,
    ) -> Result<SnapshotId> {
        let imports = self.imports(task).await;
        let child = Arc::new(task.child(format!("{} from the cache", self.plan.steps[id.0].name)));
        let pending = imports.unpack(&self.env.store, remote, &child).await?;
        // The same layer on the same files always unpacks to the same result.
        let mut name = KeyBuilder::new("snapshot-of-cache");
        name.part(key.0.as_bytes()).part(remote.layer.diff_id.as_bytes());
        if let Some(parent) = &parent {
            name.part(parent.0.as_bytes());
        }
        let snapshot = SnapshotId(name.finish().0);
        let store = self.env.store.clone();
        let step = Some(self.plan.steps[id.0].name.clone());
        let note = StepNote { created: Some(made.created), step, same: None };
        let work = move || -> Result<()> {
            let action = "storing the files of a step";
            store.commit_pending(pending, snapshot, parent).during(action)?;
            let record = StepRecord { snapshot: Some(snapshot), layer: None, note };
            store.record_step(key.0, &record).during("recording a step")
        };
        bridge::blocking(work).await?;
        self.keep(id, key, StepResult { snapshot: Some(snapshot), ..made.clone() });
        if let Some(child) = Arc::into_inner(child) {
            child.done();
        }
        Ok(snapshot)
    }
}
