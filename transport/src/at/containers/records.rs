//! The lists of containers/storage, changed without losing what this program does not know.

use std::path::{Path, PathBuf};

use image::Digest;
use serde_json::{Map, Value, json};

use super::super::files;
use super::LIST;
use super::split::Owners;
use crate::{Error, Result};

/// A list of records in a file.
pub(super) struct Records {
    path: PathBuf,
    all: Vec<Map<String, Value>>,
}

/// What is recorded of a layer.
pub(super) struct LayerFacts<'a> {
    pub(super) id: &'a str,
    pub(super) parent: Option<&'a str>,
    pub(super) created: &'a str,
    /// The layer as it came: its digest, its size, and the number of its compression.
    pub(super) packed: (Digest, u64, u8),
    pub(super) diff: (Digest, u64),
    pub(super) owners: &'a Owners,
}

/// What is recorded of an image.
pub(super) struct ImageFacts<'a> {
    pub(super) id: &'a str,
    pub(super) digest: Digest,
    pub(super) name: Option<&'a str>,
    pub(super) layer: Option<&'a str>,
    pub(super) created: &'a str,
    /// The keys of what is kept beside it, with the content.
    pub(super) data: &'a [(String, &'a [u8])],
}

fn text<'a>(record: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    record.get(key).and_then(Value::as_str)
}

/// The list of texts under a key, which is made where there is none.
fn texts<'a>(record: &'a mut Map<String, Value>, key: &str) -> Option<&'a mut Vec<Value>> {
    let list = record.entry(key).or_insert_with(|| json!([]));
    if list.is_null() {
        *list = json!([]);
    }
    list.as_array_mut()
}

impl Records {
    /// The list in a file, empty where there is none.
    pub(super) fn open(path: &Path) -> Result<Records> {
        let bytes = files::read(path, LIST)?.unwrap_or_else(|| b"[]".to_vec());
        let all = serde_json::from_slice::<Option<_>>(&bytes).map_err(|error| {
            let reason = format!("malformed JSON ({error})");
            Error::Malformed { place: path.display().to_string(), reason }
        })?;
        Ok(Records { path: path.to_owned(), all: all.unwrap_or_default() })
    }

    /// Writes the list in one visible step.
    pub(super) fn write(&self) -> Result<()> {
        let bytes = serde_json::to_vec(&self.all).map_err(|error| Error::Stream(error.into()))?;
        files::write(&self.path, &bytes)
    }

    fn with(&self, key: &str, value: &str) -> Option<&Map<String, Value>> {
        self.all.iter().find(|record| text(record, key) == Some(value))
    }

    /// Whether there is a record of this id.
    pub(super) fn has(&self, id: &str) -> bool {
        self.with("id", id).is_some()
    }

    /// The id and the diffID of a layer of this content, compressed or not.
    pub(super) fn layer_of(&self, digest: Digest) -> Option<(String, Digest)> {
        let digest = digest.to_string();
        let record = ["diff-digest", "compressed-diff-digest"]
            .into_iter()
            .find_map(|key| self.with(key, &digest))?;
        let diff = text(record, "diff-digest")?.parse().ok()?;
        Some((text(record, "id")?.to_owned(), diff))
    }

    /// The top layer of an image.
    pub(super) fn top(&self, image: &str) -> Option<&str> {
        text(self.with("id", image)?, "layer").filter(|layer| !layer.is_empty())
    }

    pub(super) fn add_layer(&mut self, layer: &LayerFacts<'_>) {
        let (packed, packed_size, compression) = layer.packed;
        let mut record = Map::new();
        let mut set = |key: &str, value: Value| record.insert(key.to_owned(), value);
        set("id", json!(layer.id));
        if let Some(parent) = layer.parent {
            set("parent", json!(parent));
        }
        set("created", json!(layer.created));
        set("compressed-diff-digest", json!(packed));
        set("compressed-size", json!(packed_size));
        set("diff-digest", json!(layer.diff.0));
        set("diff-size", json!(layer.diff.1));
        if compression != 0 {
            set("compression", json!(compression));
        }
        set("uidset", json!(layer.owners.0));
        set("gidset", json!(layer.owners.1));
        self.all.push(record);
    }

    /// Adds an image, or what is new of it, and gives it its name, which no other image keeps.
    pub(super) fn add_image(&mut self, image: &ImageFacts<'_>) {
        for record in self.all.iter_mut().filter(|record| text(record, "id") != Some(image.id)) {
            if let (Some(name), Some(names)) = (image.name, texts(record, "names")) {
                names.retain(|known| known != name);
            }
        }
        let at = self.all.iter().position(|record| text(record, "id") == Some(image.id));
        let at = at.unwrap_or_else(|| {
            let new = json!({"id": image.id, "created": image.created});
            self.all.extend(new.as_object().cloned());
            self.all.len() - 1
        });
        let record = &mut self.all[at];
        record.insert("digest".to_owned(), json!(image.digest));
        if let Some(layer) = image.layer {
            record.insert("layer".to_owned(), json!(layer));
        }
        for key in ["names", "names-history"] {
            if let (Some(name), Some(names)) = (image.name, texts(record, key))
                && !names.iter().any(|known| known == name)
            {
                names.push(json!(name));
            }
        }
        if !record.contains_key("metadata") {
            let none = json!({"signatures-sizes": {image.digest.to_string(): []}});
            record.insert("metadata".to_owned(), json!(none.to_string()));
        }
        for (key, content) in image.data {
            let names = texts(record, "big-data-names");
            if let Some(names) = names.filter(|names| !names.iter().any(|known| known == key)) {
                names.push(json!(key));
            }
            for (list, value) in [
                ("big-data-sizes", json!(content.len())),
                ("big-data-digests", json!(Digest::of(content))),
            ] {
                let list = record.entry(list).or_insert_with(|| json!({}));
                if let Some(list) = list.as_object_mut() {
                    list.insert(key.clone(), value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_moves_and_unknown_fields_stay() {
        let here = tempfile::tempdir().unwrap();
        let path = here.path().join("images.json");
        let old = r#"[{"id":"a","names":["n","other"],"future":{"x":1}},{"id":"b","names":null}]"#;
        std::fs::write(&path, old).unwrap();
        let mut records = Records::open(&path).unwrap();
        let digest = Digest::of(b"manifest");
        let data = [("manifest".to_owned(), &b"manifest"[..])];
        for _ in 0..2 {
            records.add_image(&ImageFacts {
                id: "b",
                digest,
                name: Some("n"),
                layer: Some("top"),
                created: "2026-01-01T00:00:00Z",
                data: &data,
            });
        }
        records.write().unwrap();
        let read: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(read[0], json!({"id": "a", "names": ["other"], "future": {"x": 1}}));
        assert_eq!(read[1]["names"], json!(["n"]));
        assert_eq!(read[1]["big-data-names"], json!(["manifest"]));
        assert_eq!(read[1]["big-data-sizes"], json!({"manifest": 8}));
        assert_eq!(records.top("b"), Some("top"));
    }
}
