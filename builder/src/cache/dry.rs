//! Asking the cache without doing anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use serde::Serialize;
use task::Task;
use transport::bridge;

use crate::build::prepare;
use crate::engine::Engine;
use crate::job::Build;
use crate::plan::key::Key;
use crate::plan::{From, Op, StepId};
use crate::solve::{Executor, solve};
use crate::why::{Explanation, Reason, ReasonKind};
use crate::{Env, Error, Request, Result, step};

/// What a build would do with a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForecastOutcome {
    /// Its result is known.
    Cached,
    /// It has to run.
    Run,
    /// Not needed: everything that depends on it is cached.
    Unneeded,
    /// What decides it are files that a step which has to run makes first: if they come out as
    /// before, it is cached.
    Depends,
}

impl ForecastOutcome {
    /// One word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            ForecastOutcome::Cached => "cached",
            ForecastOutcome::Unneeded => "unneeded",
            ForecastOutcome::Run => "run",
            ForecastOutcome::Depends => "depends",
        }
    }
}

/// The forecast for one step, and its reasons.
#[derive(Debug, Clone, Serialize)]
pub struct StepForecast {
    /// What would become of it.
    pub outlook: ForecastOutcome,
    /// The step, its place, and why it would run; no reasons when it is cached.
    #[serde(flatten)]
    pub explanation: Explanation,
}

/// Says for each step that the target needs whether it would run, and why, without running any.
/// Base images are resolved as for a build.
///
/// # Errors
/// As [`crate::build`].
pub async fn forecast(request: Request, env: &Env, task: &Task) -> Result<Vec<StepForecast>> {
    let jobs = request.jobs;
    let build = prepare(request, env, task).await?;
    let dry = DryExecutor { build: Arc::clone(&build), missed: Mutex::default() };
    let targets = build.plan.wanted();
    let solved = solve(&build.plan, &targets, &dry, jobs, task).await;
    build.contexts.remember();
    let solved = solved?;
    let mut missed = dry.missed.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut steps = Vec::new();
    let all: BTreeSet<StepId> = solved.keys.keys().chain(&solved.skipped).copied().collect();
    for id in all {
        let step = &build.plan.steps[id.0];
        if let Op::Image(_) | Op::Graft = step.op {
            continue;
        }
        let forecast = missed.remove(&id).unwrap_or_else(|| {
            let place = crate::error::place(&build.file, step.span.start);
            let explanation = Explanation { step: step.name.clone(), place, reasons: Vec::new() };
            let unneeded = solved.skipped.contains(&id);
            let outlook =
                if unneeded { ForecastOutcome::Unneeded } else { ForecastOutcome::Cached };
            StepForecast { outlook, explanation }
        });
        steps.push(forecast);
    }
    Ok(steps)
}

/// Why a step that the cache does not know would have to run.
async fn reasons(
    build: &Arc<Build>,
    id: StepId,
    inputs: &[Key],
    task: &Arc<Task>,
) -> Result<Explanation> {
    build.prepare_reasons(task).await;
    let (owned, inputs, task) = (Arc::clone(build), inputs.to_vec(), Arc::clone(task));
    let work = move || {
        let files = match owned.plan.steps[id.0].reads_context() {
            true => owned.keys(id, &inputs, true, &task)?.1,
            false => Vec::new(),
        };
        owned.explain(id, &inputs, files, &task).map(|(_, explanation)| explanation)
    };
    let step = &build.plan.steps[id.0];
    bridge::blocking(work).await.map_err(|error| step::at(&build.file, step, error))
}

/// An executor that uses the cache only, and fails at the first step that is not cached.
pub(crate) struct CacheOnlyExecutor(pub(crate) Arc<Build>);

#[async_trait]
impl Executor for CacheOnlyExecutor {
    async fn key(&self, id: StepId, inputs: &[Key], task: &Arc<Task>) -> Result<Key> {
        Engine(Arc::clone(&self.0)).key(id, inputs, task).await
    }

    async fn recall(&self, id: StepId, key: Key, task: &Arc<Task>) -> Result<Option<Key>> {
        Engine(Arc::clone(&self.0)).recall(id, key, task).await
    }

    async fn execute(&self, id: StepId, inputs: &[Key], _: Key, task: &Arc<Task>) -> Result<Key> {
        let explanation = reasons(&self.0, id, inputs, task).await?;
        let reasons = explanation.reasons.iter().map(ToString::to_string).collect();
        let error = Error::NotCached { step: explanation.step, reasons };
        Err(step::at(&self.0.file, &self.0.plan.steps[id.0], error))
    }
}

/// An executor that goes on as if a step had run.
struct DryExecutor {
    build: Arc<Build>,
    missed: Mutex<BTreeMap<StepId, StepForecast>>,
}

impl DryExecutor {
    fn outlook(&self, id: StepId, reasons: &[Reason]) -> ForecastOutcome {
        let step = &self.build.plan.steps[id.0];
        let of_others =
            |reason: &Reason| matches!(reason.kind, ReasonKind::Parent | ReasonKind::Input);
        if !reasons.iter().all(of_others) {
            return ForecastOutcome::Run;
        }
        let missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        let runs = |input: &StepId| {
            missed.get(input).is_some_and(|forecast| forecast.outlook == ForecastOutcome::Run)
        };
        let copies = matches!(&step.op, Op::Copy(op) if matches!(op.from, From::Read(_)));
        let certain =
            if copies { step.parent.iter().any(runs) } else { step.inputs().any(|i| runs(&i)) };
        if certain { ForecastOutcome::Run } else { ForecastOutcome::Depends }
    }
}

#[async_trait]
impl Executor for DryExecutor {
    async fn key(&self, id: StepId, inputs: &[Key], task: &Arc<Task>) -> Result<Key> {
        Engine(Arc::clone(&self.build)).key(id, inputs, task).await
    }

    async fn recall(&self, id: StepId, key: Key, task: &Arc<Task>) -> Result<Option<Key>> {
        Engine(Arc::clone(&self.build)).recall(id, key, task).await
    }

    async fn execute(&self, id: StepId, inputs: &[Key], key: Key, task: &Arc<Task>) -> Result<Key> {
        let explanation = reasons(&self.build, id, inputs, task).await?;
        let outlook = self.outlook(id, &explanation.reasons);
        let forecast = StepForecast { outlook, explanation };
        self.missed.lock().unwrap_or_else(PoisonError::into_inner).insert(id, forecast);
        self.build.assume(id, key);
        Ok(key)
    }
}
