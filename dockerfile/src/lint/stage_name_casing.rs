//! Stage names are lower case.

use super::{Findings, Input, Rule};
use crate::instruction::InstructionKind;

pub(super) const RULE: Rule = Rule {
    name: "StageNameCasing",
    summary: "Stage names are lower case.",
    experimental: false,
    check,
};

fn check(input: &Input<'_>, findings: &mut Findings<'_>) {
    for stage in &input.file.stages {
        let InstructionKind::From(from) = &stage.from.kind else { continue };
        let Some(name) = from.name.as_ref().filter(|name| name.text != name.text.to_lowercase())
        else {
            continue;
        };
        let message = format!("stage name {:?} is not lower case", name.text);
        let help = format!("write {}", name.text.to_lowercase());
        findings.add_with_help(&stage.from, name.span, message, Some(help));
    }
}
