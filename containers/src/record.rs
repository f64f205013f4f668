//! What is kept of a container: `container.json`.

use std::path::{Path, PathBuf};

use runtime::{ContainerSpec, Signal};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The document.
pub(crate) const RECORD: &str = "container.json";
/// What a working container has in its place.
pub(crate) const WORKING: &str = "working.json";
/// What older versions wrote in its place.
const ABOUT: &str = "about.json";
/// The version of the document this program writes.
const VERSION: u32 = 1;

/// What was asked of a container when it was made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// The version of this document.
    pub version: u32,
    /// When it was made, in nanoseconds since 1970; 0 where that is known in seconds only.
    pub made: u64,
    /// The image as it was named.
    pub image: String,
    /// Program and arguments, those of the image included.
    pub command: Vec<String>,
    /// The signal that the image wants to be stopped by.
    pub image_stop_signal: Option<Signal>,
    /// Everything that was asked for.
    pub spec: ContainerSpec,
    /// Its volumes, by name: those asked for, and those that the image declares.
    pub volumes: Vec<MountedVolume>,
}

/// A volume of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountedVolume {
    /// The volume.
    pub volume: String,
    /// Absolute path in the container.
    pub target: PathBuf,
    /// Whether writing is refused.
    #[serde(default)]
    pub read_only: bool,
    /// As those of [`runtime::VolumeMount`].
    #[serde(default)]
    pub options: Vec<String>,
    /// Whether it gets the user as owner at each start.
    #[serde(default)]
    pub given: bool,
    /// Whether it was made for this container alone and has no name of the user's.
    #[serde(default)]
    pub anonymous: bool,
}

/// The record of a container as versions before 0.2.0 wrote it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct LegacyRecord {
    image: String,
    command: Vec<String>,
    stop_signal: Option<serde_json::Value>,
    labels: std::collections::BTreeMap<String, String>,
    remove: bool,
}

impl Record {
    /// With the version that is written now.
    pub(crate) fn new() -> Record {
        Record { version: VERSION, ..Record::default() }
    }

    /// Reads the record of the container in a directory; an empty one where there is none.
    pub(crate) fn read(directory: &Path) -> Result<Record> {
        let path = directory.join(RECORD);
        match std::fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|source| Error::Document { path, source })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => older(directory),
            Err(error) => Err(Error::file("reading", &path)(error)),
        }
    }

    /// As JSON.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        // Strings, numbers, lists and tables with names for keys: nothing that JSON cannot hold.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Replaces the record in one step.
    pub(crate) fn write(&self, directory: &Path) -> Result<()> {
        let (new, path) = (directory.join("container.json.new"), directory.join(RECORD));
        std::fs::write(&new, self.bytes()).map_err(Error::file("writing", &new))?;
        std::fs::rename(&new, &path).map_err(Error::file("writing", &path))
    }

    /// The signal that asks it to stop.
    pub fn stop_signal(&self) -> Signal {
        self.spec.lifecycle.stop_signal.or(self.image_stop_signal).unwrap_or(Signal::TERM)
    }
}

fn older(directory: &Path) -> Result<Record> {
    let path = directory.join(ABOUT);
    let about: LegacyRecord = match std::fs::read(&path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map_err(|source| Error::Document { path, source })?
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => LegacyRecord::default(),
        Err(error) => return Err(Error::file("reading", &path)(error)),
    };
    let mut record = Record { image: about.image, ..Record::default() };
    record.spec.process.entrypoint = Some(Vec::new());
    record.spec.process.command.clone_from(&about.command);
    record.command = about.command;
    record.spec.lifecycle.labels = about.labels;
    record.spec.lifecycle.remove = about.remove;
    record.spec.lifecycle.stop_signal = about.stop_signal.as_ref().and_then(signal);
    Ok(record)
}

/// A signal as older versions and images write it: a number or a name, perhaps quoted.
fn signal(value: &serde_json::Value) -> Option<Signal> {
    match value {
        serde_json::Value::Number(number) => Some(Signal(i32::try_from(number.as_i64()?).ok()?)),
        serde_json::Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_record_is_read() {
        let place = tempfile::tempdir().unwrap();
        let text = r#"{"image":"app","command":["sh","-c","x"],"stopSignal":"SIGINT","labels":{"a":"1"},"remove":true}"#;
        std::fs::write(place.path().join(ABOUT), text).unwrap();
        let record = Record::read(place.path()).unwrap();
        assert_eq!((record.image.as_str(), record.command.len()), ("app", 3));
        assert_eq!(record.stop_signal(), Signal::INT);
        assert!(record.spec.lifecycle.remove && record.spec.lifecycle.labels["a"] == "1");
        let nothing = tempfile::tempdir().unwrap();
        assert_eq!(Record::read(nothing.path()).unwrap().stop_signal(), Signal::TERM);
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let place = tempfile::tempdir().unwrap();
        let mut record = Record::new();
        record.spec.limits.memory = Some(1 << 20);
        record.image_stop_signal = Some(Signal(3));
        record.volumes = vec![MountedVolume {
            volume: "data".to_owned(),
            target: "/data".into(),
            read_only: true,
            options: vec!["noexec".to_owned()],
            given: true,
            anonymous: false,
        }];
        std::fs::write(place.path().join(RECORD), record.bytes()).unwrap();
        assert_eq!(Record::read(place.path()).unwrap(), record);
        std::fs::write(place.path().join(RECORD), "junk").unwrap();
        assert!(Record::read(place.path()).is_err());
    }
}
