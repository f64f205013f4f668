//! COPY and ADD take no file that .dockerignore keeps out.

use super::{Findings, Input, Rule};
use crate::instruction::{InstructionKind, Source};

pub(super) const RULE: Rule = Rule {
    name: "CopyIgnoredFile",
    summary: "COPY and ADD take no file that .dockerignore keeps out.",
    experimental: false,
    check,
};

fn check(input: &Input<'_>, findings: &mut Findings<'_>) {
    // What an exception lets in cannot be told without the files.
    let Some(ignore) = input.context.ignore.filter(|ignore| !ignore.has_exceptions()) else {
        return;
    };
    input.walk().each(|_, instruction, variables| {
        let sources = match &instruction.kind {
            InstructionKind::Copy(copy) if copy.from.is_none() => &copy.sources,
            InstructionKind::Add(add) => &add.sources,
            _ => return,
        };
        for word in sources.iter().filter_map(Source::path) {
            let Some(path) = variables.evaluate(word).and_then(|value| value.text) else {
                continue;
            };
            if path.contains("://") || path.starts_with("git@") {
                continue;
            }
            let clean = crate::ignore::clean(&path);
            let ignored = match clean.as_str() {
                "" => ignore.excludes_all(),
                clean => ignore.excluded(clean, false),
            };
            if ignored {
                let message = format!("{path:?} is kept out of the context by .dockerignore");
                findings.add(instruction, word.span, message);
            }
        }
    });
}
