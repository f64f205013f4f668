//! The protocol of EXPOSE is lower case.

use super::{Findings, Input, Rule};
use crate::instruction::InstructionKind;

pub(super) const RULE: Rule = Rule {
    name: "ExposeProtoCasing",
    summary: "The protocol of EXPOSE is lower case.",
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
            let protocol = port.split_once('/').map_or("", |(_, protocol)| protocol);
            if protocol != protocol.to_lowercase() {
                let message = format!("protocol {protocol:?} is not lower case");
                let help = Some(format!("write {}", port.to_lowercase()));
                findings.add_with_help(instruction, word.span, message, help);
            }
        }
    });
}
