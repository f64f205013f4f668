//! `--progress`: which way of showing progress the user asked for.
//!
//! All of it goes to standard error; standard output carries results only.

use std::fs::File;
use std::io::{IsTerminal, stderr};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use clap::ValueEnum;
use progress::{Json, LogFolding, Plain, ProgressDisplay, Steps, Terminal};
use task::Silent;

use crate::{Dialect, Failure};

/// How to show progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Progress {
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
pub fn chosen(progress: Progress) -> Result<Progress, Failure> {
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
    /// This, or nothing at all for a command that is to be quiet.
    #[must_use]
    pub fn unless(self, quiet: bool) -> Progress {
        if quiet { Progress::Quiet } else { self }
    }

    /// Whether a summary sentence is printed.
    pub fn tells(self) -> bool {
        !matches!(self, Progress::Quiet | Progress::Rawjson)
    }
}

/// The rendering for this way of showing progress; it must be closed before the last words.
pub fn observer(progress: Progress) -> ProgressDisplay {
    let terminal = stderr().is_terminal();
    match progress {
        Progress::Quiet => ProgressDisplay::Other(Arc::new(Silent)),
        Progress::Rawjson => ProgressDisplay::Other(Arc::new(Json::new(stderr()))),
        Progress::Auto if terminal => ProgressDisplay::Terminal(Arc::new(Terminal::new())),
        Progress::Tty if terminal => ProgressDisplay::Terminal(Arc::new(Terminal::new())),
        Progress::Auto if Dialect::spoken().numbers_steps() => {
            ProgressDisplay::Other(Arc::new(Steps::new(stderr())))
        }
        // Nothing can be drawn on what is no terminal.
        Progress::Auto | Progress::Tty | Progress::Plain => {
            ProgressDisplay::Plain(Arc::new(match folding() {
                Some(folding) => Plain::folded(stderr(), folding),
                None => Plain::new(stderr()),
            }))
        }
    }
}

/// How the CI service that we run in folds lines: `$GITHUB_ACTIONS` and `$GITLAB_CI` say which.
fn folding() -> Option<LogFolding> {
    let is = |name: &str| std::env::var(name).is_ok_and(|value| value == "true");
    let now = || {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since.unwrap_or_default().as_secs()
    };
    match (is("GITHUB_ACTIONS"), is("GITLAB_CI")) {
        (true, _) => Some(LogFolding::GitHub),
        (_, true) => Some(LogFolding::GitLab(now)),
        _ => None,
    }
}

/// A rendering with a trace of it in a file once it is closed.
///
/// # Errors
/// The file cannot be made.
pub fn traced(rendering: ProgressDisplay, path: &Path) -> Result<ProgressDisplay, Failure> {
    let file = File::create(path)
        .map_err(|error| Failure::io(format!("writing the trace {}", path.display()), &error))?;
    Ok(rendering.traced(file))
}
