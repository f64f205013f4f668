//! BuildKit's source policies: rules that let an input through, refuse it or put another in its
//! place.

use std::collections::BTreeMap;

use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::input::Decision;

/// No pattern may become a larger program than this.
const LARGEST: usize = 1 << 20;

/// The rules of a file. As a value they are its name and text.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "PolicyText", into = "PolicyText")]
pub struct PolicyRules {
    /// What messages call it.
    name: String,
    text: String,
    rules: Vec<SourceRule>,
}

#[derive(Debug, Clone)]
struct SourceRule {
    action: Action,
    pattern: String,
    matcher: Matcher,
    /// What takes the place; `None` is the same again.
    to: Option<String>,
    attrs: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Action {
    Allow,
    Deny,
    Convert,
}

#[derive(Debug, Clone)]
enum Matcher {
    Exact,
    Pattern(Regex),
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum MatchType {
    #[default]
    Wildcard,
    Exact,
    Regex,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    #[allow(dead_code, reason = "there is one version, 1")]
    version: Option<u64>,
    rules: Vec<FileRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRule {
    #[serde(default = "allow")]
    action: Action,
    selector: Selector,
    #[serde(default)]
    updates: Option<Updates>,
}

fn allow() -> Action {
    Action::Allow
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Selector {
    identifier: String,
    #[serde(default, alias = "match_type")]
    match_type: MatchType,
    #[serde(default)]
    constraints: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Updates {
    #[serde(default)]
    identifier: Option<String>,
    #[serde(default)]
    attrs: BTreeMap<String, String>,
}

impl PolicyRules {
    /// Reads a policy in BuildKit's JSON.
    ///
    /// # Errors
    /// One sentence about the fault: the text is not a policy, a pattern is malformed, or a field
    /// is not supported.
    pub fn read(name: &str, text: &str) -> Result<PolicyRules, String> {
        let file: File = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let rules = file.rules.into_iter().enumerate().map(|(at, rule)| {
            SourceRule::new(rule).map_err(|why| format!("rule {}: {why}", at + 1))
        });
        let rules = rules.collect::<Result<_, _>>()?;
        Ok(PolicyRules { name: name.to_owned(), text: text.to_owned(), rules })
    }
}

/// A policy as it is written down.
#[derive(Serialize, Deserialize)]
struct PolicyText {
    name: String,
    text: String,
}

impl TryFrom<PolicyText> for PolicyRules {
    type Error = String;

    fn try_from(policy: PolicyText) -> Result<PolicyRules, String> {
        PolicyRules::read(&policy.name, &policy.text)
    }
}

impl From<PolicyRules> for PolicyText {
    fn from(PolicyRules { name, text, .. }: PolicyRules) -> PolicyText {
        PolicyText { name, text }
    }
}

impl SourceRule {
    fn new(rule: FileRule) -> Result<SourceRule, String> {
        let FileRule { action, selector, updates } = rule;
        if !selector.constraints.is_empty() {
            return Err("constraints on attributes are not supported".to_owned());
        }
        let pattern = selector.identifier;
        let regex = |text: &str| {
            let built = regex::RegexBuilder::new(text).size_limit(LARGEST).build();
            built.map_err(|error| format!("{pattern:?} is not a pattern: {error}"))
        };
        let matcher = match selector.match_type {
            MatchType::Exact => Matcher::Exact,
            MatchType::Regex => Matcher::Pattern(regex(&pattern)?),
            MatchType::Wildcard if !pattern.contains('*') => Matcher::Exact,
            MatchType::Wildcard => Matcher::Pattern(regex(&wildcard(&pattern))?),
        };
        let (to, attrs) = match updates {
            Some(updates) => (updates.identifier.filter(|to| !to.is_empty()), updates.attrs),
            None => (None, BTreeMap::new()),
        };
        if action == Action::Convert && to.is_none() && attrs.is_empty() {
            return Err("the conversion has no updates".to_owned());
        }
        Ok(SourceRule { action, pattern, matcher, to, attrs })
    }

    /// What a match puts in the place of an identifier; `None` if it does not match.
    fn apply(&self, identifier: &str) -> Option<String> {
        let to = self.to.as_deref().unwrap_or(identifier);
        match &self.matcher {
            Matcher::Exact => (self.pattern == identifier).then(|| to.to_owned()),
            Matcher::Pattern(regex) => {
                let found = regex.captures(identifier)?;
                let mut out = String::new();
                match self.to.is_some() {
                    true => found.expand(to, &mut out),
                    false => out.push_str(identifier),
                }
                Some(out)
            }
        }
    }
}

/// A pattern in which `*` matches any text, as a regular expression.
fn wildcard(pattern: &str) -> String {
    let parts: Vec<String> = pattern.split('*').map(regex::escape).collect();
    format!("^{}$", parts.join("(.*)"))
}

impl PolicyRules {
    /// What to do with this identifier, which has no credentials. After a conversion it is called
    /// again with the result.
    pub(crate) fn decide(&self, identifier: &str) -> Decision {
        let mut refused = None;
        for (at, rule) in self.rules.iter().enumerate() {
            let Some(to) = rule.apply(identifier) else { continue };
            match rule.action {
                Action::Allow => refused = None,
                Action::Deny => {
                    let reason = format!(
                        "rule {} of source policy {} denies {}",
                        at + 1,
                        self.name,
                        rule.pattern
                    );
                    refused = Some(reason);
                }
                Action::Convert if to == identifier && rule.attrs.is_empty() => {}
                Action::Convert => return Decision::Convert { to, attrs: rule.attrs.clone() },
            }
        }
        match refused {
            Some(reason) => Decision::Deny { reason },
            None => Decision::Allow,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(rules: &str) -> Result<PolicyRules, String> {
        PolicyRules::read("p.json", &format!("{{\"rules\":[{rules}]}}"))
    }

    fn decide(rules: &str, identifier: &str) -> String {
        match policy(rules).unwrap().decide(identifier) {
            Decision::Allow => "allow".to_owned(),
            Decision::Deny { reason } => reason,
            Decision::Convert { to, attrs } => format!("{to} {attrs:?}"),
        }
    }

    #[test]
    fn the_last_rule_that_matches_counts() {
        let rules = r#"
            {"action":"DENY","selector":{"identifier":"*"}},
            {"action":"ALLOW","selector":{"identifier":"docker-image://r.example/*"}},
            {"action":"DENY","selector":{"identifier":"docker-image://r.example/bad:1","matchType":"EXACT"}}"#;
        assert_eq!(decide(rules, "docker-image://r.example/a/b:1"), "allow");
        assert!(decide(rules, "https://x.example/").contains("rule 1 of source policy p.json"));
        assert!(decide(rules, "docker-image://r.example/bad:1").contains("rule 3"));
        assert_eq!(decide(rules, "docker-image://r.example/bad:10"), "allow");
    }

    #[test]
    fn what_a_pattern_leaves_open_can_be_used() {
        let rules = r#"
            {"action":"CONVERT","selector":{"identifier":"docker-image://docker.io/library/*:*"},
             "updates":{"identifier":"docker-image://mirror.example/${1}:${2}-slim"}},
            {"action":"CONVERT","selector":{"identifier":"^https://(.+)/x$","matchType":"REGEX"},
             "updates":{"identifier":"https://cache.example/$1","attrs":{"http.checksum":"sha256:1"}}}"#;
        assert_eq!(
            decide(rules, "docker-image://docker.io/library/alpine:3"),
            "docker-image://mirror.example/alpine:3-slim {}"
        );
        assert_eq!(
            decide(rules, "https://a.example/x"),
            "https://cache.example/a.example {\"http.checksum\": \"sha256:1\"}"
        );
        assert_eq!(decide(rules, "https://a.example/y"), "allow");
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (rules, why) in [
            (r#"{"action":"ASK","selector":{"identifier":"*"}}"#, "ASK"),
            (r#"{"action":"DENY"}"#, "selector"),
            (r#"{"action":"CONVERT","selector":{"identifier":"a"}}"#, "rule 1"),
            (r#"{"action":"DENY","selector":{"identifier":"(","matchType":"REGEX"}}"#, "pattern"),
            (
                r#"{"action":"DENY","selector":{"identifier":"a","constraints":[{}]}}"#,
                "constraints",
            ),
            (r#"{"action":"DENY","selector":{"identifier":"a"},"unless":1}"#, "unless"),
        ] {
            let error = policy(rules).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        assert!(PolicyRules::read("p", "[]").is_err());
        assert!(PolicyRules::read("p", "{\"rules\":[]}").is_ok());
    }
}
