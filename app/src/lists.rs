//! Manifest lists by the names that users type.

use image::{Descriptor, Index};
use options::place::local_name;
use options::{Dialect, Failure};
use store::{ManifestList, Store};

use crate::App;

/// The list of this name; nothing where the name is free.
///
/// # Errors
/// What has the name is a single image.
pub fn find(store: &Store, text: &str) -> Result<Option<ManifestList>, Failure> {
    Ok(store.manifest_list(text, &Dialect::spoken().homes())?)
}

/// The list of this name.
///
/// # Errors
/// There is none, or what has the name is a single image.
pub fn require(store: &Store, text: &str) -> Result<ManifestList, Failure> {
    Ok(find(store, text)?.ok_or_else(|| store::Error::NoList { name: text.to_owned() })?)
}

/// Changes the list of this name.
///
/// # Errors
/// There is no such list; those of `change`.
pub fn update(
    store: &Store,
    text: &str,
    change: impl FnMut(&mut Index) -> Result<(), Failure>,
) -> Result<Descriptor, Failure> {
    store.update_manifest_list(text, &Dialect::spoken().homes(), change)
}

/// Puts an image of the store into a list, which is made if there is none.
///
/// # Errors
/// The name is a single image's; the store cannot be written.
pub fn add_to_list(app: &App, text: &str, image: &Descriptor) -> Result<(), Failure> {
    let store = app.store()?;
    if find(store, text)?.is_none() {
        store.create_manifest_list(&local_name(text)?.to_string())?;
    }
    let entry = store.list_entry(image.bare())?;
    update(store, text, |index| {
        index.put(entry.clone());
        Ok(())
    })?;
    Ok(())
}
