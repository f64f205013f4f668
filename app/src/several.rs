//! The same to each of several names: one that fails keeps no other back.

use options::Failure;
use serde_json::Value;

use crate::{format, report};

/// Does something to each name in turn; gives what came of it, and the answer of the command.
pub fn each<T>(
    names: &[String],
    mut one: impl FnMut(&str) -> Result<T, Failure>,
) -> (Vec<T>, Result<u8, Failure>) {
    let (mut done, mut failures) = (Vec::new(), Vec::new());
    for name in names {
        match one(name) {
            Ok(made) => done.push(made),
            Err(failure) => failures.push(failure),
        }
    }
    (done, answer(failures))
}

/// Prints all failures but the last, which is the answer of the command.
pub fn answer(mut failures: Vec<Failure>) -> Result<u8, Failure> {
    let last = failures.pop();
    failures.into_iter().for_each(report::print);
    last.map_or(Ok(0), Err)
}

/// Shows the document of each name: as an array, or by a template.
///
/// # Errors
/// The template is wrong; a name means nothing.
pub fn show(
    names: &[String],
    template: Option<&str>,
    one: impl FnMut(&str) -> Result<Value, Failure>,
) -> Result<u8, Failure> {
    let (documents, answer) = each(names, one);
    match template {
        None | Some("json") if documents.is_empty() => {}
        None | Some("json") => outln!("{:#}", Value::from(documents)),
        Some(template) => {
            for mut document in documents {
                // Templates of docker and podman say ID and Id.
                if let (Some(id), None) = (document.get("Id").cloned(), document.get("ID")) {
                    document["ID"] = id;
                }
                outln!("{}", format::template(template, &document)?);
            }
        }
    }
    answer
}
