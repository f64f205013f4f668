//! Everything about a container, under docker's names.

use containers::{Container, Phase};
use runtime::{ExitStatus, Health};
use serde_json::{Value, json};
use task::Kind;

use super::{image, network_names, networks, time};
use crate::report::Failure;

/// Everything about it.
///
/// # Errors
/// It cannot be written as JSON; a volume cannot be read.
pub(crate) fn inspect(container: &Container) -> Result<Value, Failure> {
    let record = container.record();
    let spec = serde_json::to_value(&record.spec).map_err(|error| {
        Failure::new(Kind::Invalid, format!("writing the specification as JSON: {error}"))
    })?;
    let at = |name: &str| container.directory().join(name);
    Ok(json!({
        "Id": container.id(), "Name": container.name(),
        "Created": time(container.row().created as f64),
        "Image": container.row().image.as_ref().map(|image| image.digest),
        "ImageName": image(container),
        "Path": record.command.first(), "Args": record.command.get(1..).unwrap_or_default(),
        "State": state(container),
        "RestartCount": container.restarts(), "Driver": "overlay", "Platform": "linux",
        "LogPath": at("log"), "HostsPath": at("hosts"), "HostnamePath": at("hostname"),
        "ResolvConfPath": at("resolv.conf"),
        "NetworkSettings": networks(container),
        "Mounts": container.mount_documents()?,
        "Config": container.config_document(&image(container)),
        "HostConfig": container.host_config_document(&network_names(container)),
        "Spec": spec,
    }))
}

fn state(container: &Container) -> Value {
    let state = container.state();
    let exit = container.exit();
    let phase = container.phase();
    json!({
        "Status": phase.as_str(), "Running": container.is_running(),
        "Paused": phase == Phase::Paused, "Restarting": phase == Phase::Restarting,
        "Dead": phase == Phase::Dead,
        "Pid": state.map_or(0, |state| state.pid),
        "ExitCode": exit.map(ExitStatus::code),
        "OOMKilled": matches!(exit, Some(ExitStatus::OutOfMemory(_))),
        "StartedAt": state.and_then(|state| time(state.started)),
        "FinishedAt": state.and_then(|state| state.finished).and_then(time),
        "Health": container.health().map(|health| told_health(&health)),
    })
}

fn told_health(health: &Health) -> Value {
    let log = health.log.iter().map(|probe| {
        json!({
            "Start": time(probe.start), "End": time(probe.end),
            "ExitCode": probe.exit_code, "Output": probe.output,
        })
    });
    json!({
        "Status": health.status.as_str(), "FailingStreak": health.failing_streak,
        "Log": log.collect::<Vec<_>>(),
    })
}
