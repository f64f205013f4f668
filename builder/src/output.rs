//! Where the result goes.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use image::{Document, Image, Platform};
use layers::copy::{CopyOptions, copy};
use layers::{DiffOptions, Root};
use task::{Cause, Task};
use transport::at::StoreImage;
use transport::{Location, Open, Select, bridge};

use crate::assemble::Assembled;
use crate::engine::Build;
use crate::error::During;
use crate::plan::Target;
use crate::{Error, Output, Result, images};

/// Brings the images into the store, and what holds them under its names.
pub(crate) async fn store(
    build: &Arc<Build>,
    made: &Assembled,
    task: &Arc<Task>,
) -> Result<Vec<String>> {
    for target in &build.plan.targets {
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
    let (store, root, list) = (build.env.store.clone(), made.root().clone(), names.clone());
    bridge::blocking(move || {
        let action = "naming the image";
        for document in &documents {
            store.insert(document).during(action)?;
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

/// Lets the chain ids of the image name the snapshots that the steps made, so that running it
/// unpacks nothing.
pub(crate) fn alias(build: &Build, image: &Image, target: &Target) -> Result<()> {
    let own = target.image.history.iter().filter_map(|item| item.layer);
    let own: Vec<_> = own.collect();
    let below = image.layers().len().saturating_sub(own.len());
    for (layer, step) in image.layers().skip(below).zip(own) {
        if let Some(snapshot) = build.made(step).and_then(|made| made.snapshot) {
            build.env.store.alias(snapshot, layer.chain_id).during("naming snapshots")?;
        }
    }
    Ok(())
}

/// Copies the image, or the index with all its images, from the store to another place.
pub(crate) async fn send(
    build: &Build,
    made: &Assembled,
    to: &Location,
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
    let options = transport::CopyOptions { select, referrers, ..Default::default() };
    let source = Box::new(StoreImage::new(&build.env.store, Some(&digest)));
    let sink = build.env.places.sink(to).map_err(fail)?;
    images::carry(source, sink, Arc::new(Open), options, child).await.map_err(fail)
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
            Output::Files(path) => match &roots[..] {
                [(_, root)] => directory(root, &path, &task),
                several => several
                    .iter()
                    .try_for_each(|(name, root)| directory(root, &path.join(name), &task)),
            },
            Output::Tar(path) => tar(&build, &roots, &path, &task),
            Output::Image(_) => Ok(()),
        }
    })
    .await
}

/// The directory of a platform's files among those of others.
fn directory_of(platform: &Platform) -> String {
    platform.to_string().replace('/', "_")
}

fn directory(root: &Root, path: &Path, task: &Task) -> Result<()> {
    let task = task.child(format!("writing files to {}", path.display()));
    std::fs::create_dir_all(path).map_err(Error::file("making", path))?;
    let to = Root::open(path).during("opening the output directory")?;
    copy_all(root, &to, Path::new(""), path, &task)?;
    task.done();
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

fn tar(build: &Build, roots: &[(String, Root)], path: &Path, task: &Task) -> Result<()> {
    let task = task.child(format!("writing files to {}", path.display()));
    let action = format!("writing files to {}", path.display());
    let mut file = File::create(path).map_err(Error::file("making", path))?;
    let options = DiffOptions { clamp: build.request.source_date_epoch, ..DiffOptions::default() };
    if let [(_, root)] = roots {
        layers::archive(root, Path::new(""), &mut file, &options, &task).during(action)?;
    } else {
        let whole = build.env.store.begin().during("gathering files")?;
        let gathered = whole.root().during("gathering files")?;
        for (name, root) in roots {
            copy_all(root, &gathered, Path::new(name), path, &task)?;
        }
        layers::archive(&gathered, Path::new(""), &mut file, &options, &task).during(action)?;
    }
    task.done();
    Ok(())
}
