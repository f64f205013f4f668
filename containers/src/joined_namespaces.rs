//! Namespaces of other containers that a container is in.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use runtime::{ContainerSpec, IdMaps, Ids, Isolation, Join, Namespace, OthersMount};
use store::Store;

use crate::uplink::running;
use crate::volume::bind;
use crate::{Error, Result};

/// The namespaces of others that a container joins. They must stay open until it has started.
#[derive(Debug, Default)]
pub struct JoinedNamespaces {
    namespaces: Vec<File>,
    memory: Option<OthersMount>,
}

/// Finds the process, ipc and host name namespaces that a container joins, and the memory that goes
/// with ipc.
///
/// # Errors
/// [`Error::NoContainer`], [`Error::NotRunning`]; a namespace cannot be opened.
pub fn resolve(spec: &mut ContainerSpec, store: &Store) -> Result<JoinedNamespaces> {
    let mut held = JoinedNamespaces::default();
    let shared = match &spec.isolation.ipc {
        Some(Namespace::Join(Join::Container(name))) => Some(running(name, store)?),
        _ => None,
    };
    let isolation = &mut spec.isolation;
    let wanted =
        [("pid", &mut isolation.pid), ("ipc", &mut isolation.ipc), ("uts", &mut isolation.uts)];
    for (kind, namespace) in wanted {
        let Some(Namespace::Join(join)) = namespace else { continue };
        let (path, name) = match &*join {
            Join::Path(path) => (path.clone(), path.display().to_string()),
            Join::Container(name) => {
                let pid = running(name, store)?;
                (PathBuf::from(format!("/proc/{pid}/ns/{kind}")), name.clone())
            }
        };
        let file = open(&path, kind, &name)?;
        *namespace = Some(Namespace::Join(Join::Path(path_of(&file))));
        held.namespaces.push(file);
    }
    held.namespaces.extend(join_user(&mut spec.isolation, store)?);
    if let Some(pid) = shared {
        let target = PathBuf::from("/dev/shm");
        let named = |target: &Path| spec.files.mounts.iter().any(|one| one.target() == target);
        if !named(&target) {
            let memory = OthersMount::of(pid, c"/dev/shm")?;
            spec.files.mounts.push(bind(memory.path(), target, false));
            held.memory = Some(memory);
        }
    }
    Ok(held)
}

/// Finds the ids of a container that is in the user namespace of another one. Who has none of its own is in
/// that of this program.
fn join_user(isolation: &mut Isolation, store: &Store) -> Result<Option<File>> {
    let Some(Ids::Join(join)) = &isolation.ids else { return Ok(None) };
    let (path, name) = match join {
        Join::Path(path) => (path.clone(), path.display().to_string()),
        Join::Container(name) => {
            (PathBuf::from(format!("/proc/{}/ns/user", running(name, store)?)), name.clone())
        }
    };
    let file = open(&path, "user", &name)?;
    let own = std::fs::metadata("/proc/self/ns/user").and_then(|own| Ok((own, file.metadata()?)));
    let (own, other) = own.map_err(Error::file("examining", &path))?;
    if (own.dev(), own.ino()) == (other.dev(), other.ino()) {
        isolation.ids = None;
        return Ok(None);
    }
    let path = path_of(&file);
    isolation.ids = Some(Ids::Maps(IdMaps::of_namespace(&path)?));
    isolation.user = Some(path);
    Ok(Some(file))
}

fn open(path: &Path, what: &'static str, name: &str) -> Result<File> {
    File::open(path).map_err(|source| match runtime::in_user_namespace() {
        true => Error::Unshared { what, name: name.to_owned(), source },
        false => Error::file("opening", path)(source),
    })
}

/// A path that means this file as long as this process has it open.
fn path_of(file: &File) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()).into()
}
