//! Finding containers and what they are doing.

use std::path::Path;

use runtime::{ExitStatus, State, Status};
use store::{ContainerRecord, Store};
use task::Fault;

use crate::create::reserved;
use crate::record::{Record, WORKING};
use crate::{Error, Result};

/// The containers of a store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Containers {
    store: Store,
}

/// What kind of container it is: all have a root file system with changes on top of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It has a program, which is run and watched.
    Program,
    /// Commands change it one after the other until it becomes an image.
    Working,
    /// What a failing step of a build left.
    Failure,
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It has not been started.
    Created,
    /// Its program runs.
    Running,
    /// Its program runs and gets no time.
    Paused,
    /// Its program runs, and a command that stops it waits for its end.
    Stopping,
    /// Its program ended and is about to be started again.
    Restarting,
    /// Its program ended.
    Exited,
    /// The process that watched it was killed: how the program ended is not known.
    Dead,
}

impl Phase {
    /// All of them.
    pub const ALL: [Phase; 7] = [
        Phase::Created,
        Phase::Running,
        Phase::Paused,
        Phase::Stopping,
        Phase::Restarting,
        Phase::Exited,
        Phase::Dead,
    ];

    /// The word used in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Created => "created",
            Phase::Running => "running",
            Phase::Paused => "paused",
            Phase::Stopping => "stopping",
            Phase::Restarting => "restarting",
            Phase::Exited => "exited",
            Phase::Dead => "dead",
        }
    }
}

/// One container, as it was when it was looked at.
#[derive(Debug, Clone)]
pub struct Container {
    pub(crate) store: Store,
    pub(crate) row: ContainerRecord,
    record: Record,
    state: Option<State>,
}

impl Containers {
    /// Those of a store.
    pub fn new(store: Store) -> Containers {
        Containers { store }
    }

    /// The store they are in.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// All containers, oldest first. Nothing is changed.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Document`], [`Error::File`].
    pub fn list(&self) -> Result<Vec<Container>> {
        let mut all = Vec::new();
        for row in self.store.containers()? {
            match Container::read(&self.store, row.clone()) {
                Ok(container) => all.push(container),
                // Removed since it was listed.
                Err(_) if !row.directory.exists() => {}
                Err(error) => return Err(error),
            }
        }
        all.sort_by_key(|container| (container.row.created, container.record.made));
        Ok(all)
    }

    /// The container with this name, this id, or an id that alone begins so.
    ///
    /// # Errors
    /// The beginning is ambiguous; as [`Containers::list`].
    pub fn find(&self, name: &str) -> Result<Option<Container>> {
        match self.store.container(name) {
            Ok(row) => Container::read(&self.store, row).map(Some),
            Err(error) if error.kind() == task::Kind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// As [`Containers::find`], and it must be there.
    ///
    /// # Errors
    /// [`Error::NoContainer`]; as [`Containers::find`].
    pub fn get(&self, name: &str) -> Result<Container> {
        self.find(name)?.ok_or_else(|| Error::NoContainer { name: name.to_owned() })
    }
}

impl Container {
    pub(crate) fn read(store: &Store, row: ContainerRecord) -> Result<Container> {
        let record = Record::read(&row.directory)?;
        let state = runtime::state(&row.directory).ok();
        Ok(Container { store: store.clone(), row, record, state })
    }

    /// The same container as it is now.
    ///
    /// # Errors
    /// [`Error::NoContainer`] where it is gone.
    pub fn again(&self) -> Result<Container> {
        Containers::new(self.store.clone()).get(self.id())
    }

    /// The id: 64 hexadecimal digits.
    pub fn id(&self) -> &str {
        &self.row.id
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.row.name
    }

    /// What the store knows of it.
    pub fn row(&self) -> &ContainerRecord {
        &self.row
    }

    /// Bytes that its changes take, without what it printed.
    pub fn written(&self) -> u64 {
        let log = |name: &str| {
            std::fs::metadata(self.directory().join(name)).map_or(0, |file| file.len())
        };
        self.store.container_bytes(&self.row).saturating_sub(log("log") + log("log.1"))
    }

    /// The images that it needs: the one it was made of, and those that it mounts.
    pub fn images(&self) -> impl Iterator<Item = image::Digest> {
        let mounted = self.record.spec.files.images.iter();
        let mounted = mounted.filter_map(|mount| mount.found.as_ref());
        self.row.image.iter().chain(mounted).map(|image| image.digest)
    }

    /// What was asked for.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// What its monitor wrote last; nothing before the first start.
    pub fn state(&self) -> Option<&State> {
        self.state.as_ref()
    }

    /// The store it is in.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// How often it was started again by its policy.
    pub fn restarts(&self) -> u32 {
        crate::ended::restarts(self.directory())
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        &self.row.directory
    }

    /// Which kind of container it is.
    pub fn kind(&self) -> Kind {
        let has = |file: &str| self.row.directory.join(file).exists();
        match () {
            () if has(WORKING) => Kind::Working,
            () if has("failed.json") => Kind::Failure,
            () => Kind::Program,
        }
    }

    /// Where it is in its life.
    pub fn phase(&self) -> Phase {
        let Some(state) = &self.state else { return Phase::Created };
        match state.status {
            Status::Created => Phase::Created,
            Status::Running if crate::pause::is_frozen(self.directory()) => Phase::Paused,
            Status::Running if crate::ended::is_stopping(self.directory()) => Phase::Stopping,
            Status::Running => Phase::Running,
            Status::Exited if crate::ended::restarting(self.directory()) => Phase::Restarting,
            Status::Exited => Phase::Exited,
            Status::Dead => Phase::Dead,
        }
    }

    /// Whether its program runs.
    pub fn is_running(&self) -> bool {
        matches!(self.phase(), Phase::Running | Phase::Paused | Phase::Stopping)
    }

    /// Whether its program works; nothing where that is not checked, or it does not run.
    pub fn health(&self) -> Option<runtime::Health> {
        runtime::health(self.directory()).filter(|_| self.is_running())
    }

    /// How it ended, if it did.
    pub fn exit(&self) -> Option<ExitStatus> {
        self.state.as_ref().and_then(|state| state.exit)
    }

    /// Whether it is abandoned: its `run` was killed before it started the container, or it is to
    /// be removed when it ends, and has ended.
    pub(crate) fn is_debris(&self) -> bool {
        match self.phase() {
            Phase::Created => reserved(self.directory()) == Some(false),
            Phase::Exited | Phase::Dead => self.record.spec.lifecycle.remove,
            Phase::Running | Phase::Paused | Phase::Stopping | Phase::Restarting => false,
        }
    }
}
