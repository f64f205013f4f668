//! Measures `rbuild` and `rcopy` beside Debian's container tools and crane, on the same inputs and in turns.
//!
//! `cargo run --release -p bench` builds the fixtures it needs once (no network but Debian's
//! package mirror for the base image), runs every work with every tool, checks after each run that
//! the work was done, and prints the Markdown tables of `docs/performance.md`. Nothing here
//! asserts on time: the figures are for people to read.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this program's result is its output"
)]

mod buildkit;
mod disk;
mod failure;
mod fixtures;
mod measure;
mod pack;
mod race;
mod registry;
mod relay;
mod report;
mod tools;
mod works;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::Parser;

use crate::disk::Disk;
use crate::failure::{Failure, Result, context};
use crate::fixtures::Fixtures;
use crate::race::Race;
use crate::tools::Tools;

/// Measure rbuild and rcopy beside buildah, podman, BuildKit, skopeo and crun
#[derive(Debug, Parser)]
struct Arguments {
    /// Only the works whose id or title contains this; repeat for several
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Only these programs: rbuild, rcopy, buildah, podman, buildkit, skopeo, crane, crun, floor
    #[arg(long, value_name = "PROGRAM", value_delimiter = ',')]
    tools: Vec<String>,
    /// How often each program does each work; short works are done four times as often
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// Small inputs and two rounds: to try the harness, not to publish
    #[arg(long)]
    quick: bool,
    /// Write every sample to a file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where inputs are kept between runs
    #[arg(long, value_name = "DIR", default_value = "/var/tmp/rbuild-bench")]
    cache: PathBuf,
    /// Where rbuild and rcopy are (default: build them, and take them from beside this program)
    #[arg(long, value_name = "DIR")]
    bins: Option<PathBuf>,
    /// Where peers are that are not on the PATH, or newer than those: buildctl, buildkitd, crane, ...
    #[arg(long, value_name = "DIR")]
    peers: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::new("the benchmarks compare what root sees; run them as root"));
    }
    private_mounts()?;
    // Monitors that detach from the measured programs come back to us, so that they are waited for.
    context(
        "becoming a subreaper",
        rustix::process::set_child_subreaper(rustix::process::getpid().into()),
    )?;
    let bins = match &arguments.bins {
        Some(bins) => bins.clone(),
        None => build()?,
    };
    let disk = Disk::new()?;
    let tools = Tools::find(&bins, arguments.peers.as_deref(), disk.path(), &arguments.tools)?;
    let fixtures = Fixtures::new(&arguments.cache, arguments.quick)?;
    let rounds = if arguments.quick { 2 } else { arguments.rounds.max(1) };
    let mut race = Race::new(rounds, disk.path());
    for work in works::ALL {
        let wanted = |name: &String| {
            let number = work.id.trim_end_matches(|c: char| c.is_ascii_lowercase());
            work.id == name || number == name || work.title.contains(name.as_str())
        };
        if arguments.only.is_empty() || arguments.only.iter().any(wanted) {
            eprintln!("{} {}", work.id, work.title);
            let done = race.rows.len();
            (work.run)(&mut works::Bench {
                race: &mut race,
                tools: &tools,
                fixtures: &fixtures,
                work,
            })?;
            eprint!("{}", report::lines(&race.rows[done..]));
            if let Some(file) = &arguments.json {
                let text = report::json(&race.rows).to_string();
                context(&format!("writing {}", file.display()), std::fs::write(file, text))?;
            }
        }
    }
    println!("{}", report::markdown(&race.rows, &report::Machine::read(&tools), rounds));
    Ok(())
}

/// Gives this process and all it starts a mount namespace of their own, so that nothing is left
/// mounted whatever happens. In it a second, empty cgroup hierarchy is out of sight: crun 1.8
/// refuses to start on a machine that has one beside version 1.
fn private_mounts() -> Result<()> {
    use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
    // SAFETY: this process has one thread and shares no file descriptors with others.
    let unshared = unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) };
    context("making a mount namespace", unshared)?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    context("making mounts private", mount_change("/", private))?;
    let hybrid = PathBuf::from("/sys/fs/cgroup/unified");
    if hybrid.exists() {
        context("hiding the second cgroup hierarchy", unmount(&hybrid, UnmountFlags::DETACH))?;
    }
    Ok(())
}

/// Builds the programs under test as this one was built; gives back where they are.
fn build() -> Result<PathBuf> {
    let own = context("finding this program", std::env::current_exe())?;
    let bins = own.parent().map(PathBuf::from).unwrap_or_default();
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--release", "--quiet", "-p", "cli", "--bins"]);
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    failure::check(&mut cargo)?;
    Ok(bins)
}
