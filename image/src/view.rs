use crate::{ChainId, Config, Descriptor, Digest, Document, Error, Manifest, Platform, Result};

/// An image whose two documents are at hand: after this everything but layer bytes is plain data.
#[derive(Debug, Clone)]
pub struct Image {
    manifest: Document<Manifest>,
    config: Document<Config>,
}

/// One layer with the names it goes by.
#[derive(Debug, Clone, Copy)]
pub struct Layer<'a> {
    /// The blob.
    pub descriptor: &'a Descriptor,
    /// The digest of the uncompressed tar.
    pub diff_id: Digest,
    /// This layer on all below it.
    pub chain_id: ChainId,
}

impl Image {
    /// Joins a manifest and the configuration it names.
    ///
    /// # Errors
    /// [`Error::DigestMismatch`] for another config, [`Error::Confused`] if the two disagree on the
    /// number of layers or a layer has another media type.
    pub fn new(manifest: Document<Manifest>, config: Document<Config>) -> Result<Image> {
        if manifest.config.digest != config.digest() {
            let (expected, found) = (manifest.config.digest, config.digest());
            return Err(Error::DigestMismatch { expected, found });
        }
        let (layers, diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
        if layers != diff_ids {
            let reason = format!("it has {layers} layers, its config names {diff_ids} diff ids");
            return Err(Error::Confused { digest: manifest.digest(), reason });
        }
        if let Some(odd) = manifest.layers.iter().find(|l| l.media_type.layer_encoding().is_none())
        {
            let reason =
                format!("layer {} has media type {:?}", odd.digest, odd.media_type.as_str());
            return Err(Error::Confused { digest: manifest.digest(), reason });
        }
        Ok(Image { manifest, config })
    }

    /// The manifest.
    pub fn manifest(&self) -> &Document<Manifest> {
        &self.manifest
    }

    /// The configuration.
    pub fn config(&self) -> &Document<Config> {
        &self.config
    }

    /// What names the image: the manifest's descriptor.
    pub fn descriptor(&self) -> &Descriptor {
        self.manifest.descriptor()
    }

    /// The image id that tools show: the digest of the configuration.
    pub fn id(&self) -> Digest {
        self.config.digest()
    }

    /// The platform of the image.
    pub fn platform(&self) -> Platform {
        self.config.platform()
    }

    /// Bytes of its config and its layers as its manifest names them.
    pub fn size(&self) -> u64 {
        let layers: u64 = self.manifest.layers.iter().map(|layer| layer.size).sum();
        layers + self.manifest.config.size
    }

    /// The layers, base first.
    pub fn layers(&self) -> impl ExactSizeIterator<Item = Layer<'_>> {
        let mut parent = None;
        self.manifest.layers.iter().zip(&self.config.rootfs.diff_ids).map(
            move |(descriptor, diff_id)| {
                let chain_id = ChainId::of(parent, *diff_id);
                parent = Some(chain_id);
                Layer { descriptor, diff_id: *diff_id, chain_id }
            },
        )
    }

    /// The chain id of the whole stack; `None` for an image without layers.
    pub fn chain_id(&self) -> Option<ChainId> {
        self.config.chain_id()
    }
}
