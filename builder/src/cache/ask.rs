//! What a build asks caches elsewhere.

use std::sync::Arc;

use task::Task;

use super::Imports;
use crate::job::{Build, StepResult};
use crate::plan::StepId;
use crate::why::{self, Facts, Trace};

impl Build {
    /// What a cache elsewhere has of a step.
    pub(crate) fn remote(&self, id: StepId, imports: &Imports) -> Option<StepResult> {
        let remote = imports.step(self.origin_of(id)?)?;
        let created = remote.created;
        let young = self.is_young(id, created);
        let made = StepResult {
            snapshot: None,
            remote: Some(Arc::new(remote.clone())),
            created,
            new: false,
        };
        young.then_some(made)
    }

    /// The caches elsewhere that this build may ask.
    pub(crate) async fn imports(&self, task: &Task) -> &Imports {
        let platforms: Vec<_> = self.plan.targets.iter().map(|t| t.platform.clone()).collect();
        let wanted = &self.request.cache.from;
        let open = || Imports::open(wanted, &platforms, &self.env, task);
        self.ledger.imports.get_or_init(open).await
    }

    /// What decided the steps of the caches elsewhere.
    pub(crate) async fn remote_facts(&self, task: &Task) -> &[(Trace, Facts)] {
        let imports = self.imports(task).await;
        self.ledger.remote_facts.get_or_init(|| imports.facts(&self.env.store, task)).await
    }

    /// Reads what explanations of a step will be compared with, as far as it is elsewhere.
    pub(crate) async fn prepare_reasons(&self, task: &Task) {
        if !self.request.cache.from.is_empty() && !why::knows(&self.env.store, &self.request) {
            self.remote_facts(task).await;
        }
    }
}
