//! AS is written in the case of FROM.

use super::{Findings, Input, Rule};
use crate::instruction::InstructionKind;

pub(super) const RULE: Rule = Rule {
    name: "FromAsCasing",
    summary: "AS is written in the case of FROM.",
    experimental: false,
    check,
};

fn check(input: &Input<'_>, findings: &mut Findings<'_>) {
    for stage in &input.file.stages {
        let InstructionKind::From(from) = &stage.from.kind else { continue };
        let Some(word) = &from.as_keyword else { continue };
        let keyword = &stage.from.keyword.text;
        // A keyword in mixed case is for ConsistentInstructionCasing.
        let expected = if *keyword == keyword.to_lowercase() {
            word.text.to_lowercase()
        } else if *keyword == keyword.to_uppercase() {
            word.text.to_uppercase()
        } else {
            continue;
        };
        if word.text != expected {
            let message = format!("{:?} and {keyword:?} differ in case", word.text);
            findings.add_with_help(
                &stage.from,
                word.span,
                message,
                Some(format!("write {expected}")),
            );
        }
    }
}
