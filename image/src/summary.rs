use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::{Descriptor, Digest, Image};

/// What an image is, in the words and the order of `skopeo inspect`: a programming interface of
/// scripts.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Summary<'a> {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    digest: Digest,
    repo_tags: Vec<String>,
    created: Option<String>,
    docker_version: &'a str,
    labels: Option<&'a BTreeMap<String, String>>,
    architecture: &'a str,
    os: &'a str,
    layers: Vec<Digest>,
    layers_data: Vec<LayerData<'a>>,
    env: Option<&'a [String]>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct LayerData<'a> {
    #[serde(rename = "MIMEType")]
    mime_type: &'a str,
    digest: Digest,
    size: u64,
    annotations: Option<&'a BTreeMap<String, String>>,
}

impl<'a> Summary<'a> {
    /// The summary of an image. `name` is its repository, empty outside of registries; `digest` is
    /// what its name points at; `tags` are those of the repository.
    pub fn new(name: String, digest: Digest, image: &'a Image, tags: Vec<String>) -> Summary<'a> {
        let config = image.config();
        let layers = &image.manifest().layers;
        Summary {
            name,
            digest,
            repo_tags: tags,
            created: config.created.as_deref().map(as_go_writes),
            docker_version: config.rest.get("docker_version").and_then(Value::as_str).unwrap_or(""),
            labels: some(&config.config.labels),
            architecture: &config.architecture,
            os: &config.os,
            layers: layers.iter().map(|layer| layer.digest).collect(),
            layers_data: layers.iter().map(LayerData::of).collect(),
            env: Some(&config.config.env[..]).filter(|env| !env.is_empty()),
        }
    }
}

impl<'a> LayerData<'a> {
    fn of(layer: &'a Descriptor) -> LayerData<'a> {
        LayerData {
            mime_type: layer.media_type.as_str(),
            digest: layer.digest,
            size: layer.size,
            annotations: some(&layer.annotations),
        }
    }
}

fn some(map: &BTreeMap<String, String>) -> Option<&BTreeMap<String, String>> {
    Some(map).filter(|map| !map.is_empty())
}

/// A time as Go's programs write it: no zeros at the end of a fraction, `Z` for UTC.
fn as_go_writes(time: &str) -> String {
    let time = time.strip_suffix("+00:00").map_or(time.to_owned(), |time| format!("{time}Z"));
    let Some((whole, rest)) = time.split_once('.') else { return time };
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (fraction, zone) = rest.split_at(end);
    match fraction.trim_end_matches('0') {
        "" => format!("{whole}{zone}"),
        fraction => format!("{whole}.{fraction}{zone}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_writes_them() {
        for (time, written) in [
            ("2023-01-02T03:04:05Z", "2023-01-02T03:04:05Z"),
            ("2023-01-02T03:04:05.000000000Z", "2023-01-02T03:04:05Z"),
            ("2023-01-02T03:04:05.120Z", "2023-01-02T03:04:05.12Z"),
            ("2023-01-02T03:04:05.5+00:00", "2023-01-02T03:04:05.5Z"),
            ("2023-01-02T03:04:05.50+02:00", "2023-01-02T03:04:05.5+02:00"),
            ("nonsense", "nonsense"),
        ] {
            assert_eq!(as_go_writes(time), written);
        }
    }
}
