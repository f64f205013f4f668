//! FROM does not repeat the platform it has anyway.

use super::{Findings, Input, Rule};

pub(super) const RULE: Rule = Rule {
    name: "RedundantTargetPlatform",
    summary: "FROM does not repeat the platform it has anyway.",
    experimental: false,
    check,
};

fn check(input: &Input<'_>, findings: &mut Findings<'_>) {
    for stage in &input.file.stages {
        let Some(word) = &stage.platform else { continue };
        if matches!(word.text.as_str(), "$TARGETPLATFORM" | "${TARGETPLATFORM}") {
            let message = format!("--platform={word} is what FROM does anyway");
            findings.add_with_help(
                &stage.from,
                word.span,
                message,
                Some("remove the flag".to_owned()),
            );
        }
    }
}
