use task::{Fault, Kind};

/// A template does not parse, or names what a value does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rendering template {template:?}: {reason}")]
pub struct Error {
    /// The template.
    pub template: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        Kind::Invalid
    }
}
