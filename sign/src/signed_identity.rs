//! Whether a signed name is the right one.

use std::fmt;

use image::{Reference, Repository};

use crate::mismatch::Mismatch;
use crate::printable::printable;

/// For which name a signature must have been made (containers-policy.json(5),
/// `signedIdentity`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SignedIdentity {
    /// For any, or for none: the key is trusted to sign anything. `matchDigestOnly`, our addition
    /// for bundles of cosign, which name no image.
    #[default]
    Any,
    /// Exactly for the name that was asked for. `matchExact`.
    Exact,
    /// As [`SignedIdentity::Exact`] if a tag was asked for, for the same repository if a digest.
    /// `matchRepoDigestOrExact`.
    RepoDigestOrExact,
    /// As [`SignedIdentity::RepoDigestOrExact`] where a name was signed; a bundle that names only a
    /// digest, as cosign 3 makes them, will do. What a policy means that says nothing.
    IfNamed,
    /// For the repository that was asked for, under any tag. `matchRepository`.
    Repository,
    /// For one given name. `exactReference`.
    ExactReference(Reference),
    /// For one given repository, under any tag. `exactRepository`.
    ExactRepository(Repository),
    /// As [`SignedIdentity::RepoDigestOrExact`], after a prefix of the name that was asked for is
    /// replaced. `remapIdentity`.
    Remap {
        /// The prefix of the names that are replaced, on whole parts.
        prefix: String,
        /// What the prefix is replaced by.
        signed_prefix: String,
    },
}

impl SignedIdentity {
    fn rule(&self) -> &'static str {
        match self {
            SignedIdentity::Any => "matchDigestOnly",
            SignedIdentity::Exact => "matchExact",
            SignedIdentity::RepoDigestOrExact | SignedIdentity::IfNamed => "matchRepoDigestOrExact",
            SignedIdentity::Repository => "matchRepository",
            SignedIdentity::ExactReference(_) => "exactReference",
            SignedIdentity::ExactRepository(_) => "exactRepository",
            SignedIdentity::Remap { .. } => "remapIdentity",
        }
    }

    /// Step 10 of [`crate::verify`].
    pub(crate) fn check(
        &self,
        asked: Option<&Reference>,
        signed: Option<&str>,
    ) -> Result<(), Mismatch> {
        let wanted = match self {
            SignedIdentity::Any => return Ok(()),
            SignedIdentity::IfNamed if signed.is_none() => return Ok(()),
            SignedIdentity::ExactReference(name) => ExpectedIdentity::Name(name.clone()),
            SignedIdentity::ExactRepository(repository) => {
                ExpectedIdentity::Repository(repository.clone())
            }
            rule => rule.wanted(asked.ok_or(Mismatch::NoReference { rule: rule.rule() })?)?,
        };
        let signed = signed.ok_or_else(|| Mismatch::Nameless { wanted: wanted.to_string() })?;
        let mismatch =
            || Mismatch::Identity { signed: printable(signed), wanted: wanted.to_string() };
        let name: Reference = signed.parse().map_err(|_| mismatch())?;
        let fits = match &wanted {
            ExpectedIdentity::Repository(repository) => name.repository == *repository,
            // A name without tag and digest is the name of no image in particular.
            ExpectedIdentity::Name(wanted) => {
                name == *wanted && (name.tag.is_some() || name.digest.is_some())
            }
        };
        if fits { Ok(()) } else { Err(mismatch()) }
    }

    fn wanted(&self, asked: &Reference) -> Result<ExpectedIdentity, Mismatch> {
        let or_repository = |name: Reference| match name.digest {
            Some(_) => ExpectedIdentity::Repository(name.repository),
            None => ExpectedIdentity::Name(name),
        };
        match self {
            SignedIdentity::Repository => {
                Ok(ExpectedIdentity::Repository(asked.repository.clone()))
            }
            SignedIdentity::RepoDigestOrExact | SignedIdentity::IfNamed => {
                Ok(or_repository(asked.clone()))
            }
            SignedIdentity::Remap { prefix, signed_prefix } => {
                let (repository, mut name) = (asked.repository.to_string(), asked.clone());
                if let Some(rest) = strip_parts(&repository, prefix) {
                    let remapped = format!("{signed_prefix}{rest}");
                    let parsed: Result<Reference, _> = remapped.parse();
                    let parsed = parsed.map_err(|_| Mismatch::Identity {
                        signed: repository.clone(),
                        wanted: format!("{remapped}, which is not a name"),
                    })?;
                    name.repository = parsed.repository;
                }
                Ok(or_repository(name))
            }
            _ => Ok(ExpectedIdentity::Name(asked.clone())),
        }
    }
}

impl fmt::Display for SignedIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SignedIdentity::ExactReference(name) => write!(f, "for {name}"),
            SignedIdentity::ExactRepository(name) => write!(f, "for repository {name}"),
            SignedIdentity::Remap { prefix, signed_prefix } => {
                write!(f, "for the name with {signed_prefix} in place of {prefix}")
            }
            rule => write!(f, "for a name by the rule {}", rule.rule()),
        }
    }
}

enum ExpectedIdentity {
    Name(Reference),
    Repository(Repository),
}

impl fmt::Display for ExpectedIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExpectedIdentity::Name(name) => write!(f, "{name}"),
            ExpectedIdentity::Repository(repository) => write!(f, "repository {repository}"),
        }
    }
}

/// The rest of a name after a prefix that ends at the end of a component.
fn strip_parts<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = name.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn signed_names_are_compared_as_the_rule_says() {
        use SignedIdentity::{Exact, RepoDigestOrExact, Repository};
        let remap = |prefix: &str, signed_prefix: &str| SignedIdentity::Remap {
            prefix: prefix.to_owned(),
            signed_prefix: signed_prefix.to_owned(),
        };
        let pinned = format!("r.example/a/b@{DIGEST}");
        let pinned = pinned.as_str();
        let (tag, other, bare) = ("r.example/a/b:1", "r.example/a/b:2", "r.example/a/b");
        let given = |text: &str| SignedIdentity::ExactReference(text.parse().unwrap());
        let repository = |text: &str| {
            SignedIdentity::ExactRepository(text.parse::<Reference>().unwrap().repository)
        };
        let cases = [
            (SignedIdentity::Any, tag, "elsewhere.example/x", true),
            (Exact, tag, tag, true),
            (Exact, tag, other, false),
            (Exact, tag, bare, false),
            (Exact, bare, bare, false),
            (Exact, pinned, tag, false),
            (Exact, pinned, pinned, true),
            (RepoDigestOrExact, tag, tag, true),
            (RepoDigestOrExact, tag, other, false),
            (RepoDigestOrExact, tag, bare, false),
            (RepoDigestOrExact, pinned, tag, true),
            (RepoDigestOrExact, pinned, bare, true),
            (RepoDigestOrExact, pinned, "r.example/a:1", false),
            (RepoDigestOrExact, bare, bare, false),
            (Repository, tag, other, true),
            (Repository, tag, bare, true),
            (Repository, tag, "r.example/a/bb", false),
            (Repository, tag, "r.example/a", false),
            (Repository, tag, "not a name", false),
            (given("x.example/y:1"), tag, "x.example/y:1", true),
            (given("x.example/y:1"), tag, tag, false),
            (repository("x.example/y"), tag, "x.example/y:7", true),
            (repository("x.example/y"), tag, tag, false),
            (remap("r.example", "s.example/m"), tag, "s.example/m/a/b:1", true),
            (remap("r.example", "s.example/m"), tag, tag, false),
            (remap("r.example/a/b", "s.example/c"), pinned, "s.example/c:9", true),
            (remap("r.exampl", "s.example"), tag, tag, true),
            (remap("q.example", "s.example"), tag, tag, true),
        ];
        for (rule, asked, signed, fits) in cases {
            let asked: Reference = asked.parse().unwrap();
            let result = rule.check(Some(&asked), Some(signed));
            assert_eq!(result.is_ok(), fits, "{rule:?} {asked} {signed}: {result:?}");
        }
    }

    #[test]
    fn a_missing_name_fits_the_rules_that_allow_it() {
        let asked: Reference = "r.example/a:1".parse().unwrap();
        let rule = SignedIdentity::Repository;
        assert!(matches!(rule.check(Some(&asked), None), Err(Mismatch::Nameless { .. })));
        assert!(matches!(rule.check(None, Some("r.example/a")), Err(Mismatch::NoReference { .. })));
        assert_eq!(SignedIdentity::Any.check(None, None), Ok(()));
        assert_eq!(SignedIdentity::IfNamed.check(Some(&asked), None), Ok(()));
        let other = SignedIdentity::IfNamed.check(Some(&asked), Some("r.example/b:1"));
        assert!(matches!(other, Err(Mismatch::Identity { .. })), "{other:?}");
        let given = SignedIdentity::ExactReference(asked);
        assert_eq!(given.check(None, Some("r.example/a:1")), Ok(()));
    }
}
