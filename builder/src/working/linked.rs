//! Files of a working container that become layers of their own: `copy --link`, and what `commit`
//! adds.

use std::path::{Component, Path, PathBuf};

use layers::copy::CopyOptions;
use layers::{DiffOptions, LayerInfo, LayerWriter, Root};
use serde::{Deserialize, Serialize};
use store::Active;
use task::Task;

use super::{Commit, WorkingContainer};
use crate::error::ErrorContext;
use crate::step::copy::set_mode;
use crate::{Env, Error, Result};

/// Files that were copied to lie above everything else in the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkedCopy {
    /// Their directory, below the container's own.
    directory: String,
    /// What made them, for the history.
    created_by: String,
}

/// A layer above the container's own changes.
pub(super) struct ExtraLayer {
    /// Its files.
    pub(super) directory: PathBuf,
    /// What made it, for the history.
    pub(super) created_by: String,
    /// Forgotten with the layer.
    _kept: Option<Active>,
}

impl WorkingContainer {
    /// An empty directory for files that become a layer of their own. Without
    /// [`WorkingContainer::link`] it means nothing.
    pub(super) fn apart(&self) -> Result<PathBuf> {
        let number = self.state.links.len();
        let path = self.record.directory.join(format!("link-{number}"));
        // What is there was left by a copy that did not end.
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::file("removing", &path)(error));
            }
            _ => {}
        }
        std::fs::create_dir(&path).map_err(Error::file("making", &path))?;
        set_mode(&path, 0o755)?;
        Ok(path)
    }

    /// Keeps the files in a directory of [`WorkingContainer::apart`].
    pub(super) fn link(&mut self, directory: &Path, created_by: &str) -> Result<()> {
        let name = directory.file_name().unwrap_or_default();
        let directory = name.to_string_lossy().into_owned();
        self.state.links.push(LinkedCopy { directory, created_by: created_by.to_owned() });
        self.save()
    }

    /// The layers above the container's own changes, the lowest first.
    pub(super) fn extras(&self, wish: &Commit, env: &Env, task: &Task) -> Result<Vec<ExtraLayer>> {
        let mut all: Vec<ExtraLayer> = Vec::new();
        for linked in &self.state.links {
            let directory = self.record.directory.join(&linked.directory);
            all.push(ExtraLayer { directory, created_by: linked.created_by.clone(), _kept: None });
        }
        if !wish.add_files.is_empty() {
            all.push(added(&wish.add_files, env)?);
        }
        if !wish.add_trees.is_empty() {
            all.push(trees(&wish.add_trees, env, task)?);
        }
        Ok(all)
    }
}

/// A layer of directories of this machine, as they are.
fn trees(trees: &[(PathBuf, PathBuf)], env: &Env, task: &Task) -> Result<ExtraLayer> {
    let action = "adding directories";
    let active = env.store.begin().during(action)?;
    let directory = active.dir().join("fs");
    std::fs::create_dir_all(&directory).map_err(Error::file("making", &directory))?;
    let to = Root::open(&directory).during(action)?;
    let mut names = Vec::new();
    for (source, target) in trees {
        let from = Root::open(source).during(action)?;
        let place = target.strip_prefix("/").unwrap_or(target);
        let stat = from.metadata(Path::new("")).during(action)?;
        let owner = Some((stat.st_uid, stat.st_gid));
        to.create_dir_all(place, stat.st_mode & 0o7777, owner).during(action)?;
        layers::copy::copy(&from, Path::new(""), &to, place, &CopyOptions::default(), task)
            .during(action)?;
        names.push(target.display().to_string());
    }
    let created_by = format!("/bin/sh -c #(nop) ADD {}", names.join(" "));
    Ok(ExtraLayer { directory, created_by, _kept: Some(active) })
}

/// A layer of files of this machine: root's, readable by everybody.
fn added(files: &[(PathBuf, PathBuf)], env: &Env) -> Result<ExtraLayer> {
    let active = env.store.begin().during("adding files")?;
    let directory = active.dir().join("fs");
    let mut names = Vec::new();
    for (source, target) in files {
        let mut path = directory.clone();
        path.extend(target.components().filter_map(|part| match part {
            Component::Normal(name) => Some(name),
            _ => None,
        }));
        if path == directory || target.components().any(|part| part == Component::ParentDir) {
            let what = format!("the place of {}", source.display());
            return Err(Error::malformed(what, format!("{} names no file", target.display())));
        }
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(Error::file("making", parent))?;
        }
        let mut from = std::fs::File::open(source).map_err(Error::file("opening", source))?;
        let mut to = std::fs::File::create(&path).map_err(Error::file("writing", &path))?;
        std::io::copy(&mut from, &mut to).map_err(Error::file("reading", source))?;
        set_mode(&path, 0o644)?;
        names.push(target.display().to_string());
    }
    for entry in walk(&directory)? {
        set_mode(&entry, 0o755)?;
    }
    let created_by = format!("/bin/sh -c #(nop) ADD {}", names.join(" "));
    Ok(ExtraLayer { directory, created_by, _kept: Some(active) })
}

/// The directories below one.
fn walk(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    let entries = std::fs::read_dir(directory).map_err(Error::file("reading", directory))?;
    for entry in entries {
        let entry = entry.map_err(Error::file("reading", directory))?;
        if entry.file_type().map_err(Error::file("reading", entry.path()))?.is_dir() {
            all.extend(walk(&entry.path())?);
            all.push(entry.path());
        }
    }
    Ok(all)
}

/// The layer of one of [`WorkingContainer::extras`].
pub(super) fn layer(
    extra: &ExtraLayer,
    wish: &Commit,
    options: &DiffOptions,
    env: &Env,
    task: &Task,
) -> Result<LayerInfo> {
    let action = "making a layer";
    let root = Root::open(&extra.directory).during(action)?;
    let blob = env.store.writer().during(action)?;
    let mut layer = LayerWriter::new(blob, wish.compression, env.threads);
    let options = DiffOptions { root_entry: false, ..options.clone() };
    layers::archive(&root, Path::new(""), &mut layer, &options, task).during(action)?;
    let (blob, info) = layer.finish().during(action)?;
    blob.commit(Some(&info.descriptor)).during(action)?;
    Ok(info)
}
