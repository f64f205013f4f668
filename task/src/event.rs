use std::sync::Arc;

use crate::Meter;

/// Names one task for the life of the process; larger means started later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub u64);

/// A transition in the life of a task, as an [`crate::Observer`] hears it.
#[derive(Debug, Clone)]
pub enum Event {
    /// The task exists now.
    Started {
        /// Which task.
        id: TaskId,
        /// The task it is a part of; `None` for the root.
        parent: Option<TaskId>,
        /// What the user calls this work.
        name: String,
        /// The counter to sample while the task runs.
        meter: Arc<Meter>,
    },
    /// The work proper begins only now; until here the task waited for others.
    Began {
        /// Which task.
        id: TaskId,
    },
    /// Bytes that a command run by the task wrote, as they came.
    Output {
        /// Which task.
        id: TaskId,
        /// Raw bytes, not necessarily whole lines nor UTF-8.
        bytes: Vec<u8>,
    },
    /// Something the user should know that does not stop the work.
    Warned {
        /// Which task.
        id: TaskId,
        /// One sentence, lower case, no full stop.
        message: String,
    },
    /// A short remark for the user about what the task is doing or found (a reason, a digest).
    Noted {
        /// Which task.
        id: TaskId,
        /// One line.
        message: String,
    },
    /// The task is over; nothing more comes from it.
    Finished {
        /// Which task.
        id: TaskId,
        /// How it ended.
        outcome: Outcome,
    },
}

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The work was done.
    Done,
    /// The result was there already: a cache hit, a mounted or linked blob.
    Reused,
    /// The work failed; its error travels by `Result`.
    Failed,
    /// The user stopped it.
    Cancelled,
}

impl Outcome {
    /// The word used in machine-readable progress.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Reused => "reused",
            Outcome::Failed => "failed",
            Outcome::Cancelled => "cancelled",
        }
    }
}
