//! Style and likely mistakes: one rule, one file.

use crate::diagnostic::Diagnostic;
use crate::ignore::Ignore;
use crate::instruction::Dockerfile;

/// What the linter may know besides the Dockerfile. `None` switches off the rules that need it.
#[derive(Clone, Copy, Default)]
pub struct LintContext<'a> {
    /// The context's `.dockerignore`.
    pub ignore: Option<&'a Ignore>,
    /// The platform that is built for, `os/arch[/variant]`.
    pub target_platform: Option<&'a str>,
    /// The platform of a base image, as its configuration says: `os/arch[/variant]`.
    pub base_platform: Option<&'a dyn Fn(&str) -> Option<String>>,
    /// The environment of a base image: names of its variables.
    pub base_environment: Option<&'a dyn Fn(&str) -> Option<Vec<String>>>,
    /// Values given with `--build-arg`.
    pub build_args: &'a [(String, String)],
}

/// Runs every rule the file's `check` directive allows; findings come in the order of the file.
#[must_use]
pub fn lint(_file: &Dockerfile, _context: &LintContext<'_>) -> Vec<Diagnostic> {
    Vec::new()
}
