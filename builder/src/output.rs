//! Where the result goes.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use image::{Image, Platform};
use layers::copy::{CopyOptions, copy};
use layers::{DiffOptions, Root};
use task::{Cause, Task};
use transport::at::StoreImage;
use transport::{Location, Open, Select, bridge};

use crate::engine::Build;
use crate::error::During;
use crate::{Error, Output, Result, images};

/// Brings the image into the store under its names.
pub(crate) async fn store(
    build: &Arc<Build>,
    image: &Image,
    task: &Arc<Task>,
) -> Result<Vec<String>> {
    if let Some(key) = &build.plan.image.base {
        images::fetch(&build.env, &build.bases[key], task).await?;
    }
    let names: Vec<String> = build.request.tags.iter().map(ToString::to_string).collect();
    let (store, image, list) = (build.env.store.clone(), image.clone(), names.clone());
    bridge::blocking(move || {
        let action = "naming the image";
        store.insert(image.config().bytes()).during(action)?;
        store.insert(image.manifest().bytes()).during(action)?;
        if list.is_empty() {
            return store.publish_untagged(image.descriptor()).during(action);
        }
        for name in &list {
            store.publish(name, image.descriptor()).during(format!("naming the image {name}"))?;
        }
        Ok(())
    })
    .await?;
    Ok(names)
}

/// Lets the chain ids of the image name the snapshots that the steps made, so that running it
/// unpacks nothing.
pub(crate) fn alias(build: &Build, image: &Image) -> Result<()> {
    let own = build.plan.image.history.iter().filter_map(|item| item.layer);
    let own: Vec<_> = own.collect();
    let below = image.layers().len().saturating_sub(own.len());
    for (layer, step) in image.layers().skip(below).zip(own) {
        if let Some(made) = build.made(step) {
            build.env.store.alias(made.snapshot, layer.chain_id).during("naming snapshots")?;
        }
    }
    Ok(())
}

/// Copies the image from the store to another place.
pub(crate) async fn send(
    build: &Build,
    image: &Image,
    to: &Location,
    platform: &Platform,
    task: &Task,
) -> Result<()> {
    let fail = |cause: Cause| Error::part(format!("writing the image to {to}"))(cause);
    let child = task.child(format!("writing {to}"));
    let digest = image.descriptor().digest.to_string();
    let options = transport::CopyOptions {
        select: Select::One(platform.clone()),
        ..transport::CopyOptions::default()
    };
    let source = Box::new(StoreImage::new(&build.env.store, Some(&digest)));
    let sink = build.env.places.sink(to).map_err(fail)?;
    images::carry(source, sink, Arc::new(Open), options, child).await.map_err(fail)
}

/// Writes the files of the last stage.
pub(crate) async fn files(build: &Arc<Build>, output: &Output, task: &Arc<Task>) -> Result<()> {
    let snapshot = match build.plan.target {
        Some(target) => build.available(target, task).await?,
        None => None,
    };
    let (build, output, task) = (Arc::clone(build), output.clone(), Arc::clone(task));
    bridge::blocking(move || {
        let root = match snapshot {
            Some(snapshot) => build.mount(snapshot)?,
            None => {
                let empty = build.env.store.begin().during("opening an empty image")?;
                empty.root().during("opening an empty image")?
            }
        };
        match output {
            Output::Files(path) => directory(&root, &path, &task),
            Output::Tar(path) => tar(&build, &root, &path, &task),
            Output::Image(_) => Ok(()),
        }
    })
    .await
}

fn directory(root: &Root, path: &Path, task: &Task) -> Result<()> {
    let task = task.child(format!("writing files to {}", path.display()));
    std::fs::create_dir_all(path).map_err(Error::file("making", path))?;
    let to = Root::open(path).during("opening the output directory")?;
    let copied = copy(root, Path::new(""), &to, Path::new(""), &CopyOptions::default(), &task)
        .during(format!("writing files to {}", path.display()))?;
    for skipped in copied.skipped {
        task.warn(skipped);
    }
    task.done();
    Ok(())
}

fn tar(build: &Build, root: &Root, path: &Path, task: &Task) -> Result<()> {
    let task = task.child(format!("writing files to {}", path.display()));
    let action = format!("writing files to {}", path.display());
    let mut file = File::create(path).map_err(Error::file("making", path))?;
    let options = DiffOptions { clamp: build.request.source_date_epoch, ..DiffOptions::default() };
    layers::archive(root, Path::new(""), &mut file, &options, &task).during(action)?;
    task.done();
    Ok(())
}
