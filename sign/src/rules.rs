//! Rules about what a signed statement says, in CEL (the Common Expression Language).

use std::collections::HashMap;
use std::sync::Arc;

use cel::{Context, Program, Value};

use crate::attest::Attestation;
use crate::printable::printable;

/// No longer rule is read.
pub const MAX_RULE: u64 = 64 << 10;

/// Rules that a statement must all keep.
#[derive(Default)]
pub struct Rules(Vec<(String, Program)>);

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl Rules {
    /// Adds a rule: an expression that is true or false. It sees `statement`, its `predicateType`, its
    /// `predicate`, its `subject`s and the `signer`.
    ///
    /// # Errors
    /// It is no expression; in words.
    pub fn add(&mut self, name: &str, text: &str) -> Result<(), String> {
        let program = Program::compile(text).map_err(|error| printable(&error.to_string()))?;
        self.0.push((name.to_owned(), program));
        Ok(())
    }

    /// Those of these statements that keep every rule.
    ///
    /// # Errors
    /// None does: why each does not.
    pub fn keep(&self, found: Vec<Attestation>) -> Result<Vec<Attestation>, Vec<String>> {
        let (mut good, mut broken) = (Vec::new(), Vec::new());
        for attestation in found {
            match self.check(&attestation) {
                Ok(()) => good.push(attestation),
                Err(why) => broken.push(format!("{}: {why}", attestation.origin())),
            }
        }
        if good.is_empty() { Err(broken) } else { Ok(good) }
    }

    /// Whether a statement keeps every rule.
    ///
    /// # Errors
    /// The first rule that it does not keep, and why.
    pub fn check(&self, attestation: &Attestation) -> Result<(), String> {
        let statement: serde_json::Value = serde_json::from_slice(attestation.statement())
            .map_err(|error| format!("its statement is malformed: {error}"))?;
        for (name, program) in &self.0 {
            let mut context = Context::default();
            for field in ["predicateType", "predicate", "subject"] {
                context.add_variable_from_value(field, value(&statement[field]));
            }
            context.add_variable_from_value("statement", value(&statement));
            let signer = Value::String(Arc::new(attestation.signer().to_string()));
            context.add_variable_from_value("signer", signer);
            match program.execute(&context) {
                Ok(Value::Bool(true)) => {}
                Ok(Value::Bool(false)) => return Err(format!("it does not keep {name}")),
                Ok(_) => return Err(format!("{name} says neither true nor false of it")),
                Err(error) => return Err(printable(&format!("{name} fails: {error}"))),
            }
        }
        Ok(())
    }
}

/// JSON as CEL sees it: whole numbers are integers with a sign.
fn value(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(one) => Value::Bool(*one),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::Int(number),
            (None, Some(number)) => Value::UInt(number),
            (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::String(Arc::new(text.clone())),
        serde_json::Value::Array(list) => Value::List(Arc::new(list.iter().map(value).collect())),
        serde_json::Value::Object(fields) => {
            let fields = fields.iter().map(|(name, field)| (name.clone(), value(field)));
            Value::from(fields.collect::<HashMap<String, Value>>())
        }
    }
}

#[cfg(test)]
mod tests {
    use image::Digest;
    use serde_json::json;

    use super::*;
    use crate::bundle::Bundle;
    use crate::key::tests::key;
    use crate::{Signers, verify_statement};

    fn attestation() -> Attestation {
        let image = Digest::of(b"image");
        let statement = json!({
            "_type": crate::dsse::STATEMENT_V1, "predicateType": "https://slsa.dev/provenance/v1",
            "subject": [{ "name": "app", "digest": { "sha256": image.hex() } }],
            "predicate": { "builder": { "id": "https://builder.example" }, "runs": 3, "tags": ["a", "b"] },
        });
        let bundle = Bundle::seal(statement.to_string().as_bytes(), &key(1)).to_json();
        let signers = Signers::keys(vec![key(1).public()]);
        verify_statement(&image, &bundle, "here", None, &signers).unwrap()
    }

    #[test]
    fn a_statement_is_held_against_every_rule() {
        let attestation = attestation();
        let check = |texts: &[&str]| {
            let mut rules = Rules::default();
            for (at, text) in texts.iter().enumerate() {
                rules.add(&format!("rule {at}"), text)?;
            }
            rules.check(&attestation)
        };
        let good = [
            "predicate.builder.id == 'https://builder.example'",
            "predicate.runs >= 3 && 'a' in predicate.tags",
            "predicateType.startsWith('https://slsa.dev/')",
            "statement.subject.exists(s, s.name == 'app') && subject.size() == 1",
            "signer.startsWith('key ') && predicate.builder.id.matches('^https://')",
        ];
        check(&good).unwrap();
        check(&[]).unwrap();
        for (text, words) in [
            ("predicate.runs > 3", "does not keep rule 0"),
            ("predicate.runs", "neither true nor false"),
            ("predicate.nothing == 1", "rule 0 fails"),
            ("unknown", "rule 0 fails"),
            ("predicate.", ""),
            ("", ""),
        ] {
            let error = check(&[text]).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
        check(&[good[0], "false"]).unwrap_err();
    }
}
