//! What is allowed although it looks like a secret.

use super::Secret;

/// Secrets that are none: a line each with a rule and, after white space, a place; `*` stands for
/// any characters, and `#` begins a comment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowList(Vec<(String, String)>);

impl AllowList {
    /// Reads a list.
    ///
    /// # Errors
    /// A line names no rule that there is; in words.
    pub fn parse(text: &str) -> Result<AllowList, String> {
        let mut list = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let (rule, place) = line.split_once(char::is_whitespace).unwrap_or((line, "*"));
            let known = |rule: &str| super::rules().rules.iter().any(|one| one.written.id == rule);
            if rule != "*" && !known(rule) {
                return Err(format!("line {}: there is no rule {rule:?}", index + 1));
            }
            list.push((rule.to_owned(), place.trim().trim_start_matches('/').to_owned()));
        }
        Ok(AllowList(list))
    }

    /// Whether a secret is allowed.
    pub fn allows(&self, secret: &Secret) -> bool {
        let fits = |rule: &str, place: &str| {
            (rule == "*" || rule == secret.rule) && matches(place, &secret.place)
        };
        self.0.iter().any(|(rule, place)| fits(rule, place))
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<_> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = text.find(part) else { return false };
        text = &text[at + part.len()..];
    }
    text.ends_with(last)
}
