//! From what a user types to an image in the store.

use image::{Image, Platform};
use options::{Dialect, Failure};
use store::{FoundImage, Store};
use task::Kind;

/// Looks an image up by name, digest or the beginning of its id: on `localhost`, where builds put
/// it, then on `docker.io`; as docker the other way round.
///
/// # Errors
/// The store cannot be read; the id is ambiguous.
pub fn find(store: &Store, text: &str) -> Result<Option<FoundImage>, Failure> {
    Ok(store.look_up(text, &Dialect::spoken().homes())?)
}

/// As [`find`], and it must be there.
///
/// # Errors
/// It is not there.
pub fn require(store: &Store, text: &str) -> Result<FoundImage, Failure> {
    find(store, text)?.ok_or_else(|| missing(text))
}

/// There is no such image.
pub fn missing(text: &str) -> Failure {
    Failure::new(Kind::NotFound, Dialect::spoken().no_image(text))
        .hint(format!("`rbuild images` lists the images; `rbuild pull {text}` fetches it"))
}

/// The image for a platform that a text names.
///
/// # Errors
/// It is not there, or not for the platform.
pub fn image(
    store: &Store,
    text: &str,
    platform: &Platform,
) -> Result<(FoundImage, Image), Failure> {
    let found = require(store, text)?;
    let image = store.image(&found.descriptor, platform)?;
    Ok((found, image))
}
