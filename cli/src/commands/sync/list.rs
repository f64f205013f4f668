//! The YAML list of a mirror: skopeo's form, and a few keys of our own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use image::{Digest, Platform, Repository};
use serde::Deserialize;
use task::Kind;
use transport::sync::{Tags, regex};

use crate::report::Failure;

/// No list is larger.
const LARGEST: u64 = 16 << 20;

/// The entry of one registry in a list.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Registry {
    /// Tags and digests by repository; none means all tags.
    images: BTreeMap<String, Option<Vec<String>>>,
    images_by_tag_regex: BTreeMap<String, String>,
    images_by_semver: BTreeMap<String, String>,
    /// How to log in.
    pub(super) credentials: Option<Credentials>,
    /// Whether certificates must be valid.
    pub(super) tls_verify: Option<bool>,
    /// Where certificates are.
    pub(super) cert_dir: Option<PathBuf>,
    /// Of an index, these only.
    platforms: Vec<String>,
    /// Tags that never change.
    immutable_tags: Option<String>,
    /// Tags that the destination has are left as they are.
    pub(super) missing_only: Option<bool>,
}

/// A user and a password.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Credentials {
    pub(super) username: String,
    pub(super) password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({})", self.username)
    }
}

/// One repository of a list.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) repository: Repository,
    pub(super) tags: Tags,
    pub(super) digests: Vec<Digest>,
}

/// Reads a list; `-` is standard input.
///
/// # Errors
/// It cannot be read or says something that is not known.
pub(super) fn read(file: &Path) -> Result<BTreeMap<String, Registry>, Failure> {
    use std::io::Read;
    let name = file.display().to_string();
    let reading = |error: &std::io::Error| Failure::io(format!("reading {name}"), error);
    let source: Box<dyn Read> = match file.to_str() {
        Some("-") => Box::new(std::io::stdin()),
        _ => Box::new(std::fs::File::open(file).map_err(|error| reading(&error))?),
    };
    let mut bytes = Vec::new();
    source.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|error| reading(&error))?;
    if bytes.len() as u64 > LARGEST {
        return Err(Failure::new(Kind::Invalid, format!("{name} is larger than 16 MiB")));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| Failure::new(Kind::Invalid, format!("{name} is not UTF-8 text")))?;
    parse(&name, &text)
}

fn parse(name: &str, text: &str) -> Result<BTreeMap<String, Registry>, Failure> {
    let read = serde_saphyr::from_str::<BTreeMap<String, Option<Registry>>>(text);
    let read = read.map_err(|error| {
        let mut lines = error.to_string();
        lines.truncate(lines.floor_char_boundary(2000));
        Failure::new(Kind::Invalid, format!("reading {name}: {lines}"))
            .hint("a list maps registries to images, images-by-tag-regex and images-by-semver")
    })?;
    Ok(read.into_iter().map(|(host, registry)| (host, registry.unwrap_or_default())).collect())
}

impl Registry {
    /// The repositories of this registry, in the order of their names.
    ///
    /// # Errors
    /// A name, pattern or range that is none, with the registry and repository it is about.
    pub(super) fn wanted(&mut self, host: &str) -> Result<Vec<Wanted>, Failure> {
        let mut all = Vec::new();
        let repository = |path: &str| -> Result<Repository, Failure> {
            let reference = format!("{host}/{path}").parse::<image::Reference>();
            let reference = reference.map_err(|error| {
                Failure::from(error).context(format!("reading the repository {path:?} of {host}"))
            })?;
            if reference.tag.is_some() || reference.digest.is_some() {
                return Err(Failure::usage(format!(
                    "{host}/{path}: a repository needs a list of tags"
                )));
            }
            Ok(reference.repository)
        };
        let about = |path: &str, error: transport::Error| {
            Failure::from(error).context(format!("reading the selection of {host}/{path}"))
        };
        for (path, texts) in std::mem::take(&mut self.images) {
            let (mut tags, mut digests) = (Vec::new(), Vec::new());
            for text in texts.unwrap_or_default() {
                match text.contains(':') {
                    true => digests.push(text.parse::<Digest>()?),
                    false => tags.push(text),
                }
            }
            let all_tags = tags.is_empty() && digests.is_empty();
            let tags = if all_tags { Tags::All } else { Tags::These(tags) };
            all.push(Wanted { repository: repository(&path)?, tags, digests });
        }
        for (path, pattern) in &self.images_by_tag_regex {
            let tags = Tags::matching(pattern).map_err(|error| about(path, error))?;
            all.push(Wanted { repository: repository(path)?, tags, digests: Vec::new() });
        }
        for (path, range) in &self.images_by_semver {
            let tags = Tags::versions(range).map_err(|error| about(path, error))?;
            all.push(Wanted { repository: repository(path)?, tags, digests: Vec::new() });
        }
        Ok(all)
    }

    /// Which images of an index are wanted; none means what the flags say.
    ///
    /// # Errors
    /// A platform that is none.
    pub(super) fn platforms(&self) -> Result<Vec<Platform>, Failure> {
        Ok(self.platforms.iter().map(|text| text.parse()).collect::<Result<_, _>>()?)
    }

    /// The pattern of the tags that never change.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn immutable(&self) -> Result<Option<regex::Regex>, Failure> {
        Ok(self.immutable_tags.as_deref().map(regex).transpose()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"
registry.example:5000:
  images:
    busybox: []
    redis: [1.0, 2, "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]
    team/app:
  images-by-tag-regex:
    nginx: ^1\.13\.[12]-alpine$
  images-by-semver:
    alpine: ">= 3.12.0"
  credentials: { username: john, password: secret }
  tls-verify: false
  cert-dir: /certs
  platforms: [linux/amd64, linux/arm64]
  immutable-tags: ^v
quay.io:
"#;

    #[test]
    fn a_list_is_read_whole() {
        let mut list = parse("list.yaml", LIST).unwrap();
        assert_eq!(list.len(), 2);
        let registry = list.get_mut("registry.example:5000").unwrap();
        assert_eq!(registry.credentials.as_ref().unwrap().username, "john");
        assert!(!format!("{registry:?}").contains("secret"));
        assert_eq!((registry.tls_verify, registry.platforms().unwrap().len()), (Some(false), 2));
        assert!(registry.immutable().unwrap().unwrap().is_match("v1"));
        let wanted = registry.wanted("registry.example:5000").unwrap();
        let told: Vec<String> = wanted
            .iter()
            .map(|w| format!("{} {:?} {}", w.repository, w.tags, w.digests.len()))
            .collect();
        assert_eq!(told.len(), 5);
        assert!(told[0].contains("/busybox All 0"), "{told:?}");
        assert!(told[1].contains("/redis These([\"1.0\", \"2\"]) 1"), "{told:?}");
        assert!(told[2].contains("/team/app All 0"), "{told:?}");
        assert!(wanted[4].tags.takes("3.12") && !wanted[4].tags.takes("3.11"));
    }

    #[test]
    fn what_a_list_cannot_mean_is_refused_with_its_place() {
        for (text, words) in [
            ("a: {image: {}}", "image"),
            ("a: {images: {b: {c: d}}}", "2"),
            ("- a", "map"),
            ("a: [", ""),
        ] {
            let failure = parse("list.yaml", text).unwrap_err();
            let told = failure.messages.join(" ");
            assert!(told.contains("list.yaml") && (words == "2" || told.contains(words)), "{told}");
        }
        for text in [
            "r.example: {images: {UPPER: []}}",
            "r.example: {images: {\"a:1\": []}}",
            "r.example: {images-by-tag-regex: {a: \"(\"}}",
            "r.example: {images-by-semver: {a: \"><\"}}",
        ] {
            let mut list = parse("list.yaml", text).unwrap();
            assert!(list.get_mut("r.example").unwrap().wanted("r.example").is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_list_is_too_strange(text in "[a-z:{}\\[\\]\\-&*!|> \n\"'#,0-9]{0,200}") {
            if let Ok(list) = parse("x", &text) {
                for (host, mut registry) in list {
                    let _ = registry.wanted(&host);
                }
            }
        }
    }
}
