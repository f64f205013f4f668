//! FROM names an image also without build arguments.

use super::{Findings, Input, Rule};
use crate::variables::{BuildVariables, Variables};

pub(super) const RULE: Rule = Rule {
    name: "InvalidDefaultArgInFrom",
    summary: "FROM names an image also without build arguments.",
    experimental: false,
    check,
};

fn check(input: &Input<'_>, findings: &mut Findings<'_>) {
    let globals = Variables::global(input.file, BuildVariables::default());
    for stage in input.file.stages.iter().filter(|stage| !stage.base.text.is_empty()) {
        let Some(value) = globals.evaluate(&stage.base) else { continue };
        let is_stage = |name: &str| input.file.stage(name).is_some();
        let bad = |name: &String| !is_stage(name) && !is_reference(name);
        let Some(name) = value.text.filter(bad) else { continue };
        let message = if name.is_empty() {
            format!("{:?} is empty without build arguments", stage.base.text)
        } else {
            format!(
                "{:?} is {name:?} without build arguments, which names no image",
                stage.base.text
            )
        };
        let help = "give the ARG a default".to_owned();
        findings.add_with_help(&stage.from, stage.base.span, message, Some(help));
    }
}

/// `[host[:port]/]path[:tag][@digest]`, loosely, or a place such as `oci:dir`.
fn is_reference(name: &str) -> bool {
    let places =
        ["oci:", "oci-archive:", "docker-archive:", "dir:", "docker://", "containers-storage:"];
    if places.iter().any(|place| name.starts_with(place)) {
        return true;
    }
    let (name, digest) = name.split_once('@').unwrap_or((name, "sha256:0"));
    let slash = name.rfind('/').map_or(0, |at| at + 1);
    let (path, tag) = match name[slash..].find(':') {
        Some(at) => (&name[..slash + at], &name[slash + at + 1..]),
        None => (name, "latest"),
    };
    let path = match path.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => rest,
        _ => path,
    };
    let part = |part: &str| {
        let edge =
            |ch: Option<char>| ch.is_some_and(|ch| ch.is_ascii_lowercase() || ch.is_ascii_digit());
        edge(part.chars().next())
            && edge(part.chars().last())
            && part
                .chars()
                .all(|ch| ch.is_ascii_lowercase() || ch.is_ascii_digit() || "._-".contains(ch))
    };
    let tag_start = tag.starts_with(|ch: char| ch.is_ascii_alphanumeric() || ch == '_');
    let word = |ch: char| ch.is_ascii_alphanumeric() || "_.-".contains(ch);
    path.split('/').all(part) && tag_start && tag.chars().all(word) && digest.contains(':')
}
