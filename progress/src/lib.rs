//! What the user sees while work goes on: one [`Observer`] per way of showing the events of a
//! [`Task`](task::Task).
//!
//! [`Terminal`] redraws a live view, [`Plain`] writes one line per event, [`Json`] one object per
//! line. [`Steps`] writes lines in the form of buildah. [`Split`] writes a log for each platform of
//! a build. A [`ProgressDisplay`] is one of these that runs, with an optional
//! [trace](ProgressDisplay::traced).
//!
//! ```
//! use std::sync::Arc;
//!
//! use progress::{Plain, ProgressDisplay};
//! use task::Task;
//!
//! let display = ProgressDisplay::Plain(Arc::new(Plain::new(std::io::stderr())));
//! let task = Task::root("greeting", display.observer());
//! let step = task.child("[1/1] RUN echo hello");
//! step.output(b"hello\n");
//! step.done();
//! task.done();
//! display.close()?;
//! # Ok::<(), std::io::Error>(())
//! ```

mod json;
mod plain;
mod split;
mod steps;
mod task_logger;
mod terminal;
mod text;
mod trace;

use std::fs::File;
use std::io;
use std::sync::Arc;

use task::Observer;

pub use json::Json;
pub use plain::{LogFolding, Plain};
pub use split::Split;
pub use steps::Steps;
use task_logger::TaskLogger;
pub use terminal::Terminal;
pub use text::{bytes, duration};
pub use trace::Trace;

/// The display of progress that is in use.
pub enum ProgressDisplay {
    /// The live view.
    Terminal(Arc<Terminal>),
    /// Lines.
    Plain(Arc<Plain>),
    /// One of the above, and a trace.
    Traced(Box<ProgressDisplay>, Arc<Trace>),
    /// A renderer that needs no closing.
    Other(Arc<dyn Observer>),
}

impl ProgressDisplay {
    /// The observer for tasks. Where the log level is debug, events are logged, too.
    pub fn observer(&self) -> Arc<dyn Observer> {
        let shown = match self {
            ProgressDisplay::Terminal(terminal) => Arc::clone(terminal) as Arc<dyn Observer>,
            ProgressDisplay::Plain(plain) => Arc::clone(plain) as Arc<dyn Observer>,
            ProgressDisplay::Traced(_, trace) => Arc::clone(trace) as Arc<dyn Observer>,
            ProgressDisplay::Other(other) => Arc::clone(other),
        };
        if tracing::enabled!(tracing::Level::DEBUG) {
            Arc::new(TaskLogger::new(shown))
        } else {
            shown
        }
    }

    /// This, with a trace of it that is written to `file` on [`close`](ProgressDisplay::close), in the
    /// trace event format of Chrome and Perfetto.
    pub fn traced(self, file: File) -> ProgressDisplay {
        let trace = Trace::new(self.observer(), file);
        ProgressDisplay::Traced(Box::new(self), Arc::new(trace))
    }

    /// Leaves the screen as it should stay, and writes the trace; nothing is drawn after this.
    ///
    /// # Errors
    /// The trace cannot be written whole.
    pub fn close(&self) -> io::Result<()> {
        match self {
            ProgressDisplay::Terminal(terminal) => terminal.close(),
            ProgressDisplay::Plain(plain) => plain.close(),
            ProgressDisplay::Traced(shown, trace) => {
                shown.close()?;
                return trace.close();
            }
            ProgressDisplay::Other(_) => {}
        }
        Ok(())
    }
}
