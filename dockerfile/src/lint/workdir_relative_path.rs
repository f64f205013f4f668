//! The first WORKDIR of a stage is absolute.

use super::{Findings, Input, Rule};
use crate::instruction::InstructionKind;

pub(super) const RULE: Rule = Rule {
    name: "WorkdirRelativePath",
    summary: "The first WORKDIR of a stage is absolute.",
    experimental: false,
    check,
};

fn check(input: &Input<'_>, findings: &mut Findings<'_>) {
    let mut set: Vec<bool> = Vec::new();
    input.walk().each(|stage, instruction, variables| {
        while set.len() <= stage {
            let inherited = input.bases[set.len()].is_some_and(|base| set[base]);
            set.push(inherited);
        }
        let InstructionKind::Workdir(word) = &instruction.kind else { return };
        let path = variables.evaluate(word).and_then(|value| value.text);
        if let Some(path) = path.filter(|path| !set[stage] && !path.starts_with('/')) {
            let message = format!("{path:?} depends on the working directory of the base image");
            let help = Some(format!("write WORKDIR /{path}"));
            findings.add_with_help(instruction, word.span, message, help);
        }
        // Fixing the first fixes the others.
        set[stage] = true;
    });
}
