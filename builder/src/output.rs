//! Where the result goes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use image::{Descriptor, Digest, Document, Image, Platform};
use layers::copy::{CopyOptions, copy};
use layers::{DiffOptions, FileType, Mode, OFlags, Root};
use rustix::fs::{AtFlags, Timespec, Timestamps, utimensat};
use store::{SnapshotId, Store};
use task::{Cause, Task};
use transport::at::StoreImage;
use transport::{Gate, Location, Open, Origin, Select, Source, Unverified, bridge};

use crate::assemble::BuildDocuments;
use crate::error::ErrorContext;
use crate::job::Build;
use crate::{Error, FilesOutput, Output, Result, images};

/// Brings the images into the store, and what holds them under its names.
pub(crate) async fn store(
    build: &Arc<Build>,
    made: &BuildDocuments,
    keep: bool,
    task: &Arc<Task>,
) -> Result<Vec<String>> {
    for target in build.plan.targets.iter().filter(|_| keep) {
        if let Some(key) = &target.image.base {
            images::fetch(&build.env, &build.bases[key], task).await?;
        }
    }
    let names: Vec<String> = build.request.tags.iter().map(ToString::to_string).collect();
    let images = made.images.iter();
    let mut documents: Vec<_> =
        images.flat_map(|image| [image.config().bytes(), image.manifest().bytes()]).collect();
    documents.extend(made.index.as_ref().map(Document::bytes));
    let documents: Vec<_> = documents.into_iter().cloned().collect();
    let names = if keep { names } else { Vec::new() };
    let (store, root, list) = (build.env.store.clone(), made.root().clone(), names.clone());
    bridge::blocking(move || {
        let action = "naming the image";
        for document in &documents {
            store.insert(document).during(action)?;
        }
        if !keep {
            return Ok(());
        }
        if list.is_empty() {
            return store.publish_untagged(&root).during(action);
        }
        for name in &list {
            store.publish(name, &root).during(format!("naming the image {name}"))?;
        }
        Ok(())
    })
    .await?;
    Ok(names)
}

/// Whether the store keeps the result. If it only goes to registries, what of its bases is not
/// here stays where it is.
///
/// # Errors
/// The store cannot be read.
pub(crate) async fn is_kept(build: &Build) -> Result<bool> {
    let request = &build.request;
    let pushed = |output: &Output| matches!(output, Output::Image(to) if to.starts_with("docker:"));
    let goes = request.push || !request.outputs.is_empty();
    if !goes || request.attest.any() || !request.outputs.iter().all(pushed) {
        return Ok(true);
    }
    if request.tags.is_empty() || !request.push || request.keep {
        return Ok(!request.tags.is_empty());
    }
    for key in build.plan.targets.iter().filter_map(|target| target.image.base.as_ref()) {
        let base = &build.bases[key];
        if base.elsewhere().is_some() && images::is_missing(&build.env, base).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Lets the chain ids of the image name the snapshots that the steps made, so that running it
/// unpacks nothing. `own` are the file systems of the uppermost layers. Where times are bounded,
/// the layers do not say what the snapshots hold, and are unpacked when they are needed.
pub(crate) fn alias(build: &Build, image: &Image, own: &[Option<SnapshotId>]) -> Result<()> {
    if build.request.clamp().is_some() {
        return Ok(());
    }
    let below = image.layers().len().saturating_sub(own.len());
    for (layer, snapshot) in image.layers().skip(below).zip(own) {
        if let Some(snapshot) = snapshot {
            build.env.store.alias(*snapshot, layer.chain_id).during("naming snapshots")?;
        }
    }
    Ok(())
}

/// Copies the image, or the index with all its images, from the store to another place.
pub(crate) async fn send(
    build: &Build,
    made: &BuildDocuments,
    to: &Location,
    kept: bool,
    task: &Task,
) -> Result<()> {
    let fail = |cause: Cause| Error::part(format!("writing the image to {to}"))(cause);
    let child = task.child(format!("writing {to}"));
    let digest = made.root().digest.to_string();
    let select = match &made.index {
        Some(_) => Select::All,
        None => Select::One(made.images[0].platform()),
    };
    let attest = &build.request.attest;
    let referrers = attest.any() && !attest.in_index;
    let single = made.images[0].platform();
    let entry = match to {
        Location::Layout(..) | Location::OciArchive(..) => {
            build.request.image.entry(made.index.is_none().then_some(&single))
        }
        _ => BTreeMap::new(),
    };
    let options = transport::CopyOptions { select, referrers, entry, ..Default::default() };
    let stored = StoreImage::new(&build.env.store, Some(&digest));
    let source: Box<dyn Source> = match kept {
        true => Box::new(stored),
        false => Box::new(Pieces::new(build, made, stored).map_err(fail)?),
    };
    let sink = build.env.places.sink(to).map_err(fail)?;
    let guard: Arc<dyn Gate> = match to {
        Location::Registry(_) => Arc::clone(&build.env.guard),
        _ => Arc::new(Open),
    };
    images::carry(source, sink, guard, options, child).await.map_err(fail)
}

/// An image whose own layers are in the store, and those of its bases where these came from.
struct Pieces {
    root: Descriptor,
    stored: StoreImage,
    store: Store,
    bases: Vec<(BTreeSet<Digest>, Box<dyn Source>)>,
}

impl Pieces {
    fn new(build: &Build, made: &BuildDocuments, stored: StoreImage) -> Result<Pieces, Cause> {
        let mut bases = Vec::new();
        for key in build.plan.targets.iter().filter_map(|target| target.image.base.as_ref()) {
            let base = &build.bases[key];
            if let Some(from) = base.elsewhere() {
                bases.push((base.layers(), build.env.places.source(from)?));
            }
        }
        let (root, store) = (made.root().clone(), build.env.store.clone());
        Ok(Pieces { root, stored, store, bases })
    }
}

#[async_trait]
impl Source for Pieces {
    async fn resolve(&self) -> Result<Descriptor, Cause> {
        Ok(self.root.clone())
    }

    async fn fetch(&self, descriptor: &Descriptor) -> Result<Unverified, Cause> {
        let (store, digest) = (self.store.clone(), descriptor.digest);
        let here = bridge::blocking(move || store.contains(digest)).await?;
        let base = self.bases.iter().find(|(layers, _)| layers.contains(&descriptor.digest));
        match base.filter(|_| !here) {
            Some((_, base)) => base.fetch(descriptor).await,
            None => self.stored.fetch(descriptor).await,
        }
    }

    async fn referrers(&self, subject: &Descriptor) -> Result<Vec<Descriptor>, Cause> {
        self.stored.referrers(subject).await
    }

    fn origin(&self) -> Origin {
        self.bases.first().map_or(Origin::Elsewhere, |(_, base)| base.origin())
    }
}

/// Writes the files of the last stage: of several platforms, each into a directory of its own
/// such as `linux_arm64`.
pub(crate) async fn files(build: &Arc<Build>, output: &Output, task: &Arc<Task>) -> Result<()> {
    let mut snapshots = Vec::new();
    for target in &build.plan.targets {
        let snapshot = match target.step {
            Some(step) => build.available(step, task).await?,
            None => None,
        };
        snapshots.push((directory_of(&target.platform), snapshot));
    }
    let (build, output, task) = (Arc::clone(build), output.clone(), Arc::clone(task));
    bridge::blocking(move || {
        let mut roots = Vec::new();
        for (name, snapshot) in snapshots {
            let root = match snapshot {
                Some(snapshot) => build.mount(snapshot)?,
                None => {
                    let empty = build.env.store.begin().during("opening an empty image")?;
                    empty.root().during("opening an empty image")?
                }
            };
            roots.push((name, root));
        }
        match output {
            Output::Files(to) => {
                let split = to.split.unwrap_or(roots.len() > 1);
                roots.iter().try_for_each(|(name, root)| {
                    let path = if split { to.path.join(name) } else { to.path.clone() };
                    directory(root, &path, to.delete, build.request.clamp(), &task)
                })
            }
            Output::Tar(to) => tar(&build, &roots, &to, &task),
            Output::Image(_) | Output::ByDigest(_) | Output::Nothing => Ok(()),
        }
    })
    .await
}

/// The directory of a platform's files among those of others.
fn directory_of(platform: &Platform) -> String {
    platform.to_string().replace('/', "_")
}

fn directory(
    root: &Root,
    path: &Path,
    delete: bool,
    clamp: Option<i64>,
    task: &Task,
) -> Result<()> {
    let task = task.child(format!("writing files to {}", path.display()));
    std::fs::create_dir_all(path)
        .map_err(|error| match path.exists() {
            true => std::io::ErrorKind::NotADirectory.into(),
            false => error,
        })
        .map_err(Error::file("making", path))?;
    let to = Root::open(path).during("opening the output directory")?;
    if delete {
        remove_others(root, &to, &task)?;
    }
    copy_all(root, &to, Path::new(""), path, &task)?;
    if let Some(clamp) = clamp {
        bound_times(root, &to, clamp, &task)?;
    }
    task.done();
    Ok(())
}

/// Gives copies in `to` of what `from` has of a later time than `clamp` that time.
fn bound_times(from: &Root, to: &Root, clamp: i64, task: &Task) -> Result<()> {
    let action = "limiting the times of the output";
    let time = Timespec { tv_sec: clamp, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    let mut open = vec![PathBuf::new()];
    while let Some(directory) = open.pop() {
        task.check()?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let there = to.open_at(&directory, flags, Mode::empty()).during(action)?;
        for entry in from.entries(&directory).during(action)? {
            let path = directory.join(&entry.name);
            if from.symlink_metadata(&path).during(action)?.st_mtime > clamp {
                utimensat(&there, &entry.name, &times, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|errno| Error::file("setting the time of", &path)(errno.into()))?;
            }
            if entry.kind == FileType::Directory {
                open.push(path);
            }
        }
    }
    Ok(())
}

/// Removes what `from` does not have, or has as something else.
fn remove_others(from: &Root, to: &Root, task: &Task) -> Result<()> {
    let action = "removing what is not in the output";
    let mut todo = vec![PathBuf::new()];
    while let Some(directory) = todo.pop() {
        task.check()?;
        for entry in to.entries(&directory).during(action)? {
            let path = directory.join(&entry.name);
            let kind = |root: &Root| {
                let stat = root.symlink_metadata(&path).ok()?;
                Some(FileType::from_raw_mode(stat.st_mode))
            };
            match (kind(from), kind(to)) {
                (Some(FileType::Directory), Some(FileType::Directory)) => todo.push(path),
                (here, there) if here == there => {}
                _ => to.remove_all(&path).during(action)?,
            }
        }
    }
    Ok(())
}

fn copy_all(from: &Root, to: &Root, target: &Path, shown: &Path, task: &Task) -> Result<()> {
    let copied = copy(from, Path::new(""), to, target, &CopyOptions::default(), task)
        .during(format!("writing files to {}", shown.display()))?;
    for skipped in copied.skipped {
        task.warn(skipped);
    }
    Ok(())
}

fn tar(build: &Build, roots: &[(String, Root)], to: &FilesOutput, task: &Task) -> Result<()> {
    let path = &to.path;
    let task = task.child(format!("writing files to {}", path.display()));
    let action = format!("writing files to {}", path.display());
    let mut file = File::create(path).map_err(Error::file("making", path))?;
    let options = DiffOptions { clamp: build.request.clamp(), ..DiffOptions::default() };
    let split = to.split.unwrap_or(roots.len() > 1);
    if let ([(_, root)], false) = (roots, split) {
        layers::archive(root, Path::new(""), &mut file, &options, &task).during(action)?;
    } else {
        let whole = build.env.store.begin().during("gathering files")?;
        let gathered = whole.root().during("gathering files")?;
        for (name, root) in roots {
            let target = if split { Path::new(name) } else { Path::new("") };
            copy_all(root, &gathered, target, path, &task)?;
        }
        layers::archive(&gathered, Path::new(""), &mut file, &options, &task).during(action)?;
    }
    task.done();
    Ok(())
}
