//! Moving images: W6, W7, W8, W10.

use std::cell::RefCell;
use std::process::Command;

use super::Bench;
use crate::failure::{Result, context};
use crate::pack::expect_layout;
use crate::race::Turn;
use crate::registry::Registry;
use crate::relay::Relay;
use crate::tools::{Tools, expect};

const COPIERS: [&str; 3] = ["rcopy", "skopeo", "crane"];

pub(super) fn copy_big(bench: &mut Bench<'_>) -> Result<()> {
    copy(bench, "big", false, false)
}

pub(super) fn copy_many(bench: &mut Bench<'_>) -> Result<()> {
    copy(bench, "many", false, false)
}

pub(super) fn copy_big_again(bench: &mut Bench<'_>) -> Result<()> {
    copy(bench, "big", true, false)
}

pub(super) fn copy_many_again(bench: &mut Bench<'_>) -> Result<()> {
    copy(bench, "many", true, false)
}

pub(super) fn copy_big_far(bench: &mut Bench<'_>) -> Result<()> {
    copy(bench, "big", false, true)
}

pub(super) fn copy_many_far(bench: &mut Bench<'_>) -> Result<()> {
    copy(bench, "many", false, true)
}

pub(super) fn copy_big_again_far(bench: &mut Bench<'_>) -> Result<()> {
    copy(bench, "big", true, true)
}

pub(super) fn copy_many_again_far(bench: &mut Bench<'_>) -> Result<()> {
    copy(bench, "many", true, true)
}

/// A registry as the programs see it: as it is, or 20 ms away.
struct RegistryView {
    registry: Registry,
    relay: Option<Relay>,
}

impl RegistryView {
    fn new(registry: Registry, far: bool) -> Result<RegistryView> {
        let relay = if far { Some(registry.far()?) } else { None };
        Ok(RegistryView { registry, relay })
    }

    fn name(&self, repository: &str) -> String {
        name(&self.registry, self.relay.as_ref(), repository)
    }
}

fn name(registry: &Registry, relay: Option<&Relay>, repository: &str) -> String {
    match relay {
        Some(relay) => format!("127.0.0.1:{}/{repository}:latest", relay.port),
        None => registry.name(repository),
    }
}

/// How each program copies between registries.
fn copy_between(tools: &Tools, tool: &str, from: &str, to: &str) -> Command {
    let mut command = tools.command(tool);
    if tool == "crane" {
        command.args(["copy", "--insecure", from, to]);
        return command;
    }
    command.args(["copy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false"]);
    command.args([format!("docker://{from}"), format!("docker://{to}")]);
    command
}

fn copy(bench: &mut Bench<'_>, name: &'static str, again: bool, far: bool) -> Result<()> {
    let (tools, source) = (bench.tools, bench.fixtures.source()?);
    let relay = if far { Some(source.far()?) } else { None };
    let from = self::name(source, relay.as_ref(), name);
    let image = bench.fixtures.image(name)?;
    let mut turns: Vec<(&'static str, Turn<'_>)> = Vec::new();
    for tool in COPIERS {
        let directory = tools.temporary(&format!("registry.{tool}"));
        let (image, from) = (image.clone(), from.clone());
        let mut kept = None;
        turns.push((
            tool,
            Box::new(move |lap| {
                let command = |to: &RegistryView| copy_between(tools, tool, &from, &to.name(name));
                if again {
                    if kept.is_none() {
                        let to = RegistryView::new(Registry::empty(&directory)?, far)?;
                        lap.run(command(&to))?;
                        kept = Some(to);
                    }
                    let to = kept.as_ref().map(|to| (to, command(to)));
                    let Some((to, command)) = to else { return Ok(Default::default()) };
                    let usage = lap.run(command)?;
                    return to.registry.holds(name, &image).map(|()| usage);
                }
                let to = RegistryView::new(Registry::empty(&directory)?, far)?;
                let usage = lap.run(command(&to))?;
                to.registry.holds(name, &image)?;
                drop(to);
                context("emptying a registry", std::fs::remove_dir_all(&directory))?;
                Ok(usage)
            }),
        ));
    }
    bench.race(if name == "many" || again { 4 } else { 2 }, turns);
    Ok(())
}

pub(super) fn layout(bench: &mut Bench<'_>) -> Result<()> {
    let (tools, source) = (bench.tools, bench.fixtures.source()?);
    let image = bench.fixtures.image("big")?;
    let mut turns: Vec<(&'static str, Turn<'_>)> = Vec::new();
    for tool in COPIERS {
        let directory = tools.temporary(&format!("layout.{tool}"));
        let image = image.clone();
        turns.push((
            tool,
            Box::new(move |lap| {
                let mut command = tools.command(tool);
                if tool == "crane" {
                    command.args(["pull", "--insecure", "--format=oci", &source.name("big")]);
                    command.arg(&directory);
                } else {
                    command.args(["copy", "--quiet", "--src-tls-verify=false"]);
                    command.arg(format!("docker://{}", source.name("big")));
                    command.arg(format!("oci:{}:latest", directory.display()));
                }
                let usage = lap.run(command)?;
                expect_layout(&directory, &image)?;
                context("removing a layout", std::fs::remove_dir_all(&directory))?;
                Ok(usage)
            }),
        ));
    }
    bench.race(2, turns);
    Ok(())
}

pub(super) fn pull(bench: &mut Bench<'_>) -> Result<()> {
    let (tools, source) = (bench.tools, bench.fixtures.source()?);
    let agreed = RefCell::new(None);
    let agreed = &agreed;
    let mut turns: Vec<(&'static str, Turn<'_>)> = Vec::new();
    for builder in tools.builders() {
        turns.push((
            builder.name(),
            Box::new(move |lap| {
                let store = tools.store(builder, "stores")?;
                let name = source.name("big");
                let usage = lap.run(store.pull(&name))?;
                // All programs must find the same files in what they unpacked.
                let script = "find /usr /var -type f -printf '%p %s %m\\n' | sort | sha256sum";
                let found = store.script(&name, script)?;
                let first = agreed.borrow_mut().get_or_insert(found.clone()).clone();
                expect(found == first, || "it unpacked something else".to_owned())?;
                Ok(usage)
            }),
        ));
    }
    bench.race(1, turns);
    Ok(())
}

pub(super) fn inspect(bench: &mut Bench<'_>) -> Result<()> {
    let source = bench.fixtures.source()?;
    let name = source.name("big");
    let ours = ["inspect".to_owned(), "--config".to_owned(), format!("docker://{name}")];
    lookup(bench, &ours, &["config".to_owned(), name], |text| text.contains("diff_ids"))
}

pub(super) fn tags(bench: &mut Bench<'_>) -> Result<()> {
    let source = bench.fixtures.source()?;
    let name = source.name("tags").trim_end_matches(":latest").to_owned();
    let all = |text: &str| text.matches("t0").count() == crate::fixtures::TAGS - 1;
    let ours = ["list-tags".to_owned(), format!("docker://{name}")];
    lookup(bench, &ours, &["ls".to_owned(), name], all)
}

/// Asks a registry for something: skopeo's arguments, which are ours, and crane's.
fn lookup(
    bench: &mut Bench<'_>,
    arguments: &[String],
    cranes: &[String],
    good: fn(&str) -> bool,
) -> Result<()> {
    let tools = bench.tools;
    let mut turns: Vec<(&'static str, Turn<'_>)> = Vec::new();
    for tool in COPIERS {
        let crane = tool == "crane";
        let mut arguments = if crane { cranes } else { arguments }.to_vec();
        arguments.push(if crane { "--insecure" } else { "--tls-verify=false" }.to_owned());
        turns.push((
            tool,
            Box::new(move |lap| {
                let mut command: Command = tools.command(tool);
                let usage = lap.run({
                    command.args(&arguments);
                    command
                })?;
                expect(good(&lap.output()), || format!("{tool} printed something else"))?;
                Ok(usage)
            }),
        ));
    }
    bench.race(8, turns);
    Ok(())
}
