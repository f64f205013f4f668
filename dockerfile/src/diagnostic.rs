//! What is wrong where, and a drawing of it.

mod excerpt;

use std::fmt;

use crate::span::{LineIndex, Span};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// The build goes on.
    Warning,
    /// The Dockerfile cannot be built.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// One finding about a Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// A stable name: `kebab-case` from the parser, `PascalCase` from the linter.
    pub rule: &'static str,
    /// What is wrong, one line, lower case.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Where.
    pub span: Span,
}

impl Diagnostic {
    /// An error.
    #[must_use]
    pub fn error(rule: &'static str, message: impl Into<String>, span: Span) -> Self {
        Self { severity: Severity::Error, rule, message: message.into(), help: None, span }
    }

    /// A warning.
    #[must_use]
    pub fn warning(rule: &'static str, message: impl Into<String>, span: Span) -> Self {
        Self { severity: Severity::Warning, ..Self::error(rule, message, span) }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_help(self, help: impl Into<Option<String>>) -> Self {
        Self { help: help.into().or(self.help), ..self }
    }
}

/// Whether [`render_styled`] uses terminal colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// Text alone.
    #[default]
    Plain,
    /// ANSI colours.
    Colour,
}

/// Draws the diagnostics of one source text; the text is indexed once.
#[derive(Clone, Debug)]
pub struct Renderer<'a> {
    index: LineIndex<'a>,
    file_name: &'a str,
    style: Style,
}

impl<'a> Renderer<'a> {
    /// Prepares to draw excerpts of `source`, which is shown under the name `file_name`.
    #[must_use]
    pub fn new(source: &'a str, file_name: &'a str, style: Style) -> Self {
        Self { index: LineIndex::new(source), file_name, style }
    }

    /// Draws one diagnostic, see [`render`].
    #[must_use]
    pub fn render(&self, diagnostic: &Diagnostic) -> String {
        excerpt::draw(&self.index, self.file_name, diagnostic, self.style)
    }
}

/// Draws a diagnostic: headline, place, the source line with a caret under the culprit, help.
#[must_use]
pub fn render(source: &str, file_name: &str, diagnostic: &Diagnostic) -> String {
    render_styled(source, file_name, diagnostic, Style::Plain)
}

/// Like [`render`], in colour if asked.
#[must_use]
pub fn render_styled(
    source: &str,
    file_name: &str,
    diagnostic: &Diagnostic,
    style: Style,
) -> String {
    Renderer::new(source, file_name, style).render(diagnostic)
}
