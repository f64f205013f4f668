//! What new containers see beside their image.

use app::{App, lookup};
use image::Image;
use options::Failure;
use runtime::{ContainerSpec, Files};

use crate::container;

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
            return Err(Failure::usage(what).hint("ro and rw are supported"));
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

/// What becomes of an unhealthy container means nothing where its health is not checked.
pub(crate) fn check_health(spec: &ContainerSpec, image: Option<&Image>) -> Result<(), Failure> {
    let health = &spec.lifecycle.health;
    let config = image.map(|image| &image.config().config);
    let shell = config.map(|config| &config.shell[..]).filter(|shell| !shell.is_empty());
    let check = health.check(config.and_then(|config| config.healthcheck.as_ref()), shell);
    if check.is_some() || health.on_failure == runtime::OnFailure::None {
        return Ok(());
    }
    Err(Failure::usage("--health-on-failure: the container has no health check")
        .hint("give one by --health-cmd"))
}
