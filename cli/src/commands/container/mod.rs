//! Containers as the user sees them: what the commands about containers share.

mod files;
mod life;
mod look;
mod port;
mod ps;
mod streams;

use builder::working::Working;
use containers::{Container, Containers};
use options::Failure;
use options::environment::now;
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
use crate::app::{App, quiet_task};

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

/// What it was started from.
pub(crate) fn image(container: &Container) -> String {
    match Working::of(container.store(), container.row().clone()) {
        Ok(Some(working)) => working.state.image,
        _ => container.record().image.clone(),
    }
}

/// One row of `ps`.
pub(crate) fn row(container: &Container) -> Value {
    json!({
        "ID": container.id(), "Names": container.name(), "Image": image(container),
        "Command": container.command_line(), "Status": container.status(now()),
        "State": container.phase().as_str(),
        "Health": container.health().map(|health| health.status.as_str()),
        "CreatedAt": container.row().created,
        "Pid": container.state().map_or(0, |state| state.pid),
        "Labels": container.record().spec.lifecycle.labels,
        "Ports": container.port_text(),
        "Networks": container.network_names().join(","),
    })
}

/// Cuts text for a column.
pub(crate) fn cut(text: &str, width: usize) -> String {
    match text.chars().count() > width {
        true => text.chars().take(width - 1).chain(['…']).collect(),
        false => text.to_owned(),
    }
}
