use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// How a layer blob is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// A plain tar stream.
    Plain,
    /// gzip (RFC 1952).
    Gzip,
    /// zstd (RFC 8878).
    Zstd,
}

/// What kind of content a descriptor points at (image-spec, media-types.md).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MediaType(Cow<'static, str>);

macro_rules! known {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        impl MediaType {
            $($(#[$doc])* pub const $name: MediaType = MediaType(Cow::Borrowed($text));)*
        }
    };
}

known! {
    /// OCI image index.
    OCI_INDEX = "application/vnd.oci.image.index.v1+json";
    /// OCI image manifest.
    OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json";
    /// OCI image configuration.
    OCI_CONFIG = "application/vnd.oci.image.config.v1+json";
    /// OCI layer, plain tar.
    OCI_LAYER = "application/vnd.oci.image.layer.v1.tar";
    /// OCI layer, gzip.
    OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// OCI layer, zstd.
    OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// The empty JSON object `{}` (image-spec, manifest.md#guidance-for-an-empty-descriptor).
    OCI_EMPTY = "application/vnd.oci.empty.v1+json";
    /// Docker manifest list.
    DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker image manifest, schema 2.
    DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker image configuration.
    DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json";
    /// Docker layer, plain tar.
    DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar";
    /// Docker layer, gzip.
    DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// Docker layer, zstd.
    DOCKER_LAYER_ZSTD = "application/vnd.docker.image.rootfs.diff.tar.zstd";
    /// Docker image manifest, schema 1 (the suffix shows whether it is signed).
    DOCKER_V1_SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    /// A sigstore bundle, version 0.3.
    SIGSTORE_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json";
    /// A simple-signing payload, the older tag form of cosign.
    SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json";
}

impl MediaType {
    /// The text on the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is an index of manifests.
    pub fn is_index(&self) -> bool {
        *self == Self::OCI_INDEX || *self == Self::DOCKER_INDEX
    }

    /// Whether this is an image manifest of the current forms (OCI, Docker schema 2).
    pub fn is_manifest(&self) -> bool {
        *self == Self::OCI_MANIFEST || *self == Self::DOCKER_MANIFEST
    }

    /// Whether this is a manifest or an index: what a registry serves under `/manifests/`.
    pub fn is_node(&self) -> bool {
        self.is_index() || self.is_manifest()
    }

    /// Whether this is an image configuration.
    pub fn is_config(&self) -> bool {
        *self == Self::OCI_CONFIG || *self == Self::DOCKER_CONFIG
    }

    /// Whether the type is one of Docker's own.
    pub fn is_docker(&self) -> bool {
        self.0.starts_with("application/vnd.docker.")
    }

    /// Whether this is a layer that licences keep out of registries: an image can be whole without
    /// its bytes (image-spec, "Non-Distributable Layers").
    pub fn is_foreign(&self) -> bool {
        self.0.starts_with("application/vnd.oci.image.layer.nondistributable.")
            || self.0.starts_with("application/vnd.docker.image.rootfs.foreign.")
    }

    /// For layer types, how the tar stream is encoded; `None` for all other types.
    pub fn layer_encoding(&self) -> Option<Encoding> {
        let text = self.as_str();
        let rest = text
            .strip_prefix("application/vnd.oci.image.layer.v1.tar")
            .or_else(|| {
                text.strip_prefix("application/vnd.oci.image.layer.nondistributable.v1.tar")
            })
            .or_else(|| text.strip_prefix("application/vnd.docker.image.rootfs.diff.tar"))
            .or_else(|| {
                text.strip_prefix("application/vnd.docker.image.rootfs.foreign.diff.tar")
            })?;
        match rest {
            "" => Some(Encoding::Plain),
            "+gzip" | ".gzip" => Some(Encoding::Gzip),
            "+zstd" | ".zstd" => Some(Encoding::Zstd),
            _ => None,
        }
    }

    /// The layer type of the OCI or the Docker family with this encoding.
    pub fn layer(encoding: Encoding, docker: bool) -> MediaType {
        match (encoding, docker) {
            (Encoding::Plain, false) => Self::OCI_LAYER,
            (Encoding::Gzip, false) => Self::OCI_LAYER_GZIP,
            (Encoding::Zstd, false) => Self::OCI_LAYER_ZSTD,
            (Encoding::Plain, true) => Self::DOCKER_LAYER,
            (Encoding::Gzip, true) => Self::DOCKER_LAYER_GZIP,
            (Encoding::Zstd, true) => Self::DOCKER_LAYER_ZSTD,
        }
    }
}

impl From<&'static str> for MediaType {
    fn from(text: &'static str) -> Self {
        MediaType(Cow::Borrowed(text))
    }
}

impl From<String> for MediaType {
    fn from(text: String) -> Self {
        MediaType(Cow::Owned(text))
    }
}

impl Default for MediaType {
    fn default() -> Self {
        MediaType(Cow::Borrowed(""))
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
