//! Variables are declared before they are used.

use super::{Findings, Input, Rule};
use crate::instruction::InstructionKind;
use crate::span::Word;
use crate::suggest::closest;

pub(super) const RULE: Rule = Rule {
    name: "UndefinedVar",
    summary: "Variables are declared before they are used.",
    experimental: false,
    check,
};

fn check(input: &Input<'_>, findings: &mut Findings<'_>) {
    input.walk().each(|_, instruction, variables| {
        let heredocs = contents(&instruction.kind);
        for word in instruction.kind.words().into_iter().chain(&heredocs) {
            let Some(value) = variables.evaluate(word) else { continue };
            for name in value.missing.iter().filter(|name| is_name(name)) {
                let near = closest(name, variables.names());
                // The base image may define what this file does not, unless it looks like a typo.
                if !variables.complete && near.is_none() {
                    continue;
                }
                let message = format!("variable ${name} is not defined");
                let help = match near {
                    Some(near) => format!("did you mean ${near}?"),
                    None => format!("declare it with ARG {name} or ENV {name}=..."),
                };
                let span = place(word, name);
                findings.add_with_help(instruction, span, message, Some(help));
            }
        }
    });
}

/// What the shell would call a name: `$1` and `$@` are left alone.
fn is_name(name: &str) -> bool {
    !name.starts_with(|ch: char| !ch.is_alphabetic() && ch != '_')
        && !matches!(name, "BUILDKIT_SBOM_SCAN_CONTEXT" | "BUILDKIT_SBOM_SCAN_STAGE")
}

/// The variable's place in the word.
fn place(word: &Word, name: &str) -> crate::span::Span {
    let forms = [format!("${name}"), format!("${{{name}")];
    let found = forms.iter().find_map(|form| Some((word.text.find(form.as_str())?, form.len())));
    found.map_or(word.span, |(at, length)| word.part(at..at + length))
}

/// The contents of heredocs in which variables are replaced.
fn contents(kind: &InstructionKind) -> Vec<Word> {
    // Those of RUN are for its shell.
    let copied = matches!(kind, InstructionKind::Copy(_) | InstructionKind::Add(_));
    let heredocs = kind.heredocs().into_iter().filter(|heredoc| copied && heredoc.expand);
    // Quotes mean nothing in a heredoc.
    heredocs
        .map(|heredoc| Word {
            text: heredoc.content.replace(['\'', '"'], " "),
            span: heredoc.span,
            ..Word::default()
        })
        .collect()
}
