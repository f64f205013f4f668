//! A program in a container: how it is started beside the first one, and how it ended.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Another OCI runtime: how it is called.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherRuntime {
    /// The program.
    pub program: PathBuf,
    /// Its own flags, before each verb.
    pub flags: Vec<String>,
    /// Its whole environment.
    pub environment: Vec<(String, String)>,
    /// An empty directory, in which the bundle is made.
    pub bundle: PathBuf,
}

/// How a container's first process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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

/// A further program in a running container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// Program and arguments.
    pub args: Vec<String>,
    /// The whole environment, `NAME=value`; that of the container's program if not given.
    pub env: Option<Vec<String>>,
    /// `NAME=value` lines laid over the environment.
    pub extra_env: Vec<String>,
    /// Where to run; the container's working directory if not given.
    pub working_dir: Option<String>,
    /// `user[:group]`, looked up in the container; the container's user if not given.
    pub user: Option<String>,
    /// Whether it gets a terminal, and of which size (rows, columns).
    pub terminal: Option<(u16, u16)>,
    /// Whether our standard input goes to it.
    pub interactive: bool,
    /// Whether not to wait for it.
    pub detach: bool,
    /// Whether it gets all capabilities.
    pub privileged: bool,
    /// Numbers of descriptors of this process that it gets under the same numbers. They are closed here; see
    /// [`crate::check_inherited`].
    #[serde(default)]
    pub descriptors: Vec<u32>,
}
