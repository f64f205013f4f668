//! `rbuild exec` and `attach`.

use std::io::IsTerminal;
use std::path::PathBuf;

use app::{App, Runnable, quiet_task};
use clap::Args;
use options::{Failure, flags};
use runtime::{AttachOptions, AttachOutcome, Exec as Program};
use task::Kind;

use crate::descriptors::DescriptorFlags;

use super::choice::one;
use super::start_failure;

/// Run another program in a running container
#[derive(Debug, Args)]
pub struct Exec {
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Give the program a terminal
    #[arg(short, long)]
    tty: bool,
    /// Do not wait for the program
    #[arg(short, long)]
    detach: bool,
    /// Detach from the terminal with these keys
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", value_parser = flags::keys)]
    detach_keys: flags::Keys,
    /// Set an environment variable
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Set the working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Run as this user (and group), by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Give the program all capabilities
    #[arg(long)]
    privileged: bool,
    #[command(flatten)]
    descriptors: DescriptorFlags,
    /// Run it in the newest container
    #[arg(short, long)]
    latest: bool,
    /// The container, then the program and its arguments
    #[arg(required = true, num_args = 1.., trailing_var_arg = true, allow_hyphen_values = true, value_names = ["CONTAINER", "COMMAND"])]
    container_and_command: Vec<String>,
}

impl Runnable for Exec {
    /// Runs; gives back the program's exit code.
    fn run(self, app: &App) -> Result<u8, Failure> {
        let mut words = self.container_and_command.into_iter();
        let name = if self.latest { None } else { words.next() };
        let container = one(app, name.as_deref(), self.latest)?;
        if words.len() == 0 {
            return Err(Failure::usage(format!("no program for container {}", container.name()))
                .hint("`rbuild exec CONTAINER PROGRAM`"));
        }
        if self.tty && self.interactive && !self.detach {
            need_terminal()?;
        }
        let size = rustix::termios::tcgetwinsize(std::io::stdin()).ok();
        let program = Program {
            args: words.collect(),
            env: None,
            extra_env: flags::environment(&self.env_file, &self.env)?,
            working_dir: self.workdir,
            user: self.user,
            terminal: self.tty.then(|| size.map_or((24, 80), |size| (size.ws_row, size.ws_col))),
            interactive: self.interactive,
            detach: self.detach,
            privileged: self.privileged,
            descriptors: self.descriptors.numbers()?,
        };
        let keys = if self.tty { self.detach_keys.0 } else { Vec::new() };
        let options = attachment(self.interactive, keys);
        let task = quiet_task("exec");
        let ended = container.exec(&program, &options, &task).map_err(|error| {
            start_failure(error).context(format!("executing in {}", container.name()))
        })?;
        task.done();
        Ok(code(ended))
    }
}

/// A program that waits for keys would wait forever without a terminal.
///
/// # Errors
/// Standard input is not a terminal.
pub(crate) fn need_terminal() -> Result<(), Failure> {
    if std::io::stdin().is_terminal() {
        return Ok(());
    }
    Err(Failure::new(Kind::Invalid, "standard input is not a terminal")
        .hint("leave out --tty or --interactive"))
}

/// How to attach for a command in the foreground.
pub(crate) fn attachment(input: bool, detach_keys: Vec<u8>) -> AttachOptions {
    AttachOptions { input, detach_keys, forward_signals: true, replay: false }
}

fn code(ended: AttachOutcome) -> u8 {
    match ended {
        AttachOutcome::Exited(status) => status.code(),
        AttachOutcome::Detached => 0,
    }
}

/// Connect to a running container's streams
#[derive(Debug, Args)]
pub struct Attach {
    /// Detach with these keys
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", value_parser = flags::keys)]
    detach_keys: flags::Keys,
    /// Do not forward standard input
    #[arg(long)]
    no_stdin: bool,
    /// Forward signals to the program (default: true)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    sig_proxy: Option<bool>,
    /// Connect to the newest container
    #[arg(short, long)]
    latest: bool,
    /// The container
    container: Option<String>,
}

impl Runnable for Attach {
    /// Attaches; gives back the container's exit code, or 0 after detaching.
    fn run(self, app: &App) -> Result<u8, Failure> {
        let container = one(app, self.container.as_deref(), self.latest)?;
        let terminal = container.state().is_some_and(|state| state.terminal);
        let ours = terminal && std::io::stdin().is_terminal();
        let keys = if ours { self.detach_keys.0 } else { Vec::new() };
        let task = quiet_task("attach");
        let forward_signals = self.sig_proxy != Some(false);
        let options = AttachOptions { forward_signals, ..attachment(!self.no_stdin, keys) };
        let ended = container.attach(&options, &task)?;
        task.done();
        Ok(code(ended))
    }
}
