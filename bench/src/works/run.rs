//! Running: W9.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::Bench;
use crate::failure::{Failure, Result, check, context, output};
use crate::race::Turn;
use crate::tools::Builder;

pub(super) fn start(bench: &mut Bench<'_>) -> Result<()> {
    let tools = bench.tools;
    let base = bench.fixtures.source()?.name("base");
    let mut turns: Vec<(&'static str, Turn<'_>)> = Vec::new();
    for builder in tools.builders().into_iter().filter(|builder| *builder != Builder::Buildah) {
        let store = tools.store(builder, "stores")?;
        check(&mut store.pull(&base))?;
        let base = base.clone();
        turns.push((
            builder.name(),
            Box::new(move |lap| {
                let mut command = store.command();
                command.args(["run", "--rm", "--network", "none", &base, "true"]);
                let usage = lap.run(command)?;
                let left = output(store.command().args(["ps", "-a", "-q"]))?;
                match left.is_empty() {
                    true => Ok(usage),
                    false => Err(Failure::new("the container is still there")),
                }
            }),
        ));
    }
    let bundle = tools.temporary("bundle");
    unpack(&bundle, &bench.fixtures.rootfs()?)?;
    if tools.has("crun") {
        configure(tools.command("crun"), &bundle)?;
    }
    let state = tools.temporary("crun");
    let directory = bundle.clone();
    let crun: Turn<'_> = Box::new(move |lap| {
        let mut command = tools.command("crun");
        command.arg("--root").arg(&state).args(["run", "--bundle"]).arg(&directory);
        lap.run({
            command.arg(format!("lap{}", lap.number));
            command
        })
    });
    turns.push(("crun", crun));
    let floor: Turn<'_> = Box::new(move |lap| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "chroot"]);
        lap.run({
            command.arg(bundle.join("rootfs")).arg("true");
            command
        })
    });
    turns.push(("floor", floor));
    bench.race(8, turns);
    Ok(())
}

fn unpack(bundle: &Path, tar: &Path) -> Result<()> {
    let rootfs = bundle.join("rootfs");
    context("making a bundle", std::fs::create_dir_all(&rootfs))?;
    check(Command::new("tar").arg("-xpf").arg(tar).arg("-C").arg(&rootfs))
}

/// The configuration that the runtime itself proposes, without a terminal, running `true`.
fn configure(mut runtime: Command, bundle: &Path) -> Result<()> {
    check(runtime.arg("spec").current_dir(bundle))?;
    let file = bundle.join("config.json");
    let text = context("reading the bundle", std::fs::read(&file))?;
    let mut spec: Value = context("reading the bundle", serde_json::from_slice(&text))?;
    spec["process"]["terminal"] = Value::Bool(false);
    spec["process"]["args"] = Value::from(vec!["true"]);
    context("writing the bundle", std::fs::write(&file, spec.to_string()))
}
