//! What is done with the cgroups of a container that runs: only their directories are known.

use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use rustix::process::{Pid, Signal, kill_process};

use super::limits::{Limits, Setting};
use super::{limit, with_children, write_all};
use crate::stage::{ErrorContext, Step};

/// How often, a millisecond apart, to look whether all processes have stopped or ended.
const PATIENCE: u32 = 2000;

/// Moves this process into them.
pub(crate) fn enter(directories: &[PathBuf]) -> Step {
    directories.iter().try_for_each(|directory| {
        fs::write(directory.join("cgroup.procs"), "0").doing("entering cgroup", directory)
    })
}

/// Every process in them and below.
pub(crate) fn processes(directories: &[PathBuf]) -> Vec<u32> {
    let all = directories.iter().flat_map(|top| with_children(top));
    let texts = all.filter_map(|one| fs::read_to_string(one.join("cgroup.procs")).ok());
    let mut pids: Vec<u32> = texts
        .flat_map(|text| text.lines().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

/// Kills every process in them and below, and waits until they are gone.
pub(crate) fn end(directories: &[PathBuf]) {
    for _ in 0..PATIENCE {
        let killed = directories.iter().any(|one| fs::write(one.join("cgroup.kill"), "1").is_ok());
        let left = processes(directories);
        if left.is_empty() {
            return;
        }
        for pid in left.iter().filter(|_| !killed) {
            if let Some(pid) = i32::try_from(*pid).ok().and_then(Pid::from_raw) {
                // Gone already is as good.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        // What is frozen ends when it thaws.
        let _ = set_frozen(directories, false);
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// The file that freezes, and what it says.
fn freezer(directory: &Path) -> Option<(PathBuf, &'static str, &'static str)> {
    let forms = [("freezer.state", "FROZEN", "THAWED"), ("cgroup.freeze", "1", "0")];
    let found = forms.into_iter().find(|(file, ..)| directory.join(file).exists());
    found.map(|(file, frozen, thawed)| (directory.join(file), frozen, thawed))
}

fn set_frozen(directories: &[PathBuf], frozen: bool) -> Option<std::io::Result<()>> {
    let (file, yes, no) = directories.iter().find_map(|one| freezer(one))?;
    Some(fs::write(file, if frozen { yes } else { no }))
}

/// Whether all processes are stopped.
pub(crate) fn is_frozen(directories: &[PathBuf]) -> bool {
    directories.iter().find_map(|one| freezer(one)).is_some_and(|(file, frozen, _)| {
        fs::read_to_string(file).is_ok_and(|text| text.trim() == frozen)
    })
}

/// Stops all processes, or lets them go on.
pub(crate) fn freeze(directories: &[PathBuf], frozen: bool) -> Step {
    match set_frozen(directories, frozen) {
        None => return Err(limit("freezer", "the container has no cgroup that can")),
        Some(Err(error)) => return Err(limit("freezer", error.to_string())),
        Some(Ok(())) => {}
    }
    for _ in 0..PATIENCE {
        if is_frozen(directories) == frozen && !is_freezing(directories) {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    Err(limit("freezer", "the processes did not stop in time"))
}

/// Whether the unified tree is still on its way, if it is the one that freezes.
fn is_freezing(directories: &[PathBuf]) -> bool {
    let first = directories.iter().find_map(|one| Some((one, freezer(one)?.0)));
    let Some((directory, file)) = first else { return false };
    if !file.ends_with("cgroup.freeze") {
        return false;
    }
    let wanted = if is_frozen(directories) { "frozen 1" } else { "frozen 0" };
    let events = fs::read_to_string(directory.join("cgroup.events")).unwrap_or_default();
    !events.lines().any(|line| line == wanted)
}

/// Changes limits.
pub(crate) fn update(directories: &[PathBuf], resources: &LinuxResources) -> Step {
    let limits = Limits::new(resources)?;
    let mut left: Vec<&'static str> = limits.controllers();
    for directory in directories {
        let unified = directory.join("cgroup.controllers").exists();
        let settings = if unified { limits.unified() } else { limits.legacy() };
        let here = |setting: &&Setting| setting.optional || directory.join(&setting.file).exists();
        let own: Vec<&Setting> = settings.iter().filter(here).collect();
        left.retain(|name| !own.iter().any(|setting| setting.controller == *name));
        // Memory must stay below memory and swap: which of both goes first depends on both.
        let refused = own.iter().filter(|one| write_all(directory, [**one].into_iter()).is_err());
        let refused: Vec<&Setting> = refused.copied().collect();
        write_all(directory, refused.into_iter())?;
    }
    match left.first() {
        Some(controller) => Err(limit(controller, "the container's cgroup does not have it")),
        None => Ok(()),
    }
}
