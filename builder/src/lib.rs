//! A Dockerfile becomes a plan of steps, the plan is solved, the result is an image.
//!
//! The flow is strictly plan → solve → assemble → publish: [`plan`] says what has to be done and
//! is pure, [`solve`] decides when each step runs, an executor asks the cache and does the work,
//! and the image is put together from the layers the steps made.

mod error;
pub mod plan;
mod request;
pub mod solve;

pub use error::{Error, Result};
pub use request::{Built, Context, Format, Network, Output, Pull, Request, Secret, SourceFile};
