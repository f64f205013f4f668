//! The same image in the documents of the other format. Configs and layers keep their bytes,
//! because both formats read either's; only manifests and indexes are written again.

use std::collections::BTreeMap;

use image::{Descriptor, Digest, Document, Encoding, Index, Manifest, MediaType, Node};

use crate::{Error, Format, Result};

/// Writes a node in `format`, its children replaced by what they became. `None` where nothing
/// changes.
pub(crate) fn convert(
    node: &Node,
    format: Format,
    became: &BTreeMap<Digest, Descriptor>,
) -> Result<Option<Node>> {
    match node {
        Node::Manifest(manifest) => convert_manifest(manifest, format),
        Node::Index(index) => Ok(convert_index(index, format, became)),
    }
}

/// A manifest as one of OCI; `None` if it is one.
///
/// # Errors
/// [`Error::Convert`] for layers that have no type of OCI.
pub fn as_oci(node: &Node) -> Result<Option<Node>> {
    convert(node, Format::Oci, &BTreeMap::new())
}

fn convert_manifest(manifest: &Document<Manifest>, format: Format) -> Result<Option<Node>> {
    let docker = format == Format::Docker;
    let descriptor = manifest.descriptor();
    if !manifest.config.media_type.is_config() || descriptor.media_type.is_docker() == docker {
        return Ok(None);
    }
    let refuse = |reason| Error::Convert { digest: manifest.digest(), reason };
    let mut layers = Vec::with_capacity(manifest.layers.len());
    for layer in &manifest.layers {
        let media_type = layer_type(&layer.media_type, docker).map_err(refuse)?;
        layers.push(Descriptor { media_type, ..layer.clone() });
    }
    let (media_type, config) = match format {
        Format::Oci => (MediaType::OCI_MANIFEST, MediaType::OCI_CONFIG),
        Format::Docker => (MediaType::DOCKER_MANIFEST, MediaType::DOCKER_CONFIG),
    };
    let mut written = (**manifest).clone();
    written.media_type = Some(media_type.clone());
    written.config.media_type = config;
    written.layers = layers;
    if docker {
        written.annotations.clear();
        written.subject = None;
        written.artifact_type = None;
        written.config.annotations.clear();
        written.layers.iter_mut().for_each(|layer| layer.annotations.clear());
    }
    let document = Document::write(media_type, written);
    let described = like(descriptor, document.descriptor());
    Ok(Some(Node::Manifest(document.described(described))))
}

fn convert_index(
    index: &Document<Index>,
    format: Format,
    became: &BTreeMap<Digest, Descriptor>,
) -> Option<Node> {
    let docker = format == Format::Docker;
    let descriptor = index.descriptor();
    let children = index.manifests.iter();
    let manifests: Vec<_> = children
        .map(|child| {
            became.get(&child.digest).map_or_else(|| child.clone(), |new| like(child, new))
        })
        .collect();
    if descriptor.media_type.is_docker() == docker && manifests == index.manifests {
        return None;
    }
    let media_type = if docker { MediaType::DOCKER_INDEX } else { MediaType::OCI_INDEX };
    let mut written = (**index).clone();
    written.media_type = Some(media_type.clone());
    written.manifests = manifests;
    if docker {
        written.annotations.clear();
        written.subject = None;
        written.artifact_type = None;
        for child in &mut written.manifests {
            child.annotations.clear();
            child.artifact_type = None;
        }
    }
    let document = Document::write(media_type, written);
    let described = like(descriptor, document.descriptor());
    Some(Node::Index(document.described(described)))
}

/// What `new` is, with what was said about `old`.
pub(crate) fn like(old: &Descriptor, new: &Descriptor) -> Descriptor {
    Descriptor {
        media_type: new.media_type.clone(),
        digest: new.digest,
        size: new.size,
        data: None,
        ..old.clone()
    }
}

fn layer_type(media_type: &MediaType, docker: bool) -> Result<MediaType, String> {
    let encoding = media_type
        .layer_encoding()
        .ok_or_else(|| format!("a layer has media type {:?}", media_type.as_str()))?;
    if docker && encoding == Encoding::Zstd {
        return Err("Docker's schema 2 has no zstd layers".to_owned());
    }
    if !media_type.is_foreign() {
        return Ok(MediaType::layer(encoding, docker));
    }
    Ok(match (docker, encoding) {
        (true, Encoding::Plain) => "application/vnd.docker.image.rootfs.foreign.diff.tar".into(),
        (true, _) => "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip".into(),
        (false, Encoding::Plain) => {
            "application/vnd.oci.image.layer.nondistributable.v1.tar".into()
        }
        (false, Encoding::Gzip) => {
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip".into()
        }
        (false, Encoding::Zstd) => {
            "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd".into()
        }
    })
}
