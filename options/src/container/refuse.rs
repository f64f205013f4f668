//! What only containers of their own have.

use runtime::ContainerSpec;

use crate::Failure;

/// Working containers have neither overlays over directories of the machine nor images mounted.
pub fn refuse_overlays(spec: &ContainerSpec) -> Result<(), Failure> {
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
pub fn refuse_volumes(spec: &ContainerSpec) -> Result<(), Failure> {
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

/// Builds and working containers do not share the network of one container.
///
/// # Errors
/// The network that was asked for.
pub fn refuse_networks(spec: &ContainerSpec) -> Result<(), Failure> {
    if spec.network.join.is_none() {
        return Ok(());
    }
    let what = "--network: container:NAME and ns:PATH are not supported by builds and working \
                containers";
    Err(Failure::usage(what).hint("put the container on a named network, and name that"))
}
