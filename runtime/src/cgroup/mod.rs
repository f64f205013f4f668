//! Limits: the container's own cgroup, in any of the three forms the kernel's trees come in.
//!
//! A container that lives no longer than its starter, without limits and without a parent that was
//! asked for, has no cgroup of its own: its processes end with its pid namespace or its supervisor,
//! and moving a process between cgroups costs more than everything else in its start. One that
//! outlives its starter is in a cgroup outside the starter's, where that is possible: so it does not
//! end with a session or a job, and can be paused and limited later.

mod devices;
mod limits;
mod place;
mod running;

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::stage::{ErrorContext, Failure, Reason, Role, StageConfig, Step};
pub(crate) use devices::all as all_devices;
use limits::{Limits, Setting};
use place::Hierarchy;
pub(crate) use place::hierarchies;
pub(crate) use running::{end, enter, freeze, is_frozen, processes, update};

/// How often, a millisecond apart, to try to remove a cgroup whose processes are just ending.
const PATIENCE: u32 = 100;

/// The prefix of the names of our cgroups: an empty one that no process holds may be removed.
const PREFIX: &str = "rbuild-";

/// Where the cgroups of containers are that outlive their starter.
const USUAL: &str = "/rbuild";

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

/// What is handled like a controller: the older trees have one of this name, the unified one a
/// program in the kernel.
const DEVICES: &str = "devices";

/// The request for a container's cgroup.
struct CgroupRequest<'a> {
    limits: Limits,
    devices: Option<Vec<devices::Rule>>,
    parent: Option<&'a Path>,
    /// Whether the parent was not asked for.
    usual: bool,
    name: String,
}

impl<'a> CgroupRequest<'a> {
    fn new(config: &'a StageConfig) -> Step<CgroupRequest<'a>> {
        let linux = config.spec.linux().as_ref();
        let resources = linux.and_then(|linux| linux.resources().as_ref());
        let engine = matches!(config.role, Role::Create(_));
        let devices = match crate::in_user_namespace() {
            // Only root of the machine may set rules.
            true => None,
            false => devices::enforced(&config.spec, engine),
        };
        let limits = resources.map(Limits::new).transpose()?.unwrap_or_default();
        let path = linux.and_then(|linux| linux.cgroups_path().as_deref());
        if !engine {
            let name = format!("{PREFIX}{}", config.id);
            let kept = matches!(config.role, Role::Monitor { .. }) && !crate::in_user_namespace();
            let usual = path.is_none() && kept;
            let parent = path.or(usual.then_some(Path::new(USUAL)));
            return Ok(CgroupRequest { limits, devices, parent, usual, name });
        }
        // An engine says where exactly, and expects a place in every tree. An ordinary user may have
        // none, and needs none without limits.
        let path = path.filter(|path| path.file_name().is_some());
        let (parent, name) = match path.and_then(|path| Some((path.parent()?, path.file_name()?))) {
            Some((parent, name)) => (parent, name.to_string_lossy().into_owned()),
            None => (Path::new("/"), format!("container-{}", config.id)),
        };
        let needs = !crate::in_user_namespace() || !limits.is_empty();
        let parent = needs.then_some(parent);
        Ok(CgroupRequest { limits, devices, parent, usual: false, name })
    }

    fn is_empty(&self) -> bool {
        self.limits.is_empty() && self.devices.is_none() && self.parent.is_none()
    }

    /// Which controllers are wanted in which of the older trees, and which in the unified one.
    fn spread<'t>(
        &self,
        trees: &'t [Hierarchy],
    ) -> (Vec<(&'t Hierarchy, Vec<&'static str>)>, Vec<&'static str>) {
        let older = || trees.iter().filter(|tree| !tree.unified);
        let (mut legacy, mut unified) = (Vec::<(&Hierarchy, Vec<&str>)>::new(), Vec::new());
        if self.parent.is_some() {
            legacy.extend(older().map(|tree| (tree, Vec::new())));
        }
        let devices = self.devices.is_some().then_some(DEVICES);
        for controller in self.limits.controllers().into_iter().chain(devices) {
            // The older trees call it otherwise.
            let name = if controller == "io" { "blkio" } else { controller };
            let old = older().find(|tree| tree.controllers.iter().any(|known| known == name));
            let Some(tree) = old else {
                unified.push(controller);
                continue;
            };
            match legacy.iter_mut().find(|(known, _)| *known == tree) {
                Some((_, controllers)) => controllers.push(controller),
                None => legacy.push((tree, vec![controller])),
            }
        }
        (legacy, unified)
    }
}

impl Cgroup {
    /// Makes the cgroup for the limits of the spec and its devices, and in every tree the one below
    /// the parent that it names; none if nothing of this is requested.
    pub(crate) fn create(config: &StageConfig) -> Step<Option<Cgroup>> {
        let wanted = CgroupRequest::new(config)?;
        if !wanted.usual {
            return Cgroup::of(&wanted);
        }
        Cgroup::of(&wanted).or_else(|failure| {
            // No such place can be made here.
            tracing::info!(?failure, "the container has no cgroup outside of its starter's");
            Cgroup::of(&CgroupRequest { parent: None, usual: false, ..wanted })
        })
    }

    fn of(wanted: &CgroupRequest<'_>) -> Step<Option<Cgroup>> {
        if wanted.is_empty() {
            return Ok(None);
        }
        let read = |path: &str| fs::read_to_string(path).doing("reading", path);
        let trees = place::find(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?);
        let mut cgroup = Cgroup { unified: None, legacy: Vec::new() };
        let made = cgroup.make(wanted, &trees);
        if let Err(failure) = made {
            cgroup.remove();
            return Err(failure);
        }
        Ok(Some(cgroup))
    }

    /// The cgroup that another process has made in these directories; none if there are none.
    pub(crate) fn inherit(directories: &[PathBuf]) -> Option<Cgroup> {
        let mut cgroup = Cgroup { unified: None, legacy: Vec::new() };
        for directory in directories {
            let Ok(held) = claim(directory) else { continue };
            if directory.join("cgroup.controllers").exists() {
                cgroup.unified = Some((directory.clone(), held));
            } else {
                cgroup.legacy.push((directory.clone(), held));
            }
        }
        (!directories.is_empty()).then_some(cgroup)
    }

    fn make(&mut self, wanted: &CgroupRequest<'_>, trees: &[Hierarchy]) -> Step {
        let (legacy, unified) = wanted.spread(trees);
        for (tree, controllers) in legacy {
            self.make_legacy(wanted, tree, &controllers)?;
        }
        let tree = trees.iter().find(|tree| tree.unified);
        match (tree, unified.first()) {
            (None, Some(controller)) => {
                Err(limit(controller, "this machine has no such cgroup controller"))
            }
            (None, None) => Ok(()),
            (Some(tree), _) => self.make_unified(wanted, tree, &unified),
        }
    }

    fn make_legacy(
        &mut self,
        wanted: &CgroupRequest<'_>,
        tree: &Hierarchy,
        controllers: &[&str],
    ) -> Step {
        let directory = base(tree, wanted.parent).join(&wanted.name);
        let name = controllers.first().copied().unwrap_or("cgroup parent");
        if tree.controllers.iter().any(|name| name == "cpuset") {
            let parent = directory.parent().unwrap_or(&directory);
            fs::create_dir_all(parent).map_err(|error| limit(name, refusal(parent, &error)))?;
            inherit_cpusets(&tree.top, parent)?;
        }
        let held = claim(&directory).map_err(|error| limit(name, refusal(&directory, &error)))?;
        self.legacy.push((directory.clone(), held));
        if tree.controllers.iter().any(|name| name == "cpuset") {
            inherit_cpusets(&tree.top, &directory)?;
        }
        let settings = wanted.limits.legacy();
        let own = settings.iter().filter(|one| controllers.contains(&one.controller));
        write_all(&directory, own)?;
        match &wanted.devices {
            Some(rules) if controllers.contains(&DEVICES) => {
                devices::write_legacy(&directory, rules)
                    .map_err(|error| limit(DEVICES, format!("cannot set the rules: {error}")))
            }
            _ => Ok(()),
        }
    }

    fn make_unified(
        &mut self,
        wanted: &CgroupRequest<'_>,
        tree: &Hierarchy,
        controllers: &[&str],
    ) -> Step {
        let asks = controllers.contains(&DEVICES);
        let controllers: Vec<&str> =
            controllers.iter().filter(|name| **name != DEVICES).copied().collect();
        if controllers.is_empty() && !asks && wanted.parent.is_none() {
            return Ok(());
        }
        let name = controllers.first().copied().unwrap_or("cgroup parent");
        let parent = match wanted.parent {
            Some(_) if wanted.usual => {
                // What may be limited later.
                for controller in ["memory", "cpu", "cpuset", "io", "pids"] {
                    let _ = given(tree, &[controller], wanted.parent);
                }
                given(tree, &controllers, wanted.parent)?
            }
            Some(_) => given(tree, &controllers, wanted.parent)?,
            None if controllers.is_empty() => tree.own.clone(),
            None => delegated(tree, &controllers)?,
        };
        let directory = parent.join(&wanted.name);
        let held = claim(&directory).map_err(|error| limit(name, refusal(&directory, &error)))?;
        if let (Some(rules), true) = (&wanted.devices, asks) {
            devices::attach(held.as_fd(), rules)
                .map_err(|error| limit(DEVICES, format!("cannot set the rules: {error}")))?;
        }
        self.unified = Some((directory.clone(), held));
        let settings = wanted.limits.unified();
        write_all(&directory, settings.iter().filter(|one| controllers.contains(&one.controller)))
    }

    /// The directory a new process can be made in at once.
    pub(crate) fn unified(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(|(_, fd)| fd.as_fd())
    }

    /// Moves a process, this one if 0, into those trees that know no other way.
    pub(crate) fn join(&self, pid: u32) -> Step {
        for (directory, _) in &self.legacy {
            let procs = directory.join("cgroup.procs");
            fs::write(procs, pid.to_string()).doing("entering cgroup", directory)?;
        }
        Ok(())
    }

    /// Kills every process in it and below.
    pub(crate) fn kill(&self) {
        if let Some((directory, _)) = &self.unified
            && fs::write(directory.join("cgroup.kill"), "1").is_ok()
        {
            return;
        }
        for directory in self.directories().iter().take(1).flat_map(|top| with_children(top)) {
            let pids = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
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

/// Removes cgroup directories with those the container made in them, waiting a little for their
/// last processes.
pub(crate) fn remove(directories: &[PathBuf]) {
    for directory in directories.iter().flat_map(|top| with_children(top)) {
        for _ in 0..PATIENCE {
            match fs::remove_dir(&directory) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                _ => break,
            }
        }
    }
}

/// A cgroup and all below it, the deepest first.
fn with_children(top: &Path) -> Vec<PathBuf> {
    let mut all = vec![top.to_owned()];
    let mut next = 0;
    while let Some(directory) = all.get(next) {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let below: Vec<PathBuf> = below.map(|entry| entry.path()).collect();
        all.extend(below);
        next += 1;
    }
    all.reverse();
    all
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
        // It may have been removed before it was locked.
        let ours = held.metadata()?.ino();
        if fs::metadata(directory).is_ok_and(|found| found.ino() == ours) {
            return Ok(held.into());
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

/// Removes the cgroups of dead supervisors.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes())
            && let Ok(abandoned) = fs::File::open(entry.path())
            && abandoned.try_lock().is_ok()
        {
            for directory in with_children(&entry.path()) {
                // Not empty yet, or swept by another, is as good.
                let _ = fs::remove_dir(directory);
            }
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
            return Err(limit(controller, format!("{file:?} is not a file of a cgroup")));
        }
        if file.is_empty() {
            let reason = format!("this machine's cgroups have no such limit ({value})");
            return Err(limit(controller, reason));
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

/// A new cpuset of the older kind is empty, and takes no process before it has cpus and nodes: those
/// of the one above it. From the top down to `directory`.
fn inherit_cpusets(top: &Path, directory: &Path) -> Step {
    let mut path: Vec<&Path> =
        directory.ancestors().take_while(|one| *one != top && one.starts_with(top)).collect();
    path.reverse();
    for one in path {
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let own = one.join(file);
            if !fs::read_to_string(&own).doing("reading", &own)?.trim().is_empty() {
                continue;
            }
            let above = one.parent().unwrap_or(top).join(file);
            let value = fs::read_to_string(&above).doing("reading", &above)?;
            fs::write(&own, value.trim()).doing("writing", &own)?;
        }
    }
    Ok(())
}

/// The directory of the unified tree that was asked for, with the controllers handed down to it
/// from the top.
fn given(tree: &Hierarchy, needed: &[&str], parent: Option<&Path>) -> Step<PathBuf> {
    let directory = base(tree, parent);
    let name = needed.first().copied().unwrap_or("cgroup parent");
    fs::create_dir_all(&directory).map_err(|error| limit(name, refusal(&directory, &error)))?;
    if needed.is_empty() {
        return Ok(directory);
    }
    let mut path: Vec<&Path> =
        directory.ancestors().take_while(|one| one.starts_with(&tree.top)).collect();
    path.reverse();
    for one in path {
        hand_down(one, needed).map_err(|why| limit(&needed.join(", "), why))?;
    }
    Ok(directory)
}

/// The nearest directory of the unified tree, from this process's own upwards, below which the
/// controllers can be had. Only a directory without processes of its own, or the very top, can
/// hand controllers down.
fn delegated(tree: &Hierarchy, needed: &[&str]) -> Step<PathBuf> {
    let mut reason = format!("{} has no such cgroup controller", tree.top.display());
    for directory in tree.own.ancestors().take_while(|directory| directory.starts_with(&tree.top)) {
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
