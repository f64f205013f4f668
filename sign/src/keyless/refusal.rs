//! Why a signature with a certificate is not accepted.

use std::fmt;

use serde::Serialize;

use crate::printable::printable;

/// A step of verification without keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// 1
    Material,
    /// 2
    Timestamp,
    /// 3
    Log,
    /// 4
    Promise,
    /// 5
    Inclusion,
    /// 6
    Checkpoint,
    /// 7
    Time,
    /// 8
    Chain,
    /// 9
    Sct,
    /// 10
    Signature,
    /// 11
    Entry,
    /// 12
    Identity,
}

/// Why a signature with a certificate is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// At which step.
    pub step: Step,
    /// Why; the words follow "the signature", so to say.
    pub reason: String,
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (step {})", self.reason, self.step as u8 + 1)
    }
}

/// Makes a failed check the refusal of a step.
pub(crate) trait At<T> {
    fn at(self, step: Step) -> Result<T, Refusal>;
}

impl<T> At<T> for Result<T, String> {
    fn at(self, step: Step) -> Result<T, Refusal> {
        self.map_err(|reason| Refusal { step, reason: printable(&reason) })
    }
}

pub(crate) fn refuse<T>(step: Step, reason: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { step, reason: reason.into() })
}
