//! Manifest lists: indexes with a name in the store, read and written as a whole.

use image::{Descriptor, Document, Index, MediaType, Node, Platform};
use task::{Fault, Kind};

use crate::{Error, Result, Store};

/// A manifest list of the store.
#[derive(Debug, Clone)]
pub struct ManifestList {
    /// Its full name.
    pub name: String,
    /// The index as it is.
    pub index: Document<Index>,
}

impl Store {
    /// The manifest list with this name, looked up as [`Store::look_up`] does; `None` where the name
    /// is free.
    ///
    /// # Errors
    /// [`Error::OneImage`], [`Error::ListById`], the errors of [`Store::look_up`].
    pub fn manifest_list(&self, text: &str, homes: &[&str]) -> Result<Option<ManifestList>> {
        let Some(found) = self.look_up(text, homes)? else { return Ok(None) };
        let Some(name) = found.name else {
            return Err(Error::ListById { id: text.to_owned() });
        };
        let digest = found.descriptor.digest;
        let one_image = || Error::OneImage { name: text.to_owned() };
        if !found.descriptor.media_type.is_index() {
            return Err(one_image());
        }
        let bytes = self.read(&found.descriptor)?;
        let node = Node::read(found.descriptor, bytes);
        match node.map_err(|source| Error::document(digest, source))? {
            Node::Index(index) => Ok(Some(ManifestList { name, index })),
            Node::Manifest(_) => Err(one_image()),
        }
    }

    /// Makes an empty manifest list; `false` where the full name is taken already.
    ///
    /// # Errors
    /// The errors of [`Store::publish`].
    pub fn create_manifest_list(&self, name: &str) -> Result<bool> {
        let document = Document::write(MediaType::OCI_INDEX, Index::new(Vec::new()));
        self.insert(document.bytes())?;
        self.publish_over(name, None, document.descriptor())
    }

    /// Puts a new manifest list in the place of what the full name points at; `false` where that
    /// is no longer `before`. An image that had the name stays without one.
    ///
    /// # Errors
    /// The errors of [`Store::publish`].
    pub fn replace_by_manifest_list(
        &self,
        name: &str,
        before: &Descriptor,
        entries: Vec<Descriptor>,
    ) -> Result<bool> {
        let document = Document::write(MediaType::OCI_INDEX, Index::new(entries));
        self.insert(document.bytes())?;
        let put = self.publish_over(name, Some(before.digest), document.descriptor())?;
        if put && before.media_type.is_index() && before.digest != document.digest() {
            self.forget(before.digest, None)?;
        }
        Ok(put)
    }

    /// Changes a manifest list. Who changes it at the same time loses nothing: `change` is called
    /// again on what the other one made.
    ///
    /// # Errors
    /// [`Error::NoList`], those of `change` and of [`Store::manifest_list`].
    pub fn update_manifest_list<E: From<Error>>(
        &self,
        text: &str,
        homes: &[&str],
        mut change: impl FnMut(&mut Index) -> Result<(), E>,
    ) -> Result<Descriptor, E> {
        loop {
            let missing = || Error::NoList { name: text.to_owned() };
            let list = self.manifest_list(text, homes)?.ok_or_else(missing)?;
            let before = list.index.digest();
            let media_type = list.index.descriptor().media_type.clone();
            let mut index = list.index.into_value();
            change(&mut index)?;
            let document = Document::write(media_type, index);
            if document.digest() == before {
                return Ok(document.descriptor().clone());
            }
            self.insert(document.bytes()).map_err(E::from)?;
            if self.publish_over(&list.name, Some(before), document.descriptor())? {
                self.forget(before, None)?;
                return Ok(document.descriptor().clone());
            }
        }
    }

    /// The entries for a manifest list of what `root` names: all images of an index, or the one
    /// for the platform; an image with its own platform.
    ///
    /// # Errors
    /// [`Error::NoPlatform`], [`Error::Document`], the errors of [`Store::read`].
    pub fn list_entries(
        &self,
        root: &Descriptor,
        all: bool,
        platform: &Platform,
    ) -> Result<Vec<Descriptor>> {
        if !root.media_type.is_index() {
            return Ok(vec![self.list_entry(root.bare())?]);
        }
        if all {
            let node = Node::read(root.clone(), self.read(root)?);
            let node = node.map_err(|source| Error::document(root.digest, source))?;
            return node.children().into_iter().map(|entry| self.list_entry(entry)).collect();
        }
        let image = self.image(root, platform)?;
        let mut entry = image.descriptor().bare();
        entry.platform = Some(image.platform());
        Ok(vec![entry])
    }

    /// Says for which platform a manifest is, if it is an image and does not say so yet.
    ///
    /// # Errors
    /// The errors of [`Store::read`].
    pub fn list_entry(&self, mut entry: Descriptor) -> Result<Descriptor> {
        if entry.platform.is_some() || !entry.media_type.is_manifest() {
            return Ok(entry);
        }
        match self.image(&entry, &Platform::host()) {
            Ok(image) => entry.platform = Some(image.platform()),
            // An artifact, which is for none.
            Err(error) if matches!(error.kind(), Kind::Invalid | Kind::NotFound) => {}
            Err(error) => return Err(error),
        }
        Ok(entry)
    }
}
