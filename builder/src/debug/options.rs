//! How a build deals with commands that fail.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use image::Digest;
use serde::{Deserialize, Serialize};
use store::SnapshotId;

/// What is done when a command fails.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// The build ends, and nothing of the command remains.
    #[default]
    Stop,
    /// The build ends; what the command left is kept.
    Keep,
    /// A shell is opened where the command was run. When it ends with 0 the command is run once
    /// more on what the shell left; otherwise the build ends.
    #[serde(skip)]
    Shell(Arc<Terminal>),
}

/// A terminal a human sits at.
#[derive(Debug)]
pub struct Terminal {
    /// What is typed.
    pub input: OwnedFd,
    /// What is shown.
    pub output: OwnedFd,
    /// Rows and columns.
    pub size: (u16, u16),
}

impl Terminal {
    /// It in place of the three standard streams.
    pub(crate) fn streams(&self) -> runtime::Streams3<'_> {
        [self.input.as_fd(), self.output.as_fd(), self.output.as_fd()]
    }
}

/// How a build deals with failing commands; part of a [`crate::Request`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DebugOptions {
    /// See [`OnFailure`].
    pub on_failure: OnFailure,
    /// The id of what an earlier build kept: its command is run on that.
    pub resume: Option<String>,
    /// Whether `resume` was of use.
    #[serde(skip)]
    pub(crate) resumed: Arc<AtomicBool>,
}

/// Where a command comes from, beside its definition.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origin {
    /// The key of the step it is run on.
    pub(crate) parent: Option<Digest>,
    /// What its mounts read.
    pub(crate) reads: Vec<Option<SnapshotId>>,
}

/// Whether a result can be had again by running the same command on the same files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeatability {
    Cleanly,
    ByHand,
}
