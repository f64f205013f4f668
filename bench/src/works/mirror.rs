//! Mirroring: W11.

use std::process::Command;

use super::Bench;
use crate::failure::{Result, check};
use crate::race::Turn;
use crate::registry::Registry;
use crate::tools::{Tools, expect};

/// How many tags the repository has.
const TAGS: usize = 1_000;
const REPOSITORY: &str = "mirrored";

/// A mirror that has every tag already: what it costs to see that.
pub(super) fn unchanged(bench: &mut Bench<'_>) -> Result<()> {
    let tools = bench.tools;
    let image = bench.fixtures.image("base")?;
    let count = bench.fixtures.scaled(TAGS);
    let source = Registry::empty(&tools.temporary("registry.mirrored"))?;
    let mut push = tools.command("skopeo");
    push.args(["copy", "--quiet", "--preserve-digests"]);
    push.args(["--src-tls-verify=false", "--dest-tls-verify=false"]);
    push.arg(format!("docker://{}", bench.fixtures.source()?.name("base")));
    check(push.arg(format!("docker://{}", source.name(REPOSITORY))))?;
    source.tag_many(REPOSITORY, &image, count)?;
    let source = &source;
    let mut turns: Vec<(&'static str, Turn<'_>)> = Vec::new();
    for tool in ["rcopy", "skopeo", "crane"] {
        let directory = tools.temporary(&format!("registry.{tool}"));
        let image = image.clone();
        let mut kept = None;
        turns.push((
            tool,
            Box::new(move |lap| {
                if kept.is_none() {
                    let to = Registry::empty(&directory)?;
                    lap.run(mirror(tools, tool, source, &to))?;
                    kept = Some(to);
                }
                let command = kept.as_ref().map(|to| (to, mirror(tools, tool, source, to)));
                let Some((to, command)) = command else { return Ok(Default::default()) };
                let usage = lap.run(command)?;
                to.holds(REPOSITORY, &image)?;
                let found = to.tags(REPOSITORY)?;
                expect(found == count, || format!("the mirror has {found} tags"))?;
                Ok(usage)
            }),
        ));
    }
    bench.race(1, turns);
    Ok(())
}

fn mirror(tools: &Tools, tool: &str, from: &Registry, to: &Registry) -> Command {
    let bare = |name: String| name.trim_end_matches(":latest").to_owned();
    let (from, target) = (bare(from.name(REPOSITORY)), bare(to.name(REPOSITORY)));
    let mut command = tools.command(tool);
    if tool == "crane" {
        command.args(["copy", "--insecure", "--all-tags", &from, &target]);
        return command;
    }
    command.args(["sync", "--src", "docker", "--dest", "docker"]);
    command.args(["--src-tls-verify=false", "--dest-tls-verify=false"]);
    if tool == "rcopy" {
        command.arg("--state").arg(tools.temporary("mirror.json"));
    }
    // Both put the repository's name behind the destination.
    command.args([&from, target.trim_end_matches(&format!("/{REPOSITORY}"))]);
    command
}
