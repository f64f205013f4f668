//! `rbuild logs`, `exec` and `attach`.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use clap::Args;
use options::progress::Progress;
use options::{Failure, flags};
use runtime::{AttachOptions, Attached, Exec as Program, LogLine, LogOptions};
use task::Kind;

use super::{require, start_failure};
use crate::app::{App, observed, quiet_task};
use crate::commands::Runnable;

/// Show the output of a container
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Follow the output until the container ends
    #[arg(short, long)]
    follow: bool,
    /// Show this many of the last lines, or all
    #[arg(short = 'n', long, value_name = "LINES", visible_alias = "lines", value_parser = lines, allow_hyphen_values = true)]
    tail: Option<usize>,
    /// Show output since then: an RFC 3339 time, seconds since 1970, or an age such as 10m
    #[arg(long, value_name = "TIME", value_parser = flags::moment)]
    since: Option<f64>,
    /// Show output until then: as --since
    #[arg(long, value_name = "TIME", value_parser = flags::moment)]
    until: Option<f64>,
    /// Show the time of each line
    #[arg(short, long)]
    timestamps: bool,
    /// The container
    container: String,
}

fn lines(text: &str) -> Result<usize, String> {
    match text {
        "all" | "-1" => Ok(usize::MAX),
        text => text.parse().map_err(|_| format!("{text:?} is neither a number of lines nor all")),
    }
}

impl Runnable for Logs {
    /// Prints: standard output to ours, standard error to ours.
    fn run(self, app: &App) -> Result<u8, Failure> {
        let container = require(app, &self.container)?;
        let options = LogOptions {
            follow: self.follow,
            since: self.since,
            until: self.until,
            tail: self.tail.filter(|lines| *lines != usize::MAX),
        };
        let mut begun = [true, true];
        observed("logs", Progress::Quiet, |task| {
            let mut each = |line: LogLine| self.print(&line, &mut begun);
            Ok(container.logs(&options, task, &mut each)?)
        })?;
        Ok(0)
    }
}

impl Logs {
    /// A piece of a long line has no time of its own.
    fn print(&self, line: &LogLine, begun: &mut [bool; 2]) {
        let stream = usize::from(line.stream == "stderr");
        let mut text = Vec::new();
        if self.timestamps && begun[stream] {
            let time = jiff::Timestamp::from_millisecond((line.t * 1000.0) as i64);
            text.extend(time.map(|time| format!("{time} ")).unwrap_or_default().into_bytes());
        }
        text.extend_from_slice(line.content());
        begun[stream] = text.ends_with(b"\n");
        match stream {
            // Who closed it does not want to know.
            1 => drop(std::io::stderr().write_all(&text)),
            _ => crate::out::raw(&text),
        }
    }
}

/// Run another program in a running container
#[derive(Debug, Args)]
pub(crate) struct Exec {
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
    /// The container, then the program and its arguments
    #[arg(required = true, num_args = 2.., trailing_var_arg = true, allow_hyphen_values = true, value_names = ["CONTAINER", "COMMAND"])]
    container_and_command: Vec<String>,
}

impl Runnable for Exec {
    /// Runs; gives back the program's exit code.
    fn run(self, app: &App) -> Result<u8, Failure> {
        let mut words = self.container_and_command.into_iter();
        let name = words.next().unwrap_or_default();
        let container = require(app, &name)?;
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
        };
        let keys = if self.tty { self.detach_keys.0 } else { Vec::new() };
        let options = attachment(self.interactive, keys);
        let task = quiet_task("exec");
        let ended = container
            .exec(&program, &options, &task)
            .map_err(|error| start_failure(error).context(format!("executing in {name}")))?;
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

fn code(ended: Attached) -> u8 {
    match ended {
        Attached::Exited(status) => status.code(),
        Attached::Detached => 0,
    }
}

/// Connect to a running container's streams
#[derive(Debug, Args)]
pub(crate) struct Attach {
    /// Detach with these keys
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", value_parser = flags::keys)]
    detach_keys: flags::Keys,
    /// Do not forward standard input
    #[arg(long)]
    no_stdin: bool,
    /// The container
    container: String,
}

impl Runnable for Attach {
    /// Attaches; gives back the container's exit code, or 0 after detaching.
    fn run(self, app: &App) -> Result<u8, Failure> {
        let container = require(app, &self.container)?;
        let terminal = container.state().is_some_and(|state| state.terminal);
        let ours = terminal && std::io::stdin().is_terminal();
        let keys = if ours { self.detach_keys.0 } else { Vec::new() };
        let task = quiet_task("attach");
        let ended = container.attach(&attachment(!self.no_stdin, keys), &task)?;
        task.done();
        Ok(code(ended))
    }
}
