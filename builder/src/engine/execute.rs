//! Doing steps, each with everything it needs made available.

use std::path::Path;
use std::sync::Arc;

use layers::Root;
use store::SnapshotId;
use task::Task;
use transport::bridge;

use super::graft::AndThenMount;
use crate::debug;
use crate::error::ErrorContext;
use crate::job::{Build, lock};
use crate::plan::key::{Key, KeyBuilder};
use crate::plan::{CopyOp, From, Op, RunMountKind, RunOp, StepId};
use crate::step::{self, copy, run, sandbox, select, workdir};
use crate::{Error, Result, users, why};

impl Build {
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
            reads.push(self.readable(id, *read, task).await.map_err(at)?);
        }
        self.prepare_reasons(task).await;
        self.bring_mounts(id, task).await;
        let build = Arc::clone(self);
        let (inputs, owned) = (inputs.to_vec(), Arc::clone(task));
        // Another process may be at the very same step.
        let (store, waiting) = (self.env.store.clone(), Arc::clone(task));
        let flight = bridge::blocking(move || store.flight(key.0, &waiting)).await;
        let _flight = flight.during("waiting for another build").map_err(at)?;
        task.begin();
        if !step.fresh && !lock(&self.ledger.expired).contains_key(&id) {
            let build = Arc::clone(self);
            let found = bridge::blocking(move || build.record(id, key)).await.map_err(at)?;
            if let Some((key, made)) = found {
                task.note("another build has done it");
                self.keep(id, key, made);
                return Ok(key);
            }
        }
        let work = move || build.work(id, &inputs, key, parent, &reads, &owned);
        let key = bridge::blocking(work).await.map_err(at)?;
        self.ledger.layers.start(self, id, key, task);
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
                let made = self.command(id, op, &active, inputs, parent, reads, task)?;
                if made == debug::Repeatability::ByHand {
                    // Another build must not find it.
                    let mut own = KeyBuilder::new("by-hand");
                    own.part(key.0.as_bytes());
                    own.part(active.dir().as_os_str().as_encoded_bytes());
                    own.part(&self.now.to_le_bytes());
                    name = own.finish();
                    self.commit(id, name, name, active, parent, task)?;
                    return Ok(name);
                }
                if step.fresh {
                    // What is made of it must not be taken from before.
                    let mut own = KeyBuilder::new("fresh");
                    own.part(key.0.as_bytes());
                    own.part(active.dir().as_os_str().as_encoded_bytes());
                    own.part(&self.now.to_le_bytes());
                    name = own.finish();
                    lock(&self.ledger.again).insert(key, name);
                }
            }
            Op::Workdir(op) => {
                let root = active.stack(parent).and_then_mount("stacking layers")?;
                workdir::work(op, &root, task)?;
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
        id: StepId,
        op: &RunOp,
        active: &store::Active,
        inputs: &[Key],
        parent: Option<SnapshotId>,
        reads: &[Option<SnapshotId>],
        task: &Task,
    ) -> Result<debug::Repeatability> {
        let step = self.step(id);
        let mut trees = Vec::new();
        for mount in &op.mounts {
            trees.push(match &mount.kind {
                RunMountKind::Bind { from, .. } => Some(self.tree(from, step, reads, task)?),
                RunMountKind::Cache { from: From::Scratch, .. } => None,
                RunMountKind::Cache { from, .. } => Some(self.tree(from, step, reads, task)?),
                _ => None,
            });
        }
        let with = sandbox::Surroundings {
            env: &self.env,
            request: &self.request,
            file: &self.file,
            step,
            trees,
            caches: self.borrowed_of(id),
            recorder: self.contexts.recorder.as_ref(),
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
        let threads = self.env.threads;
        let placing = |owner| copy::CopySettings { owner, epoch, dated: false, threads, made: 0 };
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
        let made = trimmed.ancestors().take_while(|path| root.metadata(path).is_err()).count();
        root.create_dir_all(trimmed, 0o755, Some(owner.unwrap_or((0, 0))))
            .during(format!("making {}", op.destination))?;
        let found = select::locate(&root, trimmed)?;
        drop(root);
        let (path, _) = found.ok_or(Error::internal("a directory that was made is there"))?;
        selection.work(op, &alone, &path, copy::CopySettings { made, ..placing(owner) }, task)
    }
}
