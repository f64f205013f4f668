//! Patterns for the sources of `COPY` and `ADD`: Go's `filepath.Match` and `**`.

/// A pattern that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed pattern {pattern:?}: {reason}")]
#[non_exhaustive]
pub struct BadPattern {
    /// The pattern.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// A pattern, ready to match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {}

impl Pattern {
    /// Reads a pattern of slash-separated components.
    pub fn parse(_pattern: &str) -> Result<Self, BadPattern> {
        Ok(Self {})
    }

    /// Whether the whole slash-separated path matches.
    #[must_use]
    pub fn matches(&self, _path: &str) -> bool {
        false
    }

    /// Whether something below the directory `path` may match (`.` or nothing is the root).
    #[must_use]
    pub fn may_match_below(&self, _path: &str) -> bool {
        true
    }
}

/// True when the text has a character that means something in a pattern.
#[must_use]
pub fn has_meta(text: &str) -> bool {
    text.contains(['*', '?', '[', '\\'])
}
