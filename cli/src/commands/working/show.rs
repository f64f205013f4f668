//! The output of `rbuild inspect` for a working container, with buildah's fields.

use builder::working::Working;
use serde_json::{Value, json};
use task::Kind;

use crate::report::Failure;

/// The fields of a configuration by the names that Go templates use as well.
pub(crate) fn named(config: &mut Value) {
    let names = [
        ("created", "Created"),
        ("author", "Author"),
        ("architecture", "Architecture"),
        ("variant", "Variant"),
        ("os", "OS"),
        ("os.version", "OSVersion"),
        ("os.features", "OSFeatures"),
        ("config", "Config"),
        ("rootfs", "RootFS"),
        ("history", "History"),
        ("comment", "Comment"),
    ];
    for (json, go) in names {
        config[go] = config[json].clone();
    }
}

/// Everything about it; for a template, also by the names that Go has for the fields.
///
/// # Errors
/// Its image cannot be read.
pub(crate) fn document(working: &Working, template: bool) -> Result<Value, Failure> {
    let base = working.base()?;
    let state = &working.state;
    let broken =
        |error: serde_json::Error| Failure::new(Kind::Invalid, format!("writing JSON: {error}"));
    let mut oci = serde_json::to_value(&state.config).map_err(broken)?;
    let mut docker = oci.clone();
    docker["comment"] = state.comment.clone().into();
    if template {
        let complete = crate::commands::document::container_config(&state.config.config)?;
        (oci["config"], docker["config"]) = (complete.clone(), complete);
        [&mut oci, &mut docker].into_iter().for_each(named);
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(json!({
        "Type": format!("rbuild {}", env!("CARGO_PKG_VERSION")),
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
        "History": serde_json::to_value(&state.history).map_err(broken)?,
        "Settings": if state.settings.is_null() {
            serde_json::to_value(&state.spec).map_err(broken)?
        } else {
            state.settings.clone()
        },
    }))
}
