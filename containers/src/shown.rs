//! Directories of the machine and images that a container sees without changing them.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use image::Platform;
use layers::{Stack, Top};
use runtime::Files;
use rustix::fs::{Mode, OFlags};
use rustix::mount::{OpenTreeFlags, open_tree};
use store::{Active, Store};
use task::Task;

use crate::volume::bind;
use crate::{Error, Result};

/// Where goes what the container writes.
pub(crate) enum Upper<'a> {
    /// Below its directory, until its next start.
    Kept(&'a Path),
    /// Nowhere that lasts longer than what [`mount`] gives.
    Forgotten,
}

/// Mounts that are attached nowhere: they must live until the container has them.
#[derive(Debug, Default)]
pub(crate) struct Shown(Vec<(OwnedFd, Option<Active>)>);

/// Mounts the overlays and images of a container, and adds them to its mounts.
///
/// # Errors
/// [`Error::NoImage`]; [`Error::Store`], [`Error::Layers`]; [`Error::Unsupported`] before Linux 6.15.
pub(crate) fn mount(store: &Store, files: &mut Files, upper: &Upper<'_>) -> Result<Shown> {
    let mut shown = Shown::default();
    for (number, overlay) in std::mem::take(&mut files.overlays).into_iter().enumerate() {
        let lower = Stack { lower: vec![overlay.source], ..nothing() };
        let path = shown.add(store, lower, Some((upper, format!("overlay-{number}"))))?;
        files.mounts.push(bind(path, overlay.target, false));
    }
    for (number, wanted) in std::mem::take(&mut files.images).into_iter().enumerate() {
        let named = match &wanted.found {
            Some(found) => Some(found.clone()),
            None => store.resolve(&wanted.image)?,
        };
        let found = named.ok_or_else(|| Error::NoImage { name: wanted.image.clone() })?;
        let image = store.image(&found, &Platform::host())?;
        let lower = match store.unpack(&image, &Task::silent())? {
            Some(snapshot) => store.stack(snapshot)?,
            None => nothing(),
        };
        let top = wanted.writable.then(|| (upper, format!("image-{number}")));
        let path = shown.add(store, lower, top)?;
        files.mounts.push(bind(path, wanted.target, !wanted.writable));
    }
    Ok(shown)
}

impl Shown {
    /// Mounts a stack; gives a path to it that is good as long as this lives.
    fn add(
        &mut self,
        store: &Store,
        mut stack: Stack,
        top: Option<(&Upper<'_>, String)>,
    ) -> Result<PathBuf> {
        let mut active = None;
        stack.top = match top {
            None => None,
            Some((Upper::Kept(directory), name)) => Some(empty(&directory.join(name))?),
            Some((Upper::Forgotten, _)) => {
                let begun = store.begin()?;
                let top = begun.stack(None)?.top;
                active = Some(begun);
                top
            }
        };
        let root = stack.mount()?;
        let fd = root.open_at(Path::new(""), OFlags::PATH, Mode::empty())?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH;
        let copy = open_tree(&fd, c"", flags).map_err(|errno| Error::Unsupported {
            what: "mounting an image or an overlay",
            reason: format!("it needs Linux 6.15 ({errno})"),
        })?;
        let path = format!("/proc/{}/fd/{}", std::process::id(), copy.as_raw_fd());
        self.0.push((copy, active));
        Ok(path.into())
    }
}

fn nothing() -> Stack {
    Stack { user_xattr: runtime::in_user_namespace(), ..Stack::default() }
}

/// Empty directories for the changes of an overlay.
fn empty(place: &Path) -> Result<Top> {
    match fs::remove_dir_all(place) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        removed => removed.map_err(Error::file("removing", place))?,
    }
    let top = Top { upper: place.join("upper"), work: place.join("work") };
    for directory in [&top.upper, &top.work] {
        fs::create_dir_all(directory).map_err(Error::file("making", directory))?;
    }
    Ok(top)
}
