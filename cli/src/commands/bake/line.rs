//! From a target to the command line of its build.

use std::path::{Path, PathBuf};

use bake::Target;
use serde_json::Value;
use task::Kind;

use crate::report::Failure;

/// Where the image of a target is that others are built on.
pub(super) fn layout(scratch: &Path, target: &str) -> PathBuf {
    scratch.join(format!("{target}.layout"))
}

/// The arguments of `rbuild bud`.
///
/// # Errors
/// A key is not supported; a value has the wrong type.
pub(super) fn arguments(
    name: &str,
    target: &Target,
    scratch: &Path,
) -> Result<Vec<String>, Failure> {
    let mut line = Vec::new();
    let context = target.get("context").and_then(Value::as_str).unwrap_or(".");
    for (key, value) in target {
        let wrong = |why: &str| {
            Failure::new(Kind::Invalid, format!("target {name:?}, {key}: {value} {why}"))
        };
        match key.as_str() {
            "context" | "description" => {}
            "dockerfile" => {
                let file = value.as_str().ok_or_else(|| wrong("is no text"))?;
                let beside = Path::new(context).join(file);
                let file = if beside.exists() { beside } else { PathBuf::from(file) };
                line.push(format!("--file={}", file.display()));
            }
            "dockerfile-inline" => {
                let text = value.as_str().ok_or_else(|| wrong("is no text"))?;
                let file = scratch.join(format!("{name}.Dockerfile"));
                std::fs::write(&file, text)
                    .map_err(|error| Failure::io(format!("writing {}", file.display()), &error))?;
                line.push(format!("--file={}", file.display()));
            }
            "contexts" => {
                for (context, value) in pairs(value).ok_or_else(|| wrong("is no object"))? {
                    let value = match bake::context_target(&value) {
                        Some(below) => format!("oci-layout://{}", layout(scratch, below).display()),
                        None => value,
                    };
                    line.push(format!("--build-context={context}={value}"));
                }
            }
            "args" | "labels" | "extra-hosts" => {
                let (flag, between) = match key.as_str() {
                    "args" => ("build-arg", '='),
                    "labels" => ("label", '='),
                    _ => ("add-host", ':'),
                };
                for (key, value) in pairs(value).ok_or_else(|| wrong("is no object"))? {
                    line.push(format!("--{flag}={key}{between}{value}"));
                }
            }
            "platforms" => {
                let platforms = fields(value).ok_or_else(|| wrong("is no list"))?;
                line.push(format!("--platform={}", platforms.join(",")));
            }
            _ => other(key, value, &mut line).ok_or_else(|| match known(key) {
                true => wrong("has the wrong type"),
                false => wrong("is not supported: this key is not known"),
            })?,
        }
    }
    line.push(context.to_owned());
    Ok(line)
}

/// Keys whose values are lists, and their flags.
const LISTS: [(&str, &str); 11] = [
    ("tags", "tag"),
    ("cache-from", "cache-from"),
    ("cache-to", "cache-to"),
    ("secret", "secret"),
    ("ssh", "ssh"),
    ("output", "output"),
    ("attest", "attest"),
    ("ulimits", "ulimit"),
    ("entitlements", "allow"),
    ("no-cache-filter", "no-cache-filter"),
    ("annotations", "annotation"),
];

/// Keys whose value is one text.
const TEXTS: [&str; 4] = ["target", "network", "shm-size", "call"];

fn known(key: &str) -> bool {
    LISTS.iter().any(|(known, _)| *known == key)
        || TEXTS.contains(&key)
        || matches!(key, "no-cache" | "pull")
}

fn other(key: &str, value: &Value, line: &mut Vec<String>) -> Option<()> {
    if let Some((_, flag)) = LISTS.iter().find(|(known, _)| *known == key) {
        line.extend(fields(value)?.into_iter().map(|value| format!("--{flag}={value}")));
        return Some(());
    }
    match key {
        "no-cache" => line.extend(value.as_bool()?.then(|| "--no-cache".to_owned())),
        "pull" => line.extend(value.as_bool()?.then(|| "--pull=always".to_owned())),
        _ if TEXTS.contains(&key) => line.push(format!("--{key}={}", text(value)?)),
        _ => return None,
    }
    Some(())
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

/// The keys and texts of an object; what is null is left out.
fn pairs(value: &Value) -> Option<Vec<(String, String)>> {
    let fields = value.as_object()?.iter().filter(|(_, value)| !value.is_null());
    fields.map(|(key, value)| Some((key.clone(), text(value)?))).collect()
}

/// The texts of a list; an object in it is a list of fields: `type=registry,ref=…`.
fn fields(value: &Value) -> Option<Vec<String>> {
    let one = |value: &Value| match value {
        Value::Object(_) => {
            let quoted = |(key, value): (String, String)| match value.contains([',', '"']) {
                true => format!("\"{key}={}\"", value.replace('"', "\"\"")),
                false => format!("{key}={value}"),
            };
            Some(pairs(value)?.into_iter().map(quoted).collect::<Vec<_>>().join(","))
        }
        plain => text(plain),
    };
    match value {
        Value::Array(items) => items.iter().map(one).collect(),
        Value::String(text) => Some(vec![text.clone()]),
        _ => None,
    }
}
