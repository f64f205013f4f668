//! A build: the job, which never changes, and the ledger of what has become of it so far.

use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use layers::{Root, Stack};
use store::SnapshotId;
use tokio::sync::OnceCell;

use crate::cache::Imports;
use crate::context::Contexts;
use crate::error::ErrorContext;
use crate::images::Bases;
use crate::input::Input;
use crate::inputs::Inputs;
use crate::layer::Layers;
use crate::plan::key::Key;
use crate::plan::{Op, Plan, Step, StepId};
use crate::step::copy::Remote;
use crate::why::{Explanation, Facts, Trace};
use crate::{Env, Request, Result, SourceFile};

/// The result of a step, as long as the build lives.
#[derive(Debug, Clone)]
pub(crate) struct StepResult {
    /// Its files, if they are here.
    pub(crate) snapshot: Option<SnapshotId>,
    /// Where a cache has its layer.
    pub(crate) remote: Option<Arc<crate::cache::Remote>>,
    /// When it was made first, seconds since 1970.
    pub(crate) created: i64,
    /// Whether this build made it.
    pub(crate) new: bool,
}

/// What is to be done, and with what.
pub(crate) struct Job {
    pub(crate) env: Env,
    pub(crate) request: Request,
    pub(crate) file: Arc<SourceFile>,
    pub(crate) plan: Plan,
    pub(crate) bases: Bases,
    pub(crate) inputs: Arc<Inputs>,
    pub(crate) contexts: Arc<Contexts>,
    /// Seconds since 1970.
    pub(crate) now: i64,
}

/// What has become of a job so far.
pub(crate) struct Ledger {
    pub(crate) made: Mutex<HashMap<Key, StepResult>>,
    pub(crate) keys: Mutex<BTreeMap<StepId, Key>>,
    /// What steps that were run again on purpose gave, by the key of the step.
    pub(crate) again: Mutex<HashMap<Key, Key>>,
    /// The cache key that is the same on every machine: made from the definitions only, never from
    /// the result of a step.
    pub(crate) origins: Mutex<BTreeMap<StepId, Key>>,
    /// Results that are older than the user wants: when they were made.
    pub(crate) expired: Mutex<BTreeMap<StepId, i64>>,
    pub(crate) explained: Mutex<BTreeMap<StepId, Explanation>>,
    /// What the file system of each image and graft is, once it was made available; locked
    /// meanwhile.
    pub(crate) unpacked: BTreeMap<StepId, tokio::sync::Mutex<Option<Option<SnapshotId>>>>,
    pub(crate) remotes: Mutex<HashMap<StepId, Vec<Remote>>>,
    /// Held while the files of a step come from a cache.
    pub(crate) arriving: BTreeMap<StepId, tokio::sync::Mutex<()>>,
    /// Whether these cache mounts were brought from elsewhere; locked meanwhile.
    pub(crate) mounts: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<bool>>>>,
    /// What the store calls those cache mounts of steps that came with a cache.
    pub(crate) borrowed: Mutex<BTreeMap<StepId, BTreeMap<String, String>>>,
    /// Caches elsewhere, opened when they are first asked.
    pub(crate) imports: OnceCell<Imports>,
    /// What decided the steps of those caches, read when a step is not in them.
    pub(crate) remote_facts: OnceCell<Vec<(Trace, Facts)>>,
    pub(crate) layers: Layers,
}

impl Ledger {
    fn new(plan: &Plan, request: &Request) -> Ledger {
        let made_late = |step: &Step| matches!(step.op, Op::Image(_) | Op::Graft);
        let late = plan.steps.iter().enumerate().filter(|(_, step)| made_late(step));
        let steps = plan.steps.len();
        Ledger {
            made: Mutex::default(),
            keys: Mutex::default(),
            again: Mutex::default(),
            origins: Mutex::default(),
            expired: Mutex::default(),
            explained: Mutex::default(),
            unpacked: late.map(|(id, _)| (StepId(id), Default::default())).collect(),
            remotes: Mutex::default(),
            arriving: (0..steps).map(|id| (StepId(id), Default::default())).collect(),
            mounts: Mutex::default(),
            borrowed: Mutex::default(),
            imports: OnceCell::new(),
            remote_facts: OnceCell::new(),
            layers: Layers::new(plan, request),
        }
    }
}

/// A job being done.
pub(crate) struct Build {
    job: Job,
    pub(crate) ledger: Ledger,
}

impl Deref for Build {
    type Target = Job;

    fn deref(&self) -> &Job {
        &self.job
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Build {
    pub(crate) fn new(
        env: Env,
        request: Request,
        contexts: Arc<Contexts>,
        file: Arc<SourceFile>,
        plan: Plan,
        bases: Bases,
        inputs: Arc<Inputs>,
    ) -> Build {
        let now = env.now();
        let ledger = Ledger::new(&plan, &request);
        Build { job: Job { env, request, file, plan, bases, inputs, contexts, now }, ledger }
    }

    pub(crate) fn step(&self, id: StepId) -> &Step {
        &self.plan.steps[id.0]
    }

    /// What a solved step made.
    pub(crate) fn made(&self, id: StepId) -> Option<StepResult> {
        let key = *lock(&self.ledger.keys).get(&id)?;
        lock(&self.ledger.made).get(&key).cloned()
    }

    /// The key of a solved step.
    pub(crate) fn key_of(&self, id: StepId) -> Option<Key> {
        lock(&self.ledger.keys).get(&id).copied()
    }

    /// The key of a solved step as every machine computes it.
    pub(crate) fn origin_of(&self, id: StepId) -> Option<Key> {
        lock(&self.ledger.origins).get(&id).copied()
    }

    /// Whether a result may still be used; if not, that is remembered.
    pub(crate) fn is_young(&self, id: StepId, created: i64) -> bool {
        let young = self.request.cache.ttl.is_none_or(|ttl| {
            self.now.saturating_sub(created) < i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX)
        });
        if !young {
            lock(&self.ledger.expired).insert(id, created);
        }
        young
    }

    /// The steps that are solved.
    pub(crate) fn solved(&self) -> Vec<StepId> {
        let keys = lock(&self.ledger.keys).clone();
        let made = |id: &StepId| self.made(*id).is_some();
        keys.into_keys().filter(made).collect()
    }

    pub(crate) fn keep(&self, id: StepId, key: Key, made: StepResult) {
        lock(&self.ledger.made).insert(key, made);
        lock(&self.ledger.keys).insert(id, key);
    }

    pub(crate) fn mount(&self, snapshot: SnapshotId) -> Result<Root> {
        let stack: Stack = self.env.store.stack(snapshot).during("opening a snapshot")?;
        stack.mount().during("mounting a snapshot")
    }

    /// What was taken from elsewhere so far.
    pub(crate) fn used(&self) -> Vec<Input> {
        self.inputs.all(&self.contexts.inputs)
    }

    /// What was asked over HTTP and answered so far, if it is recorded or replayed.
    pub(crate) fn exchanges(&self) -> Vec<recorder::Exchange> {
        self.contexts.recorder.as_ref().map(|recorder| recorder.exchanges()).unwrap_or_default()
    }

    /// Goes on as if a step had run, whose result has this key then.
    pub(crate) fn assume(&self, id: StepId, key: Key) {
        lock(&self.ledger.keys).insert(id, key);
    }
}
