//! Patterns for the sources of `COPY` and `ADD`: Go's `filepath.Match`, and `**` for any number of
//! directories.

pub(crate) mod machine;

use machine::{Automaton, Token};

/// A pattern that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed pattern {pattern:?}: {reason}")]
#[non_exhaustive]
pub struct BadPattern {
    /// The pattern.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// A pattern, ready to match slash-separated paths.
///
/// `?` is any character, `*` any number of them, `[a-z]` and `[^a-z]` one of a set, none of them
/// `/`. `\` takes the meaning from the next character; so does `[[]` for a bracket. `**` between
/// slashes is any number of directories, none included; at the end it is everything below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    machine: Automaton,
}

impl Pattern {
    /// Reads a pattern.
    pub fn parse(pattern: &str) -> Result<Self, BadPattern> {
        tokens(pattern)
            .map(|tokens| Self { machine: Automaton::new(tokens) })
            .map_err(|reason| BadPattern { pattern: pattern.to_owned(), reason })
    }

    /// Whether the whole path matches.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        self.machine.matches(path)
    }

    /// Whether the path or a directory above it matches.
    #[must_use]
    pub fn matches_path_or_parent(&self, path: &str) -> bool {
        self.machine.matches_upwards(path)
    }

    /// Whether something below the directory `path` may match; the root is `""`.
    #[must_use]
    pub fn may_match_below(&self, path: &str) -> bool {
        self.machine.reaches_below(path)
    }
}

/// True when the text is a pattern: it has a `*`, `?` or `[` without a backslash before it. A path
/// whose only special characters are backslashes is a plain path, as in BuildKit.
#[must_use]
pub fn is_pattern(text: &str) -> bool {
    let mut chars = text.chars();
    while let Some(ch) = chars.next() {
        match ch {
            '\\' => drop(chars.next()),
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}

const OPEN_CLASS: &str = "'[' without its ']', or an empty or malformed set";
const OPEN_ESCAPE: &str = "nothing behind the last '\\'";

fn tokens(pattern: &str) -> Result<Vec<Token>, &'static str> {
    let mut tokens = Vec::new();
    let mut chars = pattern.chars().peekable();
    while let Some(ch) = chars.next() {
        let token = match ch {
            '*' => {
                let first = matches!(tokens.last(), None | Some(Token::Char('/') | Token::Deep));
                let mut stars = 1;
                while chars.next_if_eq(&'*').is_some() {
                    stars += 1;
                }
                match (first && stars == 2, chars.peek()) {
                    (true, None) => Token::Rest,
                    (true, Some('/')) => {
                        chars.next();
                        Token::Deep
                    }
                    _ => Token::Star,
                }
            }
            '?' => Token::Any,
            '[' => machine::class(&mut chars).ok_or(OPEN_CLASS)?,
            '\\' => Token::Char(chars.next().ok_or(OPEN_ESCAPE)?),
            ch => Token::Char(ch),
        };
        tokens.push(token);
    }
    Ok(tokens)
}

/// The tokens of a `.dockerignore` pattern, where `**` may stand anywhere.
pub(crate) fn ignore_tokens(pattern: &str) -> Result<Vec<Token>, BadPattern> {
    let bad = |reason| BadPattern { pattern: pattern.to_owned(), reason };
    // `**name`, with nothing special in the name, is every path that ends with it.
    if let Some(name) = pattern.strip_prefix("**").filter(|name| !name.starts_with('/'))
        && !name.contains(['*', '?', '[', '\\'])
    {
        return Ok(std::iter::once(Token::Rest).chain(name.chars().map(Token::Char)).collect());
    }
    let mut tokens = Vec::new();
    let mut chars = pattern.chars().peekable();
    while let Some(ch) = chars.next() {
        tokens.push(match ch {
            '*' if chars.next_if_eq(&'*').is_some() => {
                chars.next_if_eq(&'/');
                if chars.peek().is_none() { Token::Rest } else { Token::Deep }
            }
            '*' => Token::Star,
            '?' => Token::Any,
            '[' => machine::class(&mut chars).ok_or(OPEN_CLASS).map_err(bad)?,
            '\\' => Token::Char(chars.next().ok_or(OPEN_ESCAPE).map_err(bad)?),
            ch => Token::Char(ch),
        });
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_like_go() {
        for (pattern, path, expected) in [
            ("main.c", "main.c", true),
            ("main.c", "main.cc", false),
            ("*", "README", true),
            ("*", "docs/README", false),
            ("*.c", "main.c", true),
            ("main*", "main", true),
            ("lib*/mod.rs", "library/mod.rs", true),
            ("lib*/mod.rs", "lib/x/mod.rs", false),
            ("p*-*-*.tar", "pkg-1-amd64.tar", true),
            ("p*-*-*.tar", "pkg-1.tar", false),
            ("v?.*.txt", "v2.10.txt", true),
            ("v?.*.txt", "v22.txt", false),
            ("part[0-4]", "part3", true),
            ("part[0-4]", "part7", false),
            ("part[^0-4]", "part3", false),
            ("part[^0-4]", "part7", true),
            ("star\\*", "star*", true),
            ("star\\*", "stars", false),
            ("caf?", "café", true),
            ("caf??", "café", false),
            ("[α-ω]*", "λόγος", true),
            ("[α-ω]", "x", false),
            ("x?y", "x/y", false),
            ("x*y", "x/y", false),
            ("x[^z]y", "x/y", false),
            ("[\\]]", "]", true),
            ("[\\-]", "-", true),
            ("[[]", "[", true),
            ("arr[[]0].txt", "arr[0].txt", true),
            ("*t", "ttt", true),
            ("", "", true),
            ("**", "a/b/c", true),
            ("**/*.go", "a/b/c.go", true),
            ("**/*.go", "c.go", true),
            ("src/**/*.rs", "src/lib.rs", true),
            ("src/**/*.rs", "src/a/b/lib.rs", true),
            ("src/**/*.rs", "lib.rs", false),
            ("src/**", "src/a/b", true),
            ("src/**", "src", false),
            ("**/x/**/y", "a/x/y", true),
            ("**/x/**/y", "x/1/2/y", true),
            ("a**b", "axxb", true),
            ("a**b", "a/b", false),
            ("**/**/x", "x", true),
        ] {
            let found = Pattern::parse(pattern).unwrap().matches(path);
            assert_eq!(found, expected, "{pattern} {path}");
        }
    }

    #[test]
    fn malformed() {
        for pattern in
            ["[", "[^", "dir[", "[]", "[]z]", "[-]", "[0-]", "[-9]", "[0-4-9]", "[^0", "end\\"]
        {
            assert!(Pattern::parse(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn below() {
        for (pattern, path, expected) in [
            ("a/b/c", "", true),
            ("a/b/c", "a", true),
            ("a/b/c", "a/b", true),
            ("a/b/c", "a/b/c", false),
            ("a/b/c", "b", false),
            ("*", "a", false),
            ("*.go", "", true),
            ("**/x", "any/where", true),
            ("a/**", "a", true),
            ("a/**", "b", false),
        ] {
            let found = Pattern::parse(pattern).unwrap().may_match_below(path);
            assert_eq!(found, expected, "{pattern} {path}");
        }
    }

    #[test]
    fn time_is_bounded() {
        let pattern = Pattern::parse(&"*a".repeat(60)).unwrap();
        assert!(!pattern.matches(&"a".repeat(59)));
        assert!(pattern.matches(&"a".repeat(2000)));
    }
}
