//! From the files to expressions: HCL, and JSON with templates of HCL in its strings.

use std::collections::BTreeMap;
use std::path::Path;

use hcl::expr::{Object, ObjectKey, TemplateExpr};
use hcl::{Block, Body, Expression};
use serde_json::Value;

use crate::compose;
use crate::error::{Error, Result};
use crate::user_function::UserFunction;

/// Attributes by name, not evaluated.
pub(crate) type Attributes = BTreeMap<String, Expression>;

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    /// HCL, the language of `docker-bake.hcl`.
    Hcl,
    /// The JSON form of HCL.
    Json,
    /// The YAML of a compose file.
    Compose,
}

impl Syntax {
    /// As the end of the file's name says: `.yml` and `.yaml`, `.json`, and anything else is HCL.
    pub fn of(file: &Path) -> Syntax {
        match file.extension().and_then(|end| end.to_str()) {
            Some("yml" | "yaml") => Syntax::Compose,
            Some("json") => Syntax::Json,
            _ => Syntax::Hcl,
        }
    }
}

/// What the files say; of one thing said twice the last counts.
#[derive(Debug, Default)]
pub struct Definition {
    /// Variables with their defaults, as they were declared.
    pub(crate) variables: Vec<(String, Option<Expression>)>,
    /// Functions.
    pub(crate) functions: Vec<UserFunction>,
    /// Groups of targets.
    pub(crate) groups: BTreeMap<String, Attributes>,
    /// Targets.
    pub(crate) targets: BTreeMap<String, Attributes>,
}

impl Definition {
    /// Adds the text of a file. `outside` gives the variables that a compose file interpolates.
    ///
    /// # Errors
    /// It is malformed, or says what is not supported; the error names `file`.
    pub fn read(
        &mut self,
        file: &str,
        syntax: Syntax,
        text: &str,
        outside: &dyn Fn(&str) -> Option<String>,
    ) -> Result<()> {
        let read = match syntax {
            Syntax::Compose => compose::read(self, text, outside),
            Syntax::Json => serde_json::from_str(text)
                .map_err(|error| error.to_string())
                .and_then(|value| self.json(&value)),
            Syntax::Hcl => {
                hcl::parse(text).map_err(|error| error.to_string()).and_then(|body| self.hcl(body))
            }
        };
        read.map_err(|reason| Error::File { file: file.to_owned(), reason })
    }

    fn hcl(&mut self, body: Body) -> Result<(), String> {
        for structure in body.into_inner() {
            match structure {
                hcl::Structure::Attribute(attribute) => {
                    self.variables.push((attribute.key.to_string(), Some(attribute.expr)));
                }
                hcl::Structure::Block(block) => self.block(block)?,
            }
        }
        Ok(())
    }

    fn block(&mut self, block: Block) -> Result<(), String> {
        let kind = block.identifier.to_string();
        let [label] = &block.labels[..] else {
            return Err(format!("a block {kind:?} has one name behind it"));
        };
        let name = label.as_str().to_owned();
        if let Some(inner) = block.body.blocks().next()
            && !(kind == "variable" && inner.identifier.as_str() == "validation")
        {
            return Err(format!(
                "{kind} {name:?}: block {:?} is not supported",
                inner.identifier.as_str()
            ));
        }
        let attributes = block.body.into_attributes();
        let attributes = attributes.map(|one| (one.key.to_string(), one.expr)).collect();
        self.add(&kind, name, attributes)
    }

    /// Adds what a block says.
    pub(crate) fn add(
        &mut self,
        kind: &str,
        name: String,
        mut attributes: Attributes,
    ) -> Result<(), String> {
        match kind {
            "variable" => self.variables.push((name, attributes.remove("default"))),
            "group" => self.groups.entry(name).or_default().extend(attributes),
            "target" => {
                let target = self.targets.entry(name).or_default();
                for (key, value) in attributes {
                    merge(target, key, value);
                }
            }
            "function" => {
                let function = UserFunction::new(&name, attributes)?;
                self.functions.retain(|known| known.name != name);
                self.functions.push(function);
            }
            other => return Err(format!("block {other:?} is not known")),
        }
        Ok(())
    }

    fn json(&mut self, value: &Value) -> Result<(), String> {
        for (kind, blocks) in value.as_object().ok_or("it is no object")? {
            let Value::Object(blocks) = blocks else {
                self.variables.push((kind.clone(), Some(expression(blocks)?)));
                continue;
            };
            for (name, attributes) in blocks {
                let attributes = attributes
                    .as_object()
                    .ok_or_else(|| format!("{kind} {name:?} is no object"))?;
                let read =
                    attributes.iter().map(|(key, value)| Ok((key.clone(), expression(value)?)));
                self.add(kind, name.clone(), read.collect::<Result<_, String>>()?)?;
            }
        }
        Ok(())
    }
}

/// Objects of one key are merged, anything else is replaced.
fn merge(target: &mut Attributes, key: String, value: Expression) {
    match (target.get_mut(&key), value) {
        (Some(Expression::Object(known)), Expression::Object(more)) => known.extend(more),
        (_, value) => drop(target.insert(key, value)),
    }
}

/// A JSON value as an expression: strings are templates.
pub(crate) fn expression(value: &Value) -> Result<Expression, String> {
    Ok(match value {
        Value::String(text) if text.contains("${") || text.contains("%{") => {
            Expression::from(TemplateExpr::from(text.as_str()))
        }
        Value::Array(items) => {
            Expression::Array(items.iter().map(expression).collect::<Result<_, _>>()?)
        }
        Value::Object(fields) => {
            let mut object = Object::new();
            for (key, value) in fields {
                let key = ObjectKey::Expression(Expression::from(key.as_str()));
                object.insert(key, expression(value)?);
            }
            Expression::Object(object)
        }
        plain => hcl::to_expression(plain).map_err(|error| error.to_string())?,
    })
}
