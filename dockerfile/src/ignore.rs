//! The `.dockerignore` file: which paths of the build context do not exist.

use crate::diagnostic::Diagnostic;
use crate::glob::ignore_tokens;
use crate::glob::machine::{Automaton, Token};
use crate::span::Span;

/// The patterns of a `.dockerignore` file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ignore {
    rules: Vec<Rule>,
    /// See [`Ignore::entering_literally`].
    literal: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    /// Its line in the file, from 1.
    line: usize,
    /// `!`: what matches is in the context after all.
    exception: bool,
    /// The pattern, without `!`.
    text: String,
    matcher: Matcher,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Matcher {
    /// A plain path from the root.
    Path(String),
    /// `**/` and a plain path.
    Anywhere(String),
    /// Everything else.
    Machine(Automaton),
}

impl Ignore {
    /// Reads the file. Malformed patterns are reported and left out.
    #[must_use]
    pub fn parse(text: &str) -> (Self, Vec<Diagnostic>) {
        let mut ignore = Self::default();
        let mut diagnostics = Vec::new();
        let mut start = 0;
        for (number, line) in text.split_inclusive('\n').enumerate() {
            let span = Span::new(start, start + line.trim_end().len());
            start += line.len();
            match Rule::parse(line.trim_start_matches('\u{feff}')) {
                Ok(rule) => {
                    ignore.rules.extend(rule.map(|rule| Rule { line: number + 1, ..rule }));
                }
                Err(message) => {
                    diagnostics.push(Diagnostic::error("bad-ignore-pattern", message, span));
                }
            }
        }
        (ignore, diagnostics)
    }

    /// The rules of patterns from elsewhere, one each: `--exclude` flags.
    pub fn from_patterns<'a>(
        patterns: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, Diagnostic> {
        let mut rules = Vec::new();
        for pattern in patterns {
            let rule = Rule::parse_pattern(pattern)
                .map_err(|message| Diagnostic::error("bad-pattern", message, Span::default()))?;
            rules.extend(rule);
        }
        Ok(Self { rules, literal: false })
    }

    /// The same file as buildah reads it: an excluded directory is entered only where the text of an
    /// exception names it or something below it. `!*/a` finds no `a` in an excluded directory then.
    #[must_use]
    pub fn entering_literally(self) -> Self {
        Self { literal: true, ..self }
    }

    /// True when nothing is excluded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// True when there are `!` patterns.
    #[must_use]
    pub fn has_exceptions(&self) -> bool {
        self.rules.iter().any(|rule| rule.exception)
    }

    /// True when a pattern excludes everything at the root of the context.
    pub(crate) fn excludes_all(&self) -> bool {
        // A name that no pattern but `*` and its like would mention.
        self.rules.iter().any(|rule| !rule.exception && rule.matcher.matches("\u{1}\u{2}\u{3}"))
    }

    /// Whether a path (slash-separated, relative to the context, no `.` or `..` in it) is excluded:
    /// the last pattern that matches it or a directory above it decides. The root never is.
    ///
    /// Docker's patterns do not tell files from directories (`foo/` means `foo`), so `_is_dir`
    /// changes nothing.
    #[must_use]
    pub fn excluded(&self, path: &str, _is_dir: bool) -> bool {
        self.excluded_by(path).is_some()
    }

    /// The line of the file (from 1) that excludes a path, if one does: the last that matches.
    #[must_use]
    pub fn excluded_by(&self, path: &str) -> Option<usize> {
        let path = path.trim_matches('/');
        if path.is_empty() || path == "." {
            return None;
        }
        let rule = &self.rules[self.decide(path)?];
        (!rule.exception).then_some(rule.line)
    }

    /// Whether a path below the excluded directory `path` may be in the context after all; if not,
    /// a walk need not enter it.
    #[must_use]
    pub fn may_include_below(&self, path: &str) -> bool {
        let path = path.trim_matches('/');
        let path = if path == "." { "" } else { path };
        // What decides about the directory decides about all below it, but for later exceptions.
        let decided = if path.is_empty() { None } else { self.decide(path) };
        match decided {
            None => true,
            Some(index) if self.rules[index].exception => true,
            Some(_) if self.literal => {
                self.rules.iter().any(|rule| rule.exception && rule.names(path))
            }
            Some(index) => {
                let later = &self.rules[index + 1..];
                later.iter().any(|rule| rule.exception && rule.matcher.reaches_below(path))
            }
        }
    }

    /// The last rule that matches the path or a directory above it.
    fn decide(&self, path: &str) -> Option<usize> {
        self.rules.iter().rposition(|rule| rule.matcher.matches(path))
    }
}

impl Rule {
    /// Whether the text of the pattern is this path or goes on below it.
    fn names(&self, path: &str) -> bool {
        let rest = self.text.strip_prefix(path);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Reads a line; nothing for comments and blanks.
    fn parse(line: &str) -> Result<Option<Self>, String> {
        if line.starts_with('#') {
            return Ok(None);
        }
        Self::parse_pattern(line)
    }

    fn parse_pattern(text: &str) -> Result<Option<Self>, String> {
        let text = text.trim();
        let (exception, pattern) = match text.strip_prefix('!') {
            Some(pattern) => (true, pattern.trim()),
            None => (false, text),
        };
        if text.is_empty() {
            return Ok(None);
        }
        if pattern.is_empty() {
            return Err("'!' needs a pattern".to_owned());
        }
        let pattern = clean(pattern);
        let tokens = ignore_tokens(&pattern).map_err(|error| error.to_string())?;
        Ok(Some(Self { line: 0, exception, text: pattern, matcher: Matcher::new(tokens) }))
    }
}

impl Matcher {
    fn new(tokens: Vec<Token>) -> Self {
        let plain = |tokens: &[Token]| -> Option<String> {
            let ch = |token: &Token| if let Token::Char(ch) = token { Some(*ch) } else { None };
            tokens.iter().map(ch).collect()
        };
        if let Some(path) = plain(&tokens) {
            return Self::Path(path);
        }
        if let [Token::Deep, rest @ ..] = tokens.as_slice()
            && let Some(path) = plain(rest)
        {
            return Self::Anywhere(path);
        }
        Self::Machine(Automaton::new(tokens))
    }

    /// The path or a directory above it matches.
    fn matches(&self, path: &str) -> bool {
        let begins = |text: &str, with: &str| {
            text.strip_prefix(with).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        match self {
            Self::Path(own) => begins(path, own),
            Self::Anywhere(own) => {
                let tails = path.match_indices('/').map(|(at, _)| &path[at + 1..]);
                std::iter::once(path).chain(tails).any(|tail| begins(tail, own))
            }
            Self::Machine(machine) => machine.matches_upwards(path),
        }
    }

    /// Something below the directory `path` may match.
    fn reaches_below(&self, path: &str) -> bool {
        match self {
            Self::Path(own) => {
                path.is_empty() || own.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'))
            }
            Self::Anywhere(_) => true,
            Self::Machine(machine) => machine.reaches_below(path),
        }
    }
}

/// The shortest equal path, without a leading slash: no `.`, no `x/..`, no double or last slash.
pub(crate) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            // Nothing is above the root of a path that begins there.
            ".." if path.starts_with('/') => {}
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
#[path = "ignore_tests.rs"]
mod tests;
