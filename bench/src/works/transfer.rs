//! Moving images: W6, W7, W8, W10.

use std::cell::RefCell;
use std::process::Command;

use super::Bench;
use crate::failure::{Result, context};
use crate::pack::expect_layout;
use crate::race::Turn;
use crate::registry::Registry;
use crate::tools::expect;

const COPIERS: [&str; 2] = ["rcopy", "skopeo"];

pub(super) fn copy_big(bench: &mut Bench<'_>) -> Result<()> {
    copy(bench, "big", false)
}

pub(super) fn copy_many(bench: &mut Bench<'_>) -> Result<()> {
    copy(bench, "many", false)
}

pub(super) fn copy_big_again(bench: &mut Bench<'_>) -> Result<()> {
    copy(bench, "big", true)
}

pub(super) fn copy_many_again(bench: &mut Bench<'_>) -> Result<()> {
    copy(bench, "many", true)
}

fn copy(bench: &mut Bench<'_>, name: &'static str, again: bool) -> Result<()> {
    let (tools, source) = (bench.tools, bench.fixtures.source()?);
    let image = bench.fixtures.image(name)?;
    let mut turns: Vec<(&'static str, Turn<'_>)> = Vec::new();
    for tool in COPIERS {
        let directory = tools.temporary(&format!("registry.{tool}"));
        let image = image.clone();
        let mut kept = None;
        turns.push((
            tool,
            Box::new(move |lap| {
                let command = |to: &Registry| {
                    let mut command = tools.command(tool);
                    command.args(["copy", "--src-tls-verify=false", "--dest-tls-verify=false"]);
                    command.arg(format!("docker://{}", source.name(name)));
                    command.arg(format!("docker://{}", to.name(name)));
                    command
                };
                if again {
                    if kept.is_none() {
                        let to = Registry::empty(&directory)?;
                        lap.run(command(&to))?;
                        kept = Some(to);
                    }
                    let to = kept.as_ref().map(|to| (to, command(to)));
                    let Some((to, command)) = to else { return Ok(Default::default()) };
                    let usage = lap.run(command)?;
                    return to.holds(name, &image).map(|()| usage);
                }
                let to = Registry::empty(&directory)?;
                let usage = lap.run(command(&to))?;
                to.holds(name, &image)?;
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
                command.args(["copy", "--src-tls-verify=false"]);
                command.arg(format!("docker://{}", source.name("big")));
                command.arg(format!("oci:{}:latest", directory.display()));
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
    let name = format!("docker://{}", source.name("big"));
    lookup(bench, &["inspect", "--config", &name], |text| text.contains("diff_ids"))
}

pub(super) fn tags(bench: &mut Bench<'_>) -> Result<()> {
    let source = bench.fixtures.source()?;
    let name = format!("docker://{}", source.name("tags").trim_end_matches(":latest"));
    let all = |text: &str| text.matches("\"t0").count() == crate::fixtures::TAGS - 1;
    lookup(bench, &["list-tags", &name], all)
}

fn lookup(bench: &mut Bench<'_>, arguments: &[&str], good: fn(&str) -> bool) -> Result<()> {
    let tools = bench.tools;
    let mut turns: Vec<(&'static str, Turn<'_>)> = Vec::new();
    for tool in COPIERS {
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        turns.push((
            tool,
            Box::new(move |lap| {
                let mut command: Command = tools.command(tool);
                let usage = lap.run({
                    command.args(&arguments).arg("--tls-verify=false");
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
