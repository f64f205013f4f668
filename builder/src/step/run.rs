//! `RUN`: a command in a container of its own, whose changes are the layer.

use std::path::PathBuf;
use std::sync::Arc;

use dockerfile::Diagnostic;
use layers::Root;
use runtime::ExitStatus;
use store::Active;
use task::Task;

use super::recorded;
use super::sandbox::{CommandStreams, RunSandbox, Surroundings};
use crate::debug::{self, KeptFailure, Repeatability, Verdict};
use crate::error::{ErrorContext, place};
use crate::plan::RunOp;
use crate::{Error, Result, users};

/// Runs the command on the parent; its changes are in `active` then.
pub(crate) fn work(
    op: &RunOp,
    active: &Active,
    with: &Surroundings<'_>,
    task: &Task,
) -> Result<Repeatability> {
    let resumed = debug::resumed(with)?;
    let stack = active.stack(None).during("stacking layers")?;
    let top = resumed
        .as_ref()
        .map(KeptFailure::top)
        .or(stack.top)
        .ok_or(Error::internal("a step that runs has a layer of its own"))?;
    let mut room = RunSandbox::new(op, top.clone(), with, task)?;
    let mut made = if resumed.is_some() { Repeatability::ByHand } else { Repeatability::Cleanly };
    let mut again = false;
    loop {
        let status = room.run(op, with, &op.args, CommandStreams::Captured, task)?;
        answered(&room, with, task)?;
        if status.success() {
            break;
        }
        match debug::judge(op, &room, with, &told(status), again, task)? {
            Verdict::Again => {
                (made, again) = (Repeatability::ByHand, true);
                // What it mounts may have changed meanwhile as well.
                drop(room);
                room = RunSandbox::new(op, top.clone(), with, task)?;
            }
            Verdict::End(kept) => return Err(failed(op, with, status, kept)),
        }
    }
    let below = room.below();
    if let Some(owner) = as_other(op, with, below)? {
        let action = "changing the owner of the files of the command";
        let upper = Root::open(&top.upper).during(action)?;
        layers::give_new(&upper, below, owner).during(action)?;
    }
    if let Some(kept) = resumed {
        kept.give(active)?;
    }
    if made == Repeatability::ByHand {
        task.warn(
            "this step did not run from a clean parent: build again for a reproducible result",
        );
    }
    Ok(made)
}

/// An error if a recording has no answer to something that the command asked.
fn answered(room: &RunSandbox<'_>, with: &Surroundings<'_>, task: &Task) -> Result<()> {
    let Some(recorder) = with.recorder else { return Ok(()) };
    let troubles = room.troubles();
    for refused in troubles.refused {
        task.warn(refused);
    }
    recorded::complete(recorder, troubles.missing)
}

/// The owner of the files that a command makes, if it runs as root in place of another user.
fn as_other(
    op: &RunOp,
    with: &Surroundings<'_>,
    below: Option<&Root>,
) -> Result<Option<(u32, u32)>> {
    match below {
        Some(below) if with.env.single_id && !op.user.is_empty() => {
            users::user(below, &op.user).map(|owner| Some(owner).filter(|ids| *ids != (0, 0)))
        }
        _ => Ok(None),
    }
}

/// How a command ended, in words.
fn told(status: ExitStatus) -> String {
    match status {
        ExitStatus::Code(code) => format!("exited with code {code}"),
        ExitStatus::Signal(signal) => format!("was killed by signal {signal}"),
        ExitStatus::OutOfMemory(_) => "ran out of memory".to_owned(),
    }
}

/// With less than this free, a command that failed may have failed for it.
const LITTLE: u64 = 1 << 20;

/// The store, where its disk is full.
fn full(with: &Surroundings<'_>) -> Option<PathBuf> {
    let store = &with.env.store;
    store.free_space().is_ok_and(|free| free < LITTLE).then(|| store.path().to_owned())
}

fn failed(op: &RunOp, with: &Surroundings<'_>, status: ExitStatus, kept: Option<String>) -> Error {
    let status_text = told(status);
    let command = match &op.script {
        Some((name, _)) => format!("the script {name}"),
        None => op.args.join(" "),
    };
    let command = super::shortened(&command.replace('\n', " "));
    let message = format!("this command {status_text}");
    Error::Command {
        place: place(with.file, with.step.span.start),
        command,
        status: status_text,
        code: status.code(),
        kept,
        full: full(with),
        file: Arc::clone(with.file),
        diagnostic: Box::new(Diagnostic::error("command-failed", message, with.step.span)),
    }
}
