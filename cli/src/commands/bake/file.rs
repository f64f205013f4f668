//! From the files to expressions: HCL, and JSON with templates of HCL in its strings.

use std::collections::BTreeMap;
use std::path::Path;

use hcl::expr::{Object, ObjectKey, TemplateExpr};
use hcl::{Block, Body, Expression};
use serde_json::Value;
use task::Kind;

use super::compose;
use crate::report::Failure;

/// Attributes by name, not evaluated.
pub(super) type Attributes = BTreeMap<String, Expression>;

/// What the files say; of one thing said twice the last counts.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    /// Variables with their defaults, as they were declared.
    pub(super) variables: Vec<(String, Option<Expression>)>,
    /// Groups of targets.
    pub(super) groups: BTreeMap<String, Attributes>,
    /// Targets.
    pub(super) targets: BTreeMap<String, Attributes>,
}

impl Parsed {
    /// Adds a file.
    ///
    /// # Errors
    /// It cannot be read; it is malformed.
    pub(super) fn read(&mut self, file: &Path) -> Result<(), Failure> {
        let name = file.display().to_string();
        let refuse = |why: String| Failure::new(Kind::Invalid, format!("reading {name}: {why}"));
        let bytes = super::super::tags::read_bounded(file, image::MAX_DOCUMENT)?;
        let text = String::from_utf8(bytes).map_err(|error| refuse(error.to_string()))?;
        match file.extension().and_then(|end| end.to_str()) {
            Some("yml" | "yaml") => compose::read(self, &text).map_err(refuse),
            Some("json") => {
                let value = serde_json::from_str(&text).map_err(|e| refuse(e.to_string()))?;
                self.json(&value).map_err(refuse)
            }
            _ => {
                let body = hcl::parse(&text).map_err(|error| refuse(error.to_string()))?;
                self.hcl(body).map_err(refuse)
            }
        }
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
    pub(super) fn add(
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
                return Err(format!("function {name:?}: functions of the file are not supported"));
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
pub(super) fn expression(value: &Value) -> Result<Expression, String> {
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
