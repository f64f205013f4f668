use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::nullable::nullable;
use crate::{Digest, Error, MediaType, Platform};

/// Points at content: what it is, its digest and its size (image-spec, descriptor.md).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the content is.
    #[serde(default)]
    pub media_type: MediaType,
    /// The content's name.
    pub digest: Digest,
    /// The content's length in bytes.
    pub size: u64,
    /// Where else it might be had; never used by us, only carried.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Free text by key.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The content itself in base64; never trusted, only carried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// In an index: the platform of the manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// In an index or a referrers list: the type of the artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

impl Descriptor {
    /// The error of a caller that needs an index or a manifest, and has this.
    pub fn is_no_node(&self) -> Error {
        let media_type = self.media_type.as_str().to_owned();
        Error::NotANode { digest: self.digest, media_type }
    }

    /// The descriptor of content with this digest and length.
    pub fn new(media_type: MediaType, digest: Digest, size: u64) -> Self {
        Descriptor {
            media_type,
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            data: None,
            platform: None,
            artifact_type: None,
            rest: BTreeMap::new(),
        }
    }

    /// The descriptor of these bytes.
    pub fn of(media_type: MediaType, bytes: &[u8]) -> Self {
        Descriptor::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// The same content with nothing but type, digest and size said about it.
    pub fn bare(&self) -> Self {
        Descriptor::new(self.media_type.clone(), self.digest, self.size)
    }
}
