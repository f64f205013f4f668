//! Base images have the platform that is built for.

use super::{Findings, Input, Rule};

pub(super) const RULE: Rule = Rule {
    name: "InvalidBaseImagePlatform",
    summary: "Base images have the platform that is built for.",
    experimental: false,
    check,
};

fn check(input: &Input<'_>, findings: &mut Findings<'_>) {
    let Some(platform_of) = input.context.base_platform else { return };
    let globals = input.globals();
    for (index, stage) in input.file.stages.iter().enumerate() {
        let Some(base) = globals.evaluate(&stage.base).and_then(|value| value.text) else {
            continue;
        };
        if base == "scratch" || input.bases[index].is_some() {
            continue;
        }
        let expected = match &stage.platform {
            Some(word) => globals.evaluate(word).and_then(|value| value.text),
            None => input.context.target_platform.map(str::to_owned),
        };
        let (Some(expected), Some(actual)) = (expected, platform_of(&base)) else { continue };
        if os_and_architecture(&expected) != os_and_architecture(&actual) {
            let message = match actual.trim_matches('/') {
                "" => format!("image {base:?} names no platform, this build is for {expected}"),
                _ => format!("image {base:?} is for {actual}, this build for {expected}"),
            };
            findings.add(&stage.from, stage.base.span, message);
        }
    }
}

/// The variant does not count: an arm/v6 image is good for arm/v7.
fn os_and_architecture(platform: &str) -> (String, String) {
    let lower = platform.to_lowercase();
    let mut parts = lower.split('/');
    let (os, architecture) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let architecture = match architecture {
        "x86_64" | "x86-64" => "amd64",
        "aarch64" => "arm64",
        "armhf" | "armel" => "arm",
        "i386" => "386",
        other => other,
    };
    (os.to_owned(), architecture.to_owned())
}
