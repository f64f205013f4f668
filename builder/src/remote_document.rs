//! What an image at a registry is, as docker buildx' `imagetools inspect` says it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use format::name_fields;
use image::{Descriptor, Node, Reference};
use serde_json::{Value, json};
use transport::Source;

use crate::error::ErrorContext;
use crate::{ABOUT, Error, Result, SLSA_V1, SPDX};

/// `Name` and `Manifest` of an image at a source; also `Image`, `Provenance` and `SBOM` where
/// `wanted` says so. These are fetched; of an index they are by platform.
///
/// # Errors
/// The source fails; what it gives is malformed.
pub async fn remote_document(
    source: &dyn Source,
    (name, root, node): (&str, &Descriptor, &Node),
    wanted: impl Fn(&str) -> bool,
) -> Result<Value> {
    let mut document = json!({"Name": name, "Manifest": manifest(root, node)});
    for name in ["Image", "Provenance", "SBOM"].into_iter().filter(|name| wanted(name)) {
        document[name] = field(source, (root, node), name).await?;
    }
    Ok(document)
}

/// The images that a node is or lists, without what is about them.
fn images(node: &Node, root: &Descriptor) -> Vec<Descriptor> {
    match node {
        Node::Manifest(_) => vec![root.clone()],
        Node::Index(index) => {
            let images = index.manifests.iter().filter(|entry| entry.media_type.is_manifest());
            images.filter(|entry| !entry.annotations.contains_key(ABOUT)).cloned().collect()
        }
    }
}

/// A field of a template: of one image its value, of an index the values by platform.
async fn field(
    source: &dyn Source,
    (root, node): (&Descriptor, &Node),
    field: &str,
) -> Result<Value> {
    let mut values = BTreeMap::new();
    for image in images(node, root) {
        let (key, kinds): (_, &[&str]) = match field {
            "Provenance" => ("SLSA", &[SLSA_V1, "https://slsa.dev/provenance/v0.2"]),
            "SBOM" => ("SPDX", &[SPDX]),
            _ => ("", &[]),
        };
        let mut value = None;
        if kinds.is_empty() {
            let config = transport::image(source, &image).await.during("reading an image")?;
            let config = serde_json::from_slice(config.config().bytes());
            let mut config: Value = config.map_err(unread("reading a config"))?;
            name_fields(&mut config, CONFIG);
            if let Some(rootfs) = config.get_mut("rootfs") {
                name_fields(rootfs, ROOTFS);
            }
            value = Some(config);
        }
        for kind in kinds {
            for bytes in transport::statements(source, root, &image, kind)
                .await
                .during("reading statements")?
            {
                let mut statement: Value =
                    serde_json::from_slice(&bytes).map_err(unread("reading a statement"))?;
                value.get_or_insert_with(|| json!({key: statement["predicate"].take()}));
            }
        }
        if let Some(value) = value {
            let platform = image.platform.map_or(String::new(), |platform| platform.to_string());
            values.insert(platform, value);
        }
    }
    match node {
        Node::Manifest(_) => Ok(values.into_values().next().unwrap_or_else(|| json!({}))),
        Node::Index(_) => Ok(json!(values)),
    }
}

fn unread(action: &'static str) -> impl Fn(serde_json::Error) -> Error {
    move |source| Error::Document { action: action.to_owned(), source }
}

/// Fields of a descriptor and an index, and their names in Go.
const DESCRIPTOR: &[(&str, &str)] = &[
    ("schemaVersion", "SchemaVersion"),
    ("mediaType", "MediaType"),
    ("digest", "Digest"),
    ("size", "Size"),
    ("platform", "Platform"),
    ("artifactType", "ArtifactType"),
    ("annotations", "Annotations"),
    ("manifests", "Manifests"),
];
/// Of the configuration of an image, and of a platform.
pub(crate) const CONFIG: &[(&str, &str)] = &[
    ("created", "Created"),
    ("author", "Author"),
    ("architecture", "Architecture"),
    ("variant", "Variant"),
    ("os", "OS"),
    ("os.version", "OSVersion"),
    ("os.features", "OSFeatures"),
    ("config", "Config"),
    ("rootfs", "RootFS"),
    ("history", "History"),
];
pub(crate) const ROOTFS: &[(&str, &str)] = &[("type", "Type"), ("diff_ids", "DiffIDs")];

/// The descriptor, and of an index its entries.
fn manifest(root: &Descriptor, node: &Node) -> Value {
    let mut value = json!(root);
    value["schemaVersion"] = json!(2);
    if let Node::Index(index) = node {
        value["manifests"] = json!(index.manifests);
        for entry in value["manifests"].as_array_mut().into_iter().flatten() {
            name_fields(entry, DESCRIPTOR);
            if let Some(platform) = entry.get_mut("platform") {
                name_fields(platform, CONFIG);
            }
        }
        if !index.annotations.is_empty() {
            value["annotations"] = json!(index.annotations);
        }
    }
    name_fields(&mut value, DESCRIPTOR);
    value
}

/// An image at a registry for people: its descriptor, and of an index its entries.
pub fn remote_text(name: &str, root: &Descriptor, node: &Node) -> String {
    let mut text =
        format!("Name:      {name}\nMediaType: {}\nDigest:    {}\n", root.media_type, root.digest);
    let Node::Index(index) = node else { return text };
    let repository = name.parse::<Reference>().map(|name| name.repository.to_string());
    let repository = repository.unwrap_or_else(|_| name.to_owned());
    text.push_str("\nManifests:\n");
    for entry in &index.manifests {
        let platform =
            entry.platform.as_ref().map_or("unknown/unknown".to_owned(), ToString::to_string);
        let _ = writeln!(
            text,
            "  Name:      {repository}@{}\n  MediaType: {}\n  Platform:  {platform}\n",
            entry.digest, entry.media_type
        );
    }
    text
}
