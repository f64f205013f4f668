//! Words of others in our messages.

/// A text from outside, for a message: bounded, and without anything that moves a terminal.
pub(crate) fn printable(text: &str) -> String {
    let clean = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().take(300).map(clean).collect()
}
