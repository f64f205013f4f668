//! The output of `rbuild inspect` for an image: the fields of `docker image inspect` and `podman
//! image inspect`, and those of `buildah inspect`.

use image::Image;
use serde_json::{Value, json};
use store::Store;
use task::Kind;

use super::images::split;
use super::working::named;
use crate::report::Failure;

fn value<T: serde::Serialize>(of: &T) -> Result<Value, Failure> {
    serde_json::to_value(of)
        .map_err(|error| Failure::new(Kind::Invalid, format!("writing JSON: {error}")))
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
///
/// # Errors
/// It cannot be written as JSON.
pub(crate) fn container_config(given: &image::ContainerConfig) -> Result<Value, Failure> {
    let complete = json!({
        "Hostname": "", "Domainname": "", "User": "", "AttachStdin": false, "AttachStdout": false,
        "AttachStderr": false, "Tty": false, "OpenStdin": false, "StdinOnce": false, "Env": [],
        "Cmd": [], "Image": "", "Volumes": {}, "WorkingDir": "", "Entrypoint": [], "OnBuild": [],
        "Labels": {}, "ExposedPorts": {}, "StopSignal": "", "Healthcheck": null, "Shell": [],
        "ArgsEscaped": false,
    });
    Ok(over(complete, &value(given)?))
}

/// Everything about an image; for a template, also by the names that Go has for the fields.
///
/// # Errors
/// The store cannot be read.
pub(crate) fn of(store: &Store, image: &Image, template: bool) -> Result<Value, Failure> {
    let named_so = store.published()?.into_iter().filter(|root| root.images.contains(&image.id()));
    let names: Vec<String> = named_so.flat_map(|root| root.names).collect();
    let digest = image.descriptor().digest;
    let mut repositories: Vec<String> =
        names.iter().map(|name| format!("{}@{digest}", split(name).0)).collect();
    repositories.dedup();
    let tags: Vec<&String> = names.iter().filter(|name| !name.contains('@')).collect();
    let config = image.config();
    let history = value(&config.history)?;
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
    let mut docker = over(oci.clone(), &json!({"config": container_config(&config.config)?}));
    if template {
        oci["config"] = docker["config"].clone();
        [&mut oci, &mut docker].into_iter().for_each(named);
    }
    let buildah = json!({
        "Type": format!("rbuild {}", env!("CARGO_PKG_VERSION")),
        "FromImage": names.first().cloned().unwrap_or_default(), "FromImageID": image.id().hex(),
        "FromImageDigest": digest, "ImageAnnotations": image.manifest().annotations,
        "OCIv1": oci, "Docker": docker,
    });
    document = over(document, &buildah);
    Ok(document)
}
