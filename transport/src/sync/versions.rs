//! Ranges of versions, in the syntax of the configuration files that people have.

use std::str::FromStr;

use semver::{Comparator, Op, Version, VersionReq};

use crate::{Error, Result};

/// A range of semantic versions: alternatives separated by `||`, each a list of comparisons
/// (`=`, `!=`, `>`, `>=`, `=>`, `<`, `<=`, `=<`, `~`, `^`, `1.2.x`, `1.2 - 1.4`) that must all
/// hold, separated by commas or blanks.
///
/// A version may be partial and may begin with `v`; what it does not say is zero. Pre-releases
/// are in a range only where a comparison of it names a pre-release of the same version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versions(Vec<All>);

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct All {
    required: VersionReq,
    unequal: Vec<VersionReq>,
}

impl Versions {
    /// Whether a tag is a version of this range.
    pub fn contains(&self, tag: &str) -> bool {
        let Some(version) = version(tag) else { return false };
        self.0.iter().any(|all| {
            all.required.matches(&version)
                && !all.unequal.iter().any(|not| not.matches(&version))
                && (version.pre.is_empty() || !all.required.comparators.is_empty())
        })
    }
}

/// A tag as a version, if it is one.
fn version(tag: &str) -> Option<Version> {
    let text = tag.strip_prefix(['v', 'V']).unwrap_or(tag);
    let at = text.find(['-', '+']).unwrap_or(text.len());
    let (numbers, rest) = text.split_at(at);
    let parts: Vec<&str> = numbers.split('.').collect();
    if parts.len() > 3 || parts.iter().any(|part| part.is_empty()) {
        return None;
    }
    let number = |at: usize| parts.get(at).map_or(Some(0), |part| part.parse::<u64>().ok());
    let whole = format!("{}.{}.{}{rest}", number(0)?, number(1)?, number(2)?);
    Version::parse(&whole).ok()
}

impl FromStr for Versions {
    type Err = Error;

    fn from_str(text: &str) -> Result<Versions> {
        let refuse = |reason: String| Error::Pattern { text: text.to_owned(), reason };
        if text.len() > 1000 {
            return Err(refuse("it is longer than 1000 characters".to_owned()));
        }
        text.split("||").map(all).collect::<Result<_, _>>().map(Versions).map_err(refuse)
    }
}

fn all(text: &str) -> Result<All, String> {
    let mut all = All::default();
    for part in text.split(',') {
        if let Some((low, high)) = part.split_once(" - ") {
            all.required.comparators.push(comparator(&format!(">={}", low.trim()))?);
            all.required.comparators.push(comparator(&format!("<={}", high.trim()))?);
            continue;
        }
        for one in words(part) {
            match one.strip_prefix("!=") {
                Some(version) => {
                    let not = comparator(&format!("={version}"))?;
                    all.unequal.push(VersionReq { comparators: vec![not] });
                }
                None if ["*", "x", "X"].contains(&one.as_str()) => {}
                None => all.required.comparators.push(comparator(&one)?),
            }
        }
    }
    Ok(all)
}

/// Comparisons separated by blanks; a blank after an operator belongs to the comparison.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match words.last_mut() {
            Some(last) if last.ends_with(['=', '<', '>', '~', '^', '!']) => last.push_str(word),
            _ => words.push(word.to_owned()),
        }
    }
    words
}

fn comparator(text: &str) -> Result<Comparator, String> {
    let at = text.find(|c: char| !"=<>~^!".contains(c)).unwrap_or(text.len());
    let (operator, version) = text.split_at(at);
    let operator = match operator {
        // What a version that stands alone means elsewhere is not what it means here.
        "" | "=" | "==" => "=",
        "=>" | ">=" => ">=",
        "=<" | "<=" => "<=",
        "~>" | "~" => "~",
        one @ (">" | "<" | "^") => one,
        other => return Err(format!("{other:?} is not a comparison")),
    };
    let version = version.strip_prefix(['v', 'V']).unwrap_or(version);
    let wild = version.contains(['x', 'X', '*']) && !version.contains('-');
    let version = if wild { version.replace(['x', 'X'], "*") } else { version.to_owned() };
    let mut read = Comparator::parse(&match (wild, operator) {
        (true, "=") => version.clone(),
        _ => format!("{operator}{version}"),
    })
    .map_err(|error| error.to_string())?;
    if read.op == Op::Caret && operator == "=" {
        read.op = Op::Exact;
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_contain_what_their_readers_expect() {
        let cases: &[(&str, &[&str], &[&str])] = &[
            (">= 3.12.0", &["3.12.0", "3.12", "v4", "3.20.1"], &["3.11.9", "edge", "3.13-rc1"]),
            (">=1.2, <2", &["1.2", "1.99.9"], &["2.0.0", "1.1.9", "2"]),
            (">1.2 <1.5", &["1.3.0", "1.4.9"], &["1.2.3", "1.5.0"]),
            ("1.2", &["1.2.0", "1.2.9"], &["1.3.0", "1.1.0"]),
            ("=1.2.3", &["1.2.3", "v1.2.3"], &["1.2.4"]),
            ("1.2.x", &["1.2.0", "1.2.77"], &["1.3"]),
            ("1.x", &["1.0", "1.9"], &["2.0"]),
            ("~1.4", &["1.4.0", "1.4.9"], &["1.5.0"]),
            ("^1.4", &["1.4.0", "1.9"], &["2.0.0", "1.3"]),
            ("1.2 - 1.4", &["1.2.0", "1.4.0", "1.4.9"], &["1.1.9", "1.5"]),
            ("^1 || ^3", &["1.5", "3.1"], &["2.0", "4.0"]),
            (">=1, !=1.3.0", &["1.2", "1.4"], &["1.3.0", "1.3"]),
            ("*", &["0.1", "7"], &["latest", "1.0-rc.1"]),
            (">=1.0.0-rc.1", &["1.0.0-rc.2", "1.0.0"], &["1.0.0-beta"]),
        ];
        for (range, inside, outside) in cases {
            let read: Versions = range.parse().unwrap_or_else(|e| panic!("{range}: {e}"));
            for tag in *inside {
                assert!(read.contains(tag), "{tag} is in {range}");
            }
            for tag in *outside {
                assert!(!read.contains(tag), "{tag} is not in {range}");
            }
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in [">=", "a.b", "1.2.3.4", "<>1", "!!1", ">= 1.0 -"] {
            assert!(text.parse::<Versions>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_version_is_in_no_range() {
        let all: Versions = "*".parse().unwrap();
        for tag in ["latest", "1.2.3.4", "", "v", "1..2", "99999999999999999999"] {
            assert!(!all.contains(tag), "{tag}");
        }
    }
}
