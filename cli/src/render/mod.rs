//! What the user sees while work goes on: one [`Observer`] per way of showing it.
//!
//! Everything here goes to standard error; standard output carries results only.

mod json;
mod plain;
mod split;
mod story;
mod terminal;
mod text;
mod trace;

use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;

use clap::ValueEnum;
use task::{Observer, Silent};

use crate::report::Failure;

pub(crate) use json::Json;
pub(crate) use plain::Plain;
pub(crate) use split::Split;
use story::Story;
pub(crate) use terminal::Terminal;
pub(crate) use text::{bytes, duration};
use trace::Trace;

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
    /// Whether people are told in a sentence what was done.
    pub(crate) fn tells(self) -> bool {
        !matches!(self, Progress::Quiet | Progress::Rawjson)
    }
}

/// The observer for this way of showing progress, and what must be closed before the last words.
pub(crate) fn observer(progress: Progress) -> Rendering {
    let terminal = std::io::stderr().is_terminal();
    match progress {
        Progress::Quiet => Rendering::Other(Arc::new(Silent)),
        Progress::Rawjson => Rendering::Other(Arc::new(Json::new())),
        Progress::Auto if terminal => Rendering::Terminal(Arc::new(Terminal::new())),
        Progress::Tty if terminal => Rendering::Terminal(Arc::new(Terminal::new())),
        // Nothing can be drawn on what is no terminal.
        Progress::Auto | Progress::Tty | Progress::Plain => {
            Rendering::Plain(Arc::new(Plain::new()))
        }
    }
}

/// A running way of showing progress.
pub(crate) enum Rendering {
    /// The live view.
    Terminal(Arc<Terminal>),
    /// Lines.
    Plain(Arc<Plain>),
    /// One of the above, and a trace.
    Traced(Arc<Trace>),
    /// A renderer that needs no closing.
    Other(Arc<dyn Observer>),
}

impl Rendering {
    /// The observer for tasks.
    pub(crate) fn observer(&self) -> Arc<dyn Observer> {
        let shown = match self {
            Rendering::Terminal(terminal) => Arc::clone(terminal) as Arc<dyn Observer>,
            Rendering::Plain(plain) => Arc::clone(plain) as Arc<dyn Observer>,
            Rendering::Traced(trace) => Arc::clone(trace) as Arc<dyn Observer>,
            Rendering::Other(other) => Arc::clone(other),
        };
        if tracing::enabled!(tracing::Level::DEBUG) { Arc::new(Story::new(shown)) } else { shown }
    }

    /// This, with a trace of it in a file once it is closed.
    ///
    /// # Errors
    /// The file cannot be made.
    pub(crate) fn traced(self, path: &Path) -> Result<Rendering, Failure> {
        Ok(Rendering::Traced(Arc::new(Trace::new(self, path)?)))
    }

    /// Leaves the screen as it should stay; nothing is drawn after this.
    pub(crate) fn close(&self) {
        match self {
            Rendering::Terminal(terminal) => terminal.close(),
            Rendering::Plain(plain) => plain.close(),
            Rendering::Traced(trace) => trace.close(),
            Rendering::Other(_) => {}
        }
    }
}
