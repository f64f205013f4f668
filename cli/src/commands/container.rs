//! A container as the user sees it: the store's record, the runtime's state and what was asked for.

use builder::working::Working;
use runtime::{ExitStatus, Signal, State, Status};
use serde_json::{Value, json};
use store::{ContainerRecord, Store};
use task::{Fault, Kind};

use super::images::ago;
use super::run::PATIENCE;
use crate::flags;
use crate::report::Failure;

/// A container that was found.
pub(crate) struct Found {
    /// What the store knows.
    pub record: ContainerRecord,
    /// What it is doing.
    pub state: Option<State>,
    about: Value,
}

/// The container with this name, id, or beginning of an id.
///
/// # Errors
/// The beginning is ambiguous; the store cannot be read.
pub(crate) fn find(store: &Store, name: &str) -> Result<Option<Found>, Failure> {
    match store.container(name) {
        Ok(record) => Found::new(store, record),
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// As [`find`], and it must be there.
///
/// # Errors
/// It is not there.
pub(crate) fn require(store: &Store, name: &str) -> Result<Found, Failure> {
    find(store, name)?.ok_or_else(|| missing(name))
}

/// As [`require`], and its program must be running.
///
/// # Errors
/// It is not.
pub(crate) fn require_running(store: &Store, name: &str) -> Result<Found, Failure> {
    let found = require(store, name)?;
    if found.is_running() {
        return Ok(found);
    }
    let message = format!("container {name} is not running: {}", found.status());
    Err(Failure::new(Kind::Refused, message))
}

/// There is no such container.
pub(crate) fn missing(name: &str) -> Failure {
    Failure::new(Kind::NotFound, format!("there is no container {name:?}"))
        .hint("`rbuild ps --all` lists what there is")
}

/// All containers, oldest first.
///
/// # Errors
/// The store cannot be read.
pub(crate) fn all(store: &Store) -> Result<Vec<Found>, Failure> {
    let mut found = Vec::new();
    for record in store.containers()? {
        found.extend(Found::new(store, record)?);
    }
    Ok(found)
}

/// A word for names: the last part of an image's name, or of an id.
pub(crate) fn word(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    let end = last.find([':', '@']).unwrap_or(last.len());
    let kept = last[..end].chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-');
    let word: String = kept.take(24).collect();
    if word.starts_with(|c: char| c.is_ascii_alphanumeric()) { word } else { format!("c{word}") }
}

impl Found {
    /// `None` where the container ended and was to be removed then: it is removed now.
    fn new(store: &Store, record: ContainerRecord) -> Result<Option<Found>, Failure> {
        let about = std::fs::read(record.directory.join("about.json")).unwrap_or_default();
        let about: Value = serde_json::from_slice(&about).unwrap_or_default();
        let state = runtime::state(&record.directory).ok();
        let found = Found { record, state, about };
        if found.about["remove"] == true && !found.is_running() && found.state.is_some() {
            store.remove_container(&found.record.id)?;
            return Ok(None);
        }
        Ok(Some(found))
    }

    /// Whether its program runs.
    pub(crate) fn is_running(&self) -> bool {
        self.state.as_ref().is_some_and(|state| state.status == Status::Running)
    }

    /// What it was started from.
    pub(crate) fn image(&self) -> &str {
        self.about["image"].as_str().unwrap_or_default()
    }

    /// Program and arguments on one line.
    pub(crate) fn command(&self) -> String {
        let parts = self.about["command"].as_array().into_iter().flatten();
        parts.filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
    }

    /// `Up 5 seconds`, `Exited (0) 2 minutes ago`.
    pub(crate) fn status(&self) -> String {
        let Some(state) = &self.state else { return "Created".to_owned() };
        let since = |time: f64| {
            let timestamp = jiff::Timestamp::from_millisecond((time * 1000.0) as i64);
            timestamp.map(|time| ago(&time.to_string())).unwrap_or_default()
        };
        match (state.status, state.exit) {
            (Status::Created, _) => "Created".to_owned(),
            (Status::Running, _) => {
                let up = since(state.started);
                format!("Up {}", up.strip_suffix(" ago").unwrap_or(&up))
            }
            (Status::Exited, Some(exit)) => {
                let why =
                    if matches!(exit, ExitStatus::OutOfMemory(_)) { ", out of memory" } else { "" };
                format!(
                    "Exited ({}{why}) {}",
                    exit.code(),
                    since(state.finished.unwrap_or_default())
                )
            }
            (Status::Exited | Status::Dead, _) => "Dead".to_owned(),
        }
    }

    /// The signal that asks it to stop.
    ///
    /// # Errors
    /// The image names one that does not exist.
    pub(crate) fn stop_signal(&self) -> Result<Signal, Failure> {
        match self.about["stopSignal"].as_str() {
            None => Ok(Signal::TERM),
            Some(text) => flags::signal(text).map_err(|why| Failure::new(Kind::Invalid, why)),
        }
    }

    /// Removes the container; a running one only by force.
    ///
    /// # Errors
    /// It is running.
    pub(crate) fn remove(&self, store: &Store, force: bool) -> Result<(), Failure> {
        if self.is_running() {
            if !force {
                return Err(Failure::new(
                    Kind::Refused,
                    format!("container {} is running", self.record.name),
                )
                .hint(format!("stop it first, or `rbuild rm --force {}`", self.record.name)));
            }
            runtime::stop(&self.record.directory, Signal::KILL, PATIENCE)?;
        }
        if let Some(working) = Working::of(store, self.record.clone())? {
            return Ok(working.remove()?);
        }
        store.remove_container(&self.record.id)?;
        Ok(())
    }

    /// Everything about it.
    ///
    /// # Errors
    /// None today; the signature leaves room for what is read lazily.
    pub(crate) fn inspect(&self) -> Result<Value, Failure> {
        let state = self.state.as_ref();
        let time = |seconds: Option<f64>| {
            let millis = (seconds? * 1000.0) as i64;
            Some(jiff::Timestamp::from_millisecond(millis).ok()?.to_string())
        };
        Ok(json!({
            "Id": self.record.id, "Name": self.record.name,
            "Created": time(Some(self.record.created as f64)),
            "Image": self.record.image.as_ref().map(|image| image.digest),
            "ImageName": self.image(), "Args": self.about["command"],
            "State": {
                "Status": state.map_or("created", |state| state.status.as_str()),
                "Running": self.is_running(),
                "Pid": state.map_or(0, |state| state.pid),
                "ExitCode": state.and_then(|state| state.exit).map(ExitStatus::code),
                "OOMKilled": matches!(state.and_then(|state| state.exit), Some(ExitStatus::OutOfMemory(_))),
                "StartedAt": time(state.map(|state| state.started)),
                "FinishedAt": time(state.and_then(|state| state.finished)),
            },
            "Config": {"Labels": self.about["labels"], "Tty": state.is_some_and(|state| state.terminal)},
        }))
    }

    /// One row of `ps`.
    pub(crate) fn row(&self) -> Value {
        json!({
            "ID": self.record.id, "Names": self.record.name, "Image": self.image(),
            "Command": self.command(), "Status": self.status(),
            "State": self.state.as_ref().map_or("created", |state| state.status.as_str()),
            "CreatedAt": self.record.created,
            "Pid": self.state.as_ref().map_or(0, |state| state.pid),
        })
    }
}

/// Cuts text for a column.
pub(crate) fn cut(text: &str, width: usize) -> String {
    match text.chars().count() > width {
        true => text.chars().take(width - 1).chain(['…']).collect(),
        false => text.to_owned(),
    }
}
