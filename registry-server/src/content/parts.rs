//! What a manifest document refers to, whatever its media type says it is.

use std::io;

use image::{Digest, Index, Manifest, MediaType};
use serde_json::Value;

use super::protocol::Child;
use super::{Content, Entry};

/// Documents whose parts are all optional: artifact manifests of ORAS and of OCI 1.1's drafts.
const ARTIFACTS: [&str; 2] = [
    "application/vnd.cncf.oras.artifact.manifest.v1+json",
    "application/vnd.oci.artifact.manifest.v1+json",
];

/// Descriptors of a document: children of indexes and their like, and other content.
struct Descriptors<'a> {
    manifests: Vec<&'a Value>,
    blobs: Vec<&'a Value>,
    /// Whether any of the fields that hold descriptors is there.
    known: bool,
}

impl<'a> Descriptors<'a> {
    fn of(document: &'a Value) -> Descriptors<'a> {
        let list = |name: &str| document[name].as_array().into_iter().flatten();
        let blobs = list("layers").chain(list("blobs")).chain(document.get("config"));
        let fields = ["manifests", "layers", "blobs", "fsLayers", "config"];
        Descriptors {
            manifests: list("manifests").collect(),
            blobs: blobs.chain(list("fsLayers")).collect(),
            known: fields.iter().any(|field| document.get(field).is_some()),
        }
    }
}

/// The digest of a descriptor; schema 1 calls it `blobSum`.
fn digest_of(descriptor: &Value) -> Option<Digest> {
    let text = descriptor["digest"].as_str().or_else(|| descriptor["blobSum"].as_str())?;
    text.parse().ok()
}

fn is_foreign(descriptor: &Value) -> bool {
    let kind = descriptor["mediaType"].as_str().unwrap_or_default();
    kind.contains("nondistributable") || kind.contains(".foreign.")
}

/// Everything a document refers to but its subject. Of what is malformed, little.
pub(super) fn referred(document: &Value) -> Vec<Digest> {
    let found = Descriptors::of(document);
    found.manifests.into_iter().chain(found.blobs).filter_map(digest_of).collect()
}

/// What must be in a repository before a document of this type is. With `lax` that is nothing for
/// an index: lists of referrers may name manifests that are gone.
///
/// # Errors
/// The document is malformed, or does not show what it refers to: it could not be kept whole.
pub(crate) fn required(
    kind: &MediaType,
    bytes: &[u8],
    lax: bool,
) -> Result<Vec<Child<Digest>>, String> {
    let invalid = |error: serde_json::Error| error.to_string();
    if kind.is_index() {
        let index: Index = serde_json::from_slice(bytes).map_err(invalid)?;
        let children = index.manifests.iter().filter(|_| !lax);
        return Ok(children.map(|child| Child { id: child.digest, manifest: true }).collect());
    }
    if kind.is_manifest() {
        serde_json::from_slice::<Manifest>(bytes).map_err(invalid)?;
    }
    let document: Value = serde_json::from_slice(bytes).map_err(invalid)?;
    let found = Descriptors::of(&document);
    if !found.known && !ARTIFACTS.contains(&kind.as_str()) {
        return Err(format!("the references of documents of type {kind} are unknown"));
    }
    let child = |manifest| {
        move |descriptor: &Value| match digest_of(descriptor) {
            Some(id) => Ok(Child { id, manifest }),
            None => Err(format!("{descriptor} has no digest")),
        }
    };
    let manifests = found.manifests.into_iter().map(child(true));
    let here = found.blobs.into_iter().filter(|descriptor| !is_foreign(descriptor));
    manifests.chain(here.map(child(false))).collect()
}

impl Content {
    /// The first of these tags whose image is or contains this content.
    pub(crate) async fn holder(
        &self,
        name: &str,
        tags: Vec<String>,
        wanted: Digest,
    ) -> io::Result<Option<String>> {
        let mut seen = std::collections::HashSet::new();
        for tag in tags {
            let Some(tagged) = self.tag(name, &tag).await? else { continue };
            let mut left = vec![tagged.digest];
            while let Some(digest) = left.pop() {
                if digest == wanted {
                    return Ok(Some(tag));
                }
                if !seen.insert(digest) {
                    continue;
                }
                let Some(Entry { descriptor, children, .. }) = self.entry(name, digest).await?
                else {
                    continue;
                };
                if children.contains(&wanted) {
                    return Ok(Some(tag));
                }
                if !descriptor.media_type.is_manifest() {
                    left.extend(children);
                }
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_kind_of_document_shows_what_it_refers_to() {
        let digest = |text: &str| Digest::of(text.as_bytes());
        let [a, b] = [digest("a"), digest("b")];
        let part = |digest: Digest| json!({"mediaType": "x", "size": 1, "digest": digest});
        let odd = "application/vnd.example.odd+json";
        for (kind, document, blobs, manifests) in [
            (ARTIFACTS[0], json!({"blobs": [part(a)], "subject": part(b)}), vec![a], vec![]),
            (ARTIFACTS[1], json!({"subject": part(b)}), vec![], vec![]),
            (
                MediaType::DOCKER_V1_SIGNED.as_str(),
                json!({"schemaVersion": 1, "fsLayers": [{"blobSum": a}, {"blobSum": b}]}),
                vec![a, b],
                vec![],
            ),
            (odd, json!({"manifests": [part(a)], "config": part(b)}), vec![b], vec![a]),
        ] {
            let kind = MediaType::from(kind.to_owned());
            let found = required(&kind, document.to_string().as_bytes(), false).unwrap();
            let of = |manifest| {
                let found = found.iter().filter(move |child| child.manifest == manifest);
                found.map(|child| child.id).collect::<Vec<_>>()
            };
            assert_eq!((of(false), of(true)), (blobs.clone(), manifests.clone()), "{kind}");
            assert_eq!(referred(&document).len(), blobs.len() + manifests.len(), "{kind}");
        }
        for document in [json!({"files": [part(a)]}), json!({"layers": [{"digest": "md5:1"}]})] {
            let kind = MediaType::from(odd);
            assert!(required(&kind, document.to_string().as_bytes(), false).is_err(), "{document}");
        }
    }
}
