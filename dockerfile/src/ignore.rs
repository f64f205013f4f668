//! The `.dockerignore` file: which paths of the build context do not exist.

use crate::diagnostic::Diagnostic;

/// The patterns of a `.dockerignore` file.
#[derive(Clone, Debug, Default)]
pub struct Ignore {}

impl Ignore {
    /// Reads the file. Malformed patterns are reported and left out.
    #[must_use]
    pub fn parse(_text: &str) -> (Self, Vec<Diagnostic>) {
        (Self {}, Vec::new())
    }

    /// Whether a path (slash-separated, relative to the context) is excluded.
    #[must_use]
    pub fn excluded(&self, _path: &str, _is_dir: bool) -> bool {
        false
    }

    /// Whether a path below the directory `path` may be included although the directory itself is
    /// excluded; if not, a walk need not enter it.
    #[must_use]
    pub fn may_include_below(&self, _path: &str) -> bool {
        true
    }
}
