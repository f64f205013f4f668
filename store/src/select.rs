//! Finding the image for a platform below a descriptor.

use bytes::Bytes;
use image::{Config, Descriptor, Document, Image, Node, Platform};

use crate::{Error, Result};

/// Indexes inside indexes are followed this deep.
const DEPTH: u32 = 8;

/// Reads documents until there is an image: of an index, the one that serves `wanted` best.
pub(crate) fn image(
    read: &dyn Fn(&Descriptor) -> Result<Bytes>,
    descriptor: &Descriptor,
    wanted: &Platform,
) -> Result<Image> {
    descend(read, descriptor, wanted, DEPTH)
}

fn descend(
    read: &dyn Fn(&Descriptor) -> Result<Bytes>,
    descriptor: &Descriptor,
    wanted: &Platform,
    depth: u32,
) -> Result<Image> {
    let digest = descriptor.digest;
    let node = Node::read(descriptor.clone(), read(descriptor)?)
        .map_err(|source| Error::document(digest, source))?;
    let index = match node {
        Node::Manifest(manifest) => {
            let config = manifest.config.clone();
            let bytes = read(&config)?;
            let digest = config.digest;
            let config = Document::<Config>::read(config, bytes)
                .map_err(|source| Error::document(digest, source))?;
            return Image::new(manifest, config)
                .map_err(|source| Error::document(descriptor.digest, source));
        }
        Node::Index(index) => index,
    };
    // Entries that do not name their platform come last, and are opened to learn it.
    let rank = |entry: &Descriptor| match &entry.platform {
        Some(platform) => platform.serves(wanted),
        None => entry.media_type.is_node().then_some(u32::MAX),
    };
    let mut ranked: Vec<(u32, &Descriptor)> =
        index.manifests.iter().filter_map(|entry| Some((rank(entry)?, entry))).collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    for (rank, entry) in ranked {
        if depth == 0 {
            break;
        }
        match descend(read, entry, wanted, depth - 1) {
            Err(Error::NoPlatform { .. }) => {}
            Ok(image) if rank == u32::MAX && image.platform().serves(wanted).is_none() => {}
            outcome => return outcome,
        }
    }
    let offered = index.manifests.iter().filter_map(|entry| entry.platform.as_ref());
    Err(Error::NoPlatform {
        index: digest,
        wanted: wanted.to_string(),
        offered: offered.map(ToString::to_string).collect(),
    })
}
