//! Which way of showing progress the user asked for.
//!
//! All of it goes to standard error; standard output carries results only.

use std::fs::File;
use std::io::{IsTerminal, stderr};
use std::path::Path;
use std::sync::Arc;

use clap::ValueEnum;
use progress::{Json, Plain, Terminal};
use task::Silent;

use crate::report::Failure;

pub(crate) use progress::{Rendering, bytes, duration};

/// How to show progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Progress {
    /// `tty` on a terminal, else `plain`.
    #[default]
    Auto,
    /// A live view that redraws itself; `plain` without a terminal.
    Tty,
    /// One line per event, for logs.
    Plain,
    /// Errors only.
    #[value(alias = "none")]
    Quiet,
    /// One JSON object per line.
    Rawjson,
}

/// The way of showing progress where a flag says nothing: what `$BUILDKIT_PROGRESS` says.
///
/// # Errors
/// The variable names no such way.
pub(crate) fn chosen(progress: Progress) -> Result<Progress, Failure> {
    if progress != Progress::Auto {
        return Ok(progress);
    }
    match std::env::var("BUILDKIT_PROGRESS") {
        Ok(text) if !text.is_empty() => Progress::from_str(&text, true).map_err(|_| {
            Failure::usage(format!("$BUILDKIT_PROGRESS is {text:?}"))
                .hint("it is one of auto, tty, plain, quiet, none and rawjson")
        }),
        _ => Ok(Progress::Auto),
    }
}

impl Progress {
    /// Whether a summary sentence is printed.
    pub(crate) fn tells(self) -> bool {
        !matches!(self, Progress::Quiet | Progress::Rawjson)
    }
}

/// The rendering for this way of showing progress; it must be closed before the last words.
pub(crate) fn observer(progress: Progress) -> Rendering {
    let terminal = stderr().is_terminal();
    match progress {
        Progress::Quiet => Rendering::Other(Arc::new(Silent)),
        Progress::Rawjson => Rendering::Other(Arc::new(Json::new(stderr()))),
        Progress::Auto if terminal => Rendering::Terminal(Arc::new(Terminal::new())),
        Progress::Tty if terminal => Rendering::Terminal(Arc::new(Terminal::new())),
        // Nothing can be drawn on what is no terminal.
        Progress::Auto | Progress::Tty | Progress::Plain => {
            Rendering::Plain(Arc::new(Plain::new(stderr())))
        }
    }
}

/// A rendering with a trace of it in a file once it is closed.
///
/// # Errors
/// The file cannot be made.
pub(crate) fn traced(rendering: Rendering, path: &Path) -> Result<Rendering, Failure> {
    let file = File::create(path)
        .map_err(|error| Failure::io(format!("writing the trace {}", path.display()), &error))?;
    Ok(rendering.traced(file))
}
