//! A working container becomes an image.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use image::{Document, Encoding, History, Image, Manifest, MediaType, Reference, RootFs};
use layers::{Compression, DiffOptions, LayerInfo, LayerWriter, Root, Stack};
use task::{Cause, Task};

use super::linked::{self, ExtraLayer};
use super::{State, WorkingContainer};
use crate::assemble::rfc3339;
use crate::error::ErrorContext;
use crate::plan::environment::in_env;
use crate::{Env, Error, Result};

/// How to make the image.
#[derive(Debug, Clone)]
pub struct Commit {
    /// One layer of everything instead of one more on the base's.
    pub squash: bool,
    /// Docker's media types; without a word, what the container was begun with.
    pub docker: Option<bool>,
    /// The time of everything, seconds since 1970.
    pub epoch: Option<i64>,
    /// No history.
    pub omit_history: bool,
    /// How the layer is compressed.
    pub compression: Compression,
    /// Further annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// Annotations of the container that the image does not have.
    pub unset_annotations: Vec<String>,
    /// Instructions of a Dockerfile that change the configuration.
    pub changes: Vec<String>,
    /// A configuration whose fields replace those of the image.
    pub config: Option<serde_json::Value>,
    /// Times of files are left as they are although a time is given.
    pub keep_times: bool,
    /// Whether the annotation `org.opencontainers.image.created` is set.
    pub created_annotation: bool,
    /// Further labels.
    pub labels: BTreeMap<String, String>,
    /// Files of this machine that the image gets in a layer above all others, and where to.
    pub add_files: Vec<(PathBuf, PathBuf)>,
    /// Directories of this machine whose content the image gets in a layer above all others, and where
    /// to.
    pub add_trees: Vec<(PathBuf, PathBuf)>,
    /// Names of variables that the image does not have.
    pub unset_env: Vec<String>,
    /// Names of the image in the store; without any it is kept until it is collected.
    pub names: Vec<Reference>,
}

impl Default for Commit {
    /// One more gzip layer, and nothing else changed.
    fn default() -> Commit {
        Commit {
            squash: false,
            docker: None,
            epoch: None,
            omit_history: false,
            compression: Compression { encoding: Encoding::Gzip, level: None },
            annotations: BTreeMap::new(),
            unset_annotations: Vec::new(),
            changes: Vec::new(),
            config: None,
            keep_times: false,
            created_annotation: false,
            labels: BTreeMap::new(),
            add_files: Vec::new(),
            add_trees: Vec::new(),
            unset_env: Vec::new(),
            names: Vec::new(),
        }
    }
}

/// Makes an image of what a working container is now, and keeps it in the store.
///
/// # Errors
/// Its files cannot be read; the store cannot be written.
pub fn commit(working: &WorkingContainer, wish: &Commit, env: &Env, task: &Task) -> Result<Image> {
    let base = working.base()?;
    let child = task.child("layer");
    let layers = layers(working, wish, env, &child)?;
    child.done();
    let image = assemble(&working.state, base.as_ref(), &layers, wish, now(env))?;
    keep(&image, wish, env)?;
    Ok(image)
}

/// Puts the documents into the store, and names the image.
pub(super) fn keep(image: &Image, wish: &Commit, env: &Env) -> Result<()> {
    let action = "keeping the image";
    let store = &env.store;
    store.insert(image.config().bytes()).during(action)?;
    store.insert(image.manifest().bytes()).during(action)?;
    if wish.names.is_empty() {
        store.publish_untagged(image.descriptor()).during(action)?;
    }
    for name in &wish.names {
        let named = store.publish(&name.to_string(), image.descriptor());
        named.during(format!("naming the image {name}"))?;
    }
    Ok(())
}

/// The time in full, so that two images of one moment differ, as with the peers.
pub(super) fn now(env: &Env) -> String {
    jiff::Timestamp::try_from((env.clock)()).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

/// A layer and what the history says that made it.
type Layer = (LayerInfo, String);

/// The layers that the image has above its base, or with `squash` the only one.
fn layers(working: &WorkingContainer, wish: &Commit, env: &Env, task: &Task) -> Result<Vec<Layer>> {
    let extras = working.extras(wish, env, task)?;
    let options = DiffOptions {
        user_xattr: working.stack()?.user_xattr,
        clamp: wish.epoch.filter(|_| !wish.keep_times),
        root_entry: true,
        mounted_on: working.mounted_on.clone(),
        live: true,
        owners: working.owners.clone(),
        ..DiffOptions::default()
    };
    let own = layer(working, wish, &extras, &options, env, task)?;
    let mut all = vec![(own, created_by(&working.state))];
    if !wish.squash {
        for extra in &extras {
            let info = linked::layer(extra, wish, &options, env, task)?;
            all.push((info, extra.created_by.clone()));
        }
    }
    Ok(all)
}

/// The container's changes, or with `squash` all of its files with those that lie above.
fn layer(
    working: &WorkingContainer,
    wish: &Commit,
    extras: &[ExtraLayer],
    options: &DiffOptions,
    env: &Env,
    task: &Task,
) -> Result<LayerInfo> {
    let action = "making the layer";
    let blob = env.store.writer().during(action)?;
    let mut layer = LayerWriter::new(blob, wish.compression, env.threads);
    let stack = working.stack()?;
    let top =
        stack.top.as_ref().ok_or(Error::internal("a working container has a layer of its own"))?;
    if wish.squash {
        let root = match extras {
            [] => working.root()?,
            extras => {
                let above = extras.iter().rev().map(|extra| extra.directory.clone());
                let lower = above.chain([top.upper.clone()]).chain(stack.lower.clone()).collect();
                let whole = Stack { lower, top: None, ..stack.clone() };
                whole.mount().during("mounting a working container")?
            }
        };
        layers::archive(&root, Path::new(""), &mut layer, options, task).during(action)?;
    } else {
        let upper = Root::open(&top.upper).during(action)?;
        let lower = match stack.lower.is_empty() {
            true => None,
            false => {
                Some(Stack { top: None, ..stack.clone() }.mount().during("mounting the base")?)
            }
        };
        layers::diff(&upper, lower.as_ref(), &mut layer, options, task).during(action)?;
    }
    let (blob, info) = layer.finish().during(action)?;
    blob.commit(Some(&info.descriptor)).during(action)?;
    Ok(info)
}

/// The annotations of the manifest.
fn annotations(
    state: &State,
    base: Option<&Image>,
    wish: &Commit,
    created: String,
) -> BTreeMap<String, String> {
    let mut all = state.annotations.clone();
    let mut say =
        |key: &str, value: String| all.insert(format!("org.opencontainers.image.{key}"), value);
    if wish.created_annotation {
        say("created", created);
    }
    if let Some(base) = base {
        say("base.name", state.image.clone());
        say("base.digest", base.descriptor().digest.to_string());
    }
    let unset = |key: &String| {
        wish.unset_annotations.contains(key) || state.unset_annotations.contains(key)
    };
    all.retain(|key, _| !unset(key));
    all.extend(wish.annotations.clone());
    all
}

/// The documents. Pure.
pub(super) fn assemble(
    state: &State,
    base: Option<&Image>,
    made: &[Layer],
    wish: &Commit,
    now: String,
) -> Result<Image> {
    let docker = wish.docker.unwrap_or(state.docker);
    let mut config = state.config.clone();
    crate::lower::change(&mut config, &wish.changes)?;
    if let Some(other) = &wish.config {
        config = merged(config, other)?;
    }
    let created = wish.epoch.map_or(now, rfc3339);
    let mut descriptors = Vec::new();
    let mut diff_ids = Vec::new();
    let base = base.filter(|_| !wish.squash);
    for layer in base.iter().flat_map(|base| base.layers()) {
        let mut descriptor = layer.descriptor.bare();
        if let Some(encoding) = descriptor.media_type.layer_encoding() {
            descriptor.media_type = MediaType::layer(encoding, docker);
        }
        descriptors.push(descriptor);
        diff_ids.push(layer.diff_id);
    }
    for (info, _) in made {
        let mut own = info.descriptor.clone();
        if let Some(encoding) = own.media_type.layer_encoding() {
            own.media_type = MediaType::layer(encoding, docker);
        }
        descriptors.push(own);
        diff_ids.push(info.diff_id);
    }
    if base.is_none() {
        config.history.clear();
    }
    let stamped = |entry: &History| {
        let created = wish.epoch.map(rfc3339).or_else(|| entry.created.clone());
        History { created, ..entry.clone() }
    };
    config.history.extend(state.history.iter().map(stamped));
    let author = config.author.clone();
    config.history.extend(made.iter().map(|(_, created_by)| History {
        created: Some(created.clone()),
        created_by: Some(created_by.clone()),
        author: author.clone(),
        comment: state.history_comment.clone(),
        ..History::default()
    }));
    if wish.omit_history {
        config.history.clear();
    }
    config.created = Some(created.clone());
    config.rootfs = RootFs { diff_ids, ..RootFs::default() };
    config.config.labels.extend(wish.labels.clone());
    for name in &wish.unset_env {
        config.config.env.retain(|line| in_env(std::slice::from_ref(line), name).is_none());
    }
    let (manifest_type, config_type) = if docker {
        if let Some(comment) = &state.comment {
            config.rest.insert("comment".to_owned(), comment.clone().into());
        }
        (MediaType::DOCKER_MANIFEST, MediaType::DOCKER_CONFIG)
    } else {
        // Only Docker's configurations have these.
        for key in ["Hostname", "Domainname"] {
            config.config.rest.remove(key);
        }
        (MediaType::OCI_MANIFEST, MediaType::OCI_CONFIG)
    };
    let config = Document::write(config_type, config);
    let mut manifest =
        Manifest::new(manifest_type.clone(), config.descriptor().clone(), descriptors);
    if !docker {
        manifest.annotations = annotations(state, base, wish, created);
    }
    let manifest = Document::write(manifest_type, manifest);
    Image::new(manifest, config)
        .map_err(|error| Error::part("putting the image together")(Cause::new(error)))
}

/// A configuration with the fields of another document in place of its own.
fn merged(config: image::Config, other: &serde_json::Value) -> Result<image::Config> {
    fn merge(into: &mut serde_json::Value, from: &serde_json::Value) {
        match (into, from) {
            (serde_json::Value::Object(into), serde_json::Value::Object(from)) => {
                for (key, value) in from {
                    merge(into.entry(key.clone()).or_insert(serde_json::Value::Null), value);
                }
            }
            (into, from) => *into = from.clone(),
        }
    }
    let refuse = |error: serde_json::Error| Error::Change {
        change: "a JSON document".to_owned(),
        reason: error.to_string(),
    };
    let mut document = serde_json::to_value(config).map_err(refuse)?;
    merge(&mut document, other);
    serde_json::from_value(document).map_err(refuse)
}

fn created_by(state: &State) -> String {
    match (&state.created_by, state.config.config.shell.as_slice()) {
        (Some(text), _) => text.clone(),
        (None, []) => "/bin/sh".to_owned(),
        (None, shell) => shell.join(" "),
    }
}
