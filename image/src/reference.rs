use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Digest, Error, Result};

/// A repository on a registry: `registry.example:5000/team/app`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository {
    registry: String,
    path: String,
}

impl Repository {
    /// A repository by its two parts.
    ///
    /// # Errors
    /// [`Error::Reference`] where a part breaks the grammar (distribution-spec, "Pulling
    /// manifests").
    pub fn new(registry: &str, path: &str) -> Result<Repository> {
        let refuse = |reason: &str| Error::Reference {
            text: format!("{registry}/{path}").chars().take(300).collect(),
            reason: reason.to_owned(),
        };
        if !valid_registry(registry) {
            return Err(refuse("the registry is a host name or address with an optional port"));
        }
        if path.len() > 255 {
            return Err(refuse("the repository has more than 255 characters"));
        }
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(refuse("the repository must be lowercase"));
        }
        if !path.split('/').all(valid_component) {
            return Err(refuse(
                "each part of the repository consists of a-z, 0-9 and single '.', '_', '__' or '-' between them",
            ));
        }
        Ok(Repository { registry: registry.to_owned(), path: path.to_owned() })
    }

    /// The registry's host and optional port, as in the name (`docker.io`, not its API host).
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path below the registry: `library/debian`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The name as people write it: without `docker.io/` and `library/`.
    pub fn familiar(&self) -> String {
        match self.registry.as_str() {
            "docker.io" => self.path.strip_prefix("library/").unwrap_or(&self.path).to_owned(),
            _ => self.to_string(),
        }
    }

    /// This repository with a tag.
    pub fn tagged(&self, tag: Tag) -> Reference {
        Reference { repository: self.clone(), tag: Some(tag), digest: None }
    }

    /// This repository with a digest.
    pub fn pinned(&self, digest: Digest) -> Reference {
        Reference { repository: self.clone(), tag: None, digest: Some(digest) }
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.path)
    }
}

fn valid_registry(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port_fits = port.is_none_or(|port| port.parse::<u16>().is_ok() && !port.starts_with('+'));
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host_fits = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            host.len() <= 253
                && host.split('.').all(|label| {
                    !label.is_empty()
                        && !label.starts_with('-')
                        && !label.ends_with('-')
                        && label
                            .bytes()
                            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                })
        }
    };
    port_fits && host_fits
}

fn valid_component(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    if !alphanumeric(*first) || !alphanumeric(*last) {
        return false;
    }
    let separators = text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    separators
        .filter(|run| !run.is_empty())
        .all(|run| matches!(run, "." | "_" | "__") || run.bytes().all(|b| b == b'-'))
}

/// A tag: at most 128 letters, digits, `_`, `.` and `-`, not starting with the last two.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

impl Tag {
    /// `latest`, what a name without tag and digest means.
    pub fn latest() -> Tag {
        Tag("latest".to_owned())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = Error;

    fn from_str(text: &str) -> Result<Tag> {
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let fits = text.len() <= 128
            && text.bytes().next().is_some_and(word)
            && text.bytes().all(|b| word(b) || b == b'.' || b == b'-');
        if fits {
            return Ok(Tag(text.to_owned()));
        }
        Err(Error::Reference {
            text: text.chars().take(200).collect(),
            reason: "a tag is 1 to 128 letters, digits, '_', '.' and '-', starting with a letter, digit or '_'"
                .to_owned(),
        })
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of an image on a registry: a repository with a tag, a digest, both or neither.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    /// Where.
    pub repository: Repository,
    /// Under which movable name.
    pub tag: Option<Tag>,
    /// Exactly which; wins over the tag.
    pub digest: Option<Digest>,
}

impl Reference {
    /// Reads a reference that may leave out the registry; `default` (such as `docker.io` or
    /// `localhost`) is put in front then. On `docker.io` a single-part path gets `library/`.
    ///
    /// The first part is a registry when it has a dot or a colon or is `localhost`, as Docker
    /// reads it.
    ///
    /// # Errors
    /// [`Error::Reference`], [`Error::Digest`].
    pub fn parse_with(text: &str, default: &str) -> Result<Reference> {
        let refuse = |reason: &str| Error::Reference {
            text: text.chars().take(300).collect(),
            reason: reason.to_owned(),
        };
        if text.is_empty() {
            return Err(refuse("it is empty"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse::<Digest>()?)),
            None => (text, None),
        };
        let (registry, rest) = match rest.split_once('/') {
            Some((first, path)) if is_registry(first) => (first, path),
            _ => (default, rest),
        };
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag.parse::<Tag>()?)),
            None => (rest, None),
        };
        let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
        if path.len() == 64 && path.bytes().all(|b| b.is_ascii_hexdigit()) && registry == default {
            return Err(refuse("64 hexadecimal digits are an image id, not a name"));
        }
        let repository = if registry == "docker.io" && !path.contains('/') {
            Repository::new(registry, &format!("library/{path}"))
        } else {
            Repository::new(registry, path)
        };
        let repository = repository.map_err(|error| match error {
            Error::Reference { reason, .. } => refuse(&reason),
            other => other,
        })?;
        Ok(Reference { repository, tag, digest })
    }

    /// Whether the text names its registry, so that no default is needed to read it.
    pub fn has_registry(text: &str) -> bool {
        text.split_once('/').is_some_and(|(first, _)| is_registry(first))
    }

    /// This reference with `latest` where it has neither tag nor digest.
    pub fn or_latest(mut self) -> Reference {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some(Tag::latest());
        }
        self
    }

    /// The name as people write it.
    pub fn familiar(&self) -> String {
        self.suffixed(self.repository.familiar())
    }

    fn suffixed(&self, mut name: String) -> String {
        if let Some(tag) = &self.tag {
            name.push(':');
            name.push_str(tag.as_str());
        }
        if let Some(digest) = &self.digest {
            name.push('@');
            name.push_str(&digest.to_string());
        }
        name
    }
}

fn is_registry(first: &str) -> bool {
    first.contains(['.', ':'])
        || first == "localhost"
        || first.bytes().any(|b| b.is_ascii_uppercase())
}

impl FromStr for Reference {
    type Err = Error;

    /// Reads with `docker.io` as the default registry.
    fn from_str(text: &str) -> Result<Reference> {
        Reference::parse_with(text, "docker.io")
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.suffixed(self.repository.to_string()))
    }
}

impl TryFrom<String> for Reference {
    type Error = Error;

    fn try_from(text: String) -> Result<Reference> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> String {
        reference.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_are_completed_as_docker_completes_them() {
        let pinned = format!("sha256:{HEX}");
        let cases = [
            ("debian", "docker.io/library/debian"),
            ("debian:12", "docker.io/library/debian:12"),
            ("team/app", "docker.io/team/app"),
            ("index.docker.io/team/app", "docker.io/team/app"),
            ("localhost/app", "localhost/app"),
            ("localhost:5000/a/b:t", "localhost:5000/a/b:t"),
            ("r.example/a__b/c--d/e.f:v_1.2-3", "r.example/a__b/c--d/e.f:v_1.2-3"),
            ("[::1]:5000/x", "[::1]:5000/x"),
            ("127.0.0.1:5000/x", "127.0.0.1:5000/x"),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), expected, "{text}");
            let both = format!("{text}@{pinned}");
            let read = both.parse::<Reference>().unwrap();
            assert_eq!(read.to_string(), format!("{expected}@{pinned}"));
        }
        let local = Reference::parse_with("app:1", "localhost").unwrap();
        assert_eq!(local.to_string(), "localhost/app:1");
        assert_eq!("debian".parse::<Reference>().unwrap().or_latest().familiar(), "debian:latest");
    }

    #[test]
    fn what_breaks_the_grammar_is_refused() {
        let long = "a".repeat(256);
        let bad = [
            "",
            ":",
            "@",
            "/",
            "a//b",
            "a/B",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a:",
            "a:-x",
            "a@sha256:00",
            "a b",
            "r.example:x/a",
            "r.example:99999/a",
            "../a",
            "a/../b",
            "é",
            "https://r.example/a",
            "[::1/x",
            HEX,
            &long,
            "a:b:c",
            "r.example/",
            "-r.example/a",
        ];
        for text in bad {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }
}
