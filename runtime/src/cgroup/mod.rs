//! Limits: the container's own cgroup, in any of the three forms the kernel's trees come in.
//!
//! A container without limits has no cgroup of its own: its processes end with its pid namespace,
//! and moving a process between cgroups costs more than everything else in its start.

mod limits;
mod place;

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::stage::{Config, Doing, Failure, Reason, Step};
use limits::{Limits, Setting};
use place::Hierarchy;
pub(crate) use place::hierarchies;

/// How often, a millisecond apart, to try to remove a cgroup whose processes are just ending.
const PATIENCE: u32 = 100;

/// What the names of our cgroups begin with: an empty one that nobody holds may be removed.
const PREFIX: &str = "rbuild-";

/// The cgroup of one container: a directory in each tree that has a part of its limits.
///
/// The supervisor holds a lock on each. One that was killed could not remove them; the next to
/// make a cgroup in the same place finds them without a lock, and does.
#[derive(Debug)]
pub(crate) struct Cgroup {
    unified: Option<(PathBuf, OwnedFd)>,
    legacy: Vec<(PathBuf, OwnedFd)>,
}

fn limit(controller: &str, reason: impl Into<String>) -> Failure {
    Failure {
        action: controller.to_owned(),
        subject: reason.into(),
        errno: 0,
        reason: Reason::Limit,
    }
}

impl Cgroup {
    /// Makes the cgroup that the limits of the spec need; none if there are none.
    pub(crate) fn create(config: &Config) -> Step<Option<Cgroup>> {
        let linux = config.spec.linux().as_ref();
        let Some(resources) = linux.and_then(|linux| linux.resources().as_ref()) else {
            return Ok(None);
        };
        let limits = Limits::new(resources);
        if limits.is_empty() {
            return Ok(None);
        }
        let read = |path: &str| fs::read_to_string(path).doing("reading", path);
        let trees = place::find(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?);
        let parent = linux.and_then(|linux| linux.cgroups_path().as_deref());
        let name = format!("{PREFIX}{}", config.id);
        let mut cgroup = Cgroup { unified: None, legacy: Vec::new() };
        let made = cgroup.make(&limits, &trees, parent, &name);
        if let Err(failure) = made {
            cgroup.remove();
            return Err(failure);
        }
        Ok(Some(cgroup))
    }

    fn make(
        &mut self,
        limits: &Limits,
        trees: &[Hierarchy],
        parent: Option<&Path>,
        name: &str,
    ) -> Step {
        let mut unified = Vec::new();
        let mut legacy: Vec<(&Hierarchy, Vec<&str>)> = Vec::new();
        for controller in limits.controllers() {
            let old =
                trees.iter().find(|tree| tree.controllers.iter().any(|name| name == controller));
            match old {
                None => unified.push(controller),
                Some(tree) => match legacy.iter_mut().find(|(known, _)| *known == tree) {
                    Some((_, controllers)) => controllers.push(controller),
                    None => legacy.push((tree, vec![controller])),
                },
            }
        }
        for (tree, controllers) in legacy {
            let directory = base(tree, parent).join(name);
            let held = claim(&directory)
                .map_err(|error| limit(controllers[0], refusal(&directory, &error)))?;
            self.legacy.push((directory.clone(), held));
            if controllers.contains(&"cpuset") {
                inherit_cpuset(&directory)?;
            }
            let settings = limits.legacy();
            write_all(
                &directory,
                settings.iter().filter(|one| controllers.contains(&one.controller)),
            )?;
        }
        if unified.is_empty() {
            return Ok(());
        }
        let tree = trees.iter().find(|tree| tree.unified);
        let tree =
            tree.ok_or_else(|| limit(unified[0], "this machine has no such cgroup controller"))?;
        let directory = delegated(tree, &unified, parent)?.join(name);
        let held =
            claim(&directory).map_err(|error| limit(unified[0], refusal(&directory, &error)))?;
        self.unified = Some((directory.clone(), held));
        let settings = limits.unified();
        write_all(&directory, settings.iter().filter(|one| unified.contains(&one.controller)))
    }

    /// The directory a new process can be made in at once.
    pub(crate) fn unified(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(|(_, fd)| fd.as_fd())
    }

    /// Moves this process into those trees that know no other way.
    pub(crate) fn join(&self) -> Step {
        for (directory, _) in &self.legacy {
            fs::write(directory.join("cgroup.procs"), "0").doing("entering cgroup", directory)?;
        }
        Ok(())
    }

    /// Kills every process in it.
    pub(crate) fn kill(&self) {
        if let Some((directory, _)) = &self.unified
            && fs::write(directory.join("cgroup.kill"), "1").is_ok()
        {
            return;
        }
        for directory in self.directories().iter().take(1) {
            let Ok(pids) = fs::read_to_string(directory.join("cgroup.procs")) else { return };
            for pid in pids.lines().filter_map(|pid| pid.parse().ok()) {
                if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                    // Gone already is as good.
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
        }
    }

    /// Whether the kernel killed something in it for lack of memory.
    pub(crate) fn out_of_memory(&self) -> bool {
        let counts = |path: PathBuf| {
            let text = fs::read_to_string(path).unwrap_or_default();
            text.lines()
                .any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count != "0"))
        };
        self.unified.iter().any(|(directory, _)| counts(directory.join("memory.events")))
            || self.legacy.iter().any(|(directory, _)| counts(directory.join("memory.oom_control")))
    }

    /// Removes it, once its processes are gone.
    pub(crate) fn remove(&self) {
        remove(&self.directories());
    }

    /// Its directories.
    pub(crate) fn directories(&self) -> Vec<PathBuf> {
        self.legacy.iter().chain(&self.unified).map(|(path, _)| path.clone()).collect()
    }
}

/// Removes cgroup directories, waiting a little for their last processes.
pub(crate) fn remove(directories: &[PathBuf]) {
    for directory in directories {
        for _ in 0..PATIENCE {
            match fs::remove_dir(directory) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                _ => break,
            }
        }
    }
}

/// The directory below which a container's cgroup goes.
fn base(tree: &Hierarchy, parent: Option<&Path>) -> PathBuf {
    match parent {
        Some(parent) => tree.top.join(parent.strip_prefix("/").unwrap_or(parent)),
        None => tree.own.clone(),
    }
}

/// Makes a cgroup and locks it, after a look at what the killed have left beside it.
fn claim(directory: &Path) -> io::Result<OwnedFd> {
    directory.parent().into_iter().for_each(sweep);
    for _ in 0..PATIENCE {
        make_directory(directory)?;
        let held = match fs::File::open(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            held => held?,
        };
        held.lock_shared()?;
        // Somebody may have swept it away before it was locked.
        let ours = held.metadata()?.ino();
        if fs::metadata(directory).is_ok_and(|found| found.ino() == ours) {
            return Ok(held.into());
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

/// Removes the cgroups of supervisors that are no more.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes())
            && let Ok(abandoned) = fs::File::open(entry.path())
            && abandoned.try_lock().is_ok()
        {
            // Not empty yet, or swept by another, is as good.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

fn make_directory(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir_all(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn refusal(path: &Path, error: &io::Error) -> String {
    format!("cannot make cgroup {}: {error}", path.display())
}

fn write_all<'a>(directory: &Path, settings: impl Iterator<Item = &'a Setting>) -> Step {
    for Setting { controller, file, value, optional } in settings {
        if file.contains('/') {
            return Err(limit(controller, format!("{file:?} is no file of a cgroup")));
        }
        match fs::write(directory.join(file), value) {
            Err(_) if *optional => {}
            Err(error) => {
                return Err(limit(controller, format!("cannot set {file} to {value}: {error}")));
            }
            Ok(()) => {}
        }
    }
    Ok(())
}

/// A new cpuset of the older kind is empty, and takes no process before it has cpus and nodes.
fn inherit_cpuset(directory: &Path) -> Step {
    let above = directory.parent().unwrap_or(directory);
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let value = fs::read_to_string(above.join(file)).doing("reading", above.join(file))?;
        fs::write(directory.join(file), value.trim()).doing("writing", directory.join(file))?;
    }
    Ok(())
}

/// The nearest directory of the unified tree, from this process's own upwards, below which the
/// controllers can be had. Only a directory without processes of its own, or the very top, can
/// hand controllers down.
fn delegated(tree: &Hierarchy, needed: &[&str], parent: Option<&Path>) -> Step<PathBuf> {
    let start = base(tree, parent);
    if parent.is_some() {
        make_directory(&start).map_err(|error| limit(needed[0], refusal(&start, &error)))?;
    }
    let mut reason = format!("{} has no such cgroup controller", tree.top.display());
    for directory in start.ancestors().take_while(|directory| directory.starts_with(&tree.top)) {
        match hand_down(directory, needed) {
            Ok(()) => return Ok(directory.to_owned()),
            Err(why) => reason = why,
        }
    }
    Err(limit(&needed.join(", "), reason))
}

fn hand_down(directory: &Path, needed: &[&str]) -> Result<(), String> {
    let list = |file: &str| fs::read_to_string(directory.join(file)).unwrap_or_default();
    let has = |text: &str, name: &str| text.split_whitespace().any(|known| known == name);
    let available = list("cgroup.controllers");
    if let Some(missing) = needed.iter().find(|name| !has(&available, name)) {
        return Err(format!(
            "cgroup {} was not given the {missing} controller",
            directory.display()
        ));
    }
    let enabled = list("cgroup.subtree_control");
    let missing: Vec<_> =
        needed.iter().filter(|name| !has(&enabled, name)).map(|name| format!("+{name}")).collect();
    if !missing.is_empty() {
        fs::write(directory.join("cgroup.subtree_control"), missing.join(" ")).map_err(
            |error| {
                format!(
                    "cannot enable {} in cgroup {}: {error}",
                    missing.join(" "),
                    directory.display()
                )
            },
        )?;
    }
    let probe = rustix::fs::access(directory, rustix::fs::Access::WRITE_OK);
    probe.map_err(|error| format!("cannot write to cgroup {}: {error}", directory.display()))
}
