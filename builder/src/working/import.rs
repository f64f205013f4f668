//! An archive of a root file system becomes an image.

use std::fs::File;
use std::sync::Arc;

use image::{Image, Platform};
use layers::{ApplyOptions, DiffOptions, LayerInfo, LayerWriter, Whiteouts};
use task::Task;
use transport::bridge;

use super::commit::{assemble, keep};
use super::{Commit, State};
use crate::context::{archive, http};
use crate::error::ErrorContext;
use crate::sources::DOWNLOAD_LIMIT;
use crate::{Env, Error, Result};

/// What to make an image of.
#[derive(Debug, Clone)]
pub struct Import {
    /// An archive on this machine by its absolute path, or a URL; it may be compressed.
    pub source: String,
    /// What history and messages call the source.
    pub name: String,
    /// What the image is for.
    pub platform: Platform,
    /// The comment in the history of the one layer; `None`: where it was imported from.
    pub comment: Option<String>,
}

/// Makes an image with one layer, the files of an archive, and keeps it in the store. What a killed
/// process leaves is removed with the other temporary files of the store.
///
/// # Errors
/// The source cannot be read or is not an archive; a change of `wish` cannot be made.
pub async fn import(import: &Import, wish: &Commit, env: &Env, task: &Arc<Task>) -> Result<Image> {
    let file = open(import, env, task).await?;
    let _lease = env.store.lease().during("keeping the image")?;
    let (env, own, name) = (env.clone(), Arc::clone(task), import.name.clone());
    let compression = wish.compression;
    let layer = {
        let env = env.clone();
        bridge::blocking(move || layer(file, &name, compression, &env, &own)).await?
    };
    let created_by = format!("import {}", import.name);
    let comment = format!("imported from {}", import.name);
    let mut state = State {
        history_comment: Some(import.comment.clone().unwrap_or(comment)),
        ..State::default()
    };
    state.config.architecture.clone_from(&import.platform.architecture);
    state.config.os.clone_from(&import.platform.os);
    state.config.variant.clone_from(&import.platform.variant);
    let image = assemble(&state, None, &[(layer, created_by)], wish, super::commit::now(&env))?;
    keep(&image, wish, &env)?;
    Ok(image)
}

/// The source; what is not an archive is refused.
async fn open(import: &Import, env: &Env, task: &Arc<Task>) -> Result<File> {
    let source = &import.source;
    let open = |blob: Option<image::Digest>| match blob {
        Some(digest) => env.store.open_blob(digest).during(format!("reading {}", import.name)),
        None => File::open(source).map_err(Error::file("reading", source)),
    };
    let blob = match source.starts_with("http://") || source.starts_with("https://") {
        true => {
            let limit = DOWNLOAD_LIMIT;
            Some(http::download(&env.store, source, &[], None, limit, task).await?.digest)
        }
        false => None,
    };
    let file = open(blob)?;
    let regular = file.metadata().is_ok_and(|about| about.is_file());
    match regular && archive::holds(file) {
        true => open(blob),
        false => Err(Error::malformed(&import.name, "it is not an archive".to_owned())),
    }
}

/// The files of an archive as a layer in the store.
fn layer(
    file: File,
    name: &str,
    compression: layers::Compression,
    env: &Env,
    task: &Task,
) -> Result<LayerInfo> {
    let action = "making the layer";
    let active = env.store.begin().during(action)?;
    let root = active.root().during(action)?;
    let options = ApplyOptions { whiteouts: Whiteouts::Literal, ..ApplyOptions::default() };
    let applied = layers::apply(task.reading(file), &root, &options);
    for skipped in applied.during(format!("unpacking {name}"))?.skipped {
        task.warn(skipped);
    }
    let blob = env.store.writer().during(action)?;
    let mut layer = LayerWriter::new(blob, compression, env.threads);
    let options = DiffOptions { user_xattr: env.user_namespace, ..DiffOptions::default() };
    layers::diff(&root, None, &mut layer, &options, task).during(action)?;
    let (blob, info) = layer.finish().during(action)?;
    blob.commit(Some(&info.descriptor)).during(action)?;
    Ok(info)
}
