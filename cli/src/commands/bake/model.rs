//! Variables, groups and targets, evaluated: what inherits, what a matrix makes, what is overridden.

use std::collections::BTreeMap;

use hcl::Expression;
use hcl::eval::{Context, Evaluate};
use serde_json::{Value, json};
use task::Kind;

use super::file::{Attributes, Parsed};
use super::functions;
use crate::report::Failure;

/// The keys of a target and their values.
pub(super) type Target = BTreeMap<String, Value>;

/// The name under which a target is a context of another.
const CONTEXT: &str = "target:";

/// Everything the files say.
#[derive(Debug, Default)]
pub(super) struct Model {
    /// Variables and their values.
    pub(super) variables: BTreeMap<String, Value>,
    /// Groups and the targets and groups in them.
    pub(super) groups: BTreeMap<String, Vec<String>>,
    /// Targets as they are written, one for each value of a matrix.
    pub(super) targets: BTreeMap<String, Target>,
}

fn wrong(what: String) -> Failure {
    Failure::new(Kind::Invalid, what)
}

impl Model {
    /// Evaluates. `given` is the value that a variable gets from outside.
    ///
    /// # Errors
    /// An expression cannot be evaluated; a matrix is malformed.
    pub(super) fn new(
        parsed: &Parsed,
        given: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Model, Failure> {
        let mut context = Context::new();
        functions::declare(&mut context);
        let mut model =
            Model { variables: variables(parsed, &mut context, given)?, ..Model::default() };
        for (name, attributes) in &parsed.groups {
            let targets = evaluated(&context, &format!("group {name:?}"), attributes)?;
            let members = targets.get("targets").map(texts).unwrap_or_default();
            model.groups.insert(name.clone(), members);
        }
        for (name, attributes) in &parsed.targets {
            model.add(&context, name, attributes)?;
        }
        Ok(model)
    }

    /// Adds a target, or those of its matrix and a group of them.
    fn add(
        &mut self,
        context: &Context<'_>,
        name: &str,
        attributes: &Attributes,
    ) -> Result<(), Failure> {
        let what = format!("target {name:?}");
        let Some(matrix) = attributes.get("matrix") else {
            let target = evaluated(context, &what, attributes)?;
            self.targets.insert(name.to_owned(), target);
            return Ok(());
        };
        let matrix = value(context, &what, matrix)?;
        let axes =
            matrix.as_object().ok_or_else(|| wrong(format!("{what}: matrix is no object")))?;
        let mut names = Vec::new();
        for point in points(axes) {
            let mut context = context.clone();
            for (key, value) in &point {
                let value = hcl::to_value(value).map_err(|e| wrong(format!("{what}: {e}")))?;
                context.declare_var(hcl::Identifier::sanitized(key), value);
            }
            let mut target = evaluated(&context, &what, attributes)?;
            target.remove("matrix");
            let own = match target.remove("name") {
                Some(Value::String(own)) => own,
                _ => return Err(wrong(format!("{what} has a matrix and needs a name for each"))),
            };
            names.push(own.clone());
            self.targets.insert(own, target);
        }
        self.groups.insert(name.to_owned(), names);
        Ok(())
    }

    /// The targets that names of targets and groups mean, each once, in order.
    ///
    /// # Errors
    /// There is no such name; groups are in a circle.
    pub(super) fn expand(&self, names: &[String]) -> Result<Vec<String>, Failure> {
        let mut found = Vec::new();
        for name in names {
            self.collect(name, &mut Vec::new(), &mut found)?;
        }
        Ok(found)
    }

    fn collect(
        &self,
        name: &str,
        way: &mut Vec<String>,
        found: &mut Vec<String>,
    ) -> Result<(), Failure> {
        if self.targets.contains_key(name) {
            if !found.iter().any(|known| known == name) {
                found.push(name.to_owned());
            }
            return Ok(());
        }
        let Some(members) = self.groups.get(name) else {
            let known = self.targets.keys().chain(self.groups.keys()).map(String::as_str);
            let near = dockerfile::closest(name, known);
            let failure =
                Failure::new(Kind::NotFound, format!("there is no target or group {name:?}"));
            return Err(match near {
                Some(near) => failure.hint(format!("did you mean {near:?}?")),
                None => failure.hint("`rbuild bake --list targets` lists what there is"),
            });
        };
        if way.iter().any(|known| known == name) {
            return Err(wrong(format!("groups are in a circle: {} -> {name}", way.join(" -> "))));
        }
        way.push(name.to_owned());
        for member in members {
            self.collect(member, way, found)?;
        }
        way.pop();
        Ok(())
    }

    /// A target with what it inherits.
    ///
    /// # Errors
    /// There is no such target; targets inherit in a circle.
    pub(super) fn target(&self, name: &str) -> Result<Target, Failure> {
        self.inherit(name, &mut Vec::new())
    }

    fn inherit(&self, name: &str, way: &mut Vec<String>) -> Result<Target, Failure> {
        if way.iter().any(|known| known == name) {
            return Err(wrong(format!(
                "targets inherit in a circle: {} -> {name}",
                way.join(" -> ")
            )));
        }
        let own = self.targets.get(name).ok_or_else(|| {
            Failure::new(Kind::NotFound, format!("there is no target {name:?} to inherit from"))
        })?;
        way.push(name.to_owned());
        let mut target = Target::new();
        for parent in own.get("inherits").map(texts).unwrap_or_default() {
            merge(&mut target, self.inherit(&parent, way)?);
        }
        way.pop();
        let mut own = own.clone();
        own.remove("inherits");
        merge(&mut target, own);
        Ok(target)
    }

    /// Targets and what they are built on, the latter first.
    ///
    /// # Errors
    /// Targets are built on each other in a circle.
    pub(super) fn order(&self, names: &[String]) -> Result<Vec<String>, Failure> {
        let mut done = Vec::new();
        for name in names {
            self.visit(name, &mut Vec::new(), &mut done)?;
        }
        Ok(done)
    }

    fn visit(
        &self,
        name: &str,
        way: &mut Vec<String>,
        done: &mut Vec<String>,
    ) -> Result<(), Failure> {
        if done.iter().any(|known| known == name) {
            return Ok(());
        }
        if way.iter().any(|known| known == name) {
            let way = way.join(" -> ");
            return Err(wrong(format!("targets are built on each other: {way} -> {name}")));
        }
        way.push(name.to_owned());
        let target = self.target(name)?;
        let contexts = target.get("contexts").and_then(Value::as_object);
        for value in contexts.into_iter().flat_map(|all| all.values()) {
            if let Some(below) = value.as_str().and_then(|text| text.strip_prefix(CONTEXT)) {
                self.visit(below, way, done)?;
            }
        }
        way.pop();
        done.push(name.to_owned());
        Ok(())
    }
}

/// The target that a context names, if it names one.
pub(super) fn context(value: &str) -> Option<&str> {
    value.strip_prefix(CONTEXT)
}

/// Evaluates the variables, which may name each other in any order.
fn variables(
    parsed: &Parsed,
    context: &mut Context<'_>,
    given: &dyn Fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, Value>, Failure> {
    let mut left: BTreeMap<&str, &Option<Expression>> =
        parsed.variables.iter().map(|(name, default)| (name.as_str(), default)).collect();
    let mut all = BTreeMap::new();
    while !left.is_empty() {
        let mut failures = Vec::new();
        let before = left.len();
        left.retain(|name, default| {
            let what = format!("variable {name:?}");
            let read = match default {
                Some(default) => value(context, &what, default),
                None => Ok(Value::Null),
            };
            let read = match read {
                Ok(read) => given(name).map_or(Ok(read.clone()), |text| typed(&what, &read, &text)),
                failed => failed,
            };
            match read {
                Ok(read) => {
                    let plain = hcl::to_value(&read).unwrap_or_default();
                    context.declare_var(hcl::Identifier::sanitized(*name), plain);
                    all.insert((*name).to_owned(), read);
                    false
                }
                Err(failure) => {
                    failures.push(failure);
                    true
                }
            }
        });
        if left.len() == before
            && let Some(failure) = failures.pop()
        {
            return Err(failure);
        }
    }
    Ok(all)
}

/// A value from outside, in the type that the default has.
fn typed(what: &str, default: &Value, text: &str) -> Result<Value, Failure> {
    let read = match default {
        Value::Bool(_) => text.parse().ok().map(Value::Bool),
        Value::Number(_) => serde_json::from_str(text).ok().filter(Value::is_number),
        Value::Array(_) => {
            let fields = dockerfile::fields(text).ok();
            fields.map(|all| Value::from_iter(all.into_iter().map(|field| field.text)))
        }
        _ => Some(Value::from(text)),
    };
    read.ok_or_else(|| wrong(format!("{what}: {text:?} is no value like the default {default}")))
}

fn value(context: &Context<'_>, what: &str, expression: &Expression) -> Result<Value, Failure> {
    let value = expression.evaluate(context).map_err(|error| wrong(format!("{what}: {error}")))?;
    serde_json::to_value(value).map_err(|error| wrong(format!("{what}: {error}")))
}

fn evaluated(
    context: &Context<'_>,
    what: &str,
    attributes: &Attributes,
) -> Result<Target, Failure> {
    let all = attributes.iter().map(|(key, expression)| {
        Ok((key.clone(), value(context, &format!("{what}, {key}"), expression)?))
    });
    let all: Result<Target, Failure> = all.collect();
    all.map(|all| all.into_iter().filter(|(_, value)| !value.is_null()).collect())
}

/// Every combination of the values of a matrix.
fn points(axes: &serde_json::Map<String, Value>) -> Vec<Target> {
    let mut points = vec![Target::new()];
    for (key, values) in axes {
        let values = values.as_array().cloned().unwrap_or_default();
        let with = |point: &Target| -> Vec<Target> {
            let one = |value: &Value| {
                let mut point = point.clone();
                point.insert(key.clone(), value.clone());
                point
            };
            values.iter().map(one).collect()
        };
        points = points.iter().flat_map(with).collect();
    }
    points
}

/// Puts what a target says over what it inherits: objects are merged, anything else is replaced.
fn merge(target: &mut Target, over: Target) {
    for (key, value) in over {
        match (target.get_mut(&key), value) {
            (Some(Value::Object(known)), Value::Object(more)) => known.extend(more),
            (_, value) => drop(target.insert(key, value)),
        }
    }
}

/// The texts of a list.
pub(super) fn texts(value: &Value) -> Vec<String> {
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

/// Keys whose value is a list.
const LISTS: [&str; 12] = [
    "tags",
    "platforms",
    "cache-from",
    "cache-to",
    "secret",
    "ssh",
    "output",
    "attest",
    "ulimits",
    "entitlements",
    "no-cache-filter",
    "annotations",
];

/// Puts `--set TARGET.KEY=VALUE` into a target.
///
/// # Errors
/// It is malformed.
pub(super) fn set(name: &str, target: &mut Target, texts: &[String]) -> Result<(), Failure> {
    let mut begun = Vec::new();
    for text in texts {
        let refuse = || Failure::usage(format!("--set {text:?}: expected TARGET.KEY=VALUE"));
        let (path, value) = text.split_once('=').ok_or_else(refuse)?;
        let (pattern, key) = path.split_once('.').ok_or_else(refuse)?;
        let pattern = dockerfile::glob::Pattern::parse(pattern).map_err(|_| refuse())?;
        if !pattern.matches(name) {
            continue;
        }
        let (key, inner) =
            key.split_once('.').map_or((key, None), |(key, inner)| (key, Some(inner)));
        let key = if key == "platform" { "platforms" } else { key };
        match inner {
            Some(inner) => {
                let object = target.entry(key.to_owned()).or_insert_with(|| json!({}));
                object[inner] = value.into();
            }
            None if LISTS.contains(&key) => {
                // The first replaces what the file says, further ones are added.
                let list = target.entry(key.to_owned()).or_insert_with(|| json!([]));
                if !begun.contains(&key.to_owned()) {
                    *list = json!([]);
                    begun.push(key.to_owned());
                }
                list.as_array_mut().into_iter().for_each(|list| list.push(value.into()));
            }
            None => {
                let value = value.parse().map(Value::Bool).unwrap_or_else(|_| value.into());
                target.insert(key.to_owned(), value);
            }
        }
    }
    Ok(())
}
