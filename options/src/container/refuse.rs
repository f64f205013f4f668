//! What only containers of their own have.

use runtime::{ContainerSpec, Ids, Join, Namespace};

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

/// Builds do not join the namespaces of containers, which may end meanwhile.
///
/// # Errors
/// The namespace that was asked for.
pub fn refuse_containers(spec: &ContainerSpec) -> Result<(), Failure> {
    let of = |namespace: &Option<Namespace>| match namespace {
        Some(Namespace::Join(join)) => Some(join.clone()),
        _ => None,
    };
    let user = match &spec.isolation.ids {
        Some(Ids::Join(join)) => Some(join.clone()),
        _ => None,
    };
    let joined = [
        ("--network", spec.network.join.clone()),
        ("--pid", of(&spec.isolation.pid)),
        ("--ipc", of(&spec.isolation.ipc)),
        ("--uts", of(&spec.isolation.uts)),
        ("--userns", user),
    ];
    match joined.iter().find(|(_, join)| matches!(join, Some(Join::Container(_)))) {
        None => Ok(()),
        Some((flag, _)) => {
            let what = format!("{flag}: container:NAME is not supported by builds");
            let hint = match *flag {
                "--network" => "put the container on a named network, and name that",
                _ => "name the path of the namespace: ns:/proc/PID/ns/…",
            };
            Err(Failure::usage(what).hint(hint))
        }
    }
}
