//! Building: W1 to W5.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::Bench;
use crate::failure::{Result, check, context};
use crate::race::Turn;
use crate::registry::Registry;
use crate::tools::{Builder, Store};

/// Writes a Dockerfile beside the stores; a shared one, as all builders read the same.
fn dockerfile(bench: &Bench<'_>, text: &str) -> Result<PathBuf> {
    let file = bench.tools.temporary(&format!("Dockerfile.{}", bench.work.id));
    context("writing a Dockerfile", std::fs::write(&file, text))?;
    Ok(file)
}

/// The context on the same file system as the stores, as it is for most people.
fn copied(bench: &Bench<'_>, from: &Path) -> Result<PathBuf> {
    let to = bench.tools.temporary(&format!("context.{}", bench.work.id));
    check(Command::new("cp").args(["-a"]).args([from, &to]))?;
    Ok(to)
}

fn base(bench: &Bench<'_>) -> Result<String> {
    Ok(bench.fixtures.source()?.name("base"))
}

/// A store that holds the base image.
fn stocked<'a>(bench: &Bench<'a>, builder: Builder) -> Result<Store<'a>> {
    let store = bench.tools.store(builder, "stores")?;
    check(&mut store.pull(&base(bench)?))?;
    Ok(store)
}

/// An application's Dockerfile in the usual order: tools, requirements, sources last.
fn application(base: &str) -> String {
    format!(
        "FROM {base}\nENV LANG=C.UTF-8 PYTHONUNBUFFERED=1\nWORKDIR /app\n\
         RUN mkdir -p /opt/tools && for i in $(seq 200); do echo $i > /opt/tools/$i; done\n\
         COPY requirements.txt .\n\
         RUN cp requirements.txt /opt/ && head -c 20000000 /dev/urandom > /opt/wheel\n\
         COPY . .\nLABEL org.opencontainers.image.title=app\nENV PORT=8080\nEXPOSE 8080\n\
         USER nobody\nCMD [\"/bin/cat\", \"src/main.py\"]\n"
    )
}

pub(super) fn cached(bench: &mut Bench<'_>) -> Result<()> {
    let context = copied(bench, &bench.fixtures.small_context()?)?;
    let file = dockerfile(bench, &application(&base(bench)?))?;
    let mut turns: Vec<(&'static str, Turn<'_>)> = Vec::new();
    for builder in bench.tools.builders() {
        let store = stocked(bench, builder)?;
        let (file, context) = (file.clone(), context.clone());
        let mut first = true;
        turns.push((
            builder.name(),
            Box::new(move |lap| {
                if std::mem::take(&mut first) {
                    check(&mut store.build(&file, &context, "localhost/app:latest"))?;
                }
                let usage = lap.run(store.build(&file, &context, "localhost/app:latest"))?;
                store.script("localhost/app:latest", "test -f /app/src/main.py")?;
                Ok(usage)
            }),
        ));
    }
    bench.race(4, turns);
    Ok(())
}

pub(super) fn changed_small(bench: &mut Bench<'_>) -> Result<()> {
    let context = copied(bench, &bench.fixtures.small_context()?)?;
    let text = application(&base(bench)?);
    changed(bench, &context, &text, "/app", 4)
}

pub(super) fn changed_large(bench: &mut Bench<'_>) -> Result<()> {
    let context = copied(bench, &bench.fixtures.large_context()?)?;
    let text = format!("FROM {}\nCOPY . /app\nCMD [\"/bin/true\"]\n", base(bench)?);
    changed(bench, &context, &text, "/app", 1)
}

fn changed(
    bench: &mut Bench<'_>,
    directory: &Path,
    text: &str,
    target: &str,
    times: usize,
) -> Result<()> {
    let file = dockerfile(bench, text)?;
    let mut turns: Vec<(&'static str, Turn<'_>)> = Vec::new();
    for builder in bench.tools.builders() {
        let store = stocked(bench, builder)?;
        let (file, directory) = (file.clone(), directory.to_owned());
        let script = |number| format!("grep -q \"'lap {number}'\" {target}/src/main.py");
        let mut first = true;
        turns.push((
            builder.name(),
            Box::new(move |lap| {
                if std::mem::take(&mut first) {
                    check(&mut store.build(&file, &directory, "localhost/app:latest"))?;
                }
                let source = directory.join("src/main.py");
                let line = format!("print('lap {}')\n", lap.number);
                context("changing a file", std::fs::write(source, line))?;
                let usage = lap.run(store.build(&file, &directory, "localhost/app:latest"))?;
                store.script("localhost/app:latest", &script(lap.number))?;
                Ok(usage)
            }),
        ));
    }
    bench.race(times, turns);
    Ok(())
}

pub(super) fn first_copy(bench: &mut Bench<'_>) -> Result<()> {
    let directory = copied(bench, &bench.fixtures.large_context()?)?;
    let count = bench.fixtures.scaled(crate::fixtures::LARGE) + 2;
    let text = format!("FROM {}\nCOPY . /app\nCMD [\"/bin/true\"]\n", base(bench)?);
    let file = dockerfile(bench, &text)?;
    let base = base(bench)?;
    let mut turns: Vec<(&'static str, Turn<'_>)> = Vec::new();
    for builder in bench.tools.builders() {
        let (file, directory, base) = (file.clone(), directory.clone(), base.clone());
        let tools = bench.tools;
        turns.push((
            builder.name(),
            Box::new(move |lap| {
                // A new store each time: nothing may be remembered of the files.
                let store = tools.store(builder, "stores")?;
                check(&mut store.pull(&base))?;
                let usage = lap.run(store.build(&file, &directory, "localhost/app:latest"))?;
                let script = format!("test $(find /app -type f | wc -l) = {count}");
                store.script("localhost/app:latest", &script)?;
                Ok(usage)
            }),
        ));
    }
    bench.race(1, turns);
    Ok(())
}

/// Half of it does not compress, half does.
fn write_gigabyte(bench: &Bench<'_>) -> (String, String) {
    let half = bench.fixtures.scaled(512 << 20);
    let script = format!(
        "head -c {half} /dev/urandom > big.random && yes 0123456789abcdef | head -c {half} > big.text"
    );
    let test = format!(
        "cd / && test $(stat -c %s big.random) = {half} && test $(stat -c %s big.text) = {half}"
    );
    (script, test)
}

pub(super) fn gigabyte(bench: &mut Bench<'_>) -> Result<()> {
    let (script, test) = write_gigabyte(bench);
    let mut turns = big_run(bench, &script, &test, None)?;
    let directory = bench.tools.temporary("floor");
    let floor: Turn<'_> = Box::new(move |lap| {
        context("making a directory", std::fs::create_dir_all(&directory))?;
        let mut shell = Command::new("/bin/sh");
        let usage = lap.run({
            shell.args(["-ec", &script]).current_dir(&directory);
            shell
        });
        context("removing a directory", std::fs::remove_dir_all(&directory))?;
        usage
    });
    turns.push(("floor", floor));
    bench.race(1, turns);
    Ok(())
}

pub(super) fn gigabyte_gzip(bench: &mut Bench<'_>) -> Result<()> {
    let (script, test) = write_gigabyte(bench);
    let turns = big_run(bench, &script, &test, Some("gzip"))?;
    bench.race(1, turns);
    Ok(())
}

pub(super) fn gigabyte_zstd(bench: &mut Bench<'_>) -> Result<()> {
    let (script, test) = write_gigabyte(bench);
    let turns = big_run(bench, &script, &test, Some("zstd"))?;
    bench.race(1, turns);
    Ok(())
}

fn big_run<'a>(
    bench: &Bench<'a>,
    script: &str,
    test: &str,
    push: Option<&'static str>,
) -> Result<Vec<(&'static str, Turn<'a>)>> {
    let base = base(bench)?;
    let registry = bench.tools.temporary("registry");
    let mut turns: Vec<(&'static str, Turn<'a>)> = Vec::new();
    for builder in bench.tools.builders() {
        let store = stocked(bench, builder)?;
        let file =
            bench.tools.temporary(&format!("Dockerfile.{}.{}", bench.work.id, builder.name()));
        let (base, script, test) = (base.clone(), script.to_owned(), test.to_owned());
        let (registry, empty) = (registry.clone(), bench.tools.temporary("empty"));
        turns.push((
            builder.name(),
            Box::new(move |lap| {
                let text = format!("FROM {base}\nENV LAP={}\nRUN {script}\n", lap.number);
                context("writing a Dockerfile", std::fs::write(&file, text))?;
                context("making a directory", std::fs::create_dir_all(&empty))?;
                let Some(compression) = push else {
                    let usage = lap.run(store.build(&file, &empty, "localhost/app:latest"))?;
                    store.script("localhost/app:latest", &test)?;
                    store.remove("localhost/app:latest")?;
                    return Ok(usage);
                };
                let registry = Registry::empty(&registry)?;
                let name = registry.name("app");
                let mut build = store.build(&file, &empty, &name);
                match builder {
                    Builder::Rbuild => drop(build.args(["--compression", compression])),
                    // Its build is its push.
                    Builder::Buildkit => {
                        let to = format!(
                            "type=image,name={name},push=true,compression={compression},oci-mediatypes=true"
                        );
                        build.args(["--output", &to]);
                    }
                    Builder::Buildah | Builder::Podman => {}
                }
                let mut usage = lap.run(build)?;
                if builder != Builder::Buildkit {
                    usage = usage.and(lap.run(store.push(&name, &name, compression))?);
                }
                store.remove(&name)?;
                check(&mut store.pull(&name))?;
                store.script(&name, &test)?;
                store.remove(&name)?;
                Ok(usage)
            }),
        ));
    }
    Ok(turns)
}

pub(super) fn steps(bench: &mut Bench<'_>) -> Result<()> {
    let base = base(bench)?;
    let mut turns: Vec<(&'static str, Turn<'_>)> = Vec::new();
    for builder in bench.tools.builders() {
        let store = stocked(bench, builder)?;
        let file = bench.tools.temporary(&format!("Dockerfile.W5.{}", builder.name()));
        let (base, empty) = (base.clone(), bench.tools.temporary("empty"));
        turns.push((
            builder.name(),
            Box::new(move |lap| {
                context("making a directory", std::fs::create_dir_all(&empty))?;
                let build = |count: u32| {
                    let mut text = format!("FROM {base}\nENV LAP={}.{count}\n", lap.number);
                    for step in 0..count {
                        text += &format!("RUN echo {step} > /step.{step}\n");
                    }
                    context("writing a Dockerfile", std::fs::write(&file, text))?;
                    let usage = lap.run(store.build(&file, &empty, "localhost/app:latest"))?;
                    let script = format!("test $(ls /step.* | wc -l) = {count}");
                    store.script("localhost/app:latest", &script)?;
                    store.remove("localhost/app:latest")?;
                    Ok(usage)
                };
                Ok(build(5)?.slope(build(35)?, 30))
            }),
        ));
    }
    bench.race(1, turns);
    Ok(())
}
