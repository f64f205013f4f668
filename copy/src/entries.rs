//! What an image adds to an index.

use image::{Descriptor, Node};

use crate::{Result, Source, image, node};

/// The entries of an index for what `root` names: an image with its platform, an artifact with its
/// type, and of an index its images, or itself if `whole`.
///
/// # Errors
/// [`crate::Error::Place`], [`crate::Error::Content`].
pub async fn entries(
    source: &dyn Source,
    root: &Descriptor,
    whole: bool,
) -> Result<Vec<Descriptor>> {
    match node(source, root).await? {
        Node::Index(index) if !whole => Ok(index.manifests.clone()),
        Node::Index(index) => Ok(vec![index.descriptor().bare()]),
        Node::Manifest(manifest) => {
            let mut child = manifest.descriptor().bare();
            if manifest.config.media_type.is_config() {
                child.platform = Some(image(source, root).await?.platform());
            } else {
                child.artifact_type.clone_from(&manifest.artifact_type);
            }
            Ok(vec![child])
        }
    }
}
