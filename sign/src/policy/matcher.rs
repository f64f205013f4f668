//! Which part of a policy is about an image, and whether a signed name is the right one.

use std::fmt;
use std::path::Path;

use image::{Reference, Repository};
use transport::{Location, Named, real_path};

use crate::Mismatch;
use crate::verify::printable;

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
    /// `matchRepoDigestOrExact`, what a policy means that says nothing.
    RepoDigestOrExact,
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
            SignedIdentity::RepoDigestOrExact => "matchRepoDigestOrExact",
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
            SignedIdentity::ExactReference(name) => Wanted::Name(name.clone()),
            SignedIdentity::ExactRepository(repository) => Wanted::Repository(repository.clone()),
            rule => rule.wanted(asked.ok_or(Mismatch::NoReference { rule: rule.rule() })?)?,
        };
        let signed = signed.ok_or_else(|| Mismatch::Nameless { wanted: wanted.to_string() })?;
        let mismatch =
            || Mismatch::Identity { signed: printable(signed), wanted: wanted.to_string() };
        let name: Reference = signed.parse().map_err(|_| mismatch())?;
        let fits = match &wanted {
            Wanted::Repository(repository) => name.repository == *repository,
            // A name without tag and digest is the name of no image in particular.
            Wanted::Name(wanted) => {
                name == *wanted && (name.tag.is_some() || name.digest.is_some())
            }
        };
        if fits { Ok(()) } else { Err(mismatch()) }
    }

    fn wanted(&self, asked: &Reference) -> Result<Wanted, Mismatch> {
        let or_repository = |name: Reference| match name.digest {
            Some(_) => Wanted::Repository(name.repository),
            None => Wanted::Name(name),
        };
        match self {
            SignedIdentity::Repository => Ok(Wanted::Repository(asked.repository.clone())),
            SignedIdentity::RepoDigestOrExact => Ok(or_repository(asked.clone())),
            SignedIdentity::Remap { prefix, signed_prefix } => {
                let (repository, mut name) = (asked.repository.to_string(), asked.clone());
                if let Some(rest) = strip_parts(&repository, prefix) {
                    let remapped = format!("{signed_prefix}{rest}");
                    let parsed: Result<Reference, _> = remapped.parse();
                    let parsed = parsed.map_err(|_| Mismatch::Identity {
                        signed: repository.clone(),
                        wanted: format!("{remapped}, which is no name"),
                    })?;
                    name.repository = parsed.repository;
                }
                Ok(or_repository(name))
            }
            _ => Ok(Wanted::Name(asked.clone())),
        }
    }
}

enum Wanted {
    Name(Reference),
    Repository(Repository),
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wanted::Name(name) => write!(f, "{name}"),
            Wanted::Repository(repository) => write!(f, "repository {repository}"),
        }
    }
}

/// What is left of a name after a prefix that ends at the end of a part.
fn strip_parts<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = name.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

/// The scopes of a policy that are about a place, the most specific first. The transport's
/// default (the empty scope) and the policy's own default are not among them.
pub(crate) fn scopes(location: &Location) -> Vec<String> {
    match location {
        Location::Registry(reference) => registry_scopes(reference),
        Location::Layout(path, named)
        | Location::OciArchive(path, named)
        | Location::DockerArchive(path, named) => {
            let path = path.to_string_lossy();
            let full = match named {
                Named::Name(name) => Some(format!("{path}:{name}")),
                Named::Digest(digest) => Some(format!("{path}@{digest}")),
                _ => None,
            };
            // A directory whose name has a colon could pass for an image of another directory.
            let full = full.filter(|_| !path.contains(':'));
            let paths = path_scopes(&path).into_iter().filter(|path| !path.contains(':'));
            full.into_iter().chain(paths).collect()
        }
        Location::Directory(path) => path_scopes(&path.to_string_lossy()),
        Location::Store(name) => vec![name.clone()],
        Location::Daemon(name) => match name.parse::<Reference>() {
            Ok(reference) => registry_scopes(&reference),
            Err(_) => vec![name.clone()],
        },
        Location::Containers(at, name) => {
            let name = name.parse::<Reference>().ok();
            let mut scopes = name.map(|name| registry_scopes(&name)).unwrap_or_default();
            if let Some(at) = at {
                let graph = at.graph_root.display();
                let driver = at.driver.as_deref().unwrap_or("overlay");
                let place = format!("[{driver}@{graph}]");
                let placed: Vec<_> = scopes.iter().map(|scope| format!("{place}{scope}")).collect();
                scopes.splice(0..0, placed);
                scopes.extend([place, format!("[{graph}]")]);
            }
            scopes
        }
        _ => Vec::new(),
    }
}

/// A scope of a policy by the real path of what it names, so that it is compared with what is
/// opened.
pub(crate) fn real_scope(transport: &str, scope: &str) -> String {
    let real = |path: &str| real_path(Path::new(path)).to_string_lossy().into_owned();
    match transport {
        "dir" if scope.starts_with('/') => real(scope),
        "oci" | "oci-archive" | "docker-archive" if scope.starts_with('/') => {
            let at = scope.find("@sha").or_else(|| scope.find(':')).unwrap_or(scope.len());
            let (path, image) = scope.split_at(at);
            match image.strip_prefix(':').map(str::parse::<Reference>) {
                Some(Ok(name)) if transport == "docker-archive" => {
                    format!("{}:{}", real(path), name.or_latest())
                }
                _ => format!("{}{image}", real(path)),
            }
        }
        "containers-storage" => match scope.strip_prefix('[').and_then(|s| s.split_once(']')) {
            Some((place, image)) => match place.split_once('@') {
                Some((driver, graph)) => format!("[{driver}@{}]{image}", real(graph)),
                None => format!("[{}]{image}", real(place)),
            },
            None => scope.to_owned(),
        },
        _ => scope.to_owned(),
    }
}

fn registry_scopes(reference: &Reference) -> Vec<String> {
    let name = reference.repository.to_string();
    let mut scopes = Vec::new();
    scopes.extend(reference.digest.map(|digest| format!("{name}@{digest}")));
    scopes.extend(reference.tag.as_ref().map(|tag| format!("{name}:{tag}")));
    let mut rest = name.as_str();
    scopes.push(rest.to_owned());
    while let Some((parent, _)) = rest.rsplit_once('/') {
        scopes.push(parent.to_owned());
        rest = parent;
    }
    // Wildcards are about host names without their port, as in containers' own libraries.
    let host = rest.rsplit_once(':').map_or(rest, |(host, _)| host);
    let mut rest = if host.starts_with('[') { "" } else { host };
    while let Some((_, parent)) = rest.split_once('.') {
        scopes.push(format!("*.{parent}"));
        rest = parent;
    }
    scopes
}

/// A directory and its parents, without the root.
fn path_scopes(path: &str) -> Vec<String> {
    let mut scopes = Vec::new();
    let mut rest = path.trim_end_matches('/');
    while rest.starts_with('/') && rest.len() > 1 {
        scopes.push(rest.to_owned());
        rest = rest.rsplit_once('/').map_or("", |(parent, _)| parent);
    }
    scopes
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn scopes_go_from_the_image_to_the_host_and_its_domains() {
        let of = |text: &str| scopes(&text.parse().unwrap());
        assert_eq!(
            of("docker://debian:12"),
            [
                "docker.io/library/debian:12",
                "docker.io/library/debian",
                "docker.io/library",
                "docker.io",
                "*.io"
            ]
        );
        assert_eq!(
            of("docker://a.b.example:5000/x:t"),
            [
                "a.b.example:5000/x:t",
                "a.b.example:5000/x",
                "a.b.example:5000",
                "*.b.example",
                "*.example"
            ]
        );
        let pinned = of(&format!("docker://localhost:5000/x@{DIGEST}"));
        assert_eq!(pinned[0], format!("localhost:5000/x@{DIGEST}"));
        assert_eq!(pinned[1..], ["localhost:5000/x", "localhost:5000"]);
        let layout = of("oci:/srv/images/app:v1");
        assert_eq!(layout, ["/srv/images/app:v1", "/srv/images/app", "/srv/images", "/srv"]);
        assert_eq!(of("dir:/srv/x/"), ["/srv/x", "/srv"]);
        assert!(of("dir:relative/path").is_empty());
    }

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
    fn a_missing_name_fits_no_rule_but_one() {
        let asked: Reference = "r.example/a:1".parse().unwrap();
        let rule = SignedIdentity::Repository;
        assert!(matches!(rule.check(Some(&asked), None), Err(Mismatch::Nameless { .. })));
        assert!(matches!(rule.check(None, Some("r.example/a")), Err(Mismatch::NoReference { .. })));
        assert_eq!(SignedIdentity::Any.check(None, None), Ok(()));
        let given = SignedIdentity::ExactReference(asked);
        assert_eq!(given.check(None, Some("r.example/a:1")), Ok(()));
    }
}
