//! Which tags of a repository a mirror takes.

use regex::Regex;

use super::versions::Versions;
use crate::{Error, Result};

/// Which tags of a repository are mirrored.
#[derive(Debug, Clone)]
pub enum Tags {
    /// Every one.
    All,
    /// These, whether the source lists them or not.
    These(Vec<String>),
    /// Those that match.
    Matching(Regex),
    /// Those that are versions in this range.
    Versions(Versions),
}

impl Tags {
    /// Those that match a regular expression anywhere; anchor it with `^` and `$`.
    ///
    /// # Errors
    /// [`Error::Pattern`].
    pub fn matching(pattern: &str) -> Result<Tags> {
        Ok(Tags::Matching(regex(pattern)?))
    }

    /// Those in a range of versions, such as `>= 1.2, < 2 || ^3.1`.
    ///
    /// # Errors
    /// [`Error::Pattern`].
    pub fn versions(range: &str) -> Result<Tags> {
        Ok(Tags::Versions(range.parse()?))
    }

    /// Whether a tag is among them.
    pub fn takes(&self, tag: &str) -> bool {
        match self {
            Tags::All => true,
            Tags::These(tags) => tags.iter().any(|wanted| wanted == tag),
            Tags::Matching(pattern) => pattern.is_match(tag),
            Tags::Versions(range) => range.contains(tag),
        }
    }
}

/// A regular expression.
///
/// # Errors
/// [`Error::Pattern`].
pub fn regex(pattern: &str) -> Result<Regex> {
    let built = regex::RegexBuilder::new(pattern).size_limit(1 << 20).build();
    built.map_err(|error| Error::Pattern { text: pattern.to_owned(), reason: error.to_string() })
}

/// The digest, as written in a tag of the older form of signatures (`sha256-….sig`).
pub(super) fn subject_of(tag: &str) -> Option<String> {
    let (digest, suffix) = tag.split_once('.')?;
    let (algorithm, hex) = digest.split_once('-')?;
    let right = algorithm == "sha256"
        && hex.len() == 64
        && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        && ["sig", "att", "sbom"].contains(&suffix);
    right.then(|| format!("{algorithm}:{hex}"))
}

/// The digest, as written in a tag of the older form of signatures or in the one that lists referrers
/// (`sha256-…`) where a registry has no referrers API.
pub(super) fn derived_from(tag: &str) -> Option<String> {
    subject_of(tag).or_else(|| subject_of(&format!("{tag}.sig")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_taken_by_name_pattern_and_range() {
        let these = Tags::These(vec!["1.0".into(), "edge".into()]);
        let pattern = Tags::matching("^1\\.[23]").unwrap();
        let range = Tags::versions(">=1.2, <2").unwrap();
        for (tag, by_name, by_pattern, by_range) in [
            ("1.0", true, false, false),
            ("edge", true, false, false),
            ("1.2", false, true, true),
            ("1.31", false, true, true),
            ("v1.9.3", false, false, true),
            ("2.0", false, false, false),
            ("1.5-rc.1", false, false, false),
        ] {
            assert!(Tags::All.takes(tag));
            assert_eq!(these.takes(tag), by_name, "{tag}");
            assert_eq!(pattern.takes(tag), by_pattern, "{tag}");
            assert_eq!(range.takes(tag), by_range, "{tag}");
        }
        assert!(matches!(Tags::matching("("), Err(Error::Pattern { .. })));
        assert!(Tags::matching(&"(a{1,500}){1,500}".repeat(3)).is_err());
    }

    #[test]
    fn signature_tags_are_known() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(subject_of(&format!("sha256-{hex}.sig")), Some(format!("sha256:{hex}")));
        assert_eq!(subject_of(&format!("sha256-{hex}.att")), Some(format!("sha256:{hex}")));
        for other in [format!("sha256-{hex}"), format!("sha256-{hex}.txt"), "1.0.sig".into()] {
            assert_eq!(subject_of(&other), None, "{other}");
        }
        assert_eq!(derived_from(&format!("sha256-{hex}")), Some(format!("sha256:{hex}")));
        assert_eq!(derived_from(&format!("sha256-{hex}.att")), Some(format!("sha256:{hex}")));
        assert_eq!(derived_from(&format!("sha256-{hex}.txt")), None);
    }
}
