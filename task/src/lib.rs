//! Running work: one handle that reports, cancels and nests.
//!
//! A [`Task`] is what every long operation of the product is given. Through it the user hears
//! (output, warnings, progress), and through it the user stops the work. Counters are sampled by
//! the observer, only transitions are sent: metering a byte stream costs one relaxed addition.
//!
//! ```
//! use std::io::Read as _;
//!
//! let task = task::Task::silent();
//! let mut source = task.reading(&b"content"[..]);
//! task.canceller().cancel();
//! let error = source.read_to_end(&mut Vec::new()).unwrap_err();
//! assert!(task::Cancelled::is_in(&error));
//! ```

mod event;
mod fault;
mod id;
mod meter;
mod span;
mod syntax;
mod task;

pub use event::{Event, Outcome, TaskId};
pub use fault::{Cause, Fault, Kind, chain};
pub use id::random_id;
pub use meter::{Meter, Metered};
pub use span::span;
pub use syntax::SyntaxError;
pub use task::{Cancelled, Canceller, Hook, Observer, Silent, Task};
