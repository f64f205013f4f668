//! Everything about images and working containers as JSON: the fields of `docker image inspect` and
//! `podman image inspect`, and those of `buildah inspect`.

use format::name_fields;
use image::Image;
use serde_json::{Value, json};
use store::{Store, repository_and_tag};

use crate::error::ErrorContext;
use crate::remote_document::{CONFIG, ROOTFS};
use crate::working::WorkingContainer;
use crate::{Error, Result};

fn value<T: serde::Serialize>(of: &T) -> Result<Value> {
    let action = "writing JSON".to_owned();
    serde_json::to_value(of).map_err(|source| Error::Document { action, source })
}

/// The fields of an object over those of another, which has every field there can be.
fn over(mut complete: Value, given: &Value) -> Value {
    for (key, value) in given.as_object().into_iter().flatten() {
        complete[key] = value.clone();
    }
    complete
}

/// The configuration of containers of the image with every field that Docker has: templates may
/// name each of them.
fn container_config(given: &image::ContainerConfig) -> Result<Value> {
    let complete = json!({
        "Hostname": "", "Domainname": "", "User": "", "AttachStdin": false, "AttachStdout": false,
        "AttachStderr": false, "Tty": false, "OpenStdin": false, "StdinOnce": false, "Env": [],
        "Cmd": [], "Image": "", "Volumes": {}, "WorkingDir": "", "Entrypoint": [], "OnBuild": [],
        "Labels": {}, "ExposedPorts": {}, "StopSignal": "", "Healthcheck": null, "Shell": [],
        "ArgsEscaped": false,
    });
    Ok(over(complete, &value(given)?))
}

/// Everything about an image; for a template, also by the names that Go has for the fields. `tool`
/// is the name and version of the program that says it.
///
/// # Errors
/// The store cannot be read.
pub fn image_document(store: &Store, image: &Image, tool: &str, template: bool) -> Result<Value> {
    let published = store.published().during("reading the names of images")?;
    let named_so = published.into_iter().filter(|root| root.images.contains(&image.id()));
    let names: Vec<String> = named_so.flat_map(|root| root.names).collect();
    let digest = image.descriptor().digest;
    let mut repositories: Vec<String> =
        names.iter().map(|name| format!("{}@{digest}", repository_and_tag(name).0)).collect();
    repositories.dedup();
    let tags: Vec<&String> = names.iter().filter(|name| !name.contains('@')).collect();
    let config = image.config();
    let mut history = value(&config.history)?;
    if template {
        steps_named(&mut history);
    }
    let mut document = json!({
        "Id": image.id(), "Digest": digest, "RepoTags": tags, "RepoDigests": repositories,
        "Parent": "", "Comment": config.rest.get("comment").cloned().unwrap_or_else(|| "".into()),
        "Created": config.created, "Author": config.author.clone().unwrap_or_default(),
        "DockerVersion": config.rest.get("docker_version").cloned().unwrap_or_else(|| "".into()),
        "Architecture": config.architecture,
        "Variant": config.variant.clone().unwrap_or_default(), "Os": config.os,
        "OsVersion": config.os_version.clone().unwrap_or_default(),
        "Size": image.size(), "VirtualSize": image.size(),
        "GraphDriver": {"Name": "overlay", "Data": {}},
        "Config": container_config(&config.config)?, "User": config.config.user,
        "Labels": config.config.labels,
        "RootFS": {"Type": config.rootfs.kind, "Layers": config.rootfs.diff_ids},
        "History": history, "ManifestType": image.descriptor().media_type,
        "MediaType": image.descriptor().media_type, "NamesHistory": names,
        "Annotations": image.manifest().annotations,
        "Layers": value(&image.manifest().layers)?,
    });
    let mut oci = value(&**config)?;
    let complete = container_config(&config.config)?;
    let mut docker = over(oci.clone(), &json!({"config": complete, "container_config": complete}));
    if template {
        oci["config"] = docker["config"].clone();
        [&mut oci, &mut docker].into_iter().for_each(named);
    }
    let buildah = json!({
        "Type": tool,
        "FromImage": names.first().cloned().unwrap_or_default(), "FromImageID": image.id().hex(),
        "FromImageDigest": digest, "ImageAnnotations": image.manifest().annotations,
        "OCIv1": oci, "Docker": docker,
        "Manifest": String::from_utf8_lossy(image.manifest().bytes()),
    });
    document = over(document, &buildah);
    Ok(document)
}

/// The fields of a configuration by the names that Go templates use as well.
fn named(config: &mut Value) {
    if config["history"].is_null() {
        config["history"] = json!([]);
    }
    steps_named(&mut config["history"]);
    name_fields(&mut config["rootfs"], ROOTFS);
    name_fields(config, CONFIG);
    name_fields(config, DOCKER);
}

/// Fields that only Docker's configurations have, and their names in Go.
const DOCKER: &[(&str, &str)] = &[
    ("comment", "Comment"),
    ("container", "Container"),
    ("container_config", "ContainerConfig"),
    ("docker_version", "DockerVersion"),
];

/// Fields of the steps of a history, and their names in Go.
const STEP: &[(&str, &str)] = &[
    ("created", "Created"),
    ("created_by", "CreatedBy"),
    ("author", "Author"),
    ("comment", "Comment"),
    ("empty_layer", "EmptyLayer"),
];

fn steps_named(history: &mut Value) {
    for step in history.as_array_mut().into_iter().flatten() {
        let empty = step["empty_layer"].as_bool().unwrap_or_default();
        step["empty_layer"] = empty.into();
        name_fields(step, STEP);
    }
}

/// Everything about a working container; see [`image_document`].
///
/// # Errors
/// Its image cannot be read.
pub fn working_document(working: &WorkingContainer, tool: &str, template: bool) -> Result<Value> {
    let base = working.base()?;
    let state = &working.state;
    let mut oci = value(&state.config)?;
    let mut docker = oci.clone();
    docker["comment"] = state.comment.clone().into();
    if template {
        let complete = container_config(&state.config.config)?;
        docker["container"] = working.id().into();
        docker["container_config"] = complete.clone();
        (oci["config"], docker["config"]) = (complete.clone(), complete);
        [&mut oci, &mut docker].into_iter().for_each(named);
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(json!({
        "Type": tool,
        "FromImage": state.image,
        "FromImageID": base.as_ref().map(|image| image.id().hex()).unwrap_or_default(),
        "FromImageDigest": base.as_ref().map(|image| image.descriptor().digest.to_string()).unwrap_or_default(),
        "Config": base.as_ref().map(|image| text(image.config().bytes())).unwrap_or_default(),
        "Manifest": base.as_ref().map(|image| text(image.manifest().bytes())).unwrap_or_default(),
        "Container": working.name(),
        "ContainerID": working.id(),
        "MountPoint": working.mounted(),
        "ImageAnnotations": state.annotations,
        "ImageCreatedBy": state.created_by.clone().unwrap_or_default(),
        "OCIv1": oci,
        "Docker": docker,
        "Format": if state.docker { "docker" } else { "oci" },
        "History": value(&state.history)?,
        "Settings": if state.settings.is_null() {
            value(&state.spec)?
        } else {
            state.settings.clone()
        },
    }))
}
