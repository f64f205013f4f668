//! Doing what steps say, each on a thread that may block.

pub(crate) mod copy;
mod devices;
pub(crate) mod foreign;
pub(crate) mod mounts;
mod network;
mod recorded;
pub(crate) mod run;
pub(crate) mod sandbox;
pub(crate) mod select;
pub(crate) mod workdir;

use std::sync::Arc;

use dockerfile::Diagnostic;
use task::Cause;

use crate::error::place;
use crate::plan::Step;
use crate::{Error, SourceFile};

/// Says at which instruction an error happened.
pub(crate) fn at(file: &Arc<SourceFile>, step: &Step, error: Error) -> Error {
    match error {
        Error::Cancelled(_)
        | Error::Command { .. }
        | Error::Step { .. }
        | Error::Internal { .. } => error,
        error => {
            let diagnostic = Diagnostic::error("step-failed", error.to_string(), step.span);
            Error::Step {
                place: place(file, step.span.start),
                instruction: shortened(&step.instruction),
                file: Arc::clone(file),
                diagnostic: Box::new(diagnostic),
                source: Cause::new(error),
            }
        }
    }
}

/// The beginning of a long instruction.
pub(crate) fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(160).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}
