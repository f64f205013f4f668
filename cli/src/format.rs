//! How results are printed.

pub(crate) use ::format::{headed, lines, table, template};

/// An RFC 3339 time as the distance to now: `3 minutes ago`.
pub(crate) fn ago(time: &str) -> String {
    ::format::ago(time, jiff::Timestamp::now().as_second())
}
