//! What the solver needs from a build: keys, cached results, execution.

use std::sync::Arc;

use async_trait::async_trait;
use task::Task;
use transport::bridge;

use crate::job::{Build, lock};
use crate::plan::key::Key;
use crate::plan::{Op, StepId};
use crate::solve::Executor;
use crate::{Result, step};

/// [`Executor`] of a real build.
pub(crate) struct Engine(pub(crate) Arc<Build>);

#[async_trait]
impl Executor for Engine {
    async fn key(&self, id: StepId, inputs: &[Key], task: &Arc<Task>) -> Result<Key> {
        let step = self.0.step(id);
        let at = |error| step::at(&self.0.file, step, error);
        if let Op::Copy(op) = &step.op {
            let all = self.0.fetch(id, op, task).await.map_err(at)?;
            lock(&self.0.ledger.remotes).insert(id, all);
        }
        let (build, inputs, task) = (Arc::clone(&self.0), inputs.to_vec(), Arc::clone(task));
        let keys = move || build.keys(id, &inputs, false, &task).map(|(key, _)| key);
        bridge::blocking(keys).await.map_err(at)
    }

    async fn recall(&self, id: StepId, key: Key, task: &Arc<Task>) -> Result<Option<Key>> {
        let step = self.0.step(id);
        // What a graft puts together is known when its parts are.
        let known = match step.op {
            Op::Image(_) => true,
            Op::Graft => {
                let parts: Option<Vec<Key>> = step.inputs().map(|id| self.0.key_of(id)).collect();
                match parts {
                    Some(parts) => self.0.keys(id, &parts, false, task)?.0 == key,
                    None => return Ok(None),
                }
            }
            _ => false,
        };
        if known {
            lock(&self.0.ledger.keys).insert(id, key);
            return Ok(Some(key));
        }
        let again = lock(&self.0.ledger.again).get(&key).copied().filter(|_| step.fresh);
        let key = again.unwrap_or(key);
        let made = lock(&self.0.ledger.made).get(&key).cloned();
        if made.is_some_and(|made| made.new || !step.fresh) {
            lock(&self.0.ledger.keys).insert(id, key);
            return Ok(Some(key));
        }
        if step.fresh {
            return Ok(None);
        }
        let build = Arc::clone(&self.0);
        let found = bridge::blocking(move || build.record(id, key)).await?;
        if let Some((key, made)) = found {
            self.0.keep(id, key, made);
            return Ok(Some(key));
        }
        if self.0.request.cache.from.is_empty() {
            return Ok(None);
        }
        let imports = self.0.imports(task).await;
        let Some(made) = self.0.remote(id, imports) else { return Ok(None) };
        if let Some(remote) = &made.remote {
            task.note(format!("from the cache {}", imports.name(remote)));
        }
        self.0.keep(id, key, made);
        Ok(Some(key))
    }

    async fn execute(&self, id: StepId, inputs: &[Key], key: Key, task: &Arc<Task>) -> Result<Key> {
        self.0.run(id, inputs, key, task).await
    }
}
