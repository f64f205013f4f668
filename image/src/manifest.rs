use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::nullable::nullable;
use crate::{Descriptor, Digest, Document, Error, MediaType, Result};

/// An image manifest (image-spec, manifest.md; also Docker schema 2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Must agree with the descriptor where present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<MediaType>,
    /// What this manifest is if it is not an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, base first.
    #[serde(default, deserialize_with = "nullable")]
    pub layers: Vec<Descriptor>,
    /// The manifest this one refers to, which makes this one a referrer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free text by key.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

impl Manifest {
    /// A manifest of this configuration and these layers.
    pub fn new(media_type: MediaType, config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Manifest {
            schema_version: 2,
            media_type: Some(media_type),
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
            rest: BTreeMap::new(),
        }
    }
}

/// An image index (image-spec, image-index.md; also a Docker manifest list).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// Must agree with the descriptor where present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<MediaType>,
    /// What this index is if it is not a set of images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The manifests.
    #[serde(default, deserialize_with = "nullable")]
    pub manifests: Vec<Descriptor>,
    /// The manifest this index refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free text by key.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

impl Index {
    /// Puts an entry in, in place of one with the same digest.
    pub fn put(&mut self, entry: Descriptor) {
        match self.manifests.iter_mut().find(|known| known.digest == entry.digest) {
            Some(known) => *known = entry,
            None => self.manifests.push(entry),
        }
    }

    /// An OCI index of these manifests.
    pub fn new(manifests: Vec<Descriptor>) -> Self {
        Index {
            schema_version: 2,
            media_type: Some(MediaType::OCI_INDEX),
            artifact_type: None,
            manifests,
            subject: None,
            annotations: BTreeMap::new(),
            rest: BTreeMap::new(),
        }
    }
}

/// A document with children: what a registry serves under `/manifests/`.
#[derive(Debug, Clone)]
pub enum Node {
    /// A set of manifests.
    Index(Document<Index>),
    /// One image or artifact.
    Manifest(Document<Manifest>),
}

impl Node {
    /// Checks and parses a manifest or an index. The descriptor's media type decides which; a
    /// document that says otherwise of itself, or could be read as both, is refused
    /// (CVE-2021-41190).
    ///
    /// # Errors
    /// [`Error::NotANode`], [`Error::Confused`] and the errors of [`Document::read`].
    pub fn read(descriptor: Descriptor, bytes: impl Into<Bytes>) -> Result<Node> {
        let bytes = bytes.into();
        if descriptor.media_type.is_index() {
            let document = Document::<Index>::read(descriptor, bytes)?;
            let forbidden: &[&str] = &["config", "layers", "fsLayers"];
            unconfused(document.descriptor(), document.schema_version, &document.media_type)?;
            unmixed(document.digest(), &document.rest, "an index", forbidden)?;
            Ok(Node::Index(document))
        } else if descriptor.media_type.is_manifest() {
            let document = Document::<Manifest>::read(descriptor, bytes)?;
            let forbidden: &[&str] = &["manifests", "fsLayers"];
            unconfused(document.descriptor(), document.schema_version, &document.media_type)?;
            unmixed(document.digest(), &document.rest, "a manifest", forbidden)?;
            Ok(Node::Manifest(document))
        } else {
            Err(descriptor.is_no_node())
        }
    }

    /// What names this node.
    pub fn descriptor(&self) -> &Descriptor {
        match self {
            Node::Index(document) => document.descriptor(),
            Node::Manifest(document) => document.descriptor(),
        }
    }

    /// The node's digest.
    pub fn digest(&self) -> Digest {
        self.descriptor().digest
    }

    /// The exact bytes.
    pub fn bytes(&self) -> &Bytes {
        match self {
            Node::Index(document) => document.bytes(),
            Node::Manifest(document) => document.bytes(),
        }
    }

    /// The children of this node: manifests of an index; config and layers of a manifest. The
    /// subject is not a child: it is what the node is *about*.
    pub fn children(&self) -> Vec<Descriptor> {
        match self {
            Node::Index(document) => document.manifests.clone(),
            Node::Manifest(document) => {
                std::iter::once(&document.config).chain(&document.layers).cloned().collect()
            }
        }
    }

    /// The manifest this node refers to, if it is a referrer.
    pub fn subject(&self) -> Option<&Descriptor> {
        match self {
            Node::Index(document) => document.subject.as_ref(),
            Node::Manifest(document) => document.subject.as_ref(),
        }
    }
}

fn unconfused(said: &Descriptor, schema: u32, inside: &Option<MediaType>) -> Result<()> {
    let refuse = |reason| Err(Error::Confused { digest: said.digest, reason });
    if schema != 2 {
        return refuse(format!("its schemaVersion is {schema}, not 2"));
    }
    match inside {
        Some(inside) if *inside != said.media_type => refuse(format!(
            "it calls itself {inside} where its descriptor says {}",
            said.media_type
        )),
        _ => Ok(()),
    }
}

fn unmixed(
    digest: Digest,
    rest: &BTreeMap<String, Value>,
    what: &str,
    forbidden: &[&str],
) -> Result<()> {
    match forbidden.iter().find(|key| rest.contains_key(**key)) {
        Some(key) => Err(Error::Confused { digest, reason: format!("{what} has no {key:?}") }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MAX_DOCUMENT;

    fn node(media_type: MediaType, text: &str) -> Result<Node> {
        Node::read(Descriptor::of(media_type, text.as_bytes()), text.as_bytes().to_vec())
    }

    const CONFIG: &str = r#"{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0}"#;

    #[test]
    fn bytes_survive_reading_and_unknown_fields_survive_writing() {
        let text =
            format!(r#"{{ "schemaVersion":2,"config":{CONFIG},"layers":null,"x":{{"y":1}} }}"#);
        let Node::Manifest(document) = node(MediaType::OCI_MANIFEST, &text).unwrap() else {
            panic!("a manifest")
        };
        assert_eq!(document.bytes(), text.as_bytes());
        let again = Document::write(MediaType::OCI_MANIFEST, document.into_value());
        assert_eq!(
            std::str::from_utf8(again.bytes()).unwrap(),
            format!(r#"{{"schemaVersion":2,"config":{CONFIG},"layers":[],"x":{{"y":1}}}}"#)
        );
    }

    #[test]
    fn documents_that_are_two_things_are_refused() {
        let both = format!(r#"{{"schemaVersion":2,"config":{CONFIG},"layers":[],"manifests":[]}}"#);
        assert!(matches!(node(MediaType::OCI_INDEX, &both), Err(Error::Confused { .. })));
        assert!(matches!(node(MediaType::OCI_MANIFEST, &both), Err(Error::Confused { .. })));
        let index = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
        assert!(node(MediaType::OCI_INDEX, index).is_ok());
        assert!(matches!(node(MediaType::DOCKER_INDEX, index), Err(Error::Confused { .. })));
        assert!(node(MediaType::OCI_MANIFEST, index).is_err());
        assert!(matches!(node(MediaType::OCI_LAYER, index), Err(Error::NotANode { .. })));
    }

    #[test]
    fn wrong_size_and_wrong_digest_are_told_apart() {
        let text = r#"{"schemaVersion":2,"manifests":[]}"#;
        let mut descriptor = Descriptor::of(MediaType::OCI_INDEX, text.as_bytes());
        descriptor.size += 1;
        let read = |descriptor| Node::read(descriptor, text.as_bytes().to_vec());
        assert!(matches!(read(descriptor.clone()), Err(Error::SizeMismatch { .. })));
        descriptor.size -= 1;
        descriptor.digest = Digest::of(b"other");
        assert!(matches!(read(descriptor.clone()), Err(Error::DigestMismatch { .. })));
        descriptor.size = MAX_DOCUMENT + 1;
        assert!(matches!(read(descriptor), Err(Error::TooLarge { .. })));
    }
}
