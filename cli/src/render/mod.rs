//! What the user sees while work goes on: one [`Observer`] per way of showing it.
//!
//! Everything here goes to standard error; standard output carries results only.

mod json;
mod plain;
mod split;
mod terminal;
mod text;

use std::io::IsTerminal;
use std::sync::Arc;

use clap::ValueEnum;
use task::{Observer, Silent};

pub(crate) use json::Json;
pub(crate) use plain::Plain;
pub(crate) use split::Split;
pub(crate) use terminal::Terminal;
pub(crate) use text::{bytes, duration};

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Progress {
    /// `tty` on a terminal, else `plain`.
    #[default]
    Auto,
    /// A live view that redraws itself.
    Tty,
    /// One line per event, for logs.
    Plain,
    /// Errors only.
    Quiet,
    /// One JSON object per line.
    Rawjson,
}

/// The observer for this way of showing progress, and what must be closed before the last words.
pub(crate) fn observer(progress: Progress) -> Rendering {
    let terminal = std::io::stderr().is_terminal();
    match progress {
        Progress::Quiet => Rendering::Other(Arc::new(Silent)),
        Progress::Rawjson => Rendering::Other(Arc::new(Json::new())),
        Progress::Auto if terminal => Rendering::Terminal(Arc::new(Terminal::new())),
        Progress::Tty => Rendering::Terminal(Arc::new(Terminal::new())),
        Progress::Auto | Progress::Plain => Rendering::Plain(Arc::new(Plain::new())),
    }
}

/// A running way of showing progress.
pub(crate) enum Rendering {
    /// The live view.
    Terminal(Arc<Terminal>),
    /// Lines.
    Plain(Arc<Plain>),
    /// Anything that needs no closing.
    Other(Arc<dyn Observer>),
}

impl Rendering {
    /// The observer for tasks.
    pub(crate) fn observer(&self) -> Arc<dyn Observer> {
        match self {
            Rendering::Terminal(terminal) => Arc::clone(terminal) as Arc<dyn Observer>,
            Rendering::Plain(plain) => Arc::clone(plain) as Arc<dyn Observer>,
            Rendering::Other(other) => Arc::clone(other),
        }
    }

    /// Leaves the screen as it should stay; nothing is drawn after this.
    pub(crate) fn close(&self) {
        match self {
            Rendering::Terminal(terminal) => terminal.close(),
            Rendering::Plain(plain) => plain.close(),
            Rendering::Other(_) => {}
        }
    }
}
