//! A manifest list: an index with a name in the store, read and written as a whole.

use image::{Descriptor, Digest, Document, Index, MediaType, Node};
use store::Store;
use task::Kind;

use crate::commands::lookup;
use crate::report::Failure;

/// A list that was found.
pub(crate) struct List {
    /// Its full name.
    pub name: String,
    /// The index as it is.
    pub index: Document<Index>,
}

/// The list of this name.
///
/// # Errors
/// There is none, or what has the name is a single image.
pub(crate) fn require(store: &Store, text: &str) -> Result<List, Failure> {
    match find(store, text)? {
        Some(list) => Ok(list),
        None => Err(Failure::new(Kind::NotFound, format!("there is no manifest list {text:?}"))
            .hint(format!("`rbuild manifest create {text}` makes one"))),
    }
}

/// As [`require`], or nothing where the name is free.
///
/// # Errors
/// What has the name is a single image.
pub(crate) fn find(store: &Store, text: &str) -> Result<Option<List>, Failure> {
    let Some(found) = lookup::find(store, text)? else { return Ok(None) };
    let single = || {
        Failure::new(Kind::Refused, format!("{text} is a single image, not a manifest list"))
            .hint("`rbuild manifest create --amend` takes another name")
    };
    let Some(name) = found.name else {
        return Err(Failure::usage(format!("{text:?} is an id; name the manifest list instead")));
    };
    if !found.descriptor.media_type.is_index() {
        return Err(single());
    }
    let bytes = store.read(&found.descriptor)?;
    let node = Node::read(found.descriptor, bytes).map_err(|error| {
        Failure::new(Kind::Invalid, format!("reading manifest list {name}: {error}"))
    })?;
    match node {
        Node::Index(index) => Ok(Some(List { name, index })),
        Node::Manifest(_) => Err(single()),
    }
}

/// Makes an empty list; `false` where the name is taken already.
///
/// # Errors
/// The store cannot be written.
pub(crate) fn create(store: &Store, name: &str) -> Result<bool, Failure> {
    let document = Document::write(MediaType::OCI_INDEX, Index::new(Vec::new()));
    store.insert(document.bytes())?;
    Ok(store.publish_over(name, None, document.descriptor())?)
}

/// Changes the list of this name. Who changes it at the same time loses nothing: `change` is
/// called again on what the other one made.
///
/// # Errors
/// There is no such list; those of `change`.
pub(crate) fn update(
    store: &Store,
    text: &str,
    mut change: impl FnMut(&mut Index) -> Result<(), Failure>,
) -> Result<Descriptor, Failure> {
    loop {
        let list = require(store, text)?;
        let before = list.index.digest();
        let media_type = list.index.descriptor().media_type.clone();
        let mut index = list.index.into_value();
        change(&mut index)?;
        let document = Document::write(media_type, index);
        if document.digest() == before {
            return Ok(document.descriptor().clone());
        }
        store.insert(document.bytes())?;
        if store.publish_over(&list.name, Some(before), document.descriptor())? {
            forget(store, before)?;
            return Ok(document.descriptor().clone());
        }
    }
}

/// Releases content without a name; it stays while something else needs it.
///
/// # Errors
/// The store cannot be written.
pub(crate) fn forget(store: &Store, digest: Digest) -> Result<(), Failure> {
    if !store.names()?.iter().any(|name| name.descriptor.digest == digest) {
        store.unpublish(digest)?;
    }
    Ok(())
}

/// Puts an entry in, in place of one with the same digest.
pub(crate) fn put(index: &mut Index, entry: Descriptor) {
    match index.manifests.iter_mut().find(|known| known.digest == entry.digest) {
        Some(known) => *known = entry,
        None => index.manifests.push(entry),
    }
}

/// The list as JSON.
///
/// # Errors
/// There is no such list.
pub(crate) fn document(store: &Store, text: &str) -> Result<serde_json::Value, Failure> {
    let list = require(store, text)?;
    serde_json::to_value(&*list.index)
        .map_err(|error| Failure::new(Kind::Invalid, format!("writing JSON: {error}")))
}
