//! The content of `--metadata-file`, in the words buildx uses.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use dockerfile::{Diagnostic, LineIndex};
use serde_json::{Value, json};

use crate::assemble::BuildDocuments;
use crate::{BuildResult, SourceFile};

/// The metadata of this result; names in `canonical` form include the digest.
pub(crate) fn of(made: &BuildDocuments, result: &BuildResult, canonical: bool) -> Value {
    let root = made.root();
    let name = |name: &String| match canonical {
        true => format!("{name}@{}", root.digest),
        false => name.clone(),
    };
    let names: Vec<String> = result.names.iter().map(name).collect();
    let mut metadata = json!({
        "containerimage.descriptor": root,
        "containerimage.digest": root.digest.to_string(),
        "image.name": names.join(","),
        "rbuild.steps": { "total": result.steps, "cached": result.cached },
    });
    if made.images.len() == 1 {
        metadata["containerimage.config.digest"] = json!(made.id().to_string());
    }
    if !result.warnings.is_empty() {
        let file = &result.dockerfile;
        let all = result.warnings.iter().map(|warning| self::warning(warning, file));
        metadata["buildx.build.warnings"] = all.collect();
    }
    metadata
}

/// A warning as buildx writes it: its texts are bytes, which JSON has as base64.
fn warning(warning: &Diagnostic, file: &SourceFile) -> Value {
    let index = LineIndex::new(&file.text);
    let at = |offset: usize| {
        let position = index.position(offset);
        json!({ "line": position.line, "character": position.column - 1 })
    };
    let span = warning.span;
    json!({
        "level": 1,
        "short": BASE64_STANDARD.encode(format!("{}: {}", warning.rule, warning.message)),
        "detail": warning.help.iter().map(|help| BASE64_STANDARD.encode(help)).collect::<Vec<_>>(),
        "sourceInfo": {
            "filename": file.name,
            "data": BASE64_STANDARD.encode(&file.text),
            "language": "Dockerfile",
        },
        "range": [{ "start": at(span.start), "end": at(span.end.max(span.start)) }],
    })
}
