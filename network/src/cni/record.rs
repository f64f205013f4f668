//! What is known of containers on networks of CNI, on the disk: what has to be undone if the process
//! that holds the network of a container is killed.
//!
//! That process has a lock on the record. A record without one is of a killed process.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::call::PluginCall;
use crate::lease::Lease;

/// The directory of records, beside the networks.
const PLACE: &str = ".cni";
const RECORD: &str = "json";
const RESULT: &str = "result";
/// How long plugins may take to let go of a container, and how long to sleep between two looks.
const PATIENCE: Duration = Duration::from_secs(10);
const NAP: Duration = Duration::from_millis(10);

/// The result of the plugins' `ADD`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct AddResult {
    /// The result of the last plugin.
    pub(super) result: Value,
    /// The same as we show it.
    pub(super) lease: Lease,
}

/// A record that this process has.
#[derive(Debug)]
pub(super) struct CniRecord {
    path: PathBuf,
    _lock: File,
}

fn place(networks: &Path) -> PathBuf {
    networks.join(PLACE)
}

impl CniRecord {
    /// Writes down what is about to be done.
    pub(super) fn new(networks: &Path, call: &PluginCall) -> io::Result<CniRecord> {
        let place = place(networks);
        std::fs::create_dir_all(&place)?;
        let name = format!("{}.{}", call.container, call.interface);
        let path = place.join(format!("{name}.{RECORD}"));
        let new = place.join(format!("{name}.new"));
        let file = File::create(&new)?;
        // Nobody sees it before it is locked.
        rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
        serde_json::to_writer(&file, call)?;
        let _ = std::fs::remove_file(path.with_extension(RESULT));
        std::fs::rename(&new, &path)?;
        Ok(CniRecord { path, _lock: file })
    }

    /// The record of a container and a device, if the process that had it is gone.
    pub(super) fn take(
        networks: &Path,
        container: &str,
        interface: &str,
    ) -> Option<(CniRecord, PluginCall)> {
        let path = place(networks).join(format!("{container}.{interface}.{RECORD}"));
        CniRecord::open(path)
    }

    /// A record that nobody has.
    fn open(path: PathBuf) -> Option<(CniRecord, PluginCall)> {
        let file = File::open(&path).ok()?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
        // A container that was started meanwhile has a record of the same name.
        let (own, now) = (file.metadata().ok()?, std::fs::metadata(&path).ok()?);
        if (own.dev(), own.ino()) != (now.dev(), now.ino()) {
            return None;
        }
        let call = serde_json::from_reader(io::BufReader::new(&file)).ok()?;
        Some((CniRecord { path, _lock: file }, call))
    }

    /// Writes down what the plugins answered.
    pub(super) fn added(&self, added: &AddResult) -> io::Result<()> {
        let new = self.path.with_extension("added");
        std::fs::write(&new, serde_json::to_vec(added)?)?;
        std::fs::rename(new, self.path.with_extension(RESULT))
    }

    /// What the plugins answered, if they all have.
    pub(super) fn result(&self) -> Option<AddResult> {
        read(&self.path)
    }

    /// Forgets it: all is undone.
    pub(super) fn remove(&self) {
        for path in [self.path.with_extension(RESULT), self.path.clone()] {
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::debug!(%error, path = %path.display(), "a record is left");
            }
        }
    }
}

fn read(record: &Path) -> Option<AddResult> {
    serde_json::from_slice(&std::fs::read(record.with_extension(RESULT)).ok()?).ok()
}

/// The records of networks beside these.
fn all(networks: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(place(networks)).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths.filter(|path| path.extension().is_some_and(|ending| ending == RECORD))
}

/// The records of a container.
fn of(networks: &Path, container: &str) -> impl Iterator<Item = PathBuf> {
    all(networks).filter(move |path| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.and_then(|name| name.strip_prefix(container)).is_some_and(|rest| rest.starts_with('.'))
    })
}

/// Waits until the process of an earlier life of a container has taken it off its networks.
pub(super) fn wait(networks: &Path, container: &str) {
    for path in of(networks, container) {
        let Ok(file) = File::open(&path) else { continue };
        let mut left = PATIENCE;
        let lock = || rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared);
        while lock().is_err() && !left.is_zero() {
            std::thread::sleep(NAP);
            left = left.saturating_sub(NAP);
        }
    }
}

/// The records that nobody has any more.
pub(super) fn left(networks: &Path) -> Vec<(CniRecord, PluginCall)> {
    all(networks).filter_map(CniRecord::open).collect()
}

/// The places of a container on networks of CNI, while a process holds them.
pub fn leases(networks: &Path, container: &str) -> Vec<Lease> {
    let held = |path: &PathBuf| {
        let Ok(file) = File::open(path) else { return false };
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_err()
    };
    let places = of(networks, container).filter(held);
    places.filter_map(|path| Some(read(&path)?.lease)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::config::Configuration;
    use super::*;

    #[test]
    fn a_record_is_taken_only_from_a_process_that_is_gone() {
        let networks = tempfile::tempdir().unwrap();
        let configuration = Configuration {
            name: "net".to_owned(),
            version: "1.0.0".to_owned(),
            unchecked: false,
            plugins: Vec::new(),
        };
        let call = PluginCall {
            configuration,
            directories: Vec::new(),
            container: "one".to_owned(),
            interface: "eth0".to_owned(),
            wanted: serde_json::Map::new(),
            arguments: String::new(),
        };
        let first = CniRecord::new(networks.path(), &call).unwrap();
        assert!(left(networks.path()).is_empty());
        // The container is started again under the same name.
        let later = CniRecord::new(networks.path(), &call).unwrap();
        drop(first);
        assert!(left(networks.path()).is_empty());
        drop(later);
        let found = left(networks.path());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].1.container, "one");
        found[0].0.remove();
        assert!(left(networks.path()).is_empty());
    }
}
