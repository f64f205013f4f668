//! Parser directives: the `# key=value` lines at the very top of a Dockerfile.

use crate::diagnostic::Diagnostic;
use crate::span::{Escape, Span};
use crate::suggest::did_you_mean;

/// The value of one directive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directive {
    /// The text behind `=`, trimmed, in its own case.
    pub value: String,
    /// The whole line.
    pub span: Span,
}

/// What the directives at the top of the file ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    /// `# syntax=`: names a frontend image. Never fetched; see the `foreign-syntax` warning.
    pub syntax: Option<Directive>,
    /// `# escape=`: the escape character in force for the whole file.
    pub escape: Escape,
    /// `# check=`: which lint rules are off, and whether warnings fail the build.
    pub check: Check,
}

/// The value of `# check=skip=A,B;error=true;experimental=C`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    /// `skip=all`: no rule runs.
    pub skip_all: bool,
    /// Names of rules that are off.
    pub skip: Vec<String>,
    /// `error=true`: a lint warning fails the build.
    pub error: bool,
    /// `experimental=all`: experimental rules are on.
    pub experimental_all: bool,
    /// Names of experimental rules that are on.
    pub experimental: Vec<String>,
}

impl Check {
    /// Reads the value of a `check` directive. The error says what is wrong with it.
    pub fn parse(value: &str) -> Result<Self, String> {
        let mut check = Self::default();
        for option in value.split(';').map(str::trim).filter(|option| !option.is_empty()) {
            let Some((key, value)) = option.split_once('=') else {
                return Err(format!("check option {option:?} must have the form key=value"));
            };
            let names = || value.split(',').map(|name| name.trim().to_owned()).collect::<Vec<_>>();
            match (key.trim(), value.trim()) {
                ("skip", "all") => check.skip_all = true,
                ("skip", _) => check.skip.extend(names()),
                ("experimental", "all") => check.experimental_all = true,
                ("experimental", _) => check.experimental.extend(names()),
                ("error", value) => match go_bool(value) {
                    Some(on) => check.error = on,
                    None => return Err(format!("check option error={value:?} is not a boolean")),
                },
                (key, _) => return Err(format!("unknown check option {key:?}")),
            }
        }
        Ok(check)
    }

    /// This check with the options of a comment right above one instruction added.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        let mut merged = self.clone();
        merged.skip_all |= other.skip_all;
        merged.experimental_all |= other.experimental_all;
        merged.skip.extend(other.skip.iter().cloned());
        merged.experimental.extend(other.experimental.iter().cloned());
        merged
    }

    /// Whether a rule runs.
    #[must_use]
    pub fn allows(&self, rule: &str, experimental: bool) -> bool {
        if experimental {
            return self.experimental_all || self.experimental.iter().any(|name| name == rule);
        }
        !self.skip_all && !self.skip.iter().any(|name| name == rule)
    }
}

/// Reads the directives at the top of `source`; returns where the instructions begin.
pub(crate) fn read(
    source: &str,
    directives: &mut Directives,
    diagnostics: &mut Vec<Diagnostic>,
) -> usize {
    let mut at = source.len() - source.trim_start_matches('\u{feff}').len();
    let mut seen: Vec<&str> = Vec::new();
    if source[at..].starts_with("#!") {
        at += line_length(&source[at..]);
    }
    loop {
        let rest = &source[at..];
        let length = line_length(rest);
        let line = rest[..length].trim_end();
        let Some((name, key, value)) = split(line) else { return at };
        let start = at + (line.len() - line.trim_start().len());
        let span = Span::new(start, at + line.len());
        let value_span = Span::new(at + line.len() - value.len(), at + line.len());
        if seen.contains(&name) {
            let message = format!("directive {key:?} is given twice");
            diagnostics.push(Diagnostic::error("duplicate-directive", message, span));
        } else {
            seen.push(name);
            set(directives, name, value, span, value_span, diagnostics);
        }
        at += length;
    }
}

fn line_length(text: &str) -> usize {
    text.find('\n').map_or(text.len(), |end| end + 1)
}

/// The directive's name, how it is written, and its value; `None` ends the directives.
fn split(line: &str) -> Option<(&'static str, &str, &str)> {
    let (key, value) = line.trim_start().strip_prefix('#')?.trim_start().split_once('=')?;
    let key = key.trim_end();
    let name = ["syntax", "escape", "check"].into_iter().find(|n| n.eq_ignore_ascii_case(key))?;
    let value = value.trim();
    (!value.is_empty()).then_some((name, key, value))
}

fn set(
    directives: &mut Directives,
    name: &str,
    value: &str,
    span: Span,
    value_span: Span,
    diagnostics: &mut Vec<Diagnostic>,
) {
    match (name, value) {
        ("escape", "\\") => directives.escape = Escape::Backslash,
        ("escape", "`") => directives.escape = Escape::Backtick,
        ("escape", _) => {
            let message = format!("escape character {value:?} is neither \\ nor `");
            diagnostics.push(Diagnostic::error("bad-escape", message, value_span));
        }
        ("syntax", _) => {
            if foreign(value) {
                let message = format!("frontend {value:?} is not used");
                diagnostics.push(
                    Diagnostic::warning("foreign-syntax", message, value_span).with_help(
                        "this builder reads the Dockerfile itself and fetches no frontend"
                            .to_owned(),
                    ),
                );
            }
            directives.syntax = Some(Directive { value: value.to_owned(), span });
        }
        _ => {
            let options = value.split(' ').next().unwrap_or_default();
            match Check::parse(options) {
                Ok(check) => directives.check = check,
                Err(message) => {
                    let key = options.split('=').next().unwrap_or_default();
                    let known = did_you_mean(key, ["skip", "error", "experimental"]);
                    let diagnostic = Diagnostic::error("bad-check", message, value_span);
                    diagnostics.push(diagnostic.with_help(known));
                }
            }
        }
    }
}

/// True for a frontend image other than Docker's own.
fn foreign(value: &str) -> bool {
    let image = value.split([' ', '@']).next().unwrap_or_default();
    let image = image.strip_prefix("docker.io/").unwrap_or(image);
    let name = image.split(':').next().unwrap_or_default();
    !matches!(name, "docker/dockerfile" | "docker/dockerfile-upstream")
}

/// A boolean the way Go's `strconv.ParseBool` reads it.
pub(crate) fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
