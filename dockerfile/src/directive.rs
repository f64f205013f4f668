//! Parser directives: the `# key=value` lines at the very top of a Dockerfile.

use crate::span::{Escape, Span};

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

/// A boolean the way Go's `strconv.ParseBool` reads it.
pub(crate) fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
