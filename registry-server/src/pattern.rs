//! Patterns for names of repositories and tags.

use std::fmt;

use regex::Regex;
use serde::{Deserialize, Deserializer, de};

use crate::{Error, Result};

/// A pattern: `*` matches any text without `/`, `**` any text, `?` one character.
#[derive(Clone)]
pub struct Pattern(Regex);

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`Error::Configuration`] where it is longer than makes sense.
    pub fn new(text: &str) -> Result<Pattern> {
        let mut expression = String::from(r"\A");
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let (stands_for, length) = match first {
                '*' if rest.starts_with("**") => (".*".to_owned(), 2),
                '*' => ("[^/]*".to_owned(), 1),
                '?' => ("[^/]".to_owned(), 1),
                other => (regex::escape(other.encode_utf8(&mut [0; 4])), other.len_utf8()),
            };
            expression.push_str(&stands_for);
            rest = &rest[length..];
        }
        expression.push_str(r"\z");
        let compiled = regex::RegexBuilder::new(&expression).dot_matches_new_line(true).build();
        compiled.map(Pattern).map_err(|_| {
            let start: String = text.chars().take(40).collect();
            let reason = format!("the pattern {start:?}… is too long");
            Error::Configuration { what: "a pattern", reason }
        })
    }

    /// Whether it fits a whole text.
    pub fn fits(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({})", self.0)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pattern, D::Error> {
        let text = String::deserialize(deserializer)?;
        Pattern::new(&text).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("team/app", "team/app", true),
            ("team/app", "team/apps", false),
            ("team/*", "team/app", true),
            ("team/*", "team/app/x", false),
            ("team/**", "team/app/x", true),
            ("**", "a/b/c", true),
            ("*", "a/b", false),
            ("*", "", true),
            ("**/app", "a/b/app", true),
            ("v?.*", "v1.2", true),
            ("v?.*", "v12", false),
            ("v[0-9]", "v1", false),
            ("*-rc*", "v1-rc2", true),
        ] {
            assert_eq!(Pattern::new(pattern).unwrap().fits(text), expected, "{pattern} {text}");
        }
        assert!(Pattern::new("a.b").is_ok_and(|pattern| !pattern.fits("axb")));
        let many = Pattern::new(&"*a".repeat(200)).unwrap();
        assert!(!many.fits(&"a".repeat(190)));
        assert!(Pattern::new(&"**?".repeat(200_000)).is_err());
    }
}
