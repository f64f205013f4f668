//! The YAML list of a mirror: skopeo's form, and a few keys of our own.

use std::collections::BTreeMap;
use std::path::PathBuf;

use image::{Digest, Platform, Repository};
use regex::Regex;
use registry_client::Credential;
use serde::Deserialize;
use task::Cause;

use super::tags::{Tags, regex};
use crate::{Error, Result};

/// No list is larger, in bytes.
pub const MAX_LIST: u64 = 16 << 20;

/// The entry of one registry in a list.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ListedRegistry {
    /// Tags and digests by repository; none means all tags.
    images: BTreeMap<String, Option<Vec<String>>>,
    images_by_tag_regex: BTreeMap<String, String>,
    images_by_semver: BTreeMap<String, String>,
    credentials: Option<Login>,
    /// Whether certificates must be valid.
    pub tls_verify: Option<bool>,
    /// Where certificates are.
    pub cert_dir: Option<PathBuf>,
    /// Of an index, these only.
    platforms: Vec<String>,
    /// Tags that never change.
    immutable_tags: Option<String>,
    /// Tags that the destination has are left as they are.
    pub missing_only: Option<bool>,
}

/// A user and a password.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    username: String,
    password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Login({})", self.username)
    }
}

/// One repository of a list.
#[derive(Debug)]
pub struct ListedRepository {
    /// Its name.
    pub repository: Repository,
    /// Which of its tags.
    pub tags: Tags,
    /// Images without a tag.
    pub digests: Vec<Digest>,
}

/// Reads a list; `name` is what errors call it.
///
/// # Errors
/// [`Error::List`]: it is no YAML, or says something that is not known.
pub fn read_list(name: &str, text: &str) -> Result<BTreeMap<String, ListedRegistry>> {
    let read = serde_saphyr::from_str::<BTreeMap<String, Option<ListedRegistry>>>(text);
    let read = read.map_err(|error| {
        if is_of_regsync(text) {
            let reason = "it is a file of regsync, which is not read: the list is that of skopeo";
            return Error::List { name: name.to_owned(), reason: reason.to_owned() };
        }
        let mut lines = error.to_string();
        lines.truncate(lines.floor_char_boundary(2000));
        Error::List { name: name.to_owned(), reason: lines }
    })?;
    Ok(read.into_iter().map(|(host, registry)| (host, registry.unwrap_or_default())).collect())
}

/// Whether a text is regsync's configuration: its keys are no registries.
fn is_of_regsync(text: &str) -> bool {
    let keys = ["creds", "defaults", "sync", "version"];
    let read = serde_saphyr::from_str::<BTreeMap<String, serde::de::IgnoredAny>>(text);
    read.is_ok_and(|read| {
        read.contains_key("sync")
            && read.keys().all(|key| keys.contains(&key.as_str()) || key.starts_with("x-"))
    })
}

impl ListedRegistry {
    /// How to log in, if the list says it.
    pub fn credential(&self) -> Option<Credential> {
        self.credentials.as_ref().map(|login| Credential::Basic {
            username: login.username.clone(),
            password: login.password.clone(),
        })
    }

    /// The repositories of this registry, in the order of their names.
    ///
    /// # Errors
    /// [`Error::Listed`], [`Error::Pattern`]: a name, pattern or range that is none.
    pub fn repositories(&mut self, host: &str) -> Result<Vec<ListedRepository>> {
        let mut all = Vec::new();
        let repository = |path: &str| -> Result<Repository> {
            let reference = format!("{host}/{path}").parse::<image::Reference>();
            let reference = reference.map_err(|error| Error::Listed {
                what: format!("the repository {path:?}"),
                name: host.to_owned(),
                source: Cause::new(error),
            })?;
            if reference.tag.is_some() || reference.digest.is_some() {
                let reason = "a repository needs a list of tags".to_owned();
                return Err(Error::Pattern { text: format!("{host}/{path}"), reason });
            }
            Ok(reference.repository)
        };
        let about = |path: &str, error: Error| Error::Listed {
            what: "the selection".to_owned(),
            name: format!("{host}/{path}"),
            source: Cause::new(error),
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
            all.push(ListedRepository { repository: repository(&path)?, tags, digests });
        }
        for (path, pattern) in &self.images_by_tag_regex {
            let tags = Tags::matching(pattern).map_err(|error| about(path, error))?;
            all.push(ListedRepository { repository: repository(path)?, tags, digests: Vec::new() });
        }
        for (path, range) in &self.images_by_semver {
            let tags = Tags::versions(range).map_err(|error| about(path, error))?;
            all.push(ListedRepository { repository: repository(path)?, tags, digests: Vec::new() });
        }
        Ok(all)
    }

    /// Which images of an index are wanted; none means what the flags say.
    ///
    /// # Errors
    /// [`Error::Content`]: a platform that is none.
    pub fn platforms(&self) -> Result<Vec<Platform>> {
        Ok(self.platforms.iter().map(|text| text.parse()).collect::<Result<_, _>>()?)
    }

    /// The pattern of the tags that never change.
    ///
    /// # Errors
    /// [`Error::Pattern`].
    pub fn immutable(&self) -> Result<Option<Regex>> {
        self.immutable_tags.as_deref().map(regex).transpose()
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
        let mut list = read_list("list.yaml", LIST).unwrap();
        assert_eq!(list.len(), 2);
        let registry = list.get_mut("registry.example:5000").unwrap();
        assert_eq!(registry.credentials.as_ref().unwrap().username, "john");
        assert!(!format!("{registry:?}").contains("secret"));
        assert_eq!((registry.tls_verify, registry.platforms().unwrap().len()), (Some(false), 2));
        assert!(registry.immutable().unwrap().unwrap().is_match("v1"));
        let wanted = registry.repositories("registry.example:5000").unwrap();
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
            let told = read_list("list.yaml", text).unwrap_err().to_string();
            assert!(told.contains("list.yaml") && (words == "2" || told.contains(words)), "{told}");
        }
        for text in [
            "r.example: {images: {UPPER: []}}",
            "r.example: {images: {\"a:1\": []}}",
            "r.example: {images-by-tag-regex: {a: \"(\"}}",
            "r.example: {images-by-semver: {a: \"><\"}}",
        ] {
            let mut list = read_list("list.yaml", text).unwrap();
            assert!(
                list.get_mut("r.example").unwrap().repositories("r.example").is_err(),
                "{text}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn no_list_is_too_strange(text in "[a-z:{}\\[\\]\\-&*!|> \n\"'#,0-9]{0,200}") {
            if let Ok(list) = read_list("x", &text) {
                for (host, mut registry) in list {
                    let _ = registry.repositories(&host);
                }
            }
        }
    }
}
