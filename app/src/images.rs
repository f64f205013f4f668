//! Images of the store and the containers that need them.

use containers::Containers;
use image::{Descriptor, Platform};
use options::Failure;

use crate::{App, lookup};

/// Removes an image by the name it was used under, unless a container needs it.
///
/// # Errors
/// The store cannot be read or written.
pub fn remove_unused(app: &App, text: &str) -> Result<(), Failure> {
    let store = app.store()?;
    let Some(found) = lookup::find(store, text)? else { return Ok(()) };
    match in_use(app, &found.descriptor)? {
        Some(_) => Ok(()),
        None => Ok(store.forget(found.descriptor.digest, found.name.as_deref()).map(drop)?),
    }
}

/// The container that an image cannot be taken from.
///
/// # Errors
/// The store cannot be read.
pub fn in_use(app: &App, root: &Descriptor) -> Result<Option<String>, Failure> {
    let image = app.store()?.image(root, &Platform::host()).ok();
    let image = image.map(|image| image.descriptor().digest);
    let all = Containers::new(app.store()?.clone()).list()?;
    let used = all
        .iter()
        .find(|container| container.images().any(|of| Some(of) == image || of == root.digest));
    Ok(used.map(|container| container.name().to_owned()))
}

/// Takes a name away, and the image with it if it was the last.
///
/// # Errors
/// There is no such image.
pub fn forget(app: &App, text: &str) -> Result<(), Failure> {
    let store = app.store()?;
    let found = lookup::require(store, text)?;
    store.forget(found.descriptor.digest, found.name.as_deref())?;
    Ok(())
}
