//! Containers as the user sees them: what the commands about containers share.

mod choice;
mod end;
mod events;
mod files;
mod life;
mod logs;
mod port;
mod ps;
mod status;
mod streams;
mod top;

use app::{App, quiet_task};
use builder::working::WorkingContainer;
use containers::{Container, ContainerFilter, Containers};
use options::{Dialect, Failure, flags};
use task::Kind;

pub use self::choice::latest;
pub use self::end::{ContainerPrune, Kill, Rm, Wait};
pub use self::events::Events;
pub(crate) use self::files::out_of;
pub use self::files::{Cp, Diff, Export};
pub use self::life::{Pause, Restart, Start, Stop, Unpause, Update};
pub(crate) use self::life::{patience, size};
pub use self::logs::Logs;
pub use self::port::Port;
pub use self::ps::Ps;
pub use self::status::{Stats, StatusCommand};
pub use self::streams::{Attach, Exec};
pub(crate) use self::streams::{attachment, need_terminal};
pub use self::top::Top;

/// The containers of the store.
///
/// # Errors
/// The store cannot be opened.
pub fn containers(app: &App) -> Result<Containers, Failure> {
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
pub fn missing(name: &str) -> Failure {
    Failure::new(Kind::NotFound, Dialect::spoken().no_container("container", name))
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
pub fn image(container: &Container) -> String {
    match WorkingContainer::of(container.store(), container.row().clone()) {
        Ok(Some(working)) => working.state.image,
        _ => container.record().image.clone(),
    }
}

/// The conditions of `--filter`, for containers.
///
/// # Errors
/// One is not understood; `before` or `since` names no container.
pub(crate) fn filters(app: &App, texts: &[String]) -> Result<Vec<ContainerFilter>, Failure> {
    let moment = |text: &str| flags::moment(text).ok();
    let one = |text: &String| {
        let mut filter = ContainerFilter::parse(text, &moment).ok_or_else(|| {
            Failure::usage(format!("--filter {text:?} is not supported"))
                .hint(format!("the keys are {}", ContainerFilter::KEYS))
        })?;
        let resolved = filter.resolve(&containers(app)?);
        resolved.map_err(|error| Failure::from(error).context(format!("--filter {text}")))?;
        Ok(filter)
    };
    texts.iter().map(one).collect()
}
