//! Pausing containers: their processes keep everything they have and get no time.
//!
//! A container without limits has no cgroup of its own. It gets one of the freezer when it is
//! paused first, and keeps it; the file `freezer` in its directory names it.

use std::path::{Path, PathBuf};

use crate::{Container, Error, Phase, Result};

/// Names the cgroup that freezes the container.
const FREEZER: &str = "freezer";

/// The two forms of freezers: a file, what freezes, and what thaws.
struct Freezer {
    file: &'static str,
    frozen: &'static str,
    thawed: &'static str,
}

const LEGACY: Freezer = Freezer { file: "freezer.state", frozen: "FROZEN", thawed: "THAWED" };
const UNIFIED: Freezer = Freezer { file: "cgroup.freeze", frozen: "1", thawed: "0" };

fn form(cgroup: &Path) -> &'static Freezer {
    if cgroup.join(LEGACY.file).exists() { &LEGACY } else { &UNIFIED }
}

fn set(cgroup: &Path, frozen: bool) -> Result<()> {
    let form = form(cgroup);
    let path = cgroup.join(form.file);
    let value = if frozen { form.frozen } else { form.thawed };
    std::fs::write(&path, value).map_err(Error::file("writing", &path))
}

/// Whether a container's processes are frozen, or about to be.
pub(crate) fn is_frozen(directory: &Path) -> bool {
    let Ok(cgroup) = std::fs::read_to_string(directory.join(FREEZER)) else { return false };
    let cgroup = PathBuf::from(cgroup);
    let form = form(&cgroup);
    let state = std::fs::read_to_string(cgroup.join(form.file)).unwrap_or_default();
    !state.is_empty() && state.trim() != form.thawed
}

/// Removes the cgroup of a container that has ended.
pub(crate) fn forget(directory: &Path) {
    let path = directory.join(FREEZER);
    if let Ok(cgroup) = std::fs::read_to_string(&path) {
        let _ = std::fs::remove_dir(cgroup);
        let _ = std::fs::remove_file(path);
    }
}

/// Where the freezer's tree is mounted, and the path of a process in it.
fn tree(pid: u32) -> Option<PathBuf> {
    let own = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let path_in = |names: &str| {
        own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (known, path) = (fields.next()?, fields.next()?);
            known.split(',').any(|name| name == names).then(|| path.to_owned())
        })
    };
    let mounted = |kind: &str, option: &str| {
        mounts.lines().find_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let mut right = right.split(' ');
            let fits = right.next()? == kind;
            let options = right.nth(1)?;
            let fits = fits && (option.is_empty() || options.split(',').any(|o| o == option));
            fits.then(|| left.split(' ').nth(4).map(PathBuf::from))?
        })
    };
    let legacy = path_in("freezer").zip(mounted("cgroup", "freezer"));
    let (path, top) = legacy.or_else(|| path_in("").zip(mounted("cgroup2", "")))?;
    Some(top.join(path.trim_start_matches('/')))
}

impl Container {
    /// The cgroup that freezes it, made where there is none, with all its processes in it.
    fn freezer(&self) -> Result<PathBuf> {
        let pid = self.state().map_or(0, |state| state.pid);
        let mut limits = self.state().into_iter().flat_map(|state| &state.cgroups);
        let own = limits
            .find(|cgroup| cgroup.join(LEGACY.file).exists() || cgroup.join(UNIFIED.file).exists());
        let name = self.directory().join(FREEZER);
        if let Some(own) = own {
            let text = own.display().to_string();
            std::fs::write(&name, text).map_err(Error::file("writing", &name))?;
            return Ok(own.clone());
        }
        let cgroup = match std::fs::read_to_string(&name) {
            Ok(known) => PathBuf::from(known),
            Err(_) => {
                let parent = tree(pid).ok_or_else(|| Error::Unsupported {
                    what: "pausing a container",
                    reason: "this machine has no freezer cgroup".to_owned(),
                })?;
                let cgroup = parent.join(format!("rbuild-pause-{}", &self.id()[..32]));
                match std::fs::create_dir(&cgroup) {
                    Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                    made => made.map_err(Error::file("making cgroup", &cgroup))?,
                }
                let text = cgroup.display().to_string();
                std::fs::write(&name, text).map_err(Error::file("writing", &name))?;
                cgroup
            }
        };
        self.gather(&cgroup)?;
        Ok(cgroup)
    }

    /// Moves its processes into a cgroup, those too that are made meanwhile.
    fn gather(&self, cgroup: &Path) -> Result<()> {
        let path = cgroup.join("cgroup.procs");
        loop {
            let there = std::fs::read_to_string(&path).unwrap_or_default();
            let there: Vec<u32> = there.lines().flat_map(str::parse).collect();
            let mut moved = false;
            for process in self.processes()?.iter().filter(|p| !there.contains(&p.pid)) {
                match std::fs::write(&path, process.pid.to_string()) {
                    // It ended.
                    Err(error) if error.raw_os_error() == Some(3) => {}
                    written => {
                        written.map_err(Error::file("writing", &path))?;
                        moved = true;
                    }
                }
            }
            if !moved {
                return Ok(());
            }
        }
    }

    /// Freezes its processes.
    ///
    /// # Errors
    /// [`Error::NotRunning`]; [`Error::Unsupported`], [`Error::File`] where there is no freezer for
    /// this user.
    pub fn pause(&self) -> Result<()> {
        if !matches!(self.phase(), Phase::Running | Phase::Stopping) {
            let (name, phase) = (self.name().to_owned(), self.phase().as_str());
            return Err(Error::NotRunning { name, phase });
        }
        set(&self.freezer()?, true)?;
        self.note("pause", &[]);
        Ok(())
    }

    /// Lets its processes go on.
    ///
    /// # Errors
    /// [`Error::NotPaused`], [`Error::File`].
    pub fn unpause(&self) -> Result<()> {
        if !is_frozen(self.directory()) {
            return Err(Error::NotPaused { name: self.name().to_owned() });
        }
        self.thaw()?;
        self.note("unpause", &[]);
        Ok(())
    }

    /// As [`Container::unpause`], whether or not it is paused.
    pub(crate) fn thaw(&self) -> Result<()> {
        if !is_frozen(self.directory()) {
            return Ok(());
        }
        let name = self.directory().join(FREEZER);
        let cgroup = std::fs::read_to_string(&name).map_err(Error::file("reading", &name))?;
        set(Path::new(&cgroup), false)
    }
}
