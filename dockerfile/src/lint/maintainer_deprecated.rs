//! LABEL replaces MAINTAINER.

use super::{Findings, Input, Rule};
use crate::instruction::InstructionKind;

pub(super) const RULE: Rule = Rule {
    name: "MaintainerDeprecated",
    summary: "LABEL replaces MAINTAINER.",
    experimental: false,
    check,
};

fn check(input: &Input<'_>, findings: &mut Findings<'_>) {
    for instruction in input.file.instructions() {
        if let InstructionKind::Maintainer(author) = &instruction.kind {
            let help = format!("LABEL org.opencontainers.image.authors={:?}", author.text);
            let message = "MAINTAINER is deprecated".to_owned();
            findings.add_with_help(instruction, instruction.keyword.span, message, Some(help));
        }
    }
}
