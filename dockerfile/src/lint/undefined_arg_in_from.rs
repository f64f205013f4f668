//! FROM uses only variables that an ARG before the first FROM declares.

use super::{Findings, Input, Rule};
use crate::instruction::InstructionKind;
use crate::suggest::closest;
use crate::variables::PLATFORM_ARGS;

pub(super) const RULE: Rule = Rule {
    name: "UndefinedArgInFrom",
    summary: "FROM uses only variables that an ARG before the first FROM declares.",
    experimental: false,
    check,
};

fn check(input: &Input<'_>, findings: &mut Findings<'_>) {
    let globals = input.globals();
    let mut declared: Vec<&str> = PLATFORM_ARGS.to_vec();
    for instruction in &input.file.global_args {
        if let InstructionKind::Arg(arg) = &instruction.kind {
            declared.extend(arg.declarations.iter().map(|d| d.name.text.as_str()));
        }
    }
    for stage in &input.file.stages {
        for word in std::iter::once(&stage.base).chain(&stage.platform) {
            let Some(value) = globals.evaluate(word) else { continue };
            for name in value.missing.iter().filter(|name| !declared.contains(&name.as_str())) {
                let message = format!("no ARG before the first FROM declares {name:?}");
                let help = closest(name, declared.iter().copied())
                    .map(|near| format!("did you mean ${near}?"))
                    .unwrap_or_else(|| format!("put ARG {name}=... before the first FROM"));
                findings.add_with_help(&stage.from, word.span, message, Some(help));
            }
        }
    }
}
