//! EXPOSE takes no address and no host port.

use super::{Findings, Input, Rule};
use crate::expose;
use crate::instruction::InstructionKind;

pub(super) const RULE: Rule = Rule {
    name: "ExposeInvalidFormat",
    summary: "EXPOSE takes no address and no host port.",
    experimental: false,
    check,
};

fn check(input: &Input<'_>, findings: &mut Findings<'_>) {
    input.walk().each(|_, instruction, variables| {
        let InstructionKind::Expose(words) = &instruction.kind else { return };
        for word in words {
            let Some(port) = variables.evaluate(word).and_then(|value| value.text) else {
                continue;
            };
            if expose::has_mapping(&port) {
                let message = format!("EXPOSE takes a port of the container only, not {port:?}");
                let container = port.rsplit(':').next().unwrap_or_default();
                let help = Some(format!("write EXPOSE {container}; run maps it to a host port"));
                findings.add_with_help(instruction, word.span, message, help);
            }
        }
    });
}
