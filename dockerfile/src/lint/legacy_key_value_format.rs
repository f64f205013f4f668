//! ENV and LABEL are written key=value.

use super::{Findings, Input, Rule};
use crate::instruction::InstructionKind;

pub(super) const RULE: Rule = Rule {
    name: "LegacyKeyValueFormat",
    summary: "ENV and LABEL are written key=value.",
    experimental: false,
    check,
};

fn check(input: &Input<'_>, findings: &mut Findings<'_>) {
    for instruction in input.file.instructions() {
        let (InstructionKind::Env(pairs) | InstructionKind::Label(pairs)) = &instruction.kind
        else {
            continue;
        };
        let [pair] = pairs.pairs.as_slice() else { continue };
        // `KEY = value` has a warning of its own.
        if pairs.legacy && !pair.value.text.starts_with('=') {
            let name = instruction.name();
            let message = format!("{name} key value is an old form of {name} key=value");
            let value = &pair.value.text;
            let blank = value.contains(char::is_whitespace);
            let help = match blank && !value.contains('"') {
                true => format!("write {name} {}=\"{value}\"", pair.key),
                false if !blank => format!("write {name} {}={value}", pair.key),
                false => format!("write {name} {}=... with quotes around the value", pair.key),
            };
            let span = pair.key.span.to(pair.value.span);
            findings.add_with_help(instruction, span, message, Some(help));
        }
    }
}
