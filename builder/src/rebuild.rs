//! Building again what was built: the recipe that provenance holds, and what differs between the
//! image there is and the image it gives now.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use image::{Digest, Image};
use serde_json::Value;
use store::Store;
use task::{Cause, Task};

use crate::contents::OpenLayer;
use crate::error::During;
use crate::provenance::{BUILD_TYPE, SLSA_V1};
use crate::{Error, Lock, Result, SourceFile, open_stored};

/// What provenance says of how to build an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recipe {
    /// What the user chose: `target`, `platform`, `build-arg:NAME` and so on.
    pub args: BTreeMap<String, String>,
    /// The Dockerfile, if provenance has it (`mode=max`).
    pub dockerfile: Option<SourceFile>,
    /// The path of the Dockerfile as the builder was given it.
    pub path: String,
    /// Whether files of a local context went in.
    pub locals: bool,
    /// Whether the values of build arguments are there.
    pub complete: bool,
    /// Ids of the secrets that the build had.
    pub secrets: Vec<String>,
    /// How commands ran: flags of `rbuild bud`. They may give commands more of this machine than
    /// the sandbox does.
    pub run_flags: Vec<String>,
    /// The content of every input.
    pub lock: Lock,
}

impl Recipe {
    /// Reads an in-toto statement with our provenance of the image with this digest.
    ///
    /// # Errors
    /// [`Error::Invalid`]: it is something else, or about another image.
    pub fn parse(statement: &[u8], subject: Digest) -> Result<Recipe> {
        let invalid = |reason: &str| Error::Invalid(format!("reading provenance: {reason}"));
        let value: Value =
            serde_json::from_slice(statement).map_err(|error| invalid(&error.to_string()))?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if value["predicateType"] != SLSA_V1 {
            return Err(invalid(&format!("it is {}, not {SLSA_V1}", value["predicateType"])));
        }
        let algorithm = subject.algorithm().as_str();
        let subjects = value["subject"].as_array().into_iter().flatten();
        if !subjects.into_iter().any(|s| s["digest"][algorithm] == subject.hex().as_str()) {
            return Err(invalid(&format!("it is not about {subject}")));
        }
        let definition = &value["predicate"]["buildDefinition"];
        if definition["buildType"] != BUILD_TYPE {
            return Err(invalid(&format!(
                "the image was built as {}, not by this program ({BUILD_TYPE})",
                definition["buildType"]
            )));
        }
        let parameters = &definition["externalParameters"];
        let request = &parameters["request"];
        let args = request["args"].as_object().into_iter().flatten();
        let run = &value["predicate"]["runDetails"];
        let source = run["byproducts"].as_array().into_iter().flatten();
        let mut source = source.filter(|part| part["mediaType"] == "text/x-dockerfile");
        let dockerfile = source.next().and_then(|part| {
            let bytes = BASE64.decode(part["content"].as_str()?).ok()?;
            Some(SourceFile { name: text(&part["name"]), text: String::from_utf8(bytes).ok()? })
        });
        let mut lock = Lock::default();
        for input in definition["resolvedDependencies"].as_array().into_iter().flatten() {
            let source = text(&input["annotations"]["source"]);
            let digests = input["digest"].as_object().ok_or_else(|| invalid("no digest"))?;
            let git = digests.get("gitCommit").map(text);
            let other = digests.iter().next().map(|(name, hex)| format!("{name}:{}", text(hex)));
            let content = git.or(other).ok_or_else(|| invalid("an input without a digest"))?;
            lock.pin(&source, &content)
                .map_err(|reason| invalid(&format!("the input {source:?}: {reason}")))?;
        }
        let flags = definition["internalParameters"]["runFlags"].as_array().into_iter().flatten();
        Ok(Recipe {
            run_flags: flags.map(text).collect(),
            args: args.map(|(name, value)| (name.clone(), text(value))).collect(),
            dockerfile,
            path: text(&parameters["configSource"]["path"]),
            locals: request["locals"].as_array().is_some_and(|list| !list.is_empty()),
            complete: run["metadata"]["rbuild_completeness"]["request"] == true,
            secrets: request["secrets"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|secret| text(&secret["id"]))
                .collect(),
            lock,
        })
    }
}

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

/// So many differences of one layer are told.
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
        let compared = layers::compare(&mut sides, MOST, task).during(doing)?;
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
    // What follows from the layers has been told.
    if all.list.iter().any(|deviation| deviation.layer.is_some()) {
        let follows = ["config.rootfs.diff_ids", "manifest.layers", "manifest.config"];
        all.list.retain(|d| !follows.iter().any(|prefix| d.place.starts_with(prefix)));
    } else if all.list.iter().any(|deviation| deviation.place.starts_with("config")) {
        all.list.retain(|d| !d.place.starts_with("manifest.config"));
    }
    Ok(all)
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
    use serde_json::json;

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

    fn statement(subject: Digest) -> Value {
        json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"digest": {"sha256": subject.hex()}}],
            "predicateType": SLSA_V1,
            "predicate": {
                "buildDefinition": {
                    "buildType": BUILD_TYPE,
                    "externalParameters": {
                        "configSource": {"path": "Dockerfile"},
                        "request": {
                            "args": {"target": "x"}, "secrets": [{"id": "token"}],
                            "locals": [{"name": "context"}],
                        },
                    },
                    "internalParameters": {"runFlags": ["--memory=1"]},
                    "resolvedDependencies": [{
                        "digest": {"sha256": subject.hex()},
                        "annotations": {"source": "docker-image://a/b:1"},
                    }],
                },
                "runDetails": {"byproducts": [{
                    "mediaType": "text/x-dockerfile", "name": "D", "content": BASE64.encode("FROM x"),
                }]},
            },
        })
    }

    #[test]
    fn recipes_are_read_and_other_statements_refused() {
        let subject = Digest::of(b"image");
        let good = statement(subject);
        let recipe = Recipe::parse(&serde_json::to_vec(&good).unwrap(), subject).unwrap();
        assert_eq!(recipe.dockerfile.unwrap().text, "FROM x");
        assert_eq!(recipe.args["target"], "x");
        assert_eq!(recipe.secrets, ["token"]);
        assert_eq!(recipe.lock.sources().collect::<Vec<_>>(), ["docker-image://a/b:1"]);
        assert_eq!(recipe.run_flags, ["--memory=1"]);
        assert!(recipe.locals && !recipe.complete);
        for (pointer, value) in [
            ("/predicateType", json!("https://spdx.dev/Document")),
            ("/subject/0/digest/sha256", json!("00")),
            ("/predicate/buildDefinition/buildType", json!("https://mobyproject.org/x")),
            ("/predicate/buildDefinition/resolvedDependencies/0/digest", json!({})),
            ("/predicate/buildDefinition/resolvedDependencies/0/digest", json!({"sha256": "x"})),
        ] {
            let mut bad = good.clone();
            *bad.pointer_mut(pointer).unwrap() = value;
            assert!(
                Recipe::parse(&serde_json::to_vec(&bad).unwrap(), subject).is_err(),
                "{pointer}"
            );
        }
        for bytes in [&b""[..], b"[]", b"null", b"{\"subject\":3}"] {
            assert!(Recipe::parse(bytes, subject).is_err());
        }
    }
}
