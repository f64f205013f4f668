use std::io;
use std::path::{Path, PathBuf};

use task::{Cause, Fault, Kind};

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong when a container is described, started, joined or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The program is not in the container's file system.
    #[error("running {program:?}: not found in the container")]
    ProgramNotFound {
        /// As the user named it.
        program: String,
    },
    /// The program is there but the kernel would not execute it.
    #[error("running {program:?}: cannot be executed")]
    NotExecutable {
        /// As the user named it.
        program: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A step on the way into the container failed.
    #[error("{action} {subject}")]
    Stage {
        /// What was done: `mounting`, `setting`, …
        action: String,
        /// To what: a path, a limit, a namespace.
        subject: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file or system call outside the container failed.
    #[error("{action} {subject}")]
    System {
        /// What was done.
        action: &'static str,
        /// To what.
        subject: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another runtime failed.
    #[error("the runtime {program} failed: {how}")]
    OtherRuntime {
        /// The program.
        program: String,
        /// What it did, and what it said.
        how: String,
    },
    /// The description of the container makes no sense or is not supported.
    #[error("reading the container's {what}: {reason}")]
    Invalid {
        /// Which part.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A user or group that the image does not know, or that is not a valid one.
    #[error("resolving user {user:?}: {reason}")]
    User {
        /// As given.
        user: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The user database of the image could not be read.
    #[error("reading the image's users")]
    Users {
        /// Why.
        #[source]
        source: Cause,
    },
    /// A limit was asked for that cannot be set here.
    #[error("limiting {limit}: {reason}")]
    Limit {
        /// Which limit: `memory`, `cpus`, `pids`, …
        limit: String,
        /// What is missing.
        reason: String,
    },
    /// No user namespace could be made for an ordinary user.
    #[error("entering a user namespace: {reason}")]
    UserNamespace {
        /// What is missing.
        reason: String,
        /// What the user can do about it.
        hint: Option<String>,
    },
    /// There is no such container, or its directory is not one of ours.
    #[error("opening container {path}")]
    NoContainer {
        /// The container's directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The container is not running.
    #[error("reaching container {path}: it is {state}")]
    NotRunning {
        /// The container's directory.
        path: PathBuf,
        /// The state it is in.
        state: &'static str,
    },
    /// The container's first process ended before it became the program.
    #[error("starting the container: its first process ended before the program ran: {how}")]
    Ended {
        /// The signal or the exit code.
        how: String,
    },
    /// The process that starts or watches a container ended without an answer.
    #[error("waiting for the container's {process}: it ended without an answer")]
    Lost {
        /// Which of our processes.
        process: &'static str,
    },
    /// The user stopped the work.
    #[error(transparent)]
    Cancelled(#[from] task::Cancelled),
}

impl Error {
    pub(crate) fn system(
        action: &'static str,
        subject: impl AsRef<Path>,
    ) -> impl FnOnce(io::Error) -> Error {
        let subject = subject.as_ref().display().to_string();
        move |source| Error::System { action, subject, source }
    }

    pub(crate) fn invalid(what: impl Into<String>, reason: impl Into<String>) -> Error {
        Error::Invalid { what: what.into(), reason: reason.into() }
    }

    /// The exit code by which `run` and `exec` report this error: 127 for a program that is not
    /// there, 126 for one that cannot be executed, 125 for everything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::ProgramNotFound { .. } => 127,
            Error::NotExecutable { .. } => 126,
            _ => 125,
        }
    }
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Error::ProgramNotFound { .. } | Error::NotExecutable { .. } => Kind::Command,
            Error::Invalid { .. } | Error::User { .. } => Kind::Invalid,
            Error::Users { source } => source.kind(),
            Error::Limit { .. } | Error::UserNamespace { .. } => Kind::Denied,
            Error::NoContainer { .. } => Kind::NotFound,
            Error::NotRunning { .. } => Kind::Refused,
            Error::Cancelled(_) => Kind::Cancelled,
            Error::Stage { .. }
            | Error::System { .. }
            | Error::OtherRuntime { .. }
            | Error::Ended { .. }
            | Error::Lost { .. } => Kind::System,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::UserNamespace { hint, .. } => hint.clone(),
            Error::Users { source } => source.hint(),
            Error::Ended { .. } => Some(
                "something outside killed it, or its limits are too low to start; `dmesg` may say"
                    .to_owned(),
            ),
            Error::Limit { .. } => Some(
                "run as root, or delegate the cgroup controllers to this user (systemd: Delegate=yes)"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}
