//! Patterns for names of repositories and tags.

use serde::{Deserialize, Deserializer};

/// A pattern: `*` stands for any text without `/`, `**` for any text, `?` for one character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// A pattern; every text is one.
    pub fn new(text: impl Into<String>) -> Pattern {
        Pattern(text.into())
    }

    /// Whether it fits a whole text.
    pub fn fits(&self, text: &str) -> bool {
        fits(self.0.as_bytes(), text.as_bytes())
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pattern, D::Error> {
        String::deserialize(deserializer).map(Pattern)
    }
}

/// In time that grows with pattern times text, whatever they are.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    // `reached[i]`: the pattern so far can fit the first `i` bytes of the text.
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    let mut at = 0;
    while at < pattern.len() {
        let mut next = vec![false; text.len() + 1];
        let (deep, wide) = (pattern[at..].starts_with(b"**"), pattern[at] == b'*');
        for end in 0..=text.len() {
            let before = end.checked_sub(1);
            next[end] = match wide {
                true => {
                    let longer = before.is_some_and(|b| next[b] && (deep || text[b] != b'/'));
                    reached[end] || longer
                }
                false => before.is_some_and(|b| {
                    let same = pattern[at] == text[b] || (pattern[at] == b'?' && text[b] != b'/');
                    reached[b] && same
                }),
            };
        }
        at += if deep { 2 } else { 1 };
        reached = next;
    }
    reached[text.len()]
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
            assert_eq!(Pattern::new(pattern).fits(text), expected, "{pattern} {text}");
        }
        let many = "*a".repeat(200);
        assert!(!Pattern::new(many).fits(&"a".repeat(190)));
    }
}
