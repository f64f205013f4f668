//! No two stages have the same name.

use std::collections::BTreeSet;

use super::{Findings, Input, Rule};

use crate::instruction::InstructionKind;

pub(super) const RULE: Rule = Rule {
    name: "DuplicateStageName",
    summary: "No two stages have the same name.",
    experimental: false,
    check,
};

fn check(input: &Input<'_>, findings: &mut Findings<'_>) {
    let mut taken = BTreeSet::new();
    for stage in &input.file.stages {
        let InstructionKind::From(from) = &stage.from.kind else { continue };
        let (Some(name), Some(key)) = (&from.name, &stage.name) else { continue };
        if !taken.insert(key) {
            let message = format!("stage name {:?} is taken by an earlier stage", name.text);
            findings.add(&stage.from, name.span, message);
        }
    }
}
