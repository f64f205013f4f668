//! Variables, groups and targets, evaluated: what inherits, what a matrix makes, what is overridden.

use std::collections::BTreeMap;
use std::time::SystemTime;

use hcl::Expression;
use hcl::eval::{Context, Evaluate};
use jiff::Timestamp;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::file::{Attributes, Definition};
use crate::overrides::{self, Override};
use crate::{functions, library, user_function};

/// The keys of a target and their values, as bake files call them.
pub type Target = BTreeMap<String, Value>;

/// The name under which a target is a context of another.
const CONTEXT: &str = "target:";

/// Everything the files say, evaluated.
#[derive(Debug, Default)]
pub struct Model {
    /// Variables and their values.
    pub variables: BTreeMap<String, Value>,
    /// Groups and the targets and groups in them.
    pub groups: BTreeMap<String, Vec<String>>,
    /// Targets as they are written, one for each value of a matrix.
    pub targets: BTreeMap<String, Target>,
}

impl Model {
    /// Evaluates. `given` is the value that a variable gets from outside, `now` the time that
    /// functions of the clock give.
    ///
    /// # Errors
    /// An expression cannot be evaluated; a matrix is malformed; the time is out of range.
    pub fn new(
        definition: &Definition,
        given: &dyn Fn(&str) -> Option<String>,
        now: SystemTime,
    ) -> Result<Model> {
        let mut context = Context::new();
        functions::declare(&mut context);
        library::declare(&mut context);
        let now = Timestamp::try_from(now).map_err(|error| Error::of("time", error.to_string()))?;
        let _callable = user_function::declare(&mut context, &definition.functions, now)
            .map_err(|reason| Error::of("functions", reason))?;
        let mut model =
            Model { variables: variables(definition, &mut context, given)?, ..Model::default() };
        for (name, attributes) in &definition.groups {
            let targets = evaluated(&context, &format!("group {name:?}"), attributes)?;
            let members = targets.get("targets").map(texts).unwrap_or_default();
            model.groups.insert(name.clone(), members);
        }
        for (name, attributes) in &definition.targets {
            model.add(&context, name, attributes)?;
        }
        Ok(model)
    }

    /// Adds a target, or those of its matrix and a group of them.
    fn add(&mut self, context: &Context<'_>, name: &str, attributes: &Attributes) -> Result<()> {
        let what = format!("target {name:?}");
        let Some(matrix) = attributes.get("matrix") else {
            let target = evaluated(context, &what, attributes)?;
            self.targets.insert(name.to_owned(), target);
            return Ok(());
        };
        let matrix = value(context, &what, matrix)?;
        let axes = matrix.as_object().ok_or_else(|| Error::of(&*what, "matrix is no object"))?;
        let mut names = Vec::new();
        for point in points(axes) {
            let mut context = context.clone();
            for (key, value) in &point {
                let value =
                    hcl::to_value(value).map_err(|error| Error::of(&*what, error.to_string()))?;
                context.declare_var(hcl::Identifier::sanitized(key), value);
            }
            let mut target = evaluated(&context, &what, attributes)?;
            target.remove("matrix");
            let own = match target.remove("name") {
                Some(Value::String(own)) => own,
                _ => return Err(Error::of(&*what, "a matrix needs a name for each target")),
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
    pub fn expand(&self, names: &[String]) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for name in names {
            self.collect(name, &mut Vec::new(), &mut found)?;
        }
        Ok(found)
    }

    fn collect(&self, name: &str, way: &mut Vec<String>, found: &mut Vec<String>) -> Result<()> {
        if self.targets.contains_key(name) {
            if !found.iter().any(|known| known == name) {
                found.push(name.to_owned());
            }
            return Ok(());
        }
        let Some(members) = self.groups.get(name) else {
            let known = self.targets.keys().chain(self.groups.keys()).map(String::as_str);
            let closest = dockerfile::closest(name, known).map(str::to_owned);
            return Err(Error::NoTarget { name: name.to_owned(), closest });
        };
        if way.iter().any(|known| known == name) {
            return Err(Error::CircularGroups { path: circle(way, name) });
        }
        way.push(name.to_owned());
        for member in members {
            self.collect(member, way, found)?;
        }
        way.pop();
        Ok(())
    }

    /// A target with what it inherits, and what is overridden in it.
    ///
    /// # Errors
    /// There is no such target; targets inherit in a circle.
    pub fn target(&self, name: &str, overrides: &[Override]) -> Result<Target> {
        let mut target = self.inherit(name, &mut Vec::new())?;
        overrides::apply(name, &mut target, overrides);
        Ok(target)
    }

    fn inherit(&self, name: &str, way: &mut Vec<String>) -> Result<Target> {
        if way.iter().any(|known| known == name) {
            return Err(Error::CircularInheritance { path: circle(way, name) });
        }
        let own = self.targets.get(name);
        let own = own.ok_or_else(|| Error::NoParent { name: name.to_owned() })?;
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
    pub fn order(&self, names: &[String]) -> Result<Vec<String>> {
        let mut done = Vec::new();
        for name in names {
            self.visit(name, &mut Vec::new(), &mut done)?;
        }
        Ok(done)
    }

    fn visit(&self, name: &str, way: &mut Vec<String>, done: &mut Vec<String>) -> Result<()> {
        if done.iter().any(|known| known == name) {
            return Ok(());
        }
        if way.iter().any(|known| known == name) {
            return Err(Error::CircularContexts { path: circle(way, name) });
        }
        way.push(name.to_owned());
        let target = self.inherit(name, &mut Vec::new())?;
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

/// The names from the first to itself.
fn circle(way: &[String], name: &str) -> String {
    format!("{} -> {name}", way.join(" -> "))
}

/// The target that a named context of a target is, if it is one: `target:NAME`.
pub fn context_target(value: &str) -> Option<&str> {
    value.strip_prefix(CONTEXT)
}

/// Evaluates the variables, which may name each other in any order.
fn variables(
    definition: &Definition,
    context: &mut Context<'static>,
    given: &dyn Fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, Value>> {
    let mut left: BTreeMap<&str, &Option<Expression>> =
        definition.variables.iter().map(|(name, default)| (name.as_str(), default)).collect();
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
                    user_function::know(context);
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
fn typed(what: &str, default: &Value, text: &str) -> Result<Value> {
    let read = match default {
        Value::Bool(_) => text.parse().ok().map(Value::Bool),
        Value::Number(_) => serde_json::from_str(text).ok().filter(Value::is_number),
        Value::Array(_) => {
            let fields = dockerfile::fields(text).ok();
            fields.map(|all| Value::from_iter(all.into_iter().map(|field| field.text)))
        }
        _ => Some(Value::from(text)),
    };
    read.ok_or_else(|| Error::of(what, format!("{text:?} is no value like the default {default}")))
}

fn value(context: &Context<'_>, what: &str, expression: &Expression) -> Result<Value> {
    let value = expression.evaluate(context).map_err(|error| Error::of(what, error.to_string()))?;
    serde_json::to_value(value).map_err(|error| Error::of(what, error.to_string()))
}

fn evaluated(context: &Context<'_>, what: &str, attributes: &Attributes) -> Result<Target> {
    let all = attributes.iter().map(|(key, expression)| {
        Ok((key.clone(), value(context, &format!("{what}, {key}"), expression)?))
    });
    let all: Result<Target> = all.collect();
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
fn texts(value: &Value) -> Vec<String> {
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
}
