//! Stages are not called scratch or context.

use super::{Findings, Input, Rule};
use crate::instruction::InstructionKind;

pub(super) const RULE: Rule = Rule {
    name: "ReservedStageName",
    summary: "Stages are not called scratch or context.",
    experimental: false,
    check,
};

fn check(input: &Input<'_>, findings: &mut Findings<'_>) {
    for stage in &input.file.stages {
        let InstructionKind::From(from) = &stage.from.kind else { continue };
        if let (Some(name), Some("scratch" | "context")) = (&from.name, stage.name.as_deref()) {
            findings.add(&stage.from, name.span, format!("stage name {:?} is reserved", name.text));
        }
    }
}
