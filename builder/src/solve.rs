//! The scheduler: steps run when those they need are done, as many at once as allowed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use task::Task;
use tokio::sync::{Semaphore, SemaphorePermit, SetOnce};

use crate::plan::key::Key;
use crate::plan::{Plan, StepId};
use crate::{Error, Result};

/// Does the work of steps; the scheduler only decides when.
#[async_trait]
pub trait Executor: Send + Sync {
    /// The key of a step: its definition, the keys of its inputs, the content it reads.
    async fn key(&self, step: StepId, inputs: &[Key], task: &Arc<Task>) -> Result<Key>;
    /// Knowing: the key of the result, if it is known already.
    async fn recall(&self, step: StepId, key: Key, task: &Arc<Task>) -> Result<Option<Key>>;
    /// Doing. The key of the result may be another than the step's, when the content turns out
    /// to be known.
    async fn execute(
        &self,
        step: StepId,
        inputs: &[Key],
        key: Key,
        task: &Arc<Task>,
    ) -> Result<Key>;
}

/// The result of solving a plan.
#[derive(Debug, Clone, Default)]
pub struct Solution {
    /// The key of every step that the targets depend on.
    pub keys: BTreeMap<StepId, Key>,
    /// How many of them were recalled.
    pub recalled: usize,
    /// Steps that did not run, because everything that depends on them was cached.
    pub skipped: BTreeSet<StepId>,
}

/// How far a step has come; `None` in a cell after a failure.
#[derive(Default)]
struct Progress {
    /// The key that its definition gives, once its inputs have theirs.
    early: SetOnce<Option<Key>>,
    /// The key of its result, and whether that was recalled.
    result: SetOnce<Option<(Key, bool)>>,
    /// Set when the result is needed.
    demand: SetOnce<()>,
}

/// Solves the steps that `targets` need, at most `parallel` at once. A step is only done when a
/// step that needs it has to be done itself: what is recalled needs nothing. Steps that the cache
/// is not asked for are done in any case. The first failure
/// stops the work; it is returned when everything that was running has ended.
///
/// # Errors
/// The first that happened.
pub async fn solve(
    plan: &Plan,
    targets: &[StepId],
    executor: &dyn Executor,
    parallel: usize,
    task: &Task,
) -> Result<Solution> {
    let needed = needed(plan, targets);
    let solver = Solver {
        plan,
        executor,
        task,
        steps: needed.iter().map(|step| (*step, Progress::default())).collect(),
        slots: Semaphore::new(parallel.max(1)),
        flights: Mutex::default(),
        over: SetOnce::new(),
    };
    for target in targets {
        let _ = solver.steps[target].demand.set(());
    }
    let mut running: FuturesUnordered<_> = needed
        .iter()
        .map(|id| {
            let solver = &solver;
            async move { (*id, solver.step(*id).await) }
        })
        .collect();
    let mut failure = None;
    while let Some((id, answer)) = running.next().await {
        let answer = answer.unwrap_or_else(|error| {
            failure.get_or_insert(error);
            // Siblings are stopped and joined: the loop continues.
            task.canceller().cancel();
            None
        });
        let _ = solver.steps[&id].early.set(answer.map(|(key, _)| key));
        let _ = solver.steps[&id].result.set(answer);
        let done = |target: &StepId| solver.steps[target].result.get().is_some();
        if failure.is_some() || targets.iter().all(done) {
            let _ = solver.over.set(());
        }
    }
    drop(running);
    let mut solved = Solution::default();
    for (id, progress) in solver.steps {
        if let Some((key, recalled)) = progress.result.into_inner().flatten() {
            solved.keys.insert(id, key);
            solved.recalled += usize::from(recalled);
        } else if progress.early.into_inner().flatten().is_some() {
            solved.skipped.insert(id);
        }
    }
    failure.map_or(Ok(solved), Err)
}

struct Solver<'a> {
    plan: &'a Plan,
    executor: &'a dyn Executor,
    task: &'a Task,
    steps: BTreeMap<StepId, Progress>,
    slots: Semaphore,
    /// Of steps with the same key one works and the others wait for what it finds.
    flights: Mutex<HashMap<Key, Arc<tokio::sync::Mutex<()>>>>,
    /// Set when nothing will be demanded any more.
    over: SetOnce<()>,
}

impl Solver<'_> {
    /// One step: its key, then the cache, then the work if the result is needed. `None` if it did
    /// not run.
    async fn step(&self, id: StepId) -> Result<Option<(Key, bool)>> {
        let (step, own) = (&self.plan.steps[id.0], &self.steps[&id]);
        let mut inputs = Vec::new();
        for input in step.inputs() {
            let Some(key) = self.steps[&input].early.wait().await else { return Ok(None) };
            inputs.push(*key);
        }
        let slot = self.slot().await?;
        let child = Arc::new(self.task.child(&step.name));
        let mut key = self.executor.key(id, &inputs, &child).await?;
        if let Some(key) = self.executor.recall(id, key, &child).await? {
            end(child, Task::reused);
            return Ok(Some((key, true)));
        }
        drop(slot);
        // What the user wants done again is done, and nothing above it is known before.
        if !step.fresh {
            let _ = own.early.set(Some(key));
            tokio::select! {
                biased;
                _ = own.demand.wait() => {}
                _ = self.over.wait() => {
                    child.note("not needed");
                    end(child, Task::reused);
                    return Ok(None);
                }
            }
        }
        for input in step.inputs() {
            let _ = self.steps[&input].demand.set(());
        }
        let mut results = Vec::new();
        for input in step.inputs() {
            let Some((key, _)) = self.steps[&input].result.wait().await else { return Ok(None) };
            results.push(*key);
        }
        let _slot = self.slot().await?;
        if results != inputs {
            // What an input turned out to be is known by another name.
            key = self.executor.key(id, &results, &child).await?;
        }
        let flight = Arc::clone(
            self.flights.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default(),
        );
        let _flying = flight.lock().await;
        if let Some(key) = self.executor.recall(id, key, &child).await? {
            end(child, Task::reused);
            return Ok(Some((key, true)));
        }
        let key = self.executor.execute(id, &results, key, &child).await?;
        end(child, Task::done);
        Ok(Some((key, false)))
    }

    async fn slot(&self) -> Result<SemaphorePermit<'_>> {
        let slot = self.slots.acquire().await.expect("the semaphore is never closed");
        self.task.check()?;
        Ok(slot)
    }
}

/// Ends a task that is no longer worked on.
fn end(task: Arc<Task>, how: impl FnOnce(Task)) {
    if let Ok(task) = Arc::try_unwrap(task) {
        how(task);
    }
}

/// The steps that `targets` need, themselves included, in order.
fn needed(plan: &Plan, targets: &[StepId]) -> Vec<StepId> {
    let mut wanted = vec![false; plan.steps.len()];
    for target in targets {
        wanted[target.0] = true;
    }
    for index in (0..plan.steps.len()).rev() {
        if wanted[index] {
            for input in plan.steps[index].inputs() {
                assert!(input.0 < index, "a step only needs earlier ones");
                wanted[input.0] = true;
            }
        }
    }
    (0..wanted.len()).filter(|index| wanted[*index]).map(StepId).collect()
}

impl From<tokio::task::JoinError> for Error {
    fn from(_: tokio::task::JoinError) -> Error {
        Error::internal("the threads of a build do not panic")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use dockerfile::Span;
    use image::Digest;

    use super::*;
    use crate::plan::{Op, Step, WorkdirOp};

    #[derive(Default)]
    struct Fake {
        known: Mutex<HashSet<Key>>,
        executed: Mutex<Vec<usize>>,
        fails: Option<usize>,
        running: AtomicUsize,
        most: AtomicUsize,
        same_key: bool,
    }

    #[async_trait]
    impl Executor for Fake {
        async fn key(&self, step: StepId, inputs: &[Key], _task: &Arc<Task>) -> Result<Key> {
            let own = if self.same_key { 0 } else { step.0 };
            let mut text = format!("{own}");
            for input in inputs {
                text.push_str(&input.0.to_string());
            }
            Ok(Key(Digest::of(text.as_bytes())))
        }
        async fn recall(&self, _step: StepId, key: Key, _task: &Arc<Task>) -> Result<Option<Key>> {
            Ok(Some(key).filter(|key| self.known.lock().unwrap().contains(key)))
        }
        async fn execute(&self, step: StepId, _i: &[Key], key: Key, _t: &Arc<Task>) -> Result<Key> {
            let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(running, Ordering::SeqCst);
            tokio::task::yield_now().await;
            self.running.fetch_sub(1, Ordering::SeqCst);
            self.executed.lock().unwrap().push(step.0);
            if self.fails == Some(step.0) {
                return Err(Error::Gone { what: format!("step {}", step.0) });
            }
            self.known.lock().unwrap().insert(key);
            Ok(key)
        }
    }

    fn plan(inputs: &[&[usize]]) -> Plan {
        let step = |inputs: &&[usize]| Step {
            name: String::new(),
            place: String::new(),
            op: Op::Workdir(WorkdirOp { path: "/".to_owned(), user: String::new() }),
            parent: inputs.first().map(|id| StepId(*id)),
            reads: inputs.iter().skip(1).map(|id| StepId(*id)).collect(),
            instruction: String::new(),
            span: Span::default(),
            fresh: false,
            args: BTreeMap::new(),
        };
        Plan { steps: inputs.iter().map(step).collect(), ..Plan::default() }
    }

    async fn run(plan: &Plan, target: usize, fake: &Fake, parallel: usize) -> Result<Solution> {
        solve(plan, &[StepId(target)], fake, parallel, &Task::silent()).await
    }

    #[tokio::test]
    async fn a_diamond_runs_each_needed_step_once_and_a_second_time_nothing() {
        let plan = plan(&[&[], &[0], &[0], &[1, 2], &[0]]);
        let fake = Fake::default();
        let solved = run(&plan, 3, &fake, 4).await.unwrap();
        let mut executed = fake.executed.lock().unwrap().clone();
        executed.sort_unstable();
        assert_eq!(executed, [0, 1, 2, 3]);
        assert_eq!((solved.keys.len(), solved.recalled), (4, 0));
        let solved = run(&plan, 3, &fake, 4).await.unwrap();
        assert_eq!(fake.executed.lock().unwrap().len(), 4);
        assert_eq!(solved.recalled, 4);
    }

    #[tokio::test]
    async fn no_more_run_at_once_than_allowed() {
        let plan = plan(&[&[], &[], &[], &[], &[], &[], &[0, 1, 2, 3, 4, 5]]);
        for (parallel, expected) in [(1, 1), (3, 3), (0, 1)] {
            let fake = Fake::default();
            run(&plan, 6, &fake, parallel).await.unwrap();
            assert_eq!(fake.most.load(Ordering::SeqCst), expected);
        }
    }

    #[tokio::test]
    async fn the_first_failure_ends_it_and_what_depends_on_it_never_starts() {
        let plan = plan(&[&[], &[0], &[0], &[1, 2]]);
        let fake = Fake { fails: Some(1), ..Fake::default() };
        let error = run(&plan, 3, &fake, 1).await.unwrap_err();
        assert_eq!(error.to_string(), "step 1 is gone");
        assert!(!fake.executed.lock().unwrap().contains(&3));
    }

    #[tokio::test]
    async fn a_cancelled_build_starts_nothing() {
        let plan = plan(&[&[], &[0]]);
        let fake = Fake::default();
        let task = Task::silent();
        task.canceller().cancel();
        let error = solve(&plan, &[StepId(1)], &fake, 2, &task).await.unwrap_err();
        assert!(matches!(error, Error::Cancelled(_)), "{error}");
        assert!(fake.executed.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn the_same_key_in_flight_is_done_once() {
        let plan = plan(&[&[], &[], &[], &[0, 1, 2]]);
        let fake = Fake { same_key: true, ..Fake::default() };
        run(&plan, 3, &fake, 4).await.unwrap();
        assert_eq!(fake.executed.lock().unwrap().len(), 2, "one for the three, one for the last");
    }

    #[tokio::test]
    async fn a_deep_chain_needs_no_deep_stack() {
        let inputs: Vec<Vec<usize>> =
            (0..20_000).map(|i: usize| i.checked_sub(1).into_iter().collect()).collect();
        let slices: Vec<&[usize]> = inputs.iter().map(Vec::as_slice).collect();
        let fake = Fake::default();
        run(&plan(&slices), 19_999, &fake, 4).await.unwrap();
        assert_eq!(fake.executed.lock().unwrap().len(), 20_000);
    }
}
