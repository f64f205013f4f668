//! All keywords are in one case.

use super::{Findings, Input, Rule};

pub(super) const RULE: Rule = Rule {
    name: "ConsistentInstructionCasing",
    summary: "All keywords are in one case.",
    experimental: false,
    check,
};

fn check(input: &Input<'_>, findings: &mut Findings<'_>) {
    let keywords = || input.file.instructions().map(|i| (i, i.keyword.text.as_str()));
    let lower = keywords().filter(|(_, text)| *text == text.to_lowercase()).count();
    let upper = keywords().filter(|(_, text)| *text == text.to_uppercase()).count();
    for (instruction, text) in keywords() {
        let (expected, name) = if lower > upper {
            (text.to_lowercase(), "lower")
        } else {
            (text.to_uppercase(), "upper")
        };
        if text != expected {
            let message = format!("{text:?} is not in {name} case like most keywords of this file");
            let help = Some(format!("write {expected}"));
            findings.add_with_help(instruction, instruction.keyword.span, message, help);
        }
    }
}
