use crate::{Fault, Kind};

/// Why a text, such as a value of a command line, does not describe what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct SyntaxError {
    /// What is wrong with it.
    pub reason: String,
    /// What to write instead.
    pub hint: Option<&'static str>,
}

impl SyntaxError {
    /// A text that is wrong for this reason.
    pub fn new(reason: impl Into<String>) -> SyntaxError {
        SyntaxError { reason: reason.into(), hint: None }
    }

    /// Adds what to write instead.
    #[must_use]
    pub fn hinting(self, hint: &'static str) -> SyntaxError {
        SyntaxError { hint: Some(hint), ..self }
    }
}

impl Fault for SyntaxError {
    fn kind(&self) -> Kind {
        Kind::Invalid
    }

    fn hint(&self) -> Option<String> {
        self.hint.map(str::to_owned)
    }
}
