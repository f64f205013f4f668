//! What failing commands left.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use image::Digest;
use layers::Top;
use runtime::{ContainerSpec, ExitStatus};
use serde::{Deserialize, Serialize};
use store::{Active, ContainerRecord, SnapshotId, Store};
use task::{Fault, Kind, Task};

use super::{Origin, Terminal, label, shell};
use crate::context::{Contexts, Tree};
use crate::error::{ErrorContext, place};
use crate::plan::{From, Op, RunMountKind, RunOp, Step, WorkdirOp};
use crate::step::sandbox::{CommandStreams, RunSandbox, Surroundings};
use crate::{Context, Env, Error, Network, Request, Result, RunOptions, Secret, SourceFile};

/// What makes a container of the store one of these. It is written last.
const STATE: &str = "failed.json";
/// Locked by who works in it.
const LOCK: &str = "failed.lock";

/// A command that failed. It contains no secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FailedCommand {
    /// `file:line`.
    pub place: String,
    /// The instruction as written, on one line.
    pub instruction: String,
    /// How the command ended.
    pub status: String,
    /// When, in seconds since 1970.
    pub time: u64,
    /// The Dockerfile's name.
    pub(super) file: String,
    /// The step's place in it.
    pub(super) label: String,
    pub(super) parent: Option<Digest>,
    op: RunOp,
    /// Contexts that are directories, by name.
    contexts: BTreeMap<String, PathBuf>,
    reads: Vec<Option<Digest>>,
    /// How commands ran: [`crate::RunOptions::base`]. Older records have `flags` instead.
    #[serde(default)]
    pub run: Option<ContainerSpec>,
    /// The same in an older record, as it was written on the command line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
}

/// A kept failure: the container with the files that a failed command left.
#[derive(Debug)]
pub struct KeptFailure {
    store: Store,
    record: ContainerRecord,
    /// What is known about the command.
    pub failed: FailedCommand,
    _lock: Option<File>,
}

/// What a shell for a kept failure needs, besides its files.
#[derive(Debug, Clone, Default)]
pub struct Inspection {
    /// Secrets, by id: they are not kept.
    pub secrets: BTreeMap<String, Secret>,
    /// ssh agents, by id.
    pub ssh: BTreeMap<String, crate::Agent>,
    /// How commands of the build ran.
    pub run: RunOptions,
    /// The build's network.
    pub network: Network,
    /// Proxy variables.
    pub proxy: BTreeMap<String, String>,
    /// The program and its arguments; without any, the command's own shell.
    pub command: Vec<String>,
}

/// Keeps what a command left, and gives its id. What was kept before stays the same thing.
pub(super) fn keep(
    op: &RunOp,
    room: &RunSandbox<'_>,
    with: &Surroundings<'_>,
    status: &str,
) -> Result<String> {
    let action = "storing the files that the command left";
    let store = &with.env.store;
    let upper = room.upper();
    if let Some(directory) = upper.parent().filter(|directory| directory.join(STATE).exists()) {
        let name = directory.file_name().unwrap_or_default().to_string_lossy();
        return Ok(store.container(&name).during(action)?.name);
    }
    let directories = with.request.contexts.iter().map(|(name, context)| (name.as_str(), context));
    let contexts = directories.chain([("", &with.request.context)]).filter_map(
        |(name, context)| match context {
            Context::Directory(path) => Some((name.to_owned(), path.clone())),
            _ => None,
        },
    );
    let since = (with.env.clock)().duration_since(UNIX_EPOCH).unwrap_or_default();
    let failed = FailedCommand {
        place: place(with.file, with.step.span.start),
        instruction: with.step.instruction.clone(),
        status: status.to_owned(),
        time: since.as_secs(),
        file: with.file.name.clone(),
        label: label(&with.step.name),
        parent: with.origin.parent,
        op: op.clone(),
        contexts: contexts.collect(),
        reads: with.origin.reads.iter().map(|read| read.map(|id| id.0)).collect(),
        run: Some(with.request.run.base.clone()),
        flags: Vec::new(),
    };
    let text = serde_json::to_vec(&failed)
        .map_err(|source| Error::Document { action: action.to_owned(), source })?;
    let id = task::random_id();
    let name = format!("failed-{}", &id[..8]);
    let record = store.add_container(&id, &name, None, with.parent).during(action)?;
    let target = record.directory.join("upper");
    std::fs::remove_dir(&target).map_err(Error::file("removing", &target))?;
    std::fs::rename(&upper, &target).map_err(Error::file("keeping", &target))?;
    let (new, path) = (record.directory.join("failed.json.new"), record.directory.join(STATE));
    std::fs::write(&new, text).map_err(Error::file("writing", &new))?;
    std::fs::rename(&new, &path).map_err(Error::file("writing", &path))?;
    Ok(name)
}

impl KeptFailure {
    fn of(store: &Store, record: ContainerRecord) -> Result<Option<KeptFailure>> {
        let path = record.directory.join(STATE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::file("reading", path)(error)),
        };
        let failed = serde_json::from_slice(&bytes).map_err(Error::document(&path))?;
        Ok(Some(KeptFailure { store: store.clone(), record, failed, _lock: None }))
    }

    /// Whether a container of the store is what a failing command left.
    pub fn is(record: &ContainerRecord) -> bool {
        record.directory.join(STATE).exists()
    }

    /// What is kept under this name or id.
    ///
    /// # Errors
    /// There is nothing of that name.
    pub fn require(store: &Store, name: &str) -> Result<KeptFailure> {
        let missing = || Error::NotThere { what: "kept failure", name: name.to_owned() };
        match store.container(name) {
            Ok(record) => KeptFailure::of(store, record)?.ok_or_else(missing),
            Err(error) if error.kind() == Kind::NotFound => Err(missing()),
            Err(error) => Err(error).during("looking up a failed step"),
        }
    }

    /// Everything that is kept, oldest first.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn all(store: &Store) -> Result<Vec<KeptFailure>> {
        let records = store.containers().during("listing failed steps")?;
        records
            .into_iter()
            .filter_map(|record| KeptFailure::of(store, record).transpose())
            .collect()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.record.name
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.record.id
    }

    /// The same, with exclusive access.
    ///
    /// # Errors
    /// It is in use.
    pub(crate) fn lock(self) -> Result<KeptFailure> {
        let path = self.record.directory.join(LOCK);
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(Error::file("opening", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(KeptFailure { _lock: Some(file), ..self }),
            Err(std::fs::TryLockError::WouldBlock) => {
                Err(Error::InUse { name: self.record.name, by: "another shell or build" })
            }
            Err(std::fs::TryLockError::Error(error)) => Err(Error::file("locking", path)(error)),
        }
    }

    /// The directories of its changes.
    pub(crate) fn top(&self) -> Top {
        let directory = &self.record.directory;
        Top { upper: directory.join("upper"), work: directory.join("work") }
    }

    /// Moves its changes to a snapshot in the making; nothing is kept any more.
    pub(crate) fn give(self, active: &Active) -> Result<()> {
        let target = active.dir().join("fs");
        let own = self.top().upper;
        std::fs::remove_dir(&target).map_err(Error::file("removing", &target))?;
        std::fs::rename(&own, &target).map_err(Error::file("keeping", &own))?;
        self.remove()
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> u64 {
        self.store.container_bytes(&self.record)
    }

    /// Removes it unless it is in use: then `false`.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn discard(self) -> Result<bool> {
        match self.lock() {
            Ok(kept) => kept.remove().map(|()| true),
            Err(Error::InUse { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes it.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn remove(self) -> Result<()> {
        self.store.remove_container(&self.record.id).during("removing a failed step").map(drop)
    }

    /// Runs a program, by default a shell, in the place of the command: its files, mounts,
    /// variables, user and directory. What cannot be had any more is left out with a warning.
    ///
    /// # Errors
    /// The program cannot be started; the failure is in use.
    pub fn enter(
        self,
        with: Inspection,
        terminal: Option<&Terminal>,
        env: &Env,
        task: &Task,
    ) -> Result<ExitStatus> {
        let kept = self.lock()?;
        let main = kept.failed.contexts.get("").cloned();
        let main = main.map_or(Context::Empty, Context::Directory);
        let file = SourceFile { name: kept.failed.file.clone(), text: String::new() };
        let mut request = Request::new(file.clone(), main);
        for (name, path) in kept.failed.contexts.iter().filter(|(name, _)| !name.is_empty()) {
            request.contexts.insert(name.clone(), Context::Directory(path.clone()));
        }
        (request.secrets, request.ssh) = (with.secrets, with.ssh);
        (request.run, request.network, request.proxy) = (with.run, with.network, with.proxy);
        let mut op = kept.failed.op.clone();
        let trees = kept.trees(&mut op, &request, env, task)?;
        let step = Step {
            name: kept.failed.label.clone(),
            place: String::new(),
            op: Op::Workdir(WorkdirOp { path: "/".to_owned(), user: String::new() }),
            parent: None,
            reads: Vec::new(),
            args: Default::default(),
            instruction: kept.failed.instruction.clone(),
            span: dockerfile::Span::default(),
            fresh: false,
        };
        let surroundings = Surroundings {
            env,
            request: &request,
            file: &Arc::new(file),
            step: &step,
            trees,
            caches: Default::default(),
            recorder: None,
            parent: kept.record.snapshot,
            origin: Origin::default(),
        };
        let room = RunSandbox::new(&op, kept.top(), &surroundings, task)?;
        let talk = terminal.map_or(CommandStreams::Inherited, CommandStreams::Terminal);
        let args = if with.command.is_empty() { shell(&op) } else { with.command };
        room.run(&op, &surroundings, &args, talk, task)
    }

    /// What the mounts of the command read; mounts that cannot be had are taken out of it.
    fn trees(
        &self,
        op: &mut RunOp,
        request: &Request,
        env: &Env,
        task: &Task,
    ) -> Result<Vec<Option<Arc<Tree>>>> {
        let contexts = Contexts::new(request, env)?;
        let mut trees = Vec::new();
        let mut mounts = Vec::new();
        for mount in std::mem::take(&mut op.mounts) {
            let shown = mount.target.clone().unwrap_or_default();
            let tree = match &mount.kind {
                RunMountKind::Bind { from, .. } | RunMountKind::Cache { from, .. } => {
                    self.tree(from, &contexts, task)
                }
                RunMountKind::Secret { id, .. } if !request.secrets.contains_key(id) => {
                    task.warn(format!("secret {id:?} is not kept: pass it again"));
                    continue;
                }
                RunMountKind::Ssh { id, .. } if !request.ssh.contains_key(id) => {
                    task.warn(format!("ssh agent {id:?} is not kept: pass it again"));
                    continue;
                }
                _ => Ok(None),
            };
            match tree {
                Ok(tree) => {
                    trees.push(tree);
                    mounts.push(mount);
                }
                Err(error) => task.warn(format!("the mount {shown} is left out: {error}")),
            }
        }
        op.mounts = mounts;
        Ok(trees)
    }

    fn tree(&self, from: &From, contexts: &Contexts, task: &Task) -> Result<Option<Arc<Tree>>> {
        let name = match from {
            From::Scratch => return Ok(None),
            From::Context(name) => name,
            From::Read(index) => {
                let id = self.failed.reads.get(*index).copied().flatten();
                let Some(id) = id else { return Ok(None) };
                let stack = self.store.stack(SnapshotId(id)).during("opening a step")?;
                let root = stack.mount().during("mounting a step")?;
                return Ok(Some(Arc::new(Tree::of_step(root, "another step".to_owned()))));
            }
        };
        if !self.failed.contexts.contains_key(name) {
            return Err(Error::NotDirectory { path: format!("the build context {name:?}") });
        }
        contexts.tree(name, task).map(Some)
    }

    /// Its directory in the store.
    pub fn directory(&self) -> &Path {
        &self.record.directory
    }
}
