//! FROM --platform is a variable, not one platform.

use super::{Findings, Input, Rule};

pub(super) const RULE: Rule = Rule {
    name: "FromPlatformFlagConstDisallowed",
    summary: "FROM --platform is a variable, not one platform.",
    experimental: false,
    check,
};

fn check(input: &Input<'_>, findings: &mut Findings<'_>) {
    for stage in &input.file.stages {
        let Some(word) = stage.platform.as_ref().filter(|word| !word.has_variable()) else {
            continue;
        };
        let mut parts = word.text.split('/');
        let (os, architecture) = (parts.next().unwrap_or_default(), parts.next());
        let name = stage.name.as_deref().unwrap_or_default();
        // A stage that says in its name which platform it is for means it.
        let meant = |part: &str| !part.is_empty() && name.contains(&part.to_lowercase());
        if !meant(os) && !architecture.is_some_and(meant) {
            let message = format!("--platform={word} builds for this platform only");
            let help =
                "use $BUILDPLATFORM or $TARGETPLATFORM, or put the platform into the stage's name";
            findings.add_with_help(&stage.from, word.span, message, Some(help.to_owned()));
        }
    }
}
