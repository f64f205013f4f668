//! What happened to containers and volumes: one file of JSON lines for the whole store.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A larger file becomes the older one; there is one older file.
const MAX: u64 = 8 << 20;

/// Something that happened.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// Seconds since 1970.
    pub time: f64,
    /// `container` or `volume`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `create`, `start`, `die`, …
    pub action: String,
    /// The object of the event: an id, or the name of a volume.
    pub id: String,
    /// Its name, its image, its exit code, its labels.
    pub attributes: BTreeMap<String, String>,
}

/// The file of a store, and the older one.
pub(crate) fn files(store: &Path) -> [PathBuf; 2] {
    [store.join("events.1"), store.join("events")]
}

/// Records an event. A failure to record does not stop the operation.
pub(crate) fn note(store: &Path, event: &Event) {
    let [older, path] = files(store);
    let append = || -> std::io::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        let mut file = File::options().create(true).append(true).open(&path)?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)?;
        if file.metadata()?.len() > MAX {
            std::fs::rename(&path, &older)?;
            file = File::options().create(true).append(true).open(&path)?;
        }
        file.write_all(&line)
    };
    if let Err(error) = append() {
        tracing::debug!(%error, "an event is not written down");
    }
}

/// The events in a file from a place on, and the place after them.
fn read(path: &Path, from: u64) -> (Vec<Event>, u64) {
    use std::io::{BufRead, BufReader, Seek, SeekFrom};
    let (mut events, mut at) = (Vec::new(), from);
    let Ok(mut file) = File::open(path) else { return (events, from) };
    if file.seek(SeekFrom::Start(from)).is_err() {
        return (events, from);
    }
    let mut file = BufReader::new(file);
    let mut line = Vec::new();
    while file.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) && line.ends_with(b"\n") {
        at += line.len() as u64;
        events.extend(serde_json::from_slice::<Event>(&line));
        line.clear();
    }
    (events, at)
}

/// How long to sleep between two looks at the file.
const NAP: std::time::Duration = std::time::Duration::from_millis(100);

impl crate::Containers {
    /// Tells what happened between two moments (seconds since 1970), and goes on until the second.
    /// Without a first, only what happens from now on; without a second, without end.
    ///
    /// # Errors
    /// [`crate::Error::Cancelled`]
    pub fn events(
        &self,
        since: Option<f64>,
        until: Option<f64>,
        task: &task::Task,
        each: &mut dyn FnMut(Event),
    ) -> crate::Result<()> {
        let [older, path] = files(self.store().path());
        let now = crate::ended::now();
        let since = since.or(until.filter(|until| *until <= now).map(|_| 0.0)).unwrap_or(now);
        let wanted =
            |event: &Event| event.time >= since && until.is_none_or(|until| event.time <= until);
        read(&older, 0).0.into_iter().filter(&wanted).for_each(&mut *each);
        let mut at = 0;
        loop {
            let over = until.is_some_and(|until| crate::ended::now() > until);
            if std::fs::metadata(&path).is_ok_and(|file| file.len() < at) {
                // It was moved away and started again.
                at = 0;
            }
            let (events, next) = read(&path, at);
            at = next;
            events.into_iter().filter(&wanted).for_each(&mut *each);
            if over {
                return Ok(());
            }
            task.check()?;
            std::thread::sleep(NAP);
        }
    }
}

impl crate::Container {
    /// Writes down that something happened to it.
    pub(crate) fn note(&self, action: &str, more: &[(&str, String)]) {
        let record = self.record();
        let mut attributes = record.spec.lifecycle.labels.clone();
        attributes.insert("name".to_owned(), self.name().to_owned());
        attributes.insert("image".to_owned(), record.image.clone());
        attributes.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        let event = Event {
            time: crate::ended::now(),
            kind: "container".to_owned(),
            action: action.to_owned(),
            id: self.id().to_owned(),
            attributes,
        };
        note(self.store.path(), &event);
    }
}

impl Event {
    /// Whether it meets conditions on `type`, `event`, `container`, `image`, `volume`, `label` and `scope`:
    /// those of one key are alternatives, those of several keys must all hold, and so must all labels.
    pub fn meets(&self, filters: &[(&str, &str)]) -> bool {
        filters.iter().all(|(key, value)| {
            let same = || filters.iter().filter(|(other, _)| other == key && *key != "label");
            self.is(key, value) || same().any(|(key, value)| self.is(key, value))
        })
    }

    fn is(&self, key: &str, value: &str) -> bool {
        let attribute = |key: &str| self.attributes.get(key).map(String::as_str);
        match key {
            "type" => self.kind == value,
            "event" => {
                // `health_status` means every health, `died` is podman's word.
                let word = if value == "died" { "die" } else { value };
                self.action == word || self.action.split(": ").next() == Some(word)
            }
            "container" => {
                self.kind == "container"
                    && (self.id.starts_with(value) || attribute("name") == Some(value))
            }
            "volume" => self.kind == "volume" && self.id == value,
            "image" => attribute("image") == Some(value),
            "scope" => value == "local",
            _ => match value.split_once('=') {
                Some((label, wanted)) => attribute(label) == Some(wanted),
                None => attribute(value).is_some(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_of_one_key_are_alternatives() {
        let attributes = BTreeMap::from([("name", "web"), ("app", "x"), ("image", "nginx")]);
        let attributes =
            attributes.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let event = Event {
            kind: "container".to_owned(),
            action: "health_status: healthy".to_owned(),
            id: "abc".to_owned(),
            attributes,
            time: 1.0,
        };
        for (filters, meets) in [
            (&[("event", "start"), ("event", "health_status")][..], true),
            (&[("event", "start"), ("container", "web")], false),
            (&[("container", "db"), ("container", "ab")], true),
            (&[("label", "app=x"), ("label", "other")], false),
            (&[("volume", "abc")], false),
            (&[("image", "nginx"), ("type", "container"), ("scope", "local")], true),
        ] {
            assert_eq!(event.meets(filters), meets, "{filters:?}");
        }
    }
}
