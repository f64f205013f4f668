//! The step cache beyond this machine and this moment: what is asked of it, what it would answer.

mod dry;

use std::time::Duration;

pub(crate) use dry::Strict;
pub use dry::{Forecast, Outlook, forecast};

/// What the cache is asked and what it is given.
#[derive(Debug, Clone, Default)]
pub struct CacheRequest {
    /// `--cache-ttl`: results older than this are made again.
    pub ttl: Option<Duration>,
    /// `--fail-if-not-cached`: nothing is run; a step that would have to be is an error.
    pub must_hit: bool,
}
