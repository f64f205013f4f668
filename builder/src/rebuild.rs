//! What differs between the image there is and the image that building it again gives.

use std::collections::BTreeSet;
use std::io::Read;

use image::{Digest, Image};
use layers::Times;
use serde_json::{Value, json};
use store::Store;
use task::{Cause, Task};

use crate::contents::OpenLayer;
use crate::error::ErrorContext;
use crate::{BuildResult, Error, Result, open_stored};

/// One thing that differs between two images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deviation {
    /// The layer, counted from the base, and the step that made it; `None` for the documents.
    pub layer: Option<(usize, String)>,
    /// The file from the root, or the key of the config or manifest.
    pub place: String,
    /// What of it: as in [`layers::Difference`], or `value`.
    pub aspect: String,
    /// What the image has.
    pub expected: String,
    /// What building again gave.
    pub found: String,
}

/// Everything that differs, up to a limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deviations {
    /// The layers first, then config and manifest.
    pub list: Vec<Deviation>,
    /// How many more there are.
    pub more: u64,
}

impl Deviations {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty() && self.more == 0
    }

    /// Line by line, under the layer and the step that made it.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut current = None;
        for deviation in &self.list {
            if deviation.layer != current {
                if let Some((at, step)) = &deviation.layer {
                    out.push_str(&format!("layer {at}: {step}\n"));
                }
                current.clone_from(&deviation.layer);
            }
            let indent = if deviation.layer.is_some() { "  " } else { "" };
            let values = match (deviation.expected.as_str(), deviation.found.as_str()) {
                ("", found) => format!("is new ({found})"),
                (expected, "") => format!("is missing ({expected})"),
                (expected, found) => format!("{}: {expected} -> {found}", deviation.aspect),
            };
            out.push_str(&format!("{indent}{} {values}\n", deviation.place));
        }
        if self.more > 0 {
            out.push_str(&format!("and {} more\n", self.more));
        }
        out
    }

    /// The same as JSON, with the digests of the two images.
    pub fn json(&self, expected: &str, found: &str) -> Value {
        let list: Vec<_> = self
            .list
            .iter()
            .map(|deviation| {
                let mut value = json!({
                    "place": deviation.place,
                    "aspect": deviation.aspect,
                    "expected": deviation.expected,
                    "found": deviation.found,
                });
                if let Some((at, step)) = &deviation.layer {
                    value["layer"] = json!({ "index": at, "step": step });
                }
                value
            })
            .collect();
        json!({
            "identical": expected == found,
            "expected": expected,
            "found": found,
            "differences": list,
            "more": self.more,
        })
    }
}

/// The comparison of an image with its rebuild.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RebuildReport {
    /// The digest of the image's manifest.
    pub expected: Digest,
    /// The digest of what was built.
    pub found: Digest,
    /// What differs; nothing where the digests are the same.
    pub deviations: Deviations,
}

/// Compares an image with one that was just built again. A different one is removed from the store:
/// it was built to be compared, not to be kept. `open` gives the layers of the first.
///
/// # Errors
/// Nothing was built; a layer cannot be read.
pub fn compare_rebuilt(
    store: &Store,
    image: &Image,
    result: &BuildResult,
    times: Times,
    open: &mut OpenLayer<'_>,
    task: &Task,
) -> Result<RebuildReport> {
    let made = result.images.first().map(|image| &image.manifest);
    let made = made.ok_or(Error::NothingBuilt)?;
    let again = store.image(made, &image.platform()).during("reading the image that was built")?;
    let (expected, found) = (image.descriptor().digest, again.descriptor().digest);
    if expected == found {
        return Ok(RebuildReport { expected, found, deviations: Deviations::default() });
    }
    let deviations = deviations(store, image, &again, times, open, task)?;
    store.unpublish(found).during("removing the image that was built")?;
    Ok(RebuildReport { expected, found, deviations })
}

/// The most differences of one layer that are reported.
const MOST: usize = 100;

/// What differs between an image and one built again, which is in the store. `open` gives the
/// layers of the first.
///
/// # Errors
/// A layer cannot be read.
pub fn deviations(
    store: &Store,
    expected: &Image,
    found: &Image,
    times: Times,
    open: &mut OpenLayer<'_>,
    task: &Task,
) -> Result<Deviations> {
    let mut all = Deviations::default();
    let [left, right] = [expected, found].map(|image| image.layers().collect::<Vec<_>>());
    let steps = layer_steps(expected);
    let other_steps = layer_steps(found);
    for at in 0..left.len().max(right.len()) {
        let name = |steps: &[String]| steps.get(at).cloned().unwrap_or_default();
        let (one, other) = match (left.get(at), right.get(at)) {
            (Some(one), Some(other)) => (one, other),
            (one, other) => {
                let shown = |layer: Option<&image::Layer<'_>>| {
                    layer.map(|layer| layer.diff_id.to_string()).unwrap_or_default()
                };
                let steps = if one.is_some() { &steps } else { &other_steps };
                all.list.push(Deviation {
                    layer: Some((at, name(steps))),
                    place: "layer".to_owned(),
                    aspect: if one.is_some() { "missing" } else { "added" }.to_owned(),
                    expected: shown(one),
                    found: shown(other),
                });
                continue;
            }
        };
        if one.diff_id == other.diff_id {
            if one.descriptor.digest != other.descriptor.digest {
                all.list.push(Deviation {
                    layer: Some((at, name(&steps))),
                    place: "layer".to_owned(),
                    aspect: "compression".to_owned(),
                    expected: one.descriptor.digest.to_string(),
                    found: other.descriptor.digest.to_string(),
                });
            }
            continue;
        }
        let doing = format!("comparing layer {at}");
        let mut sides = |first: bool| -> layers::Result<Box<dyn Read>> {
            let opened = if first { open(one) } else { open_stored(store, other) };
            opened.map_err(|cause: Cause| layers::Error::Read {
                source: std::io::Error::other(cause.to_string()),
            })
        };
        let compared = layers::compare(&mut sides, MOST, times, task).during(doing)?;
        all.more += compared.more;
        all.list.extend(compared.differences.into_iter().map(|difference| Deviation {
            layer: Some((at, name(&steps))),
            place: difference.path,
            aspect: difference.aspect,
            expected: difference.before,
            found: difference.after,
        }));
    }
    for (name, one, other) in [
        ("config", expected.config().bytes(), found.config().bytes()),
        ("manifest", expected.manifest().bytes(), found.manifest().bytes()),
    ] {
        let read = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap_or_default();
        values(name, &read(one), &read(other), &mut all.list);
    }
    if times == Times::Ignored {
        all.list.retain(|deviation| !is_time(&deviation.place));
    }
    // What follows from the layers has been told.
    let told = all.list.iter().any(|deviation| deviation.layer.is_some());
    if told || times == Times::Ignored {
        let follows = ["config.rootfs.diff_ids", "manifest.layers", "manifest.config"];
        all.list.retain(|d| !follows.iter().any(|prefix| d.place.starts_with(prefix)));
    } else if all.list.iter().any(|deviation| deviation.place.starts_with("config")) {
        all.list.retain(|d| !d.place.starts_with("manifest.config"));
    }
    Ok(all)
}

/// Whether a key of a config or manifest holds the time of the build.
fn is_time(place: &str) -> bool {
    place == "config.created"
        || place == "manifest.annotations.org.opencontainers.image.created"
        || place.starts_with("config.history[") && place.ends_with("].created")
}

/// Which step made each layer, as the history says.
fn layer_steps(image: &Image) -> Vec<String> {
    let history = image.config().history.iter().filter(|item| !item.empty_layer);
    history.map(|item| item.created_by.clone().unwrap_or_default()).collect()
}

/// Compares JSON, key by key.
fn values(place: &str, one: &Value, other: &Value, list: &mut Vec<Deviation>) {
    match (one, other) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<_> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let of = |map: &serde_json::Map<String, Value>| {
                    map.get(key).cloned().unwrap_or(Value::Null)
                };
                values(&format!("{place}.{key}"), &of(a), &of(b), list);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (at, (one, other)) in a.iter().zip(b).enumerate() {
                values(&format!("{place}[{at}]"), one, other, list);
            }
        }
        _ if one == other => {}
        _ => list.push(Deviation {
            layer: None,
            place: place.to_owned(),
            aspect: "value".to_owned(),
            expected: shortened(one),
            found: shortened(other),
        }),
    }
}

fn shortened(value: &Value) -> String {
    let text = match value {
        Value::Null => "nothing".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_compared_key_by_key() {
        let mut list = Vec::new();
        let one = json!({"a": {"b": [1, 2]}, "c": "x", "d": 1});
        let other = json!({"a": {"b": [1, 3]}, "c": "x", "e": [1]});
        values("config", &one, &other, &mut list);
        let line = |d: &Deviation| format!("{} {} {}", d.place, d.expected, d.found);
        let lines: Vec<_> = list.iter().map(line).collect();
        assert_eq!(lines, ["config.a.b[1] 2 3", "config.d 1 nothing", "config.e nothing [1]"]);
    }
}
