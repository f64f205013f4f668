//! What a build does when a command fails.

use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::sync::Arc;

use builder::debug::{DebugOptions, OnFailure, Terminal};
use clap::{Args, ValueEnum};
use options::Failure;

/// What to do when a command fails.
#[derive(Debug, Args)]
pub(super) struct DebugFlags {
    /// When a RUN fails: stop, keep its files, or open a shell with its files
    #[arg(
        long,
        value_enum,
        default_value = "stop",
        value_name = "ACTION",
        help_heading = "Debugging"
    )]
    on_failure: Action,
    /// Continue from the files that an earlier build with --on-failure=keep kept
    #[arg(long, value_name = "ID", help_heading = "Debugging")]
    resume: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Action {
    Stop,
    Keep,
    Shell,
}

impl DebugFlags {
    /// Whether a shell may be opened: nothing else may write to the terminal then.
    pub(super) fn interactive(&self) -> bool {
        self.on_failure == Action::Shell && terminal()
    }

    /// What the flags ask for.
    ///
    /// # Errors
    /// The terminal cannot be opened.
    pub(super) fn request(&self) -> Result<DebugOptions, Failure> {
        let on_failure = match self.on_failure {
            Action::Stop => OnFailure::Stop,
            Action::Keep => OnFailure::Keep,
            Action::Shell if terminal() => OnFailure::Shell(Arc::new(own_terminal()?)),
            Action::Shell => {
                eprintln!(
                    "warning: --on-failure=shell needs a terminal; the files of a failed RUN are kept instead"
                );
                OnFailure::Keep
            }
        };
        let mut debugging = DebugOptions::default();
        debugging.on_failure = on_failure;
        debugging.resume.clone_from(&self.resume);
        Ok(debugging)
    }
}

fn terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// The terminal the user sits at: what is typed, and where errors go.
///
/// # Errors
/// There are no descriptors left.
pub(crate) fn own_terminal() -> Result<Terminal, Failure> {
    let copy = |stream: &dyn AsFd| {
        let copy = stream.as_fd().try_clone_to_owned();
        copy.map_err(|error| Failure::io("opening the terminal", &error))
    };
    let size = rustix::termios::tcgetwinsize(std::io::stdin()).ok();
    Ok(Terminal {
        input: copy(&std::io::stdin())?,
        output: copy(&std::io::stderr())?,
        size: size.map_or((24, 80), |size| (size.ws_row, size.ws_col)),
    })
}
