//! From what a user types to an image in the store.

use image::{Descriptor, Digest, Image, Platform, Reference};
use store::Store;
use task::Kind;

use crate::dialect::Dialect;
use crate::report::Failure;

/// An image that was found and under which of its names.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// What the name points at.
    pub descriptor: Descriptor,
    /// The full name; `None` if it was found by id or digest.
    pub name: Option<String>,
}

/// The full names a short text may mean, in the order they are tried: as it is, on `localhost`
/// (where builds put it), on `docker.io`; as docker the other way round.
fn readings(text: &str) -> Vec<Reference> {
    let homes = Dialect::spoken().homes();
    let defaults: &[&str] = match Reference::has_registry(text) {
        true => &["docker.io"],
        false => &homes,
    };
    let read = defaults.iter().filter_map(|default| Reference::parse_with(text, default).ok());
    read.map(Reference::or_latest).collect()
}

/// A name for the store: without a registry it is `localhost/NAME`, and docker's own as docker.
pub(crate) fn local_name(text: &str) -> Result<Reference, Failure> {
    let reference = Reference::parse_with(text, Dialect::spoken().home())?;
    if reference.digest.is_some() {
        return Err(Failure::usage(format!("{text:?}: an image cannot be named by a digest")));
    }
    Ok(reference.or_latest())
}

/// Looks an image up by name, digest or the beginning of its id.
///
/// # Errors
/// The store cannot be read; the id is ambiguous.
pub(crate) fn find(store: &Store, text: &str) -> Result<Option<Found>, Failure> {
    for reference in readings(text) {
        match reference.digest {
            Some(digest) => {
                // As it was pulled, or by what it is.
                let name = reference.to_string();
                if let Some(descriptor) = store.resolve(&name)? {
                    return Ok(Some(Found { descriptor, name: Some(name) }));
                }
                if let Some(descriptor) = by_digest(store, digest)? {
                    return Ok(Some(Found { descriptor, name: None }));
                }
            }
            None => {
                let name = reference.to_string();
                if let Some(descriptor) = store.resolve(&name)? {
                    return Ok(Some(Found { descriptor, name: Some(name) }));
                }
            }
        }
    }
    if let Some(descriptor) = store.find(text)? {
        return Ok(Some(Found { descriptor, name: None }));
    }
    elsewhere(store, text)
}

/// A short name that came from another registry, by an alias or a search.
fn elsewhere(store: &Store, text: &str) -> Result<Option<Found>, Failure> {
    let Some(wanted) = readings(text).into_iter().next() else { return Ok(None) };
    if Reference::has_registry(text) || wanted.digest.is_some() {
        return Ok(None);
    }
    let end = format!("/{}", wanted.repository.path());
    let mut found = Vec::new();
    for name in store.names()? {
        let Ok(read) = name.name.parse::<Reference>() else { continue };
        if read.tag == wanted.tag && format!("/{}", read.repository.path()).ends_with(&end) {
            found.push(name.name);
        }
    }
    match &found[..] {
        [] => Ok(None),
        [name] => {
            let descriptor = store.resolve(name)?;
            Ok(descriptor.map(|descriptor| Found { descriptor, name: Some(name.clone()) }))
        }
        several => {
            Err(Failure::new(Kind::Invalid, format!("{text:?} could be {}", several.join(" or ")))
                .hint("write the name with its registry"))
        }
    }
}

fn by_digest(store: &Store, digest: Digest) -> Result<Option<Descriptor>, Failure> {
    Ok(store.find(&digest.to_string())?.filter(|descriptor| descriptor.digest == digest))
}

/// As [`find`], and it must be there.
///
/// # Errors
/// It is not there.
pub(crate) fn require(store: &Store, text: &str) -> Result<Found, Failure> {
    find(store, text)?.ok_or_else(|| {
        Failure::new(Kind::NotFound, format!("there is no image {text:?} in the store"))
            .hint(format!("`rbuild images` lists the images; `rbuild pull {text}` fetches it"))
    })
}

/// The image for a platform that a text names.
///
/// # Errors
/// It is not there, or not for the platform.
pub(crate) fn image(
    store: &Store,
    text: &str,
    platform: &Platform,
) -> Result<(Found, Image), Failure> {
    let found = require(store, text)?;
    let image = store.image(&found.descriptor, platform)?;
    Ok((found, image))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_local_first() {
        let names = |text| readings(text).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names("app"), ["localhost/app:latest", "docker.io/library/app:latest"]);
        assert_eq!(names("team/app:1"), ["localhost/team/app:1", "docker.io/team/app:1"]);
        assert_eq!(names("r.example/app"), ["r.example/app:latest"]);
        assert!(names("UPPER").is_empty());
    }
}
