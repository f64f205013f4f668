//! The executor: keys, the cache, and the work of steps.

mod executor;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use futures::future::BoxFuture;
use image::Digest;
use layers::{Root, Stack};
use serde_json::json;
use store::{SnapshotId, StepRecord, Store};
use task::Task;
use tokio::sync::OnceCell;
use transport::bridge;

use crate::cache::Imports;
use crate::context::git::GitUrl;
use crate::context::{Contexts, Tree};
use crate::debug;
use crate::error::{During, place};
use crate::images::{self, Bases};
use crate::inputs::{Input, Inputs};
use crate::layer::Layers;
use crate::plan::key::{Key, KeyBuilder, definition};
use crate::plan::{CopyOp, CopySource, From, Op, Plan, RunMountKind, RunOp, Step, StepId};
use crate::step::copy::Remote;
use crate::step::{self, copy, run, select, workdir};
use crate::why::{self, Explanation, Facts, FileFact, Trace};
use crate::{Env, Error, Request, Result, SourceFile, users};

/// The result of a step, as long as the build lives.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    /// Its files, if they are here.
    pub(crate) snapshot: Option<SnapshotId>,
    /// Where a cache has its layer.
    pub(crate) remote: Option<Arc<crate::cache::Remote>>,
    /// When it was made first, seconds since 1970.
    pub(crate) created: i64,
    /// Whether this build made it.
    pub(crate) new: bool,
}

/// Everything a build has at hand.
pub(crate) struct Build {
    pub(crate) env: Env,
    pub(crate) request: Request,
    pub(crate) file: Arc<SourceFile>,
    pub(crate) plan: Plan,
    pub(crate) bases: Bases,
    pub(crate) inputs: Arc<Inputs>,
    pub(crate) contexts: Arc<Contexts>,
    pub(crate) layers: Layers,
    pub(crate) now: i64,
    made: Mutex<HashMap<Key, Made>>,
    keys: Mutex<BTreeMap<StepId, Key>>,
    /// What names the results of steps on every machine: made of the definitions alone, never of
    /// what a step happened to give here.
    pub(crate) origins: Mutex<BTreeMap<StepId, Key>>,
    /// Results that are older than the user wants: when they were made.
    pub(crate) expired: Mutex<BTreeMap<StepId, i64>>,
    pub(crate) explained: Mutex<BTreeMap<StepId, Explanation>>,
    /// What the file system of each image and graft is, once it was made available; locked
    /// meanwhile.
    unpacked: BTreeMap<StepId, tokio::sync::Mutex<Option<Option<SnapshotId>>>>,
    remotes: Mutex<HashMap<StepId, Vec<Remote>>>,
    /// Held while the files of a step come from a cache.
    pub(crate) arriving: BTreeMap<StepId, tokio::sync::Mutex<()>>,
    /// Whether the cache mounts of these ids were looked for elsewhere; locked meanwhile.
    pub(crate) mounts: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<bool>>>>,
    /// Caches elsewhere, opened when they are first asked.
    pub(crate) imports: OnceCell<Imports>,
    /// What decided the steps of those caches, read when a step is not in them.
    pub(crate) remote_facts: OnceCell<Vec<(Trace, Facts)>>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// [`Executor`] of a real build.
pub(crate) struct Engine(pub(crate) Arc<Build>);

impl Build {
    pub(crate) fn new(
        env: Env,
        request: Request,
        file: Arc<SourceFile>,
        plan: Plan,
        bases: Bases,
        inputs: Arc<Inputs>,
    ) -> Result<Build> {
        let now = (env.clock)();
        let contexts = Contexts::of(&request, &env)?;
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let made_late = |step: &Step| matches!(step.op, Op::Image(_) | Op::Graft);
        let late = plan.steps.iter().enumerate().filter(|(_, step)| made_late(step));
        let unpacked = late.map(|(id, _)| (StepId(id), Default::default())).collect();
        let layers = Layers::new(&plan, &request);
        let steps = plan.steps.len();
        Ok(Build {
            env,
            request,
            file,
            plan,
            bases,
            inputs,
            contexts,
            layers,
            now: i64::try_from(seconds).unwrap_or(i64::MAX),
            made: Mutex::default(),
            keys: Mutex::default(),
            origins: Mutex::default(),
            expired: Mutex::default(),
            explained: Mutex::default(),
            arriving: (0..steps).map(|id| (StepId(id), Default::default())).collect(),
            unpacked,
            mounts: Mutex::default(),
            imports: OnceCell::new(),
            remote_facts: OnceCell::new(),
            remotes: Mutex::default(),
        })
    }

    pub(crate) fn step(&self, id: StepId) -> &Step {
        &self.plan.steps[id.0]
    }

    /// What a solved step made.
    pub(crate) fn made(&self, id: StepId) -> Option<Made> {
        let key = *lock(&self.keys).get(&id)?;
        lock(&self.made).get(&key).cloned()
    }

    /// The key of a solved step.
    pub(crate) fn key_of(&self, id: StepId) -> Option<Key> {
        lock(&self.keys).get(&id).copied()
    }

    /// The file system of a step that was solved, made available if it is an image's.
    pub(crate) fn available<'a>(
        self: &'a Arc<Self>,
        id: StepId,
        task: &'a Arc<Task>,
    ) -> BoxFuture<'a, Result<Option<SnapshotId>>> {
        Box::pin(async move {
            let Some(known) = self.unpacked.get(&id) else {
                return match self.made(id) {
                    Some(Made { snapshot: None, .. }) => self.arrive(id, task).await,
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
                    let layer = layer.ok_or(Error::Panicked)?;
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

    /// The key of a solved step as every machine computes it.
    pub(crate) fn origin_of(&self, id: StepId) -> Option<Key> {
        lock(&self.origins).get(&id).copied()
    }

    fn record(&self, id: StepId, key: Key) -> Result<Option<(Key, Made)>> {
        let lookup = |key: Key| self.env.store.step(key.0).during("asking the cache");
        let Some(mut record) = lookup(key)? else { return Ok(None) };
        let mut key = key;
        if let Some(same) = record.note.get("same").and_then(|same| same.as_str()) {
            let Ok(digest) = same.parse::<Digest>() else { return Ok(None) };
            key = Key(digest);
            match lookup(key)? {
                Some(other) => record = other,
                None => return Ok(None),
            }
        }
        let created = record.note.get("created").and_then(serde_json::Value::as_i64);
        let made = record.snapshot.map(|snapshot| Made {
            snapshot: Some(snapshot),
            remote: None,
            created: created.unwrap_or(0),
            new: false,
        });
        let made = made.filter(|made| self.is_young(id, made.created));
        Ok(made.map(|made| (key, made)))
    }

    /// Whether a result may still be used; if not, that is remembered.
    pub(crate) fn is_young(&self, id: StepId, created: i64) -> bool {
        let young = self.request.cache.ttl.is_none_or(|ttl| {
            self.now.saturating_sub(created) < i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX)
        });
        if !young {
            lock(&self.expired).insert(id, created);
        }
        young
    }

    /// The steps that are solved.
    pub(crate) fn solved(&self) -> Vec<StepId> {
        let keys = lock(&self.keys).clone();
        let made = |id: &StepId| self.made(*id).is_some();
        keys.into_keys().filter(made).collect()
    }

    pub(crate) fn keep(&self, id: StepId, key: Key, made: Made) {
        lock(&self.made).insert(key, made);
        lock(&self.keys).insert(id, key);
    }

    /// The tree that something is read from. `reads` are the snapshots of the step's reads.
    fn tree(
        &self,
        from: &From,
        step: &Step,
        reads: &[Option<SnapshotId>],
        task: &Task,
    ) -> Result<Arc<Tree>> {
        let (snapshot, name) = match from {
            From::Context(name) => return self.contexts.tree(name, task),
            From::Scratch => (None, "the empty image".to_owned()),
            From::Read(index) => (reads[*index], self.step(step.reads[*index]).place.clone()),
        };
        let root = match snapshot {
            Some(snapshot) => self.mount(snapshot)?,
            None => {
                let active = self.env.store.begin().during("opening an empty image")?;
                let root = active.root().during("opening an empty image")?;
                return Ok(Arc::new(Tree::own(root, active)));
            }
        };
        Ok(Arc::new(Tree { snapshot, ..Tree::of_step(root, name) }))
    }

    pub(crate) fn mount(&self, snapshot: SnapshotId) -> Result<Root> {
        let stack: Stack = self.env.store.stack(snapshot).during("opening a snapshot")?;
        stack.mount().during("mounting a snapshot")
    }

    /// What was taken from elsewhere so far.
    pub(crate) fn used(&self) -> Vec<Input> {
        self.inputs.all(&self.contexts.inputs)
    }

    /// Finds what the sources of an `ADD` are that are not in a context.
    async fn fetch(
        self: &Arc<Self>,
        id: StepId,
        op: &CopyOp,
        task: &Arc<Task>,
    ) -> Result<Vec<Remote>> {
        let place = place(&self.file, self.step(id).span.start);
        let mut all = Vec::new();
        for source in &op.sources {
            match source {
                CopySource::Http { url } => {
                    let checksum = op.checksum.as_deref().and_then(|text| text.parse().ok());
                    let file = self.contexts.file(url, checksum, place.clone(), task).await?;
                    all.push(Remote::File(file));
                }
                CopySource::Git { url } => {
                    let url = GitUrl::parse(url).map_err(Error::Invalid)?;
                    let keep = op.keep_git_dir.or(url.keep_git_dir).unwrap_or(false);
                    let (build, task) = (Arc::clone(self), Arc::clone(task));
                    let (checksum, place) = (op.checksum.clone(), place.clone());
                    let find = move || {
                        let checksum = checksum.as_deref();
                        build.contexts.commit(&url, checksum, keep, place, &task)
                    };
                    all.push(Remote::Commit(Box::new(bridge::blocking(find).await?)));
                }
                CopySource::Path(_) | CopySource::Inline { .. } => {}
            }
        }
        Ok(all)
    }

    /// Finds everything that the steps take from elsewhere, and does nothing with it; afterwards
    /// [`Inputs::all`] has it.
    pub(crate) async fn resolve(self: &Arc<Self>, task: &Arc<Task>) -> Result<()> {
        for (number, step) in self.plan.steps.iter().enumerate() {
            let Op::Copy(op) = &step.op else { continue };
            let at = |error| step::at(&self.file, step, error);
            self.fetch(StepId(number), op, task).await.map_err(at)?;
        }
        let (contexts, task) = (Arc::clone(&self.contexts), Arc::clone(task));
        bridge::blocking(move || contexts.resolve(&task)).await
    }

    /// The keys of a step, with the content it reads from build contexts; also the files of it,
    /// if they are wanted.
    pub(crate) fn keys(
        &self,
        id: StepId,
        inputs: &[Key],
        record: bool,
        task: &Task,
    ) -> Result<(Key, Vec<FileFact>)> {
        let step = self.step(id);
        let mut content = KeyBuilder::new("content");
        if record {
            content = content.recording();
        }
        match &step.op {
            Op::Image(image) => {
                let chain = self.bases[image].image.chain_id();
                let mut key = KeyBuilder::new("image");
                key.part(chain.map(|chain| chain.0.to_string()).unwrap_or_default().as_bytes());
                let key = key.finish();
                lock(&self.origins).insert(id, key);
                return Ok((key, Vec::new()));
            }
            Op::Copy(op) => {
                if let From::Context(_) = &op.from {
                    self.selection(id, op, step, &[], task)?.digest(
                        self.env.threads,
                        &mut content,
                        task,
                    )?;
                }
            }
            Op::Run(op) => {
                self.run_content(op, &mut content, task)?;
                // What commands call machines decides the result as well.
                let names = self.request.run.names();
                if !names.is_empty() {
                    content.part(names.as_bytes());
                }
            }
            Op::Workdir(_) | Op::Graft => {}
        }
        let (content, files) = content.finish_recording();
        let finish = |inputs: &[Key]| {
            let mut key = definition(step, inputs);
            key.part(content.0.as_bytes());
            key.finish()
        };
        let key = finish(inputs);
        let origins: Option<Vec<Key>> = step.inputs().map(|input| self.origin_of(input)).collect();
        let origin = match origins {
            Some(origins) if origins != inputs => finish(&origins),
            _ => key,
        };
        lock(&self.origins).insert(id, origin);
        Ok((key, files))
    }

    /// Goes on as if a step had run, whose result has this key then.
    pub(crate) fn assume(&self, id: StepId, key: Key) {
        lock(&self.keys).insert(id, key);
    }

    /// Adds what the mounts of a command read from build contexts.
    fn run_content(&self, op: &RunOp, key: &mut KeyBuilder, task: &Task) -> Result<()> {
        for mount in &op.mounts {
            let RunMountKind::Bind { from: From::Context(name), source, .. } = &mount.kind else {
                continue;
            };
            let tree = self.contexts.tree(name, task)?;
            let parts = copy::whole(&tree, source)?;
            parts.digest(self.env.threads, key, task)?;
        }
        Ok(())
    }

    fn selection(
        &self,
        id: StepId,
        op: &CopyOp,
        step: &Step,
        reads: &[Option<SnapshotId>],
        task: &Task,
    ) -> Result<copy::Selection> {
        let tree = self.tree(&op.from, step, reads, task)?;
        let remotes = lock(&self.remotes).get(&id).cloned().unwrap_or_default();
        copy::prepare(op, &tree, &remotes, &self.env.store)
    }

    /// Does a step with everything it needs made available; gives the key of the result.
    pub(crate) async fn run(
        self: &Arc<Self>,
        id: StepId,
        inputs: &[Key],
        key: Key,
        task: &Arc<Task>,
    ) -> Result<Key> {
        let step = self.step(id);
        let at = |error| step::at(&self.file, step, error);
        let parent = match step.parent {
            Some(parent) => self.available(parent, task).await.map_err(at)?,
            None => None,
        };
        let mut reads = Vec::new();
        for read in &step.reads {
            reads.push(self.available(*read, task).await.map_err(at)?);
        }
        self.prepare_reasons(task).await;
        self.bring_mounts(id, task).await;
        let build = Arc::clone(self);
        let (inputs, owned) = (inputs.to_vec(), Arc::clone(task));
        // Another process may be at the very same step.
        let (store, waiting) = (self.env.store.clone(), Arc::clone(task));
        let flight = bridge::blocking(move || store.flight(key.0, &waiting)).await;
        let _flight = flight.during("waiting for another build").map_err(at)?;
        if !step.fresh && !lock(&self.expired).contains_key(&id) {
            let build = Arc::clone(self);
            let found = bridge::blocking(move || build.record(id, key)).await.map_err(at)?;
            if let Some((key, made)) = found {
                task.note("another build has done it meanwhile");
                self.keep(id, key, made);
                return Ok(key);
            }
        }
        let work = move || build.work(id, &inputs, key, parent, &reads, &owned);
        let key = bridge::blocking(work).await.map_err(at)?;
        self.layers.start(self, id, key, task);
        Ok(key)
    }

    /// Does the work of a step and commits it; gives the key of the result.
    fn work(
        &self,
        id: StepId,
        inputs: &[Key],
        key: Key,
        parent: Option<SnapshotId>,
        reads: &[Option<SnapshotId>],
        task: &Arc<Task>,
    ) -> Result<Key> {
        let step = self.step(id);
        let mut facts = None;
        if !step.reads_context() && !matches!(step.op, Op::Copy(_)) {
            facts = Some(self.account(id, inputs, Vec::new(), task)?);
        }
        let active = self.env.store.begin().during("beginning a step")?;
        let mut name = key;
        match &step.op {
            Op::Image(_) | Op::Graft => {}
            Op::Run(op) => {
                let made = self.command(step, op, &active, inputs, parent, reads, task)?;
                if made == debug::Made::ByHand {
                    // Another build must not find it.
                    let mut own = KeyBuilder::new("by-hand");
                    own.part(key.0.as_bytes());
                    own.part(active.dir().as_os_str().as_encoded_bytes());
                    own.part(&self.now.to_le_bytes());
                    name = own.finish();
                    self.commit(id, name, name, active, parent, task)?;
                    return Ok(name);
                }
            }
            Op::Workdir(op) => {
                let root = active.stack(parent).and_then_mount("stacking layers")?;
                workdir::work(op, &root)?;
            }
            Op::Copy(op) => {
                let mut selection = self.selection(id, op, step, reads, task)?;
                if let From::Read(_) = op.from {
                    name = self.content_key(op, step, inputs, &selection, task)?;
                    if !step.fresh
                        && let Some((known, made)) = self.record(id, name)?
                    {
                        task.note("the files are the same as before");
                        self.alias(key, known)?;
                        self.keep(id, known, made);
                        return Ok(known);
                    }
                }
                selection.fetch(&self.contexts.git, &self.env.store, task)?;
                if !step.reads_context() {
                    facts = Some(self.account(id, inputs, Vec::new(), task)?);
                }
                self.copy(op, &selection, &active, parent, task)?;
            }
        }
        let facts = match facts {
            Some(facts) => facts,
            None => {
                // The files are listed now that they had to be looked at again anyway.
                let (again, files) = self.keys(id, inputs, true, task)?;
                if again != key && matches!(step.op, Op::Copy(_)) {
                    return Err(Error::Changed { place: "the build context".to_owned() });
                }
                self.account(id, inputs, files, task)?
            }
        };
        self.commit(id, key, name, active, parent, task)?;
        let origin = self.origin_of(id).unwrap_or(key);
        why::remember(&self.env.store, origin, &facts, task);
        Ok(name)
    }

    /// Runs the command of a step; its changes are in `active` then.
    #[allow(clippy::too_many_arguments)]
    fn command(
        &self,
        step: &Step,
        op: &RunOp,
        active: &store::Active,
        inputs: &[Key],
        parent: Option<SnapshotId>,
        reads: &[Option<SnapshotId>],
        task: &Task,
    ) -> Result<debug::Made> {
        let mut trees = Vec::new();
        for mount in &op.mounts {
            trees.push(match &mount.kind {
                RunMountKind::Bind { from, .. } => Some(self.tree(from, step, reads, task)?),
                RunMountKind::Cache { from: From::Scratch, .. } => None,
                RunMountKind::Cache { from, .. } => Some(self.tree(from, step, reads, task)?),
                _ => None,
            });
        }
        let with = run::Surroundings {
            env: &self.env,
            request: &self.request,
            file: &self.file,
            step,
            trees,
            parent,
            origin: debug::Origin {
                parent: step.parent.and(inputs.first()).map(|key| key.0),
                reads: reads.to_vec(),
            },
        };
        run::work(op, active, &with, task)
    }

    fn copy(
        &self,
        op: &CopyOp,
        selection: &copy::Selection,
        active: &store::Active,
        parent: Option<SnapshotId>,
        task: &Task,
    ) -> Result<()> {
        let epoch = self.request.clamp();
        let action = "opening the layer";
        let alone = active.root().during(action)?;
        let destination = Path::new(&op.destination);
        let owner_in =
            |root: &Root| op.chown.as_deref().map(|text| users::owner(root, text)).transpose();
        let placing = |owner| copy::Placing { owner, epoch, threads: self.env.threads };
        if parent.is_none() {
            let owner = owner_in(&alone)?;
            return selection.work(op, &alone, destination, placing(owner), task);
        }
        let root = active.stack(parent).and_then_mount(action)?;
        let owner = owner_in(&root)?;
        if op.link {
            // What is below does not matter: no link of it is followed, no directory of it used.
            return selection.work(op, &alone, destination, placing(owner), task);
        }
        let trimmed = Path::new(op.destination.trim_end_matches('/'));
        let missing = root.metadata(trimmed).is_err_and(|error| select::gone(&error));
        if !missing || !selection.fills(op) {
            return selection.work(op, &root, destination, placing(owner), task);
        }
        // A new directory lies in this layer alone: it is filled without the detour through the
        // overlay, which must not be mounted meanwhile.
        let made = root.create_dir_all(trimmed, 0o755, Some(owner.unwrap_or((0, 0))));
        made.during(format!("making {}", op.destination))?;
        let found = select::locate(&root, trimmed)?;
        drop(root);
        let (path, _) = found.ok_or(Error::Panicked)?;
        selection.work(op, &alone, &path, placing(owner), task)
    }

    /// The key of a copy from another step by what is copied, not by how that was made.
    fn content_key(
        &self,
        op: &CopyOp,
        step: &Step,
        inputs: &[Key],
        selection: &copy::Selection,
        task: &Task,
    ) -> Result<Key> {
        let mut key = KeyBuilder::new("copy-content");
        key.part(&serde_json::to_vec(op).unwrap_or_default());
        if step.parent.is_some() {
            key.part(inputs[0].0.as_bytes());
        }
        selection.digest(self.env.threads, &mut key, task)?;
        Ok(key.finish())
    }

    fn alias(&self, key: Key, same: Key) -> Result<()> {
        if key == same {
            return Ok(());
        }
        let note = json!({ "same": same.0.to_string() });
        let record = StepRecord { snapshot: None, layer: None, note };
        self.env.store.record_step(key.0, &record).during("recording a step")
    }

    fn commit(
        &self,
        id: StepId,
        key: Key,
        name: Key,
        active: store::Active,
        parent: Option<SnapshotId>,
        task: &Task,
    ) -> Result<()> {
        // A snapshot that is there already would win over what was made just now, so that a
        // step run again on purpose gets a name of its own.
        let mut unique = KeyBuilder::new("snapshot");
        unique.part(name.0.as_bytes());
        unique.part(active.dir().as_os_str().as_encoded_bytes());
        let snapshot = SnapshotId(unique.finish().0);
        crate::limit::fits(&self.env.store, task)?;
        active.commit(snapshot, parent).during("keeping a step's files")?;
        let made = Made { snapshot: Some(snapshot), remote: None, created: self.now, new: true };
        let note = json!({ "created": made.created, "step": self.step(id).name });
        let record = StepRecord { snapshot: Some(snapshot), layer: None, note };
        self.env.store.record_step(name.0, &record).during("recording a step")?;
        self.alias(key, name)?;
        self.keep(id, name, made);
        Ok(())
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
trait AndThenMount {
    fn and_then_mount(self, action: &str) -> Result<Root>;
}

impl AndThenMount for store::Result<Stack> {
    fn and_then_mount(self, action: &str) -> Result<Root> {
        self.during(action)?.mount().during(action)
    }
}
