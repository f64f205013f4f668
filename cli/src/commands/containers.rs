//! `rbuild ps`, `logs`, `exec`, `attach`, `stop`, `kill`, `wait`, `rm`, `start`-less by design: a
//! container is run once.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use builder::debug::Kept;
use builder::working::Working;
use clap::Args;
use runtime::{AttachOptions, Attached, Exec as Program, LogOptions, Signal};
use serde_json::Value;
use task::{Kind, Silent, Task};

use super::container::{self, cut};
use super::images::ago;
use super::run::start_failure;
use crate::app::{App, observed};
use crate::flags;
use crate::format;
use crate::render::Progress;
use crate::report::Failure;

/// List containers
#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Also those that ended
    #[arg(short, long)]
    all: bool,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
    /// Show whole ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// A Go template per container, or json
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

impl Ps {
    /// Lists the newest first.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn run(self, app: &App) -> Result<u8, Failure> {
        let mut found = container::all(app.store()?)?;
        found.retain(|container| {
            let other = Working::is(&container.record) || Kept::is(&container.record);
            container.is_running() || self.all && !other
        });
        found.reverse();
        match self.format.as_deref() {
            Some("json") => {
                let rows: Vec<Value> = found.iter().map(container::Found::row).collect();
                outln!("{:#}", Value::from(rows));
            }
            Some(template) => {
                for container in &found {
                    outln!("{}", format::template(template, &container.row())?);
                }
            }
            None if self.quiet => {
                for container in &found {
                    outln!("{}", self.id(container));
                }
            }
            None => out!("{}", self.table(&found)),
        }
        Ok(0)
    }

    fn id<'a>(&self, found: &'a container::Found) -> &'a str {
        let id = &found.record.id;
        if self.no_trunc { id } else { &id[..id.len().min(12)] }
    }

    fn table(&self, found: &[container::Found]) -> String {
        let width = if self.no_trunc { usize::MAX } else { 32 };
        let rows = found.iter().map(|container| {
            let created = i64::try_from(container.record.created).unwrap_or_default();
            let created = jiff::Timestamp::from_second(created).map(|time| ago(&time.to_string()));
            vec![
                self.id(container).to_owned(),
                cut(container.image(), width),
                cut(&container.command(), width),
                created.unwrap_or_default(),
                container.status(),
                container.record.name.clone(),
            ]
        });
        let header = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "NAMES"];
        format::table(&header, &rows.collect::<Vec<_>>())
    }
}

/// Show what a container printed
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Go on until the container ends
    #[arg(short, long)]
    follow: bool,
    /// Only this many of the last lines
    #[arg(short = 'n', long, value_name = "LINES", visible_alias = "lines")]
    tail: Option<usize>,
    /// Nothing older: an RFC 3339 time, or seconds since 1970
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<f64>,
    /// Show when each line was printed
    #[arg(short, long)]
    timestamps: bool,
    /// Which container
    container: String,
}

fn moment(text: &str) -> Result<f64, String> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Ok(seconds);
    }
    let time = text.parse::<jiff::Timestamp>();
    time.map(|time| time.as_millisecond() as f64 / 1000.0)
        .map_err(|_| format!("{text:?} is not a time such as 2026-01-31T12:00:00Z"))
}

impl Logs {
    /// Prints: standard output to ours, standard error to ours.
    ///
    /// # Errors
    /// There is no such container.
    pub(crate) fn run(self, app: &App) -> Result<u8, Failure> {
        let found = container::require(app.store()?, &self.container)?;
        let options = LogOptions { follow: self.follow, since: self.since, tail: self.tail };
        let directory = found.record.directory;
        observed("logs", Progress::Quiet, |task| {
            let mut each = |line: runtime::LogLine| {
                let stamp = match self.timestamps {
                    true => jiff::Timestamp::from_millisecond((line.t * 1000.0) as i64)
                        .map(|time| format!("{time} "))
                        .unwrap_or_default(),
                    false => String::new(),
                };
                let text = format!("{stamp}{}", line.line);
                let _ = match line.stream.as_str() {
                    "stderr" => std::io::stderr().write_all(text.as_bytes()),
                    _ => std::io::stdout().write_all(text.as_bytes()),
                };
            };
            Ok(runtime::logs(&directory, &options, task, &mut each)?)
        })?;
        Ok(0)
    }
}

/// Run a further program in a running container
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
    /// Set an environment variable
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Working directory in the container
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// User (and group) by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Give the program all capabilities
    #[arg(long)]
    privileged: bool,
    /// The container, then the program and its arguments
    #[arg(required = true, num_args = 2.., trailing_var_arg = true, allow_hyphen_values = true, value_names = ["CONTAINER", "COMMAND"])]
    container_and_command: Vec<String>,
}

impl Exec {
    /// Runs; gives back the program's exit code.
    ///
    /// # Errors
    /// The container is not running; 126 and 127 when the program cannot be started.
    pub(crate) fn run(self, app: &App) -> Result<u8, Failure> {
        let mut words = self.container_and_command.into_iter();
        let name = words.next().unwrap_or_default();
        let found = container::require_running(app.store()?, &name)?;
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
        let options = attachment(self.interactive, Vec::new());
        let task = Task::root("exec", Arc::new(Silent));
        let ended = runtime::exec(&found.record.directory, &program, &options, &task)
            .map_err(|error| start_failure(error).context(format!("executing in {name}")))?;
        task.done();
        Ok(code(ended))
    }
}

fn attachment(input: bool, detach_keys: Vec<u8>) -> AttachOptions {
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
    /// Keys that leave it running
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    detach_keys: String,
    /// Do not pass standard input on
    #[arg(long)]
    no_stdin: bool,
    /// Which container
    container: String,
}

impl Attach {
    /// Attaches; gives back the container's exit code, or 0 after detaching.
    ///
    /// # Errors
    /// The container is not running.
    pub(crate) fn run(self, app: &App) -> Result<u8, Failure> {
        let found = container::require_running(app.store()?, &self.container)?;
        let keys = flags::detach_keys(&self.detach_keys).map_err(Failure::usage)?;
        let terminal = found.state.as_ref().is_some_and(|state| state.terminal);
        let keys = if terminal && std::io::stdin().is_terminal() { keys } else { Vec::new() };
        let task = Task::root("attach", Arc::new(Silent));
        let options = attachment(!self.no_stdin, keys);
        let ended = runtime::attach(&found.record.directory, &options, &task)?;
        task.done();
        Ok(code(ended))
    }
}

/// Ask containers to stop, and kill those that do not
#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// Seconds to wait before killing
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS", default_value_t = 10)]
    time: u32,
    /// All running containers
    #[arg(short, long, conflicts_with = "containers")]
    all: bool,
    /// Which containers
    #[arg(required_unless_present = "all")]
    containers: Vec<String>,
}

impl Stop {
    /// Stops.
    ///
    /// # Errors
    /// There is no such container.
    pub(crate) fn run(self, app: &App) -> Result<u8, Failure> {
        let store = app.store()?;
        let mut found = Vec::new();
        for name in &self.containers {
            found.push((name.clone(), container::require(store, name)?));
        }
        if self.all {
            let running = container::all(store)?.into_iter().filter(container::Found::is_running);
            found.extend(running.map(|container| (container.record.name.clone(), container)));
        }
        for (name, container) in found {
            if container.is_running() {
                let patience = Duration::from_secs(self.time.into());
                runtime::stop(&container.record.directory, container.stop_signal()?, patience)?;
            }
            outln!("{name}");
        }
        Ok(0)
    }
}

/// Send a signal to containers
#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// Which signal
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL", value_parser = flags::signal)]
    signal: Signal,
    /// Which containers
    #[arg(required = true)]
    containers: Vec<String>,
}

impl Kill {
    /// Sends it.
    ///
    /// # Errors
    /// A container is not running.
    pub(crate) fn run(self, app: &App) -> Result<u8, Failure> {
        let store = app.store()?;
        for name in &self.containers {
            let found = container::require(store, name)?;
            if !found.is_running() {
                return Err(Failure::new(
                    Kind::Refused,
                    format!("container {name} is not running"),
                ));
            }
            runtime::signal(&found.record.directory, self.signal)?;
            outln!("{name}");
        }
        Ok(0)
    }
}

/// Wait for containers to end and print their exit codes
#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// Which containers
    #[arg(required = true)]
    containers: Vec<String>,
}

impl Wait {
    /// Waits.
    ///
    /// # Errors
    /// There is no such container; its watcher was killed.
    pub(crate) fn run(self, app: &App) -> Result<u8, Failure> {
        let store = app.store()?;
        for name in &self.containers {
            let record = store.container(name)?;
            let status = observed("wait", Progress::Quiet, |task| {
                Ok(runtime::wait(&record.directory, task)?)
            })?;
            outln!("{}", status.code());
        }
        Ok(0)
    }
}

/// Remove containers
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// Kill running ones first; a missing container is no error
    #[arg(short, long)]
    force: bool,
    /// All containers that are not running; with --force, all
    #[arg(short, long, conflicts_with = "containers")]
    all: bool,
    /// Which containers
    #[arg(required_unless_present = "all")]
    containers: Vec<String>,
}

impl Rm {
    /// Removes.
    ///
    /// # Errors
    /// A container is running and there is no `--force`.
    pub(crate) fn run(self, app: &App) -> Result<u8, Failure> {
        let store = app.store()?;
        for name in &self.containers {
            match container::find(store, name)? {
                Some(found) => found.remove(store, self.force)?,
                None if self.force => continue,
                None => return Err(container::missing(name)),
            }
            outln!("{name}");
        }
        if self.all {
            for found in container::all(store)? {
                if self.force || !found.is_running() {
                    found.remove(store, self.force)?;
                    outln!("{}", found.record.name);
                }
            }
        }
        Ok(0)
    }
}
