//! A stage has one CMD, one ENTRYPOINT and one HEALTHCHECK.

use super::{Findings, Input, Rule};

pub(super) const RULE: Rule = Rule {
    name: "MultipleInstructionsDisallowed",
    summary: "A stage has one CMD, one ENTRYPOINT and one HEALTHCHECK.",
    experimental: false,
    check,
};

fn check(input: &Input<'_>, findings: &mut Findings<'_>) {
    for stage in &input.file.stages {
        for name in ["CMD", "ENTRYPOINT", "HEALTHCHECK"] {
            let mut same: Vec<_> = stage.instructions.iter().filter(|i| i.name() == name).collect();
            same.pop();
            for lost in same {
                let message = format!("a later {name} of this stage replaces this one");
                findings.add(lost, lost.keyword.span, message);
            }
        }
    }
}
