//! Containers as the user sees them: what the commands about containers share.

mod files;
mod life;
mod look;
mod port;
mod ps;
mod streams;

use builder::working::Working;
use containers::{Container, Containers, Phase};
use runtime::{ExitStatus, HealthStatus};
use serde_json::{Value, json};
use task::Kind;

pub(crate) use self::files::{Cp, Diff, Export, out_of};
pub(crate) use self::life::{
    ContainerPrune, Kill, Pause, Restart, Rm, Start, Stop, Unpause, Update, Wait, size,
};
pub(crate) use self::look::{Events, Look, Stats, Top};
pub(crate) use self::port::Port;
pub(crate) use self::ps::Ps;
pub(crate) use self::streams::{Attach, Exec, Logs, attachment, need_terminal};
use super::images::ago;
use crate::app::{App, quiet_task};
use options::Failure;

/// The containers of the store.
///
/// # Errors
/// The store cannot be opened.
pub(crate) fn containers(app: &App) -> Result<Containers, Failure> {
    Ok(Containers::new(app.store()?.clone()))
}

/// The container with this name, id, or beginning of an id; it must be there.
///
/// # Errors
/// It is not there; the beginning is ambiguous; the store cannot be read.
pub(crate) fn require(app: &App, name: &str) -> Result<Container, Failure> {
    containers(app)?.find(name)?.ok_or_else(|| missing(name))
}

/// There is no such container.
pub(crate) fn missing(name: &str) -> Failure {
    Failure::new(Kind::NotFound, format!("there is no container {name:?}"))
        .hint("`rbuild ps --all` lists the containers")
}

/// Tells a program that cannot be started from a failure of ours: 127, 126, 125.
pub(crate) fn start_failure(error: containers::Error) -> Failure {
    let code = error.exit_code();
    Failure { code: Some(code), ..Failure::from(error) }
}

/// Removes a container, whichever kind it is; a running one only by force.
///
/// # Errors
/// It is running.
pub(crate) fn remove(container: &Container, force: bool) -> Result<(), Failure> {
    match container.remove(force, &quiet_task("rm")) {
        Err(error @ containers::Error::Running { .. }) => {
            let name = container.name();
            Err(Failure::from(error).hint(format!("stop it first, or `rbuild rm --force {name}`")))
        }
        removed => Ok(removed?),
    }
}

/// A moment in seconds since 1970 as RFC 3339.
fn time(seconds: f64) -> Option<String> {
    let millis = (seconds * 1000.0) as i64;
    Some(jiff::Timestamp::from_millisecond(millis).ok()?.to_string())
}

/// `Up 5 seconds`, `Exited (0) 2 minutes ago`.
pub(crate) fn status(container: &Container) -> String {
    let since = |seconds: f64| time(seconds).map(|time| ago(&time)).unwrap_or_default();
    let Some(state) = container.state() else { return "Created".to_owned() };
    let up = || {
        let up = since(state.started);
        format!("Up {}", up.strip_suffix(" ago").unwrap_or(&up))
    };
    let ended = |word: &str, exit: ExitStatus| {
        let memory = matches!(exit, ExitStatus::OutOfMemory(_));
        let why = if memory { ", out of memory" } else { "" };
        format!("{word} ({}{why}) {}", exit.code(), since(state.finished.unwrap_or_default()))
    };
    match (container.phase(), state.exit) {
        (Phase::Created, _) => "Created".to_owned(),
        (Phase::Running, _) => match container.health().map(|health| health.status) {
            None => up(),
            Some(HealthStatus::Starting) => format!("{} (health: starting)", up()),
            Some(status) => format!("{} ({})", up(), status.as_str()),
        },
        (Phase::Paused, _) => format!("{} (Paused)", up()),
        (Phase::Restarting, Some(exit)) => ended("Restarting", exit),
        (Phase::Exited, Some(exit)) => ended("Exited", exit),
        (Phase::Restarting | Phase::Exited | Phase::Dead, _) => "Dead".to_owned(),
    }
}

/// What it was started from.
pub(crate) fn image(container: &Container) -> String {
    match Working::of(container.store(), container.row().clone()) {
        Ok(Some(working)) => working.state.image,
        _ => container.record().image.clone(),
    }
}

/// Program and arguments on one line.
pub(crate) fn command(container: &Container) -> String {
    container.record().command.join(" ")
}

/// One row of `ps`.
pub(crate) fn row(container: &Container) -> Value {
    json!({
        "ID": container.id(), "Names": container.name(), "Image": image(container),
        "Command": command(container), "Status": status(container),
        "State": container.phase().as_str(),
        "Health": container.health().map(|health| health.status.as_str()),
        "CreatedAt": container.row().created,
        "Pid": container.state().map_or(0, |state| state.pid),
        "Labels": container.record().spec.lifecycle.labels,
        "Ports": ports(container),
        "Networks": container.network_names().join(","),
    })
}

/// `0.0.0.0:8080->80/tcp`, with commas between.
fn ports(container: &Container) -> String {
    let one = |port: network::Published| {
        format!("{}->{}/{}", port.machine, port.container, port.protocol.as_str())
    };
    container.published().into_iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Cuts text for a column.
pub(crate) fn cut(text: &str, width: usize) -> String {
    match text.chars().count() > width {
        true => text.chars().take(width - 1).chain(['…']).collect(),
        false => text.to_owned(),
    }
}
