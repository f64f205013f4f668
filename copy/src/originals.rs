//! What is changed: an image, or every image of an index, and the index with them.

use image::{Descriptor, Document, Image, Index, Node, Platform};
use task::Task;

use crate::select::{ABOUT, image, node, open};
use crate::{Error, Gate, Overlay, ResolvedSource, Result, Source, permit};

/// An image that is to be changed, or all images of an index.
#[derive(Debug)]
pub struct Originals {
    index: Option<Document<Index>>,
    /// Each with its entry in the index.
    images: Vec<(Descriptor, Image)>,
}

impl Originals {
    /// Opens what a source names, once the gate lets it through: the image for a platform, or all
    /// images of the index where none is given. What an index has beside images is about those, so
    /// it is left out; the task warns of it.
    ///
    /// # Errors
    /// As [`open`](crate::open); [`Error::Gate`]; [`Error::Unsupported`] for an index in an index.
    pub async fn open(
        source: &dyn Source,
        platform: Option<&Platform>,
        gate: &dyn Gate,
        task: &Task,
    ) -> Result<Originals> {
        let named = source.seal(task).await.map_err(Error::resolve)?;
        let source = ResolvedSource::new(source, named.clone());
        if let Some(platform) = platform {
            let (named, image) = open(&source, platform).await?;
            permit(&source, gate, &named, image.descriptor(), task).await?;
            return Ok(Originals { index: None, images: vec![(named, image)] });
        }
        permit(&source, gate, &named, &named, task).await?;
        let Node::Index(index) = node(&source, &named).await? else {
            let image = image(&source, &named).await?;
            return Ok(Originals { index: None, images: vec![(named, image)] });
        };
        let mut images = Vec::new();
        for entry in &index.manifests {
            if entry.media_type.is_index() {
                let action = "changing an index in an index".to_owned();
                return Err(Error::Unsupported { action, place: entry.digest.to_string() });
            }
            if entry.media_type.is_manifest() && !entry.annotations.contains_key(ABOUT) {
                images.push((entry.clone(), image(&source, entry).await?));
            }
        }
        if images.is_empty() {
            let action = "changing an index without images".to_owned();
            return Err(Error::Unsupported { action, place: named.digest.to_string() });
        }
        let left = index.manifests.len() - images.len();
        if left > 0 {
            task.warn(format!(
                "{left} manifests of the index are about the images as they were and are left out"
            ));
        }
        Ok(Originals { index: Some(index), images })
    }

    /// The images.
    pub fn images(&self) -> impl Iterator<Item = &Image> {
        self.images.iter().map(|(_, image)| image)
    }

    /// What was made of the images, in their order, as one source over the one they are from.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if there is no image.
    pub fn join<'a>(&self, below: &'a dyn Source, made: Vec<Overlay<'a>>) -> Result<Overlay<'a>> {
        let mut made = made.into_iter();
        let Some(index) = &self.index else {
            let action = "changing an image into none".to_owned();
            return made
                .next()
                .ok_or(Error::Unsupported { action, place: "the source".to_owned() });
        };
        let parts: Vec<Overlay<'a>> = made.collect();
        let mut changed = Index::clone(index);
        let entries = self.images.iter().zip(&parts);
        changed.manifests = entries.map(|((entry, _), made)| renewed(entry, made.root())).collect();
        changed.subject = None;
        let changed = Document::write(index.descriptor().media_type.clone(), changed);
        let mut whole = Overlay::of_index(below, &changed);
        parts.into_iter().for_each(|part| whole.add(part));
        Ok(whole)
    }
}

/// The entry of an image in the index, for what was made of it.
fn renewed(entry: &Descriptor, made: &Descriptor) -> Descriptor {
    Descriptor {
        media_type: made.media_type.clone(),
        digest: made.digest,
        size: made.size,
        data: None,
        ..entry.clone()
    }
}
