//! A further process in a container.

use std::path::PathBuf;

use app::quiet_task;
use clap::Args;
use options::Failure;
use runtime::{Engine, ProcessChanges, oci};
use task::Kind;

use super::failed_start;
use super::forward::forward_signals;
use super::life::{ConnectionFlags, read};

/// Run another process in a container
#[derive(Debug, Args)]
pub(super) struct Exec {
    /// Read the runtime-spec's process JSON from this file instead of the flags
    #[arg(short, long, value_name = "FILE")]
    process: Option<PathBuf>,
    #[command(flatten)]
    connections: ConnectionFlags,
    /// Do not wait
    #[arg(short, long)]
    detach: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Set the working directory
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// Set an environment variable
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Run as this user and group, by number
    #[arg(short, long, value_name = "UID[:GID]")]
    user: Option<String>,
    /// Add supplementary groups, by number
    #[arg(short = 'g', long, value_name = "GID")]
    additional_gids: Vec<u32>,
    /// Add a capability
    #[arg(short, long, value_name = "CAPABILITY")]
    cap: Vec<String>,
    /// Set no_new_privs
    #[arg(long)]
    no_new_privs: bool,
    /// Name of the container
    id: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Exec {
    pub(super) fn run(&self, engine: &Engine) -> Result<u8, Failure> {
        let process = match &self.process {
            Some(file) => serde_json::from_str(&read(file)?).map_err(|error| {
                Failure::new(Kind::Invalid, format!("reading {}: {error}", file.display()))
            })?,
            None => self.described(engine)?,
        };
        if !self.detach {
            runtime::adopt()?;
        }
        let started = engine
            .exec(&self.id, &process, &self.connections.connections())
            .map_err(failed_start)?;
        if self.detach {
            return Ok(0);
        }
        let pid = started.pid;
        let wait = || -> Result<u8, Failure> {
            let forwarding = forward_signals(pid);
            let status = runtime::wait_adopted(pid)?;
            drop(forwarding);
            Ok(status.code())
        };
        match started.terminal {
            Some(terminal) => runtime::with_terminal(terminal, &quiet_task("exec"), wait)?,
            None => wait(),
        }
    }

    /// The container's own process with what the flags change.
    fn described(&self, engine: &Engine) -> Result<oci::Process, Failure> {
        if self.command.is_empty() {
            return Err(Failure::usage("there is no command to run"));
        }
        let changes = ProcessChanges {
            command: self.command.clone(),
            terminal: self.tty,
            cwd: self.cwd.clone(),
            env: self.env.clone(),
            no_new_privileges: self.no_new_privs,
            user: self.user.as_deref().map(user).transpose()?,
            groups: self.additional_gids.clone(),
            capabilities: self.cap.iter().map(|name| capability(name)).collect::<Result<_, _>>()?,
        };
        Ok(changes.apply(engine.process(&self.id)?))
    }
}

fn user(text: &str) -> Result<(u32, u32), Failure> {
    let wrong = |_| Failure::usage(format!("--user {text:?}: expected UID[:GID]"));
    let (uid, gid) = text.split_once(':').unwrap_or((text, "0"));
    Ok((uid.parse().map_err(wrong)?, gid.parse().map_err(wrong)?))
}

fn capability(name: &str) -> Result<oci::Capability, Failure> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    short.parse().map_err(|_| Failure::usage(format!("--cap {name:?}: there is no such")))
}
