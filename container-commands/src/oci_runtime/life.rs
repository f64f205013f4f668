//! Making, starting, signalling, changing and removing.

use std::io::Read;
use std::path::PathBuf;

use app::quiet_task;
use clap::Args;
use options::{Failure, flags};
use runtime::{Connections, Engine, NewContainer, oci};
use task::Kind;

use super::failed_start;
use super::forward::forward_signals;

/// How to create a container from a bundle.
#[derive(Debug, Args)]
pub(super) struct CreateFlags {
    /// Directory of the bundle (default: the current one)
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    #[command(flatten)]
    connections: ConnectionFlags,
    /// Share the caller's session keyring
    #[arg(long)]
    no_new_keyring: bool,
    /// Not supported: the root is always pivoted
    #[arg(long, hide = true)]
    no_pivot: bool,
    /// Name of the container
    id: String,
}

/// The connections of a process.
#[derive(Debug, Args)]
pub(super) struct ConnectionFlags {
    /// Send the terminal to this Unix socket
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// Write the process id to this file
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Pass this many file descriptors, from 3 on
    #[arg(long, value_name = "N", default_value = "0")]
    preserve_fds: u32,
}

impl ConnectionFlags {
    pub(super) fn connections(&self) -> Connections {
        Connections {
            console_socket: self.console_socket.clone(),
            pid_file: self.pid_file.clone(),
            preserve_fds: self.preserve_fds,
        }
    }
}

impl CreateFlags {
    fn create(&self, engine: &Engine) -> Result<runtime::StartedProcess, Failure> {
        if self.no_pivot {
            return Err(Failure::usage("--no-pivot is not supported")
                .hint("the root is always pivoted, also on an initramfs"));
        }
        let new = NewContainer {
            bundle: self.bundle.clone(),
            connections: self.connections.connections(),
            keep_keyring: self.no_new_keyring,
            created: jiff::Timestamp::now().to_string(),
        };
        engine.create(&self.id, &new).map_err(failed_start)
    }
}

/// Create a container; its program waits for `start`
#[derive(Debug, Args)]
pub(super) struct Create {
    #[command(flatten)]
    create: CreateFlags,
}

impl Create {
    pub(super) fn run(&self, engine: &Engine) -> Result<u8, Failure> {
        let started = self.create.create(engine)?;
        if started.terminal.is_some() {
            remove(engine, &self.create.id, true)?;
            return Err(Failure::usage("a terminal needs --console-socket"));
        }
        Ok(0)
    }
}

/// Start the program of a created container
#[derive(Debug, Args)]
pub(super) struct Start {
    /// Name of the container
    id: String,
}

impl Start {
    pub(super) fn run(&self, engine: &Engine) -> Result<u8, Failure> {
        engine.start(&self.id)?;
        Ok(0)
    }
}

/// Create a container, start it, wait for it and remove it
#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    create: CreateFlags,
    /// Do not wait
    #[arg(short, long)]
    detach: bool,
    /// Keep the container after it ended
    #[arg(long)]
    keep: bool,
}

impl Run {
    pub(super) fn run(&self, engine: &Engine) -> Result<u8, Failure> {
        let id = &self.create.id;
        if !self.detach {
            runtime::adopt()?;
        }
        let started = self.create.create(engine)?;
        if self.detach && started.terminal.is_some() {
            remove(engine, id, true)?;
            return Err(Failure::usage("a terminal needs --console-socket"));
        }
        let pid = started.pid;
        let wait = || -> Result<u8, Failure> {
            engine.start(id)?;
            if self.detach {
                return Ok(0);
            }
            let forwarding = forward_signals(pid);
            let status = runtime::wait_adopted(pid)?;
            drop(forwarding);
            Ok(status.code())
        };
        let code = match started.terminal {
            Some(terminal) => runtime::with_terminal(terminal, &quiet_task("run"), wait)?,
            None => wait(),
        };
        if !self.detach && !self.keep || code.is_err() {
            remove(engine, id, true)?;
        }
        code
    }
}

/// Removes a container; a failing hook is reported and changes nothing.
fn remove(engine: &Engine, id: &str, force: bool) -> Result<(), Failure> {
    if let Some(error) = engine.delete(id, force)? {
        eprintln!("warning: {}", task::chain(&error).join(": "));
    }
    Ok(())
}

/// Send a signal to a container (default: TERM)
#[derive(Debug, Args)]
pub(super) struct Kill {
    /// Send it to every process of the container
    #[arg(short, long)]
    all: bool,
    /// Name of the container
    id: String,
    #[arg(value_parser = flags::signal, default_value = "TERM")]
    signal: runtime::Signal,
}

impl Kill {
    pub(super) fn run(&self, engine: &Engine) -> Result<u8, Failure> {
        engine.kill(&self.id, self.signal, self.all)?;
        Ok(0)
    }
}

/// Remove a stopped container
#[derive(Debug, Args)]
pub(super) struct Delete {
    /// Kill a running container first
    #[arg(short, long)]
    force: bool,
    /// Name of the container
    id: String,
}

impl Delete {
    pub(super) fn run(&self, engine: &Engine) -> Result<u8, Failure> {
        remove(engine, &self.id, self.force)?;
        Ok(0)
    }
}

/// Freeze all processes of a container
#[derive(Debug, Args)]
pub(super) struct Pause {
    /// Name of the container
    id: String,
}

impl Pause {
    pub(super) fn run(&self, engine: &Engine) -> Result<u8, Failure> {
        engine.freeze(&self.id, true)?;
        Ok(0)
    }
}

/// Resume the processes of a container
#[derive(Debug, Args)]
pub(super) struct Resume {
    /// Name of the container
    id: String,
}

impl Resume {
    pub(super) fn run(&self, engine: &Engine) -> Result<u8, Failure> {
        engine.freeze(&self.id, false)?;
        Ok(0)
    }
}

/// Change the limits of a container
#[derive(Debug, Args)]
pub(super) struct Update {
    /// Read the runtime-spec's linux.resources JSON from a file or -
    #[arg(short, long, value_name = "FILE")]
    resources: Option<PathBuf>,
    /// Limit the memory, in bytes
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory: Option<i64>,
    /// Limit memory plus swap, in bytes
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_swap: Option<i64>,
    /// Set the soft limit of memory, in bytes
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_reservation: Option<i64>,
    /// Set the relative CPU weight
    #[arg(long, value_name = "WEIGHT", alias = "cpu-share")]
    cpu_shares: Option<u64>,
    /// Limit the CPU time per period, in microseconds
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// Set the CPU period, in microseconds
    #[arg(long, value_name = "NUMBER")]
    cpu_period: Option<u64>,
    /// Run on these CPUs
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Use these memory nodes
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Limit the number of processes
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Name of the container
    id: String,
}

impl Update {
    pub(super) fn run(&self, engine: &Engine) -> Result<u8, Failure> {
        let wrong = |error: &dyn std::fmt::Display| {
            Failure::new(Kind::Invalid, format!("reading the limits: {error}"))
        };
        let resources: oci::LinuxResources = match &self.resources {
            Some(file) => {
                let text = read(file)?;
                serde_json::from_str(&text).map_err(|error| wrong(&error))?
            }
            None => serde_json::from_value(self.flags()).map_err(|error| wrong(&error))?,
        };
        engine.update(&self.id, &resources)?;
        Ok(0)
    }

    /// The flags as the runtime-spec writes them.
    fn flags(&self) -> serde_json::Value {
        use serde_json::json;
        let mut cpu = json!({
            "shares": self.cpu_shares, "quota": self.cpu_quota, "period": self.cpu_period,
            "cpus": self.cpuset_cpus, "mems": self.cpuset_mems,
        });
        let mut memory = json!({
            "limit": self.memory, "swap": self.memory_swap, "reservation": self.memory_reservation,
        });
        for part in [&mut cpu, &mut memory] {
            if let Some(map) = part.as_object_mut() {
                map.retain(|_, value| !value.is_null());
            }
        }
        let mut all = json!({"cpu": cpu, "memory": memory});
        if let (Some(limit), Some(map)) = (self.pids_limit, all.as_object_mut()) {
            map.insert("pids".to_owned(), json!({"limit": limit}));
        }
        all
    }
}

/// A file, or standard input.
pub(super) fn read(file: &std::path::Path) -> Result<String, Failure> {
    const MOST: u64 = 16 << 20;
    let mut text = String::new();
    let read = if file == std::path::Path::new("-") {
        std::io::stdin().take(MOST).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(MOST).read_to_string(&mut text))
    };
    read.map_err(|error| Failure::io(format!("reading {}", file.display()), &error))?;
    Ok(text)
}
