//! Directories of the machine and images that a container sees without changing them.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use image::Platform;
use layers::{Stack, Top};
use runtime::{Files, Mount, VolumeMount};
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
pub(crate) struct DetachedMounts(Vec<(OwnedFd, Option<Active>)>);

/// Mounts the overlays and images of a container, and adds them to its mounts.
///
/// # Errors
/// [`Error::NoImage`]; [`Error::Store`], [`Error::Layers`]; [`Error::Unsupported`] before Linux 6.15.
pub(crate) fn mount(
    store: &Store,
    files: &mut Files,
    upper: &Upper<'_>,
    task: &Task,
) -> Result<DetachedMounts> {
    let mut shown = DetachedMounts::default();
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
        let lower = match store.unpack(&image, task)? {
            Some(snapshot) => store.stack(snapshot)?,
            None => nothing(),
        };
        let top = wanted.writable.then(|| (upper, format!("image-{number}")));
        let path = shown.add(store, lower, top)?;
        files.mounts.push(bind(path, wanted.target, !wanted.writable));
    }
    Ok(shown)
}

impl DetachedMounts {
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

/// The paths that a pattern names, sorted: `*` and `?` stand in its last part only. There is one at
/// least.
///
/// # Errors
/// [`Error::Pattern`], [`Error::File`].
pub(crate) fn matching(pattern: &Path) -> Result<Vec<PathBuf>> {
    let refuse = |why| Error::Pattern { pattern: pattern.to_owned(), why };
    let (Some(directory), Some(last)) = (pattern.parent(), pattern.file_name()) else {
        return Err(refuse("it names nothing"));
    };
    if directory.to_string_lossy().contains(['*', '?', '[']) {
        return Err(refuse("only its last part can be one"));
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(Error::file("reading", directory))? {
        let path = entry.map_err(Error::file("reading", directory))?.path();
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        if fits(last.as_encoded_bytes(), name) {
            found.push(path);
        }
    }
    found.sort();
    if found.is_empty() { Err(refuse("it matches nothing")) } else { Ok(found) }
}

/// Whether a name fits a pattern; as in a shell `*` leaves out hidden files.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    fn rest(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((b'*', more)), _) => (0..=name.len()).any(|skip| rest(more, &name[skip..])),
            (Some((b'?', more)), Some((_, left))) => rest(more, left),
            (Some((byte, more)), Some((other, left))) => byte == other && rest(more, left),
            _ => false,
        }
    }
    let hidden = name.first() == Some(&b'.') && pattern.first() != Some(&b'.');
    !hidden && rest(pattern, name)
}

impl crate::Container {
    /// Adds its volumes and host paths to the files of another container, unless something is
    /// mounted there already.
    pub fn lend(&self, read_only: bool, files: &mut Files) {
        let volumes = files.volumes.iter().map(|volume| volume.target.clone());
        let taken: Vec<PathBuf> =
            files.mounts.iter().map(|mount| mount.target().to_owned()).chain(volumes).collect();
        for mounted in &self.record().volumes {
            if !taken.contains(&mounted.target) {
                files.volumes.push(VolumeMount {
                    name: Some(mounted.volume.clone()),
                    target: mounted.target.clone(),
                    read_only: read_only || mounted.read_only,
                    no_copy: true,
                    options: mounted.options.clone(),
                    given: false,
                });
            }
        }
        for mount in &self.record().spec.files.mounts {
            let mut mount = mount.clone();
            if let Mount::Bind { target, read_only: own, .. } = &mut mount
                && !taken.contains(target)
            {
                *own |= read_only;
                files.mounts.push(mount);
            }
        }
    }
}
