//! The keys of results: from the definitions, the inputs and the content that steps read.

use std::sync::Arc;

use store::SnapshotId;
use task::Task;
use transport::bridge;

use crate::context::Tree;
use crate::context::git::GitUrl;
use crate::error::{ErrorContext, place};
use crate::job::{Build, lock};
use crate::plan::encode::Fields;
use crate::plan::key::{Key, KeyBuilder, definition};
use crate::plan::{CopyOp, CopySource, From, Op, RunMountKind, RunOp, Step, StepId};
use crate::step::copy::Remote;
use crate::step::{self, copy};
use crate::why::FileFact;
use crate::{Error, Result};

impl Build {
    /// The tree that something is read from. `reads` are the snapshots of the step's reads.
    pub(super) fn tree(
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

    /// Finds what the sources of an `ADD` are that are not in a context.
    pub(super) async fn fetch(
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
                    let url = GitUrl::parse(url)
                        .map_err(|why| Error::malformed(format!("the address {url:?}"), why))?;
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
                lock(&self.ledger.origins).insert(id, key);
                return Ok((key, Vec::new()));
            }
            Op::Copy(op) => {
                if let From::Context(_) = &op.from {
                    self.selection(id, op, step, &[], task)?.digest(
                        self.env.threads,
                        &mut content,
                        task,
                    )?;
                    self.time(&mut content);
                }
            }
            Op::Run(op) => {
                self.run_content(op, &mut content, task)?;
                // What commands call machines decides the result as well.
                let names = self.request.run.names();
                if !names.is_empty() {
                    content.part(names.as_bytes());
                }
                let recorder = self.contexts.recorder.as_ref().filter(|_| op.network != "none");
                let answers = recorder.and_then(|recorder| recorder.answers_of(&step.instruction));
                if let Some(answers) = answers {
                    content.part(b"answers").part(answers.to_string().as_bytes());
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
        lock(&self.ledger.origins).insert(id, origin);
        Ok((key, files))
    }

    /// Adds the time that files from elsewhere get, if they get one.
    fn time(&self, key: &mut KeyBuilder) {
        if let Some(epoch) = self.request.clamp() {
            key.part(format!("time {epoch}").as_bytes());
        }
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

    pub(super) fn selection(
        &self,
        id: StepId,
        op: &CopyOp,
        step: &Step,
        reads: &[Option<SnapshotId>],
        task: &Task,
    ) -> Result<copy::Selection> {
        let tree = self.tree(&op.from, step, reads, task)?;
        let remotes = lock(&self.ledger.remotes).get(&id).cloned().unwrap_or_default();
        copy::prepare(op, &tree, &remotes, &self.env.store)
    }

    /// The key of a copy from another step by what is copied, not by how that was made.
    pub(super) fn content_key(
        &self,
        op: &CopyOp,
        step: &Step,
        inputs: &[Key],
        selection: &copy::Selection,
        task: &Task,
    ) -> Result<Key> {
        let mut key = KeyBuilder::new("copy-content");
        Fields::of(&mut key).copy(op);
        if step.parent.is_some() {
            key.part(inputs[0].0.as_bytes());
        }
        selection.digest(self.env.threads, &mut key, task)?;
        self.time(&mut key);
        Ok(key.finish())
    }
}
