//! Working containers: a root file system and a configuration that commands change one by one,
//! until they become an image. What `from`, `copy`, `add`, `config`, `run` and `commit` work on.
//!
//! A working container is a container of the store with a file `STATE` in its directory. It is
//! there from the first moment, so that a container that was begun is either whole or garbage;
//! later it is replaced by renaming. Commands that change a container wait for each other.

mod command_root;
mod commit;
mod config;
pub mod edits;
mod files;
mod import;
mod linked;
mod mount_from;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use image::{Config, History, Image, Platform, Reference};
use layers::{Root, Stack};
use runtime::{ContainerSpec, Isolation};
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use rustix::mount::{MoveMountFlags, UnmountFlags, move_mount, unmount};
use serde::{Deserialize, Serialize};
use store::{ContainerRecord, Store};
use task::{Fault, Kind, Task};

pub use command_root::CommandRoot;
pub use commit::{Commit, commit};
pub use config::{ConfigChanges, ConfigError};
pub use files::{Files, GitAccess, Source, copy};
pub use import::{Import, import};
pub use linked::LinkedCopy;
pub use mount_from::{MountFrom, MountGuard, lend};

use crate::container_file::{CONTAINER_FILE, container_file};
use crate::error::ErrorContext;
use crate::ids;
use crate::images;
use crate::inputs::{InputRules, Inputs};
use crate::plan::ImageKey;
use crate::step::mounts;
use crate::{Context, Env, Error, Pull, Request, Result, SourceFile};

/// What makes a container of the store a working container.
const STATE: &str = "working.json";
/// Locked by who changes the container.
const LOCK: &str = "working.lock";
/// Where the container's file system shows when it is mounted.
const MERGED: &str = "merged";

/// What is known about a working container besides its files.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct State {
    /// The image it was made from, as its name was resolved; empty for `scratch`.
    pub image: String,
    /// The configuration that the image will have; its history is the base's.
    pub config: Config,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// Annotations that the image must not get although they come by themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unset_annotations: Vec<String>,
    /// What was done, for the history: entries without a layer, oldest first.
    pub history: Vec<History>,
    /// The command in the history of the layer (`--created-by`).
    pub created_by: Option<String>,
    /// The comment the history has on the layer.
    pub history_comment: Option<String>,
    /// The comment on the image, which only Docker's configurations have.
    pub comment: Option<String>,
    /// Whether the image has Docker's media types unless `commit` says otherwise.
    pub docker: bool,
    /// Files that become layers of their own, the lowest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<LinkedCopy>,
    /// How commands run in it. Older records have `settings` instead.
    #[serde(default)]
    pub spec: ContainerSpec,
    /// The same in an older record: the flags of the command line by their names.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub settings: serde_json::Value,
}

/// A working container.
#[derive(Debug)]
pub struct WorkingContainer {
    store: Store,
    record: ContainerRecord,
    /// See [`State`]; [`WorkingContainer::save`] keeps changes.
    pub state: State,
    /// Where things are mounted in it, relative to its root: what is empty there is no change.
    pub mounted_on: Vec<PathBuf>,
    /// How its files' owners on the disk differ from those that its image gets.
    pub owners: Option<layers::OwnerMap>,
    _lock: Option<File>,
}

/// What to begin a working container with.
#[derive(Debug, Clone)]
pub struct BeginOptions {
    /// The image: a name as after `FROM`, an id, `scratch`, or `transport:…`.
    pub image: String,
    /// The id of the container: 64 random hexadecimal digits.
    pub id: String,
    /// Its name; without one it is called after the image.
    pub name: Option<String>,
    /// What follows the image in that name; `working-container` if it is not given.
    pub suffix: Option<String>,
    /// What the image of an archive or a directory is called, if that does not come from its path.
    pub called: LocalImageName,
    /// What it is for.
    pub platform: Platform,
    /// When to pull the image.
    pub pull: Pull,
    /// See [`State::docker`].
    pub docker: bool,
    /// See [`State::spec`].
    pub spec: ContainerSpec,
}

/// How a container is named after an image that is in no registry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum LocalImageName {
    /// As its path says.
    #[default]
    ByPath,
    /// By the name it has in its archive: a full reference, under which the store keeps it, too.
    Image(String),
    /// Not at all: containers are called after the transport.
    Transport(String),
}

/// Makes a working container.
///
/// # Errors
/// The image cannot be had; the name is taken.
pub async fn create(wish: &BeginOptions, env: &Env, task: &Task) -> Result<WorkingContainer> {
    let task = Arc::new(task.child(format!("from {}", wish.image)));
    let mut state = State { docker: wish.docker, spec: wish.spec.clone(), ..State::default() };
    let mut word = wish.suffix.clone().unwrap_or_else(|| "working-container".to_owned());
    let (mut image, mut snapshot) = (None, None);
    if wish.image == "scratch" {
        state.config.architecture.clone_from(&wish.platform.architecture);
        state.config.os.clone_from(&wish.platform.os);
        state.config.variant.clone_from(&wish.platform.variant);
    } else {
        let base = base(&wish.image, &wish.platform, wish.pull, env, &task).await?;
        snapshot = images::unpack(env, &base, &task).await?;
        images::fetch(env, &base, &task).await?;
        let name = match &wish.called {
            LocalImageName::Image(name) => Some(name.as_str()),
            _ => None,
        };
        crate::pulled::keep(&env.store, &base, name)?;
        wish.image.clone_into(&mut state.image);
        match base.name() {
            Some(name) => name.clone_into(&mut state.image),
            None if base.elsewhere().is_none() => {
                if let Some(name) = name_in(&env.store, base.image.descriptor())? {
                    state.image = name;
                }
            }
            None => {}
        }
        let first = match &wish.called {
            LocalImageName::ByPath => called(&state.image),
            LocalImageName::Image(name) => {
                name.clone_into(&mut state.image);
                called(name)
            }
            LocalImageName::Transport(transport) => transport.clone(),
        };
        word = format!("{first}-{word}");
        state.config = (**base.image.config()).clone();
        state.annotations.clone_from(&base.image.manifest().annotations);
        image = Some(base.image);
    }
    let content = to_json(&state)?;
    let descriptor = image.as_ref().map(Image::descriptor);
    let files: &[(&str, &[u8])] = &[(STATE, &content), (LOCK, b"")];
    let add =
        |name: &str| env.store.add_container_with(&wish.id, name, descriptor, snapshot, files);
    let mut number = 0;
    let record = loop {
        let name = match (&wish.name, number) {
            (Some(name), _) => name.clone(),
            (None, 0) => word.clone(),
            (None, number) => format!("{word}-{number}"),
        };
        match add(&name) {
            Err(store::Error::NameTaken { .. }) if wish.name.is_none() => number += 1,
            added => break added.during(format!("making the working container {name}"))?,
        }
    };
    if let Some(task) = Arc::into_inner(task) {
        task.done();
    }
    Ok(WorkingContainer {
        store: env.store.clone(),
        record,
        state,
        mounted_on: Vec::new(),
        owners: None,
        _lock: None,
    })
}

/// The image a name means, found or fetched.
async fn base(
    name: &str,
    platform: &Platform,
    pull: Pull,
    env: &Env,
    task: &Task,
) -> Result<images::Base> {
    let mut request = Request::new(SourceFile::default(), Context::Empty);
    request.platforms = vec![platform.clone()];
    request.pull = pull;
    let key = ImageKey { name: name.to_owned(), platform: platform.clone() };
    let inputs = Inputs::new(InputRules::default());
    images::resolve(&request, env, &inputs, &key, task).await
}

/// The first name that an image found by its id has in the store.
fn name_in(store: &Store, image: &image::Descriptor) -> Result<Option<String>> {
    let published = store.published().during("reading the names of images")?;
    let mut named = published.into_iter().filter(|root| root.descriptor.digest == image.digest);
    Ok(named.find_map(|root| root.names.into_iter().next()))
}

/// What containers made from an image are called: the last part of its name.
fn called(image: &str) -> String {
    if let Ok(id) = image.parse::<image::Digest>() {
        return id.hex().chars().take(12).collect();
    }
    let last = match image.parse::<Reference>() {
        Ok(reference) => reference.repository.path().rsplit('/').next().map(str::to_owned),
        Err(_) => image.rsplit('/').next().map(str::to_owned),
    };
    let plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let word: String = last.unwrap_or_default().chars().filter(plain).take(64).collect();
    match word.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        true => word,
        false => format!("image{word}"),
    }
}

fn to_json(state: &State) -> Result<Vec<u8>> {
    serde_json::to_vec(state).map_err(|source| Error::Document {
        action: "writing a working container".to_owned(),
        source,
    })
}

/// How long to sleep between two looks at a lock, at most.
const LONGEST_NAP: Duration = Duration::from_millis(50);

impl WorkingContainer {
    /// The working container with this name or id; `None` where there is none, or a container of
    /// another kind.
    ///
    /// # Errors
    /// The beginning of an id is ambiguous; the store cannot be read.
    pub fn find(store: &Store, name: &str) -> Result<Option<WorkingContainer>> {
        match store.container(name) {
            Ok(record) => WorkingContainer::of(store, record),
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            Err(error) => Err(error).during("looking up a working container"),
        }
    }

    /// The working container that a container of the store is, if it is one.
    ///
    /// # Errors
    /// Its state is broken.
    pub fn of(store: &Store, record: ContainerRecord) -> Result<Option<WorkingContainer>> {
        let path = record.directory.join(STATE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::file("reading", path)(error)),
        };
        let state = serde_json::from_slice(&bytes).map_err(Error::document(&path))?;
        Ok(Some(WorkingContainer {
            store: store.clone(),
            record,
            state,
            mounted_on: Vec::new(),
            owners: None,
            _lock: None,
        }))
    }

    /// A container with a program, in a form that can be committed: it has the config of its image,
    /// without the flags of `run`.
    ///
    /// # Errors
    /// Its image cannot be read.
    pub fn of_program(
        store: &Store,
        record: ContainerRecord,
        image: &str,
    ) -> Result<WorkingContainer> {
        let mut state = State { image: image.to_owned(), ..State::default() };
        if let Some(descriptor) = &record.image {
            let base = store.image(descriptor, &Platform::host());
            let base = base.during("reading the image of a container")?;
            state.config = (**base.config()).clone();
            state.annotations.clone_from(&base.manifest().annotations);
        }
        Ok(WorkingContainer {
            store: store.clone(),
            record,
            state,
            mounted_on: Vec::new(),
            owners: None,
            _lock: None,
        })
    }

    /// Whether a container of the store is a working container.
    pub fn is(record: &ContainerRecord) -> bool {
        record.directory.join(STATE).exists()
    }

    /// All working containers, oldest first.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn all(store: &Store) -> Result<Vec<WorkingContainer>> {
        let records = store.containers().during("listing working containers")?;
        let found = records.into_iter().map(|record| WorkingContainer::of(store, record));
        found.filter_map(Result::transpose).collect()
    }

    /// The same, with exclusive access: waits for other writers until the task is cancelled, and
    /// sees their changes.
    ///
    /// # Errors
    /// It is gone meanwhile; [`Error::Cancelled`].
    pub fn lock(self, task: &Task) -> Result<WorkingContainer> {
        let path = self.record.directory.join(LOCK);
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(Error::file("opening", &path))?;
        let mut nap = Duration::from_millis(1);
        loop {
            task.check()?;
            match file.try_lock() {
                Ok(()) => break,
                Err(std::fs::TryLockError::WouldBlock) => {
                    std::thread::sleep(nap);
                    nap = (nap * 2).min(LONGEST_NAP);
                }
                Err(std::fs::TryLockError::Error(error)) => {
                    return Err(Error::file("locking", path)(error));
                }
            }
        }
        let gone = || Error::Gone { what: format!("the container {}", self.record.name) };
        let now = WorkingContainer::find(&self.store, &self.record.id)?.ok_or_else(gone)?;
        Ok(WorkingContainer { _lock: Some(file), ..now })
    }

    /// Notes in the history what was done, as a step of its own without a layer.
    pub fn note(&mut self, created_by: String, env: &Env) {
        let since = (env.clock)().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        self.state.history.push(History {
            created: Some(crate::assemble::rfc3339(seconds)),
            created_by: Some(created_by),
            empty_layer: true,
            ..History::default()
        });
    }

    /// Keeps a changed state: it is replaced in one step.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self) -> Result<()> {
        let path = self.record.directory.join(STATE);
        let new = self.record.directory.join("working.json.new");
        std::fs::write(&new, to_json(&self.state)?).map_err(Error::file("writing", &new))?;
        std::fs::rename(&new, &path).map_err(Error::file("writing", &path))
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.record.id
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.record.name
    }

    /// What the store knows of it.
    pub fn record(&self) -> &ContainerRecord {
        &self.record
    }

    /// The image it was made from; `None` for `scratch`.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn base(&self) -> Result<Option<Image>> {
        let Some(descriptor) = &self.record.image else { return Ok(None) };
        let image = self.store.image(descriptor, &self.state.config.platform());
        image.map(Some).during("reading the image of a working container")
    }

    /// Where it is mounted, if it is.
    pub fn mounted(&self) -> Option<PathBuf> {
        let path = self.record.directory.join(MERGED);
        let found = statx(CWD, &path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty()).ok()?;
        found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT).then_some(path)
    }

    fn stack(&self) -> Result<Stack> {
        self.store.container_stack(&self.record).during("stacking a working container")
    }

    /// Whether it shows its files to commands and host programs with other ids than they have.
    pub(super) fn maps(&self) -> bool {
        self.state.spec.isolation.ids.is_some()
    }

    /// Its file system as its commands and host programs see it.
    fn shown(&self, isolation: &Isolation) -> Result<Stack> {
        let mut isolation = isolation.clone();
        ids::resolve(&mut isolation)?;
        Ok(Stack { ids: ids::map(&isolation)?, ..self.stack()? })
    }

    /// Its file system, to be read and changed; while it is mounted with other ids to be read alone.
    ///
    /// # Errors
    /// It cannot be mounted.
    pub fn root(&self) -> Result<Root> {
        // An overlay must not be mounted a second time over the same changes.
        match self.mounted() {
            Some(_) if self.maps() => still(&self.stack()?).mount(),
            Some(path) => Root::open(&path),
            None => self.stack()?.mount(),
        }
        .during("opening a working container")
    }

    /// Its file system for a command with these mounts. The places of mounts that are not there
    /// are put below the container's own files, so that they do not become part of the image.
    ///
    /// # Errors
    /// It cannot be mounted.
    pub fn ground(&self, spec: &ContainerSpec, working_dir: &str) -> Result<CommandRoot> {
        let list = &spec.files.mounts;
        if let Some(path) = self.mounted() {
            let root = Root::open(&path).during("opening a working container")?;
            let made = mounts::absent(list, &root, working_dir);
            let again = root.try_clone().during("opening a working container")?;
            return Ok(CommandRoot { root: Some(root), _stubs: None, made, again: Some(again) });
        }
        let mut stack = self.shown(&spec.isolation)?;
        let whole = still(&stack);
        let seen = whole.mount().during("mounting a working container")?;
        let stubs = mounts::stubs(&self.store, list, &whole, Some(&seen), working_dir)?;
        drop(seen);
        if let Some(stubs) = &stubs {
            stack.lower.insert(0, stubs.dir().join("fs"));
        }
        let root = stack.mount().during("mounting a working container")?;
        Ok(CommandRoot { root: Some(root), _stubs: stubs, made: Vec::new(), again: None })
    }

    /// Mounts its file system where host programs see it, and gives back where that is.
    ///
    /// # Errors
    /// It cannot be mounted.
    pub fn attach(&self) -> Result<PathBuf> {
        if let Some(path) = self.mounted() {
            return Ok(path);
        }
        let path = self.record.directory.join(MERGED);
        match std::fs::create_dir(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(Error::file("making", path)(error));
            }
            _ => {}
        }
        let stack = self.shown(&self.state.spec.isolation)?;
        let root = stack.mount().during("mounting a working container")?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(root.as_fd(), c"", CWD, &path, flags)
            .map_err(|errno| Error::file("mounting", &path)(errno.into()))?;
        Ok(path)
    }

    /// Takes the mount away; `false` if there was none.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn detach(&self) -> Result<bool> {
        let mut any = false;
        while let Some(path) = self.mounted() {
            unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
                .map_err(|errno| Error::file("unmounting", &path)(errno.into()))?;
            any = true;
        }
        Ok(any)
    }

    /// Removes it, its mount first.
    ///
    /// # Errors
    /// It is in use in a way the kernel does not let go of; the store cannot be written.
    pub fn remove(&self) -> Result<()> {
        self.detach()?;
        self.store.remove_container(&self.record.id).during("removing a working container")?;
        Ok(())
    }

    /// Writes the file by which programs know that they run in a container, and in which; gives
    /// its mount.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn container_file(&self) -> Result<runtime::Mount> {
        let image = self.record.image.as_ref().map(|image| image.digest.hex());
        let image_id = image.unwrap_or_default();
        let text = container_file(self.name(), self.id(), &self.state.image, &image_id);
        let source = self.record.directory.join("containerenv");
        std::fs::write(&source, text).map_err(Error::file("writing", &source))?;
        let mut mount = runtime::Mount::Bind {
            source,
            target: PathBuf::from(CONTAINER_FILE),
            read_only: false,
            recursive: false,
            propagation: runtime::Propagation::Private,
            options: Vec::new(),
        };
        if self.maps() && !runtime::in_user_namespace() {
            ids::mark(&mut mount);
        }
        Ok(mount)
    }

    /// Its directory in the store.
    pub fn directory(&self) -> &Path {
        &self.record.directory
    }
}

/// The same files with the ids of the disk, to be read alone.
fn still(stack: &Stack) -> Stack {
    let mut lower = stack.lower.clone();
    lower.splice(0..0, stack.top.iter().map(|top| top.upper.clone()));
    Stack { lower, top: None, ids: None, ..stack.clone() }
}

#[cfg(test)]
mod tests {
    use super::called;

    #[test]
    fn containers_are_called_after_the_last_part_of_the_image() {
        let cases = [
            ("docker.io/library/debian:12", "debian"),
            (
                "localhost:5000/team/app@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                "app",
            ),
            ("oci:/srv/layouts/tool", "tool"),
            ("8f3a", "8f3a"),
            ("dir:/x/..", "image.."),
        ];
        for (image, word) in cases {
            assert_eq!(called(image), word, "{image}");
        }
    }
}
