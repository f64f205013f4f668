//! CMD and ENTRYPOINT are JSON arrays, so that signals reach the program.

use super::{Findings, Input, Rule};
use crate::instruction::{CommandLine, InstructionKind};

pub(super) const RULE: Rule = Rule {
    name: "JSONArgsRecommended",
    summary: "CMD and ENTRYPOINT are JSON arrays, so that signals reach the program.",
    experimental: false,
    check,
};

fn check(input: &Input<'_>, findings: &mut Findings<'_>) {
    let mut shells: Vec<bool> = Vec::new();
    for (index, stage) in input.file.stages.iter().enumerate() {
        // Who sets a shell wants it.
        let mut shell = input.bases[index].is_some_and(|base| shells[base]);
        for instruction in &stage.instructions {
            match &instruction.kind {
                InstructionKind::Shell(_) => shell = true,
                InstructionKind::Cmd(CommandLine::Shell(word))
                | InstructionKind::Entrypoint(CommandLine::Shell(word))
                    if !shell =>
                {
                    let name = instruction.name();
                    let message = format!("{name} runs in a shell, which does not pass signals on");
                    // Only words without a meaning for the shell can be turned into an array.
                    let plain = |ch: char| ch.is_alphanumeric() || " -_./:=,@+%".contains(ch);
                    let help = word.text.chars().all(plain).then(|| {
                        let words: Vec<String> =
                            word.text.split_whitespace().map(|word| format!("{word:?}")).collect();
                        format!("write {name} [{}]", words.join(", "))
                    });
                    findings.add_with_help(instruction, word.span, message, help);
                }
                _ => {}
            }
        }
        shells.push(shell);
    }
}
