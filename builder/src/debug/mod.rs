//! A failing `RUN`: a shell with its files, or a kept failure to inspect and resume.
//!
//! A kept failure is a container of the store with the file `failure::STATE`. Its changes lie on the
//! snapshot of the parent step and stay until it is removed. Another build never gets a result that
//! contains manual changes or files of an earlier attempt: that step and every step after it have
//! keys of their own.

mod failure;
mod options;

use std::sync::atomic::Ordering;

use store::Store;
use task::Task;

pub use failure::{FailedCommand, Inspection, KeptFailure};
pub use options::{DebugOptions, OnFailure, Terminal};
pub(crate) use options::{Origin, Repeatability};

use crate::plan::RunOp;
use crate::step::sandbox::{CommandStreams, RunSandbox, Surroundings};
use crate::{Error, Result};

impl DebugOptions {
    /// Fails if there is nothing to resume.
    pub(crate) fn check(&self, store: &Store) -> Result<()> {
        self.resume.as_ref().map_or(Ok(()), |id| KeptFailure::require(store, id).map(drop))
    }

    /// Warns if nothing was resumed.
    pub(crate) fn settle(&self, task: &Task) {
        if let Some(id) = &self.resume
            && !self.resumed.load(Ordering::Relaxed)
        {
            task.warn(format!("no step continued from {id}: that step did not run"));
        }
    }
}

/// What becomes of a command that failed.
pub(crate) enum Verdict {
    /// It is to be run again on what is there now.
    Again,
    /// The build ends; the id of what was kept, if it was.
    End(Option<String>),
}

/// Decides what becomes of a command that failed. `again` says whether it was run twice already.
pub(crate) fn judge(
    op: &RunOp,
    room: &RunSandbox<'_>,
    with: &Surroundings<'_>,
    status: &str,
    again: bool,
    task: &Task,
) -> Result<Verdict> {
    match with.request.debug.on_failure.clone() {
        OnFailure::Stop => Ok(Verdict::End(None)),
        OnFailure::Keep => Ok(Verdict::End(Some(failure::keep(op, room, with, status)?))),
        OnFailure::Shell(_) if again => Ok(Verdict::End(None)),
        OnFailure::Shell(terminal) => {
            let said = format!(
                "\r\n{} {status}: this shell has its files.\r\n\
                 `exit 0` runs the command again, any other exit code ends the build.\r\n",
                super::step::shortened(&with.step.instruction)
            );
            let mut out = std::fs::File::from(
                terminal.output.try_clone().map_err(Error::file("opening", "/dev/tty"))?,
            );
            let _ = std::io::Write::write_all(&mut out, said.as_bytes());
            let args = shell(op);
            let ended = room.run(op, with, &args, CommandStreams::Terminal(&terminal), task);
            match ended {
                Ok(status) if status.success() => Ok(Verdict::Again),
                Ok(_) => Ok(Verdict::End(None)),
                Err(Error::Cancelled(cancelled)) => Err(cancelled.into()),
                Err(error) => {
                    task.warn(format!("no shell could be opened: {error}"));
                    Ok(Verdict::End(None))
                }
            }
        }
    }
}

/// The shell of a command, to be talked to.
pub(crate) fn shell(op: &RunOp) -> Vec<String> {
    let own = op.args.first().filter(|_| op.script.is_none());
    let name = own.and_then(|program| program.rsplit('/').next()).unwrap_or_default();
    match (own, name) {
        (Some(program), "sh" | "bash" | "ash" | "dash" | "zsh" | "ksh") => vec![program.clone()],
        _ => vec!["/bin/sh".to_owned()],
    }
}

/// The kept failure of this step, if this build resumes it.
///
/// # Errors
/// There is no such failure; earlier steps have changed since.
pub(crate) fn resumed(with: &Surroundings<'_>) -> Result<Option<KeptFailure>> {
    let Some(id) = &with.request.debug.resume else { return Ok(None) };
    if with.request.debug.resumed.load(Ordering::Relaxed) {
        return Ok(None);
    }
    let kept = KeptFailure::require(&with.env.store, id)?;
    if kept.failed.label != label(&with.step.name) || kept.failed.file != with.file.name {
        return Ok(None);
    }
    if kept.failed.parent != with.origin.parent {
        return Err(Error::Stale { id: id.clone() });
    }
    with.request.debug.resumed.store(true, Ordering::Relaxed);
    Ok(Some(kept.lock()?))
}

/// `[build 2/5]`: the place of a step in its file.
pub(crate) fn label(name: &str) -> String {
    name.split("] ").next().unwrap_or_default().to_owned()
}
