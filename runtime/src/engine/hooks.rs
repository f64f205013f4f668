//! Programs of the bundle that run at set moments of a container's life.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use std::os::unix::process::CommandExt;

use oci_spec::runtime::{ContainerState, Hook, Spec, StateBuilder};

use crate::{Error, Result};

/// The moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

/// The hooks of a moment, in order.
pub(crate) fn at(spec: &Spec, moment: Moment) -> &[Hook] {
    let Some(hooks) = spec.hooks() else { return &[] };
    let list = match moment {
        #[allow(deprecated)] // engines still write it
        Moment::Prestart => hooks.prestart(),
        Moment::CreateRuntime => hooks.create_runtime(),
        Moment::CreateContainer => hooks.create_container(),
        Moment::StartContainer => hooks.start_container(),
        Moment::Poststart => hooks.poststart(),
        Moment::Poststop => hooks.poststop(),
    };
    list.as_deref().unwrap_or_default()
}

/// Runs the hooks of a moment; they read the container's state.
///
/// # Errors
/// [`Error::System`] for the first that fails; those after it run only when the container is gone.
pub(crate) fn run(
    spec: &Spec,
    moment: Moment,
    id: &str,
    bundle: &str,
    pid: u32,
    status: ContainerState,
) -> Result<()> {
    let hooks = at(spec, moment);
    if hooks.is_empty() {
        return Ok(());
    }
    let mut state = StateBuilder::default()
        .version(spec.version().clone())
        .id(id)
        .status(status)
        .bundle(bundle);
    if pid > 0 {
        state = state.pid(pid as i32);
    }
    if let Some(annotations) = spec.annotations() {
        state = state.annotations(annotations.clone());
    }
    let state = state.build().map_err(|error| Error::invalid("state", error.to_string()))?;
    let state =
        serde_json::to_vec(&state).map_err(|error| Error::invalid("state", error.to_string()))?;
    if moment != Moment::Poststop {
        return hooks.iter().try_for_each(|hook| run_one(hook, &state));
    }
    let results: Vec<Result<()>> = hooks.iter().map(|hook| run_one(hook, &state)).collect();
    results.into_iter().collect()
}

fn run_one(hook: &Hook, state: &[u8]) -> Result<()> {
    let failed = || Error::system("running hook", hook.path());
    let args = hook.args().as_deref().unwrap_or_default();
    let mut command = Command::new(hook.path());
    if let Some((name, rest)) = args.split_first() {
        command.arg0(name).args(rest);
    }
    let variables = hook.env().iter().flatten().filter_map(|line| line.split_once('='));
    command.env_clear().envs(variables).stdin(Stdio::piped());
    let mut child = command.spawn().map_err(failed())?;
    if let Some(mut input) = child.stdin.take() {
        // A hook need not read it.
        let _ = input.write_all(state);
    }
    let limit = hook.timeout().and_then(|seconds| u64::try_from(seconds).ok());
    let deadline = limit.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    loop {
        let status = match deadline {
            None => Some(child.wait().map_err(failed())?),
            Some(_) => child.try_wait().map_err(failed())?,
        };
        match status {
            Some(status) if status.success() => return Ok(()),
            Some(status) => {
                let reason = format!("hook {} failed: {status}", hook.path().display());
                return Err(Error::invalid("hooks", reason));
            }
            None if deadline.is_some_and(|deadline| Instant::now() > deadline) => {
                // It may end by itself just now.
                let _ = child.kill();
                let _ = child.wait();
                let reason = format!("hook {} took too long", hook.path().display());
                return Err(Error::invalid("hooks", reason));
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}
