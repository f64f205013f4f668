//! From text to instructions.

pub(crate) mod heredoc;

use crate::diagnostic::Diagnostic;
use crate::instruction::{Dockerfile, Instruction};
use crate::span::Escape;

/// The longest Dockerfile, in bytes.
pub const MAX_SOURCE: usize = 4 << 20;

/// Reads a Dockerfile. Never fails: what cannot be read is left out and reported, and reading goes
/// on behind it. A file with a diagnostic of severity error must not be built.
#[must_use]
pub fn parse(_source: &str) -> (Dockerfile, Vec<Diagnostic>) {
    (Dockerfile::default(), Vec::new())
}

/// Reads one instruction, such as an `ONBUILD` trigger of a base image. The escape character is
/// the one of the Dockerfile it comes from, `\` unless known better.
#[must_use]
pub fn parse_instruction(_text: &str, _escape: Escape) -> (Option<Instruction>, Vec<Diagnostic>) {
    (None, Vec::new())
}
