//! Compose files: a target for each service that is built.

use serde_json::{Map, Value, json};

use crate::file::{Attributes, Definition, expression};

/// Looks up a variable of the environment.
type VariableLookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Keys of `build:` that are called the same in a target.
const SAME: [&str; 9] =
    ["args", "labels", "target", "network", "platforms", "tags", "ssh", "no_cache", "pull"];

/// Adds the services of a file, and the group `default` of them.
///
/// # Errors
/// A sentence that says what is wrong.
pub(crate) fn read(
    definition: &mut Definition,
    text: &str,
    lookup: VariableLookup<'_>,
) -> Result<(), String> {
    let text = interpolated(text, lookup)?;
    let document: Value = serde_saphyr::from_str(&text).map_err(|error| error.to_string())?;
    let services = document["services"].as_object().ok_or("it has no services")?;
    let mut names = Vec::new();
    for (name, service) in services {
        let build = match &service["build"] {
            Value::Null => continue,
            Value::String(context) => json!({ "context": context }),
            build => build.clone(),
        };
        let build = build.as_object().ok_or("build is no object")?;
        let target = target(name, service, build, lookup)?;
        // Targets have no dots in their names.
        let name = name.replace('.', "_");
        definition.add("target", name.clone(), target)?;
        names.push(Value::from(name));
    }
    let group = [("targets".to_owned(), expression(&Value::from(names))?)];
    definition.add("group", "default".to_owned(), group.into_iter().collect())
}

fn target(
    name: &str,
    service: &Value,
    build: &Map<String, Value>,
    lookup: VariableLookup<'_>,
) -> Result<Attributes, String> {
    let mut target = Map::new();
    if let Some(image) = service["image"].as_str() {
        target.insert("tags".to_owned(), json!([image]));
    }
    for (key, value) in build {
        let value = match (key.as_str(), value) {
            ("args" | "labels" | "additional_contexts", Value::Array(lines)) => {
                pairs(lines, lookup)
            }
            (_, value) => value.clone(),
        };
        let key = match key.as_str() {
            "x-bake" => {
                target.extend(value.as_object().cloned().unwrap_or_default());
                continue;
            }
            "additional_contexts" => "contexts",
            "dockerfile_inline" => "dockerfile-inline",
            "cache_from" => "cache-from",
            "cache_to" => "cache-to",
            "shm_size" => "shm-size",
            "no_cache" => "no-cache",
            "context" | "dockerfile" => key,
            same if SAME.contains(&same) => same,
            other => return Err(format!("service {name:?}: build.{other} is not supported")),
        };
        target.insert(key.to_owned(), value);
    }
    target.iter().map(|(key, value)| Ok((key.clone(), expression(value)?))).collect()
}

/// `NAME=VALUE` lines as an object; a line without a value has that of the variable outside.
fn pairs(lines: &[Value], lookup: VariableLookup<'_>) -> Value {
    let lines = lines.iter().filter_map(Value::as_str);
    let pair = |line: &str| match line.split_once('=') {
        Some((name, value)) => (name.to_owned(), Value::from(value)),
        None => (line.to_owned(), lookup(line).map_or(Value::Null, Value::from)),
    };
    Value::from_iter(lines.map(pair))
}

/// Variables of the environment in place, `$$` is a dollar.
fn interpolated(text: &str, lookup: VariableLookup<'_>) -> Result<String, String> {
    let word = dockerfile::Word { text: text.replace("$$", "\\$"), ..dockerfile::Word::default() };
    dockerfile::expand::expand_content(&word, &lookup).map_err(|problem| problem.message)
}
