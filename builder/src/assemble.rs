//! From the layers to the documents of the image. Pure.

use std::collections::BTreeMap;

use image::{
    Config, Descriptor, Digest, Document, History, Image, Index, Manifest, MediaType, RootFs,
};

use crate::cache::{INLINE, Inline};
use crate::image_options::{ImageOptions, Level};
use crate::plan::StepId;
use crate::squash::ImageLayers;
use crate::{Format, Result};

/// What is known before the layers are made.
pub(crate) struct Parts<'a> {
    pub(crate) config: &'a Config,
    pub(crate) base: Option<&'a Image>,
    pub(crate) layered: &'a ImageLayers,
    /// When each step made its layer first, seconds since 1970.
    pub(crate) times: &'a BTreeMap<StepId, i64>,
    /// The time of everything, if the user gave one.
    pub(crate) epoch: Option<i64>,
    /// The time of an image that nothing else gives one.
    pub(crate) now: i64,
    pub(crate) format: Format,
    pub(crate) annotations: BTreeMap<String, String>,
    /// Whether an annotation says when the image was made.
    pub(crate) tells_created: bool,
    pub(crate) omit_history: bool,
    /// What the image tells of its steps, so that it is a cache.
    pub(crate) cache: Option<Inline>,
}

/// The documents of a build.
pub(crate) struct BuildDocuments {
    /// One image a platform.
    pub(crate) images: Vec<Image>,
    /// What holds them, if they are several.
    pub(crate) index: Option<Document<Index>>,
}

impl BuildDocuments {
    /// These images, at least one, and their index if one is needed.
    pub(crate) fn new(
        images: Vec<Image>,
        format: Format,
        options: &ImageOptions,
    ) -> BuildDocuments {
        let index = (images.len() > 1 || options.index).then(|| {
            let entry = |image: &Image| Descriptor {
                annotations: options
                    .annotations(Level::ManifestDescriptor, Some(&image.platform())),
                platform: Some(image.platform()),
                ..image.descriptor().bare()
            };
            let media_type = match format {
                Format::Oci => MediaType::OCI_INDEX,
                Format::Docker => MediaType::DOCKER_INDEX,
            };
            let mut index = Index::new(images.iter().map(entry).collect());
            index.media_type = Some(media_type.clone());
            index.annotations = options.annotations(Level::Index, None);
            Document::write(media_type, index)
        });
        BuildDocuments { images, index }
    }

    /// What a name of the whole points at.
    pub(crate) fn root(&self) -> &Descriptor {
        match &self.index {
            Some(index) => index.descriptor(),
            None => self.images[0].descriptor(),
        }
    }

    /// The image id; of several images, the digest of their index.
    pub(crate) fn id(&self) -> Digest {
        match (&self.index, &self.images[..]) {
            (Some(index), [_, _, ..]) => index.digest(),
            _ => self.images[0].id(),
        }
    }
}

/// Puts the image together.
pub(crate) fn assemble(parts: &Parts<'_>) -> Result<Image> {
    let docker = parts.format == Format::Docker;
    let mut config: Config = parts.config.clone();
    let mut descriptors = parts.layered.below.clone();
    for descriptor in &mut descriptors {
        if let Some(encoding) = descriptor.media_type.layer_encoding() {
            descriptor.media_type = MediaType::layer(encoding, docker);
        }
    }
    let mut history = Vec::new();
    let mut diff_ids = Vec::new();
    // Steps that make no layer have the time of the last one that did: a build that the cache
    // answers completely gives the same image again.
    let mut created = None;
    if let Some(base) = parts.base {
        let own = base.config();
        created = own.created.clone();
        history.clone_from(&own.history);
        if parts.layered.whole {
            history.iter_mut().for_each(|line: &mut History| line.empty_layer = true);
        } else {
            diff_ids.clone_from(&own.rootfs.diff_ids);
        }
    }
    for item in &parts.layered.history {
        if let Some(step) = item.layer
            && let Some(info) = parts.layered.layers.get(&step)
        {
            let time = parts.times.get(&step).copied().unwrap_or(parts.now);
            created = Some(rfc3339(time));
            let mut descriptor = info.descriptor.clone();
            if let Some(encoding) = descriptor.media_type.layer_encoding() {
                descriptor.media_type = MediaType::layer(encoding, docker);
            }
            descriptors.push(descriptor);
            diff_ids.push(info.diff_id);
        }
        history.push(History {
            created: parts.epoch.map(rfc3339).or_else(|| created.clone()),
            created_by: Some(item.created_by.clone()),
            comment: Some("buildkit.dockerfile.v0".to_owned()),
            empty_layer: item.layer.is_none(),
            ..History::default()
        });
    }
    config.created = parts.epoch.map(rfc3339).or(created).or_else(|| Some(rfc3339(parts.now)));
    let created = config.created.clone();
    config.history = if parts.omit_history { Vec::new() } else { history };
    if let Some(cache) = &parts.cache {
        config.rest.insert(INLINE.to_owned(), cache.to_value());
    }
    config.rootfs = RootFs { diff_ids, ..RootFs::default() };
    let (manifest_type, config_type) = match parts.format {
        Format::Oci => (MediaType::OCI_MANIFEST, MediaType::OCI_CONFIG),
        Format::Docker => (MediaType::DOCKER_MANIFEST, MediaType::DOCKER_CONFIG),
    };
    let config = Document::write(config_type, config);
    let mut manifest =
        Manifest::new(manifest_type.clone(), config.descriptor().clone(), descriptors);
    manifest.annotations.clone_from(&parts.annotations);
    if let Some(created) = created.filter(|_| parts.tells_created) {
        let key = "org.opencontainers.image.created".to_owned();
        manifest.annotations.entry(key).or_insert(created);
    }
    let manifest = Document::write(manifest_type, manifest);
    Image::new(manifest, config)
        .map_err(|error| crate::Error::part("putting the image together")(task::Cause::new(error)))
}

/// A time as configurations have it.
pub(crate) fn rfc3339(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}
