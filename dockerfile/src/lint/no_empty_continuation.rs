//! Continued lines have no blank line between them.

use super::{Findings, Input, Rule};

pub(super) const RULE: Rule = Rule {
    name: "NoEmptyContinuation",
    summary: "Continued lines have no blank line between them.",
    experimental: false,
    check,
};

fn check(input: &Input<'_>, findings: &mut Findings<'_>) {
    for span in &input.file.empty_continuations {
        let message = "blank line inside a continued instruction".to_owned();
        let help = "remove the line, or begin it with #".to_owned();
        findings.add_here(*span, message, Some(help));
    }
}
