//! From a name as people write it to an image in the store.

use image::{Descriptor, Reference};

use crate::{Error, Result, Store};

/// An image that was found, and under which of its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundImage {
    /// What the name points at.
    pub descriptor: Descriptor,
    /// The full name; `None` if it was found by id or digest.
    pub name: Option<String>,
}

impl FoundImage {
    /// The full name, or else the digest.
    pub fn name_or_digest(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.descriptor.digest.to_string())
    }
}

/// The full names a short text may mean, in the order they are tried: as it is with a registry,
/// else on each of `homes`.
fn readings(text: &str, homes: &[&str]) -> Vec<Reference> {
    let defaults = if Reference::has_registry(text) { &["docker.io"] } else { homes };
    let read = defaults.iter().filter_map(|default| Reference::parse_with(text, default).ok());
    read.map(Reference::or_latest).collect()
}

impl Store {
    /// Looks an image up by name, digest or the beginning of its id. A name without a registry is
    /// looked for on each of these registries, and then on all others.
    ///
    /// # Errors
    /// [`Error::Ambiguous`], [`Error::SeveralNames`], [`Error::Catalog`].
    pub fn look_up(&self, text: &str, homes: &[&str]) -> Result<Option<FoundImage>> {
        let readings = readings(text, homes);
        for reference in &readings {
            let name = reference.to_string();
            if let Some(descriptor) = self.resolve(&name)? {
                return Ok(Some(FoundImage { descriptor, name: Some(name) }));
            }
            // As it was pulled, or by what it is.
            if let Some(digest) = reference.digest {
                let found = self.find(&digest.to_string())?;
                if let Some(descriptor) = found.filter(|found| found.digest == digest) {
                    return Ok(Some(FoundImage { descriptor, name: None }));
                }
            }
        }
        if let Some(descriptor) = self.find(text)? {
            return Ok(Some(FoundImage { descriptor, name: None }));
        }
        match readings.into_iter().next() {
            Some(wanted) if !Reference::has_registry(text) && wanted.digest.is_none() => {
                self.on_any_registry(text, &wanted)
            }
            _ => Ok(None),
        }
    }

    /// A short name that came from another registry, by an alias or a search.
    fn on_any_registry(&self, text: &str, wanted: &Reference) -> Result<Option<FoundImage>> {
        let end = format!("/{}", wanted.repository.path());
        let mut found = Vec::new();
        for name in self.names()? {
            let Ok(read) = name.name.parse::<Reference>() else { continue };
            if read.tag == wanted.tag && format!("/{}", read.repository.path()).ends_with(&end) {
                found.push(name.name);
            }
        }
        match &found[..] {
            [] => Ok(None),
            [name] => {
                let descriptor = self.resolve(name)?;
                Ok(descriptor.map(|descriptor| FoundImage { descriptor, name: Some(name.clone()) }))
            }
            _ => Err(Error::SeveralNames { name: text.to_owned(), candidates: found }),
        }
    }

    /// Takes a name from an image, and the image out of the store's list if that was its last one;
    /// without a name only the latter. `true` if the image is no longer listed.
    ///
    /// # Errors
    /// [`Error::Catalog`].
    pub fn forget(&self, root: image::Digest, name: Option<&str>) -> Result<bool> {
        if let Some(name) = name {
            self.unname(name)?;
        }
        match self.names()?.iter().any(|name| name.descriptor.digest == root) {
            true => Ok(false),
            false => self.unpublish(root),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_tried_on_each_registry_in_turn() {
        let homes = ["localhost", "docker.io"];
        let names =
            |text| readings(text, &homes).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names("app"), ["localhost/app:latest", "docker.io/library/app:latest"]);
        assert_eq!(names("team/app:1"), ["localhost/team/app:1", "docker.io/team/app:1"]);
        assert_eq!(names("r.example/app"), ["r.example/app:latest"]);
        assert!(names("UPPER").is_empty());
    }
}
