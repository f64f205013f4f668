//! What new containers see beside their image, and what other containers cannot have of it.

use runtime::{ContainerSpec, Files};

use super::{container, lookup};
use crate::app::App;
use options::Failure;

/// Adds the mounts of another container, unless something is mounted there already.
///
/// # Errors
/// There is no such container.
pub(crate) fn volumes_from(app: &App, text: &str, files: &mut Files) -> Result<(), Failure> {
    let (name, read_only) = match text.split_once(':') {
        None | Some((_, "rw")) => (text.trim_end_matches(":rw"), false),
        Some((name, "ro")) => (name, true),
        Some((_, other)) => {
            let what = format!("--volumes-from {text:?}: option {other:?} is not supported");
            return Err(Failure::usage(what).hint("ro and rw are"));
        }
    };
    let other = container::require(app, name)
        .map_err(|failure| failure.context(format!("--volumes-from {text}")))?;
    other.lend(read_only, files);
    Ok(())
}

/// Finds the images that are to be mounted.
///
/// # Errors
/// One is not in the store.
pub(crate) fn find_mounted(app: &App, files: &mut Files) -> Result<(), Failure> {
    for mount in &mut files.images {
        let found = lookup::require(app.store()?, &mount.image);
        let found = found.map_err(|failure| failure.context("mounting an image"))?;
        mount.found = Some(found.descriptor);
    }
    Ok(())
}

/// Working containers have neither overlays over directories of the machine nor images mounted.
pub(crate) fn refuse_overlays(spec: &ContainerSpec) -> Result<(), Failure> {
    if let Some(mount) = spec.files.images.first() {
        let what = format!("--mount type=image,source={} is not supported here", mount.image);
        return Err(Failure::usage(what).hint("it is for `rbuild run IMAGE`; copy what is needed"));
    }
    match spec.files.overlays.first() {
        None => Ok(()),
        Some(overlay) => {
            let what = format!("--volume {}:…:O is not supported here", overlay.source.display());
            Err(Failure::usage(what).hint(
                "option O is for `rbuild run IMAGE` and `rbuild bud`; mount it read-only: `ro`",
            ))
        }
    }
}

/// Volumes are for containers of their own.
pub(crate) fn refuse_volumes(spec: &ContainerSpec) -> Result<(), Failure> {
    match spec.files.volumes.first() {
        None => Ok(()),
        Some(volume) => {
            let name = volume.name.as_deref().unwrap_or("without a name");
            Err(Failure::usage(format!(
                "volume {name} at {} is not supported here",
                volume.target.display()
            ))
            .hint(
                "volumes are for `rbuild run IMAGE`; give a host path that starts with '/' or './'",
            ))
        }
    }
}
