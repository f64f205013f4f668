//! Secrets are mounted, not put into ARG or ENV, which the image keeps.

use super::{Findings, Input, Rule};
use crate::instruction::InstructionKind;

pub(super) const RULE: Rule = Rule {
    name: "SecretsUsedInArgOrEnv",
    summary: "Secrets are mounted, not put into ARG or ENV, which the image keeps.",
    experimental: false,
    check,
};

const SECRET: [&str; 10] = [
    "apikey",
    "auth",
    "credential",
    "credentials",
    "key",
    "password",
    "pword",
    "passwd",
    "secret",
    "token",
];
const HARMLESS: [&str; 3] = ["public", "file", "version"];

fn check(input: &Input<'_>, findings: &mut Findings<'_>) {
    for instruction in input.file.instructions() {
        let names: Vec<_> = match &instruction.kind {
            InstructionKind::Arg(arg) => arg.declarations.iter().map(|d| &d.name).collect(),
            InstructionKind::Env(pairs) => pairs.pairs.iter().map(|pair| &pair.key).collect(),
            _ => continue,
        };
        for name in names.into_iter().filter(|name| is_secret(&name.text)) {
            let message = format!(
                "{:?} looks like a secret, and {} is kept in the image",
                name.text,
                instruction.name()
            );
            let help = "use RUN --mount=type=secret,id=...".to_owned();
            findings.add_with_help(instruction, name.span, message, Some(help));
        }
    }
}

/// One of the words between underscores gives it away, and none says otherwise.
fn is_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    let has = |words: &[&str]| name.split('_').any(|part| words.contains(&part));
    has(&SECRET) && !has(&HARMLESS)
}
