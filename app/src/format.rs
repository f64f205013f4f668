//! How results are printed.

pub use ::format::{headed, lines, table, template};

/// An RFC 3339 time as the distance to now: `3 minutes ago`.
pub fn ago(time: &str) -> String {
    ::format::ago(time, jiff::Timestamp::now().as_second())
}

/// Cuts text for a column.
pub fn cut(text: &str, width: usize) -> String {
    match text.chars().count() > width {
        true => text.chars().take(width - 1).chain(['…']).collect(),
        false => text.to_owned(),
    }
}
