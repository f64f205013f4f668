//! The comment right above a stage or an ARG begins with its name.

use super::{Findings, Input, Rule};
use crate::instruction::InstructionKind;

pub(super) const RULE: Rule = Rule {
    name: "InvalidDefinitionDescription",
    summary: "The comment right above a stage or an ARG begins with its name.",
    experimental: true,
    check,
};

fn check(input: &Input<'_>, findings: &mut Findings<'_>) {
    for instruction in input.file.instructions() {
        let names: Vec<String> = match &instruction.kind {
            InstructionKind::Arg(arg) => {
                arg.declarations.iter().map(|d| d.name.text.clone()).collect()
            }
            InstructionKind::From(from) => {
                from.name.iter().map(|name| name.text.to_lowercase()).collect()
            }
            _ => continue,
        };
        let Some(comment) = instruction.comments.last() else { continue };
        let first = comment.split(' ').next().unwrap_or_default();
        if names.is_empty() || names.iter().any(|name| name == first) {
            continue;
        }
        let name = if names.len() == 1 { names[0].as_str() } else { "<name>" };
        let message = format!("the comment above {} does not describe it", instruction.name());
        let help = format!("write # {name} <description>, or put an empty line below the comment");
        findings.add_with_help(instruction, instruction.keyword.span, message, Some(help));
    }
}
