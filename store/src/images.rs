//! The images of the store as people list them, and filters for these lists.

use dockerfile::glob::Pattern;
use image::{Image, Platform};
use jiff::Timestamp;
use task::{Fault, Kind};

use crate::{PublishedRoot, Result, Store};

/// A published image with all its names.
#[derive(Debug, Clone)]
pub struct StoredImage {
    /// The names, sorted; none for an untagged image.
    pub names: Vec<String>,
    /// What the names point at: a manifest or an index.
    pub digest: image::Digest,
    /// The image for the platform that was asked for.
    pub image: Image,
    /// Whether the names point at an index.
    pub is_index: bool,
}

impl StoredImage {
    /// When the config says it was created; empty if it does not.
    pub fn created_text(&self) -> &str {
        self.image.config().created.as_deref().unwrap_or_default()
    }

    /// When it was created, if the config says so.
    pub fn created(&self) -> Option<Timestamp> {
        self.created_text().parse().ok()
    }
}

/// Which images are listed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ImageFilter {
    /// Without a name, or with one.
    Dangling(bool),
    /// Named by an index, or by a manifest.
    Index(bool),
    /// With a name that the pattern matches: with or without tag, registry and directories.
    Reference(Pattern),
    /// With a label of this key, and value if one is given; or without such a label.
    Label {
        /// The key.
        key: String,
        /// The value; `None` for any.
        value: Option<String>,
        /// Whether images with the label are meant.
        present: bool,
    },
    /// Created before this time.
    Before(Timestamp),
    /// Created after this time.
    Since(Timestamp),
    /// With an id that begins with these hexadecimal digits.
    Id(String),
    /// With a digest that begins so, with or without `sha256:`.
    Digest(String),
    /// Every image, or none.
    Everything(bool),
}

impl ImageFilter {
    /// Reads a condition by its key, such as `dangling` with `true`, `label` with `app=web`,
    /// `until` with a time; `None` if there is no such key. The keys `readonly` and `intermediate`
    /// of others mean no image of a store.
    ///
    /// # Errors
    /// The value is none; why not.
    pub fn parse(key: &str, value: &str) -> Result<Option<ImageFilter>, String> {
        let truth = || match value {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err("expected true or false".to_owned()),
        };
        Ok(Some(match key {
            "dangling" => ImageFilter::Dangling(truth()?),
            "manifest" => ImageFilter::Index(truth()?),
            "readonly" | "intermediate" => ImageFilter::Everything(!truth()?),
            "reference" => ImageFilter::Reference(
                Pattern::parse(value).map_err(|error| error.reason.to_string())?,
            ),
            "label" | "label!" => {
                let (name, wanted) = match value.split_once('=') {
                    Some((name, wanted)) => (name, Some(wanted.to_owned())),
                    None => (value, None),
                };
                ImageFilter::Label { key: name.to_owned(), value: wanted, present: key == "label" }
            }
            "until" => {
                ImageFilter::Before(value.parse().map_err(|_| format!("{value:?} is not a time"))?)
            }
            "id" => ImageFilter::Id(value.strip_prefix("sha256:").unwrap_or(value).to_owned()),
            "digest" => ImageFilter::Digest(value.to_owned()),
            _ => return Ok(None),
        }))
    }

    /// Whether an image passes.
    pub fn passes(&self, image: &StoredImage) -> bool {
        match self {
            ImageFilter::Dangling(wanted) => image.names.is_empty() == *wanted,
            ImageFilter::Index(wanted) => image.is_index == *wanted,
            ImageFilter::Reference(pattern) => image.names.iter().any(|name| names(pattern, name)),
            ImageFilter::Label { key, value, present } => {
                let found = image.image.config().config.labels.get(key);
                let fits = found.is_some_and(|found| value.as_ref().is_none_or(|v| v == found));
                fits == *present
            }
            ImageFilter::Before(time) => image.created().is_some_and(|created| created < *time),
            ImageFilter::Since(time) => image.created().is_some_and(|created| created > *time),
            ImageFilter::Id(prefix) => image.image.id().hex().starts_with(prefix),
            ImageFilter::Digest(prefix) => {
                let digest = image.digest.to_string();
                let bare = digest.split_once(':').map_or("", |(_, hex)| hex);
                digest.starts_with(prefix) || bare.starts_with(prefix)
            }
            ImageFilter::Everything(every) => *every,
        }
    }
}

/// Whether a pattern means a name: with or without its tag, its registry and its directories.
fn names(pattern: &Pattern, name: &str) -> bool {
    [name, repository_and_tag(name).0].into_iter().any(|text| {
        let ends = text.match_indices('/').map(|(at, _)| &text[at + 1..]);
        std::iter::once(text).chain(ends).any(|text| pattern.matches(text))
    })
}

/// The repository and the tag of a full name; a name by digest has no tag.
pub fn repository_and_tag(name: &str) -> (&str, Option<&str>) {
    if let Some((repository, _)) = name.split_once('@') {
        return (repository, None);
    }
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        _ => (name, None),
    }
}

impl Store {
    /// Every published image that is one for this platform, newest first by the time that their
    /// configs say.
    ///
    /// # Errors
    /// [`crate::Error::Catalog`], the errors of [`Store::read`].
    pub fn images(&self, platform: &Platform) -> Result<Vec<StoredImage>> {
        let mut images = Vec::new();
        for PublishedRoot { descriptor, names, .. } in self.published()? {
            let image = match self.image(&descriptor, platform) {
                Ok(image) => image,
                // Not an image, or not for this platform.
                Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Invalid) => continue,
                Err(error) => return Err(error),
            };
            let is_index = image.descriptor().digest != descriptor.digest;
            images.push(StoredImage { names, digest: descriptor.digest, image, is_index });
        }
        let newest = |image: &StoredImage| image.created().unwrap_or_default();
        images.sort_by(|a, b| newest(b).cmp(&newest(a)).then_with(|| a.names.cmp(&b.names)));
        Ok(images)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_names_with_or_without_what_stands_around() {
        let fits = |pattern: &str| {
            names(&Pattern::parse(pattern).expect("a pattern"), "r.example/team/app:1.2")
        };
        for pattern in ["app", "app:1.2", "app:1*", "team/app", "r.example/team/app:1.2", "*/a*"] {
            assert!(fits(pattern), "{pattern}");
        }
        for pattern in ["ap", "1.2", "app:2*", "team"] {
            assert!(!fits(pattern), "{pattern}");
        }
    }
}
