//! A container that lives no longer than the process that started it.

use std::fs::File;
use std::os::fd::OwnedFd;

use oci_spec::runtime::Spec;
use task::Task;

use crate::{Error, Result};

/// What to run: a runtime-spec document and the root file system it runs in.
#[derive(Debug)]
pub struct Bundle {
    /// `root.path` is not looked at; `root.readonly` is.
    pub spec: Spec,
    /// A detached mount, or a plain directory.
    pub rootfs: OwnedFd,
}

/// Where a container's standard streams go.
#[derive(Debug, Default)]
pub enum Stdio {
    /// Those of this process.
    #[default]
    Inherit,
    /// Nothing to read, output is dropped.
    Null,
    /// Nothing to read; both outputs go to the task's output.
    Capture,
    /// Nothing to read; both outputs are captured, input comes from this file.
    CaptureFrom(File),
    /// Three files.
    File {
        /// Standard input; nothing if not given.
        input: Option<File>,
        /// Standard output.
        output: File,
        /// Standard error; the same as the output if not given.
        error: Option<File>,
    },
    /// A new terminal of this size; [`Container::take_terminal`] gives our end of it.
    Terminal {
        /// Rows.
        rows: u16,
        /// Columns.
        columns: u16,
    },
}

/// How to start a container.
#[derive(Debug, Clone, Default)]
pub struct StartOptions {
    /// Names the container's cgroup and session keyring: letters, digits, `_`, `.` and `-`.
    pub id: String,
    /// Whether a small process of ours is pid 1 (`--init`).
    pub init: bool,
}

/// A signal by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal(pub i32);

impl Signal {
    /// SIGTERM
    pub const TERM: Signal = Signal(libc::SIGTERM);
    /// SIGKILL
    pub const KILL: Signal = Signal(libc::SIGKILL);
    /// SIGINT
    pub const INT: Signal = Signal(libc::SIGINT);
}

/// How a container's first process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExitStatus {
    /// It exited.
    Code(u8),
    /// It was killed by this signal.
    Signal(i32),
    /// The kernel killed something in the container because it hit its memory limit, and the
    /// first process ended with this code (137 if it was the one).
    OutOfMemory(u8),
}

impl ExitStatus {
    /// The exit code by which to report this: 128+n for signals.
    pub fn code(self) -> u8 {
        match self {
            ExitStatus::Code(code) | ExitStatus::OutOfMemory(code) => code,
            ExitStatus::Signal(signal) => 128u8.saturating_add(u8::try_from(signal).unwrap_or(127)),
        }
    }

    /// Whether the program ended well.
    pub fn success(self) -> bool {
        self == ExitStatus::Code(0)
    }
}

/// A running container whose life ends with this value or this process.
#[derive(Debug)]
pub struct Container {
    pid: u32,
}

impl Container {
    /// Starts the container; returns when its program runs.
    ///
    /// # Errors
    /// [`Error::ProgramNotFound`], [`Error::NotExecutable`], [`Error::Stage`] with what failed.
    #[allow(clippy::needless_pass_by_value)]
    pub fn start(bundle: Bundle, stdio: Stdio, options: &StartOptions) -> Result<Container> {
        let _ = (bundle, stdio, options);
        Err(Error::invalid("bundle", "not supported yet"))
    }

    /// Our end of the terminal asked for by [`Stdio::Terminal`], once.
    pub fn take_terminal(&mut self) -> Option<OwnedFd> {
        None
    }

    /// Passes the output on to the task and waits for the end; kills the container when the task
    /// is cancelled.
    ///
    /// # Errors
    /// [`Error::Cancelled`], [`Error::Lost`].
    pub fn wait(self, task: &Task) -> Result<ExitStatus> {
        task.check()?;
        Err(Error::Lost { process: "supervisor" })
    }

    /// Sends a signal to the container's first process; SIGKILL ends all of them.
    ///
    /// # Errors
    /// [`Error::Lost`].
    pub fn kill(&self, signal: Signal) -> Result<()> {
        let _ = signal;
        Err(Error::Lost { process: "supervisor" })
    }

    /// The first process, as this process's pid namespace numbers it.
    pub fn pid(&self) -> u32 {
        self.pid
    }
}
