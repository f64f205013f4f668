//! What is kept of a container between the commands of an engine: a directory each, gone with
//! `delete`.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// No bundle's configuration is larger.
const MAX_SPEC: u64 = 16 << 20;

/// The file whose being there says that the program was not started yet.
pub(crate) const GATE: &str = "gate";

/// A container as `state.json` in its directory has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StateFile {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) rootfs: PathBuf,
    /// First process, as this process sees it.
    pub(crate) pid: u32,
    /// When it started, in ticks since boot: another process may get its number.
    pub(crate) birth: u64,
    /// When the container was made, in RFC 3339.
    pub(crate) created: String,
    pub(crate) cgroups: Vec<PathBuf>,
    pub(crate) spec: Spec,
}

/// Reads a JSON document of a bounded size.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let file = fs::File::open(path).map_err(Error::system("opening", path))?;
    let mut text = Vec::new();
    file.take(MAX_SPEC).read_to_end(&mut text).map_err(Error::system("reading", path))?;
    serde_json::from_slice(&text)
        .map_err(|error| Error::invalid(path.display().to_string(), error.to_string()))
}

/// Makes the directory of a new container.
pub(crate) fn make(root: &Path, id: &str) -> Result<PathBuf> {
    fs::create_dir_all(root).map_err(Error::system("making", root))?;
    let directory = root.join(id);
    let made = fs::DirBuilder::new().mode(0o700).create(&directory);
    match made {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(Error::invalid("id", format!("container {id} already exists")))
        }
        made => made.map(|()| directory.clone()).map_err(Error::system("making", directory)),
    }
}

impl StateFile {
    pub(crate) fn read(root: &Path, id: &str) -> Result<StateFile> {
        let directory = root.join(id);
        let file = directory.join("state.json");
        if id.is_empty() || id.contains('/') || id.starts_with('.') || !file.exists() {
            let source = std::io::ErrorKind::NotFound.into();
            return Err(Error::NoContainer { path: directory, source });
        }
        read_json(&file)
    }

    pub(crate) fn write(&self, directory: &Path) -> Result<()> {
        let json =
            serde_json::to_vec(self).map_err(|error| Error::invalid("state", error.to_string()))?;
        let (new, path) = (directory.join("state.json.new"), directory.join("state.json"));
        let mut options = fs::File::options();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)
            .map_err(Error::system("writing", &new))?;
        file.write_all(&json).map_err(Error::system("writing", &new))?;
        fs::rename(&new, &path).map_err(Error::system("writing", path))
    }

    /// Whether its first process is there, and no zombie.
    pub(crate) fn lives(&self) -> bool {
        birth(self.pid).is_some_and(|birth| birth == self.birth)
    }
}

/// When a process started, if it runs.
pub(crate) fn birth(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything. The state is the first field after it.
    let fields: Vec<&str> = stat.rsplit(") ").next()?.split(' ').collect();
    match fields.first() {
        Some(&("Z" | "X")) | None => None,
        Some(_) => fields.get(19)?.parse().ok(),
    }
}
