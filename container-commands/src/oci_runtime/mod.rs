//! `rbuild runtime`, also as `rbuild-runtime`: the command line by which engines run containers.
//! It is runc's, so that containerd, podman and others take it as it is.

mod exec;
mod forward;
mod life;
mod show;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use options::{Failure, help};
use runtime::Engine;

/// Run OCI bundles for an engine, with runc's command line
///
/// Under the name rbuild-runtime the program is this command only: pass it to containerd as
/// `--runc-binary`, to podman as `--runtime`.
#[derive(Debug, Parser)]
#[command(name = "rbuild runtime", version, propagate_version = true)]
pub struct OciRuntime {
    /// Directory of the state of containers
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Write errors to this file too
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Format of the --log file
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
    /// Accepted for engines: only errors are logged
    #[arg(long, hide = true)]
    debug: bool,
    /// Not supported: cgroups are made without systemd
    #[arg(long, hide = true)]
    systemd_cgroup: bool,
    /// Accepted for engines: the user namespace decides
    #[arg(long, hide = true, value_name = "BOOL")]
    rootless: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    Create(life::Create),
    Start(life::Start),
    Run(life::Run),
    State(show::State),
    Kill(life::Kill),
    Delete(life::Delete),
    Exec(exec::Exec),
    List(show::List),
    Ps(show::Ps),
    Spec(show::Spec),
    Update(life::Update),
    Events(show::Events),
    Pause(life::Pause),
    Resume(life::Resume),
    Features(show::Features),
}

/// Under this name the program is this command alone: engines want one word.
const NAME: &str = "rbuild-runtime";

/// The command line of an engine, if this is one. It is parsed by itself: its `--log` is another
/// than that of all other commands.
pub fn line(arguments: &[OsString]) -> Option<Vec<OsString>> {
    let name = Path::new(arguments.first()?).file_name()?;
    if name == NAME {
        return Some(arguments.to_vec());
    }
    let rest = arguments.get(1).filter(|word| *word == "runtime").map(|_| &arguments[2..])?;
    Some(std::iter::once(OsString::from("rbuild runtime")).chain(rest.iter().cloned()).collect())
}

impl OciRuntime {
    /// Reads a line of runc's.
    ///
    /// # Errors
    /// Wrong use, or help that was asked for.
    pub fn parse(line: &[OsString]) -> Result<OciRuntime, clap::Error> {
        OciRuntime::try_parse_from(line).map_err(|error| {
            let on_missing = ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
            if error.kind() != ErrorKind::DisplayHelp && error.kind() != on_missing {
                return error;
            }
            let help = help::shown_alone(OciRuntime::command(), "rbuild runtime");
            let help = help.try_get_matches_from(line).err();
            help.filter(|help| help.kind() == error.kind()).unwrap_or(error)
        })
    }

    /// Reads what follows the word `runtime`; ends the process on wrong use.
    pub fn read(arguments: Vec<OsString>) -> OciRuntime {
        let line: Vec<_> = std::iter::once("rbuild runtime".into()).chain(arguments).collect();
        OciRuntime::parse(&line).unwrap_or_else(|error| error.exit())
    }

    /// Does what the engine asks for.
    ///
    /// # Errors
    /// As the command; told in the log as well.
    pub fn run(self) -> Result<u8, Failure> {
        let log = self.log.clone().map(|file| (file, self.log_format));
        let done = self.dispatch();
        if let (Err(failure), Some((file, format))) = (&done, log) {
            // The engine reads it; standard error has the same.
            let _ = note(&file, format, &failure.messages.join(": "));
        }
        done
    }

    fn dispatch(self) -> Result<u8, Failure> {
        if self.systemd_cgroup {
            return Err(Failure::usage("--systemd-cgroup is not supported")
                .hint("set the engine's cgroup driver to cgroupfs"));
        }
        let engine = Engine::new(self.root.unwrap_or_else(default_root));
        run_each! { self.command, &engine, Command {
            Create, Start, Run, State, Kill, Delete, Exec, List, Ps, Update, Events, Pause,
            Resume,
        }
            Command::Spec(spec) => spec.run(),
            Command::Features(features) => features.run(),
        }
    }
}

/// Tells a program that cannot be started from a failure of ours: 127, 126, 125.
fn failed_start(error: runtime::Error) -> Failure {
    let code = error.exit_code();
    Failure { code: Some(code), ..Failure::from(error) }
}

fn default_root() -> PathBuf {
    let own = std::env::var_os("XDG_RUNTIME_DIR").filter(|_| runtime::in_user_namespace());
    own.map_or_else(|| PathBuf::from("/run"), PathBuf::from).join("rbuild-runtime")
}

/// Adds a line to the engine's log.
fn note(file: &Path, format: LogFormat, message: &str) -> std::io::Result<()> {
    let time = jiff::Timestamp::now().to_string();
    let line = match format {
        LogFormat::Json => {
            serde_json::json!({"level": "error", "msg": message, "time": time}).to_string()
        }
        LogFormat::Text => format!("time={time:?} level=error msg={message:?}"),
    };
    let mut file = std::fs::File::options().create(true).append(true).open(file)?;
    writeln!(file, "{line}")
}
