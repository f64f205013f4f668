//! The life of a container in the steps of engines: create, start, kill, delete, as in the
//! runtime-spec. The container's first process is a child of the process that adopts orphans, so
//! the engine above sees its end.

mod check;
mod features;
pub(crate) mod hooks;
mod process;
mod record;
mod resources;
mod stage;

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{ContainerState, LinuxResources, Process, Spec};
use rustix::event::{PollFd, PollFlags, poll};
use serde::Serialize;
use task::Task;

pub use features::features;
pub use process::ProcessChanges;
pub use resources::Usage;
pub(crate) use stage::{accompany, attend, create, exec as join, failed, hooks_inside};

use crate::stage::{Answer, Answers, EngineDetails, Role, StageConfig};
use crate::streams::Carrier;
use crate::terminal::Raw;
use crate::{Error, ExitStatus, Result, Signal, cgroup, seccomp, sys};
use hooks::Moment;
use record::{GATE, StateFile};

/// Where the containers of one engine are kept.
#[derive(Debug, Clone)]
pub struct Engine {
    root: PathBuf,
}

/// How a process is connected with its surroundings.
#[derive(Debug, Clone, Default)]
pub struct Connections {
    /// A Unix socket that is sent our end of its terminal; needed where it has one.
    pub console_socket: Option<PathBuf>,
    /// A file that gets its process id.
    pub pid_file: Option<PathBuf>,
    /// How many descriptors from 3 on it keeps.
    pub preserve_fds: u32,
}

/// A container to be made.
#[derive(Debug, Clone)]
pub struct NewContainer {
    /// The directory with `config.json`.
    pub bundle: PathBuf,
    /// Streams and descriptors.
    pub connections: Connections,
    /// Whether it shares the caller's session keyring.
    pub keep_keyring: bool,
    /// The time, in RFC 3339.
    pub created: String,
}

/// A container as the runtime-spec describes it, and what other runtimes add.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OciState {
    /// Version of the runtime-spec.
    pub oci_version: String,
    /// Its id.
    pub id: String,
    /// First process; 0 if it has ended.
    pub pid: u32,
    /// Where it is in its life: `created`, `running`, `paused` or `stopped`.
    pub status: &'static str,
    /// The directory it was made from.
    pub bundle: PathBuf,
    /// Its root file system.
    pub rootfs: PathBuf,
    /// When it was made, in RFC 3339.
    pub created: String,
    /// Who owns it; not known to us.
    pub owner: String,
    /// Its annotations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<std::collections::HashMap<String, String>>,
}

/// A process that was started for an engine.
#[derive(Debug)]
pub struct StartedProcess {
    /// As this process sees it.
    pub pid: u32,
    /// Our end of its terminal, if no receiver was named.
    pub terminal: Option<OwnedFd>,
}

impl Engine {
    /// The containers below a directory.
    pub fn new(root: impl Into<PathBuf>) -> Engine {
        Engine { root: root.into() }
    }

    /// Makes a container: everything is set up, its program waits for [`Engine::start`].
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is not supported, by the name of the field; as
    /// [`crate::Container::start`] otherwise.
    pub fn create(&self, id: &str, new: &NewContainer) -> Result<StartedProcess> {
        let bundle = new.bundle.canonicalize().map_err(Error::system("opening", &new.bundle))?;
        let mut spec: Spec = record::read_json(&bundle.join("config.json"))?;
        check::bundle(&spec)?;
        crate::ids::join(&mut spec)?;
        let directory = record::make(&self.root, id)?;
        let made = self.make(id, new, &bundle, spec, &directory);
        if made.is_err() {
            // The first failure is the one to tell.
            let _ = fs::remove_dir_all(&directory);
        }
        made
    }

    fn make(
        &self,
        id: &str,
        new: &NewContainer,
        bundle: &Path,
        spec: Spec,
        directory: &Path,
    ) -> Result<StartedProcess> {
        let root = spec.root().as_ref().map(|root| root.path().clone()).unwrap_or_default();
        let rootfs = bundle.join(root);
        let waits = EngineDetails {
            bundle: bundle.display().to_string(),
            rootfs: rootfs.clone(),
            preserve_fds: new.connections.preserve_fds,
            keep_keyring: new.keep_keyring,
        };
        let opened = File::open(&rootfs).map_err(Error::system("opening", &rootfs))?;
        let gate = make_gate(directory)?;
        let (config, filter) = configure(&spec, id, Role::Create(waits), spec.process().as_ref())?;
        let mut fds = vec![opened.as_fd(), gate.as_fd()];
        let streams = standard_streams()?;
        if config.terminal.is_none() {
            fds.extend(streams.iter().map(AsFd::as_fd));
        }
        let (started, mut descriptors) = run_stage(&config, &filter, &fds)?;
        let listener = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
        let listener = listener.and_then(|profile| profile.listener_path().clone());
        let record = StateFile {
            id: id.to_owned(),
            bundle: bundle.to_owned(),
            rootfs,
            pid: started.pid,
            birth: record::birth(started.pid).unwrap_or(0),
            created: new.created.clone(),
            cgroups: started.cgroups,
            spec,
        };
        let listener = listener.map(|path| (path, descriptors.pop()));
        let finished = finish(&record, directory, listener, || {
            connect(&new.connections, record.pid, descriptors.pop())
        });
        if finished.is_err() {
            record.end();
            cgroup::remove(&record.cgroups);
        }
        finished
    }

    /// Starts the program of a container that was made.
    ///
    /// # Errors
    /// [`Error::NotRunning`] when it was started before; [`Error::Invalid`] when a hook fails.
    pub fn start(&self, id: &str) -> Result<()> {
        let record = StateFile::read(&self.root, id)?;
        let gate = self.root.join(id).join(GATE);
        let wrong = || Error::NotRunning { path: self.root.join(id), state: self.status(&record) };
        if self.status(&record) != "created" {
            return Err(wrong());
        }
        let flags = libc::O_NONBLOCK;
        let opened = File::options().write(true).custom_flags(flags).open(&gate);
        let mut opened = opened.map_err(|_| wrong())?;
        fs::remove_file(&gate).map_err(Error::system("removing", &gate))?;
        opened.write_all(b"s").map_err(Error::system("opening", &gate))?;
        // The program has it closed: it runs, or it has ended.
        let mut fds = [PollFd::new(&opened, PollFlags::empty())];
        while poll(&mut fds, None) == Err(rustix::io::Errno::INTR) {}
        record.hooks(Moment::Poststart, ContainerState::Running).inspect_err(|_| record.end())
    }

    /// What the runtime-spec calls the state of a container.
    ///
    /// # Errors
    /// [`Error::NoContainer`].
    pub fn state(&self, id: &str) -> Result<OciState> {
        let record = StateFile::read(&self.root, id)?;
        let status = self.status(&record);
        Ok(OciState {
            oci_version: record.spec.version().clone(),
            pid: if status == "stopped" { 0 } else { record.pid },
            status,
            id: record.id,
            bundle: record.bundle,
            rootfs: record.rootfs,
            created: record.created,
            owner: String::new(),
            annotations: record.spec.annotations().clone(),
        })
    }

    /// All containers, by id.
    pub fn list(&self) -> Vec<OciState> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        let ids = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut list: Vec<_> = ids.filter_map(|id| self.state(&id).ok()).collect();
        list.sort_by(|one, other| one.id.cmp(&other.id));
        list
    }

    fn status(&self, record: &StateFile) -> &'static str {
        if !record.lives() {
            return "stopped";
        }
        if self.root.join(&record.id).join(GATE).exists() {
            return "created";
        }
        if cgroup::is_frozen(&record.cgroups) { "paused" } else { "running" }
    }

    /// Sends a signal to the first process, or to all.
    ///
    /// # Errors
    /// [`Error::NotRunning`] when it has ended.
    pub fn kill(&self, id: &str, signal: Signal, all: bool) -> Result<()> {
        let record = StateFile::read(&self.root, id)?;
        if !record.lives() && !all {
            return Err(Error::NotRunning { path: self.root.join(id), state: "stopped" });
        }
        // Without a pid namespace the others do not end with the first.
        let shares = crate::init::shares_processes(&record.spec);
        if all || shares && signal == Signal::KILL {
            for pid in cgroup::processes(&record.cgroups) {
                let _ = send(pid, signal);
            }
            if !record.lives() {
                return Ok(());
            }
        }
        send(record.pid, signal).map_err(Error::system("signalling", record.pid.to_string()))
    }

    /// Removes a stopped container, or any by force. A failing hook does not stop the removal; its
    /// failure is returned.
    ///
    /// # Errors
    /// [`Error::NotRunning`] when it still runs.
    pub fn delete(&self, id: &str, force: bool) -> Result<Option<Error>> {
        let record = match StateFile::read(&self.root, id) {
            Err(Error::NoContainer { .. }) if force => return self.forget(id).map(|()| None),
            other => other?,
        };
        match self.status(&record) {
            "stopped" => {}
            "created" => record.end(),
            _ if force => record.end(),
            state => return Err(Error::NotRunning { path: self.root.join(id), state }),
        }
        cgroup::end(&record.cgroups);
        cgroup::remove(&record.cgroups);
        self.forget(id)?;
        Ok(record.hooks(Moment::Poststop, ContainerState::Stopped).err())
    }

    fn forget(&self, id: &str) -> Result<()> {
        let directory = self.root.join(id);
        if id.is_empty() || id.contains('/') || id.starts_with('.') || !directory.exists() {
            return Ok(());
        }
        fs::remove_dir_all(&directory).map_err(Error::system("removing", directory))
    }

    /// Runs one more process in a container.
    ///
    /// # Errors
    /// As [`crate::Container::start`]; [`Error::NotRunning`].
    pub fn exec(&self, id: &str, process: &Process, to: &Connections) -> Result<StartedProcess> {
        check::process(process)?;
        let record = StateFile::read(&self.root, id)?;
        let state = self.status(&record);
        if !matches!(state, "running" | "created") {
            return Err(Error::NotRunning { path: self.root.join(id), state });
        }
        if !crate::init::has_own_mounts(&record.spec) {
            let reason = "a further process needs a container with a mount namespace of its own";
            return Err(Error::invalid("linux.namespaces", reason));
        }
        let role = Role::Exec {
            process: Box::new(process.clone()),
            cgroups: record.cgroups.clone(),
            preserve_fds: to.preserve_fds,
        };
        let (config, filter) = configure(&record.spec, id, role, Some(process))?;
        let pidfd = pidfd(record.pid).map_err(Error::system("opening", "the container"))?;
        let streams = standard_streams()?;
        let mut fds = vec![pidfd.as_fd()];
        if config.terminal.is_none() {
            fds.extend(streams.iter().map(AsFd::as_fd));
        }
        let (started, mut descriptors) = run_stage(&config, &filter, &fds)?;
        connect(to, started.pid, descriptors.pop())
    }

    /// The configuration of a container's own process, as a start for a further one.
    ///
    /// # Errors
    /// [`Error::NoContainer`].
    pub fn process(&self, id: &str) -> Result<Process> {
        let record = StateFile::read(&self.root, id)?;
        record.spec.process().clone().ok_or(Error::Lost { process: "first process" })
    }

    /// Stops every process of a container, or lets them go on.
    ///
    /// # Errors
    /// [`Error::Limit`] where the container has no cgroup that can.
    pub fn freeze(&self, id: &str, frozen: bool) -> Result<()> {
        let record = StateFile::read(&self.root, id)?;
        cgroup::freeze(&record.cgroups, frozen).map_err(Error::from)
    }

    /// The processes of a container.
    ///
    /// # Errors
    /// [`Error::NoContainer`].
    pub fn processes(&self, id: &str) -> Result<Vec<u32>> {
        let record = StateFile::read(&self.root, id)?;
        let mut pids = cgroup::processes(&record.cgroups);
        if pids.is_empty() && record.lives() {
            pids.push(record.pid);
        }
        Ok(pids)
    }

    /// Changes the limits of a container.
    ///
    /// # Errors
    /// [`Error::Limit`]; [`Error::Invalid`] for what is not supported.
    pub fn update(&self, id: &str, resources: &LinuxResources) -> Result<()> {
        check::resources(resources)?;
        let record = StateFile::read(&self.root, id)?;
        cgroup::update(&record.cgroups, resources).map_err(Error::from)
    }

    /// What a container uses.
    ///
    /// # Errors
    /// [`Error::NoContainer`].
    pub fn usage(&self, id: &str) -> Result<Usage> {
        Ok(Usage::read(&StateFile::read(&self.root, id)?.cgroups))
    }
}

impl StateFile {
    fn hooks(&self, moment: Moment, status: ContainerState) -> Result<()> {
        let bundle = self.bundle.display().to_string();
        let pid = if status == ContainerState::Stopped { 0 } else { self.pid };
        hooks::run(&self.spec, moment, &self.id, &bundle, pid, status)
    }

    /// Ends every process, and waits for the first to be gone.
    fn end(&self) {
        cgroup::end(&self.cgroups);
        let Ok(pidfd) = pidfd(self.pid) else { return };
        if self.lives() {
            let _ = send(self.pid, Signal::KILL);
            let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
            while poll(&mut fds, None) == Err(rustix::io::Errno::INTR) {}
        }
    }
}

/// Connects a terminal with our standard input and output while something waits for the end of the
/// process that has it. A task that is cancelled ends the connection.
///
/// # Errors
/// The streams cannot be opened.
pub fn with_terminal<T>(terminal: OwnedFd, task: &Task, until: impl FnOnce() -> T) -> Result<T> {
    let [input, output, _] = standard_streams()?;
    let _raw = Raw::enter(input.as_fd());
    let opening = Error::system("opening", "the terminal");
    let carry = |input: OwnedFd| Carrier::terminal(terminal, input, output)?.carry(task, until);
    input.try_clone().and_then(carry).map_err(opening)
}

/// Makes this process the one that adopts containers it starts, so that it can wait for them.
///
/// # Errors
/// The kernel refuses.
pub fn adopt() -> Result<()> {
    sys::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0).map_err(Error::system("adopting", "processes"))
}

/// Waits for the end of a process that this process has adopted; see [`adopt`].
///
/// # Errors
/// [`Error::Lost`] when it is not ours.
pub fn wait_adopted(pid: u32) -> Result<ExitStatus> {
    let lost = || Error::Lost { process: "first process" };
    let id = rustix::process::Pid::from_raw(pid as i32).ok_or_else(lost)?;
    loop {
        let options = rustix::process::WaitIdOptions::EXITED;
        match rustix::process::waitid(rustix::process::WaitId::Pid(id), options) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(Some(status)) => return Ok(crate::init::read_status(status)),
            _ => return Err(lost()),
        }
    }
}

/// Tells the agent of the filter, writes the record, and tells the caller.
fn finish(
    record: &StateFile,
    directory: &Path,
    listener: Option<(PathBuf, Option<OwnedFd>)>,
    tell: impl FnOnce() -> Result<StartedProcess>,
) -> Result<StartedProcess> {
    if let Some((path, fd)) = listener {
        let fd = fd.ok_or(Error::Lost { process: "first process" })?;
        send_listener(&path, record, fd.as_fd())?;
    }
    record.write(directory)?;
    tell()
}

fn configure(
    spec: &Spec,
    id: &str,
    role: Role,
    process: Option<&Process>,
) -> Result<(StageConfig, Vec<sys::Instruction>)> {
    crate::container::check_id(id)?;
    let mut spec = spec.clone();
    let profile = spec.linux().as_ref().and_then(|linux| linux.seccomp().clone());
    let filter = profile.as_ref().map(seccomp::compiled_for_engine).transpose()?;
    let listening = profile.as_ref().is_some_and(|profile| profile.listener_path().is_some());
    if let Some(linux) = spec.linux_mut() {
        linux.set_seccomp(None);
    }
    let listener = if listening { seccomp::NEW_LISTENER } else { 0 };
    let size = process.and_then(Process::console_size);
    let cells = |cells: u64| u16::try_from(cells).unwrap_or(u16::MAX);
    let size = size.map_or((24, 80), |size| (cells(size.height()), cells(size.width())));
    let terminal = process.is_some_and(|process| process.terminal() == Some(true));
    let inner = crate::init::makes_user_namespace(&spec);
    let config = StageConfig {
        spec,
        id: id.to_owned(),
        init: false,
        filter_flags: profile.as_ref().map_or(0, seccomp::flags) | listener,
        owners: false,
        user_namespace: crate::in_user_namespace() || inner,
        scopes: 0,
        terminal: terminal.then_some(size),
        descriptors: Vec::new(),
        other: None,
        role,
    };
    Ok((config, filter.unwrap_or_default()))
}

fn standard_streams() -> Result<[OwnedFd; 3]> {
    let copy = |fd: BorrowedFd<'_>| {
        fd.try_clone_to_owned().map_err(Error::system("copying", "the standard streams"))
    };
    Ok([copy(io::stdin().as_fd())?, copy(io::stdout().as_fd())?, copy(io::stderr().as_fd())?])
}

/// Runs a stage to its end; gives what it started and the descriptors that came along.
fn run_stage(
    config: &StageConfig,
    filter: &[sys::Instruction],
    fds: &[BorrowedFd<'_>],
) -> Result<(crate::stage::StartReport, Vec<OwnedFd>)> {
    let mut stage = crate::stage::spawn(config, filter, fds, std::process::Stdio::inherit())?;
    let mut answers = Answers::new(stage.line);
    let answer = answers.next_with_all();
    // It ends with its answer.
    let _ = stage.process.wait();
    match answer {
        Some((Answer::Started(started), descriptors)) => Ok((started, descriptors)),
        Some((Answer::Failed(failure), _)) => Err(failure.into()),
        _ => Err(Error::Lost { process: "stage" }),
    }
}

/// Reports a new process to the receiver that was named.
fn connect(to: &Connections, pid: u32, terminal: Option<OwnedFd>) -> Result<StartedProcess> {
    let mut started = StartedProcess { pid, terminal };
    if let (Some(path), Some(terminal)) = (&to.console_socket, &started.terminal) {
        let socket = UnixStream::connect(path).map_err(Error::system("connecting to", path))?;
        sys::send_fds(&socket, b"/dev/ptmx", &[terminal.as_fd()])
            .map_err(Error::system("sending the terminal to", path))?;
        started.terminal = None;
    }
    if let Some(path) = &to.pid_file {
        let new = path.with_extension("new");
        fs::write(&new, pid.to_string()).map_err(Error::system("writing", &new))?;
        fs::rename(&new, path).map_err(Error::system("writing", path))?;
    }
    Ok(started)
}

/// Makes what a new container waits at.
fn make_gate(directory: &Path) -> Result<OwnedFd> {
    let path = directory.join(GATE);
    let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600));
    rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, 0)
        .map_err(io::Error::from)
        .map_err(Error::system("making", &path))?;
    let opened = File::options().read(true).write(true).open(&path);
    opened.map(OwnedFd::from).map_err(Error::system("opening", path))
}

/// Gives the end at which a system call filter asks to the agent that answers.
fn send_listener(path: &Path, record: &StateFile, listener: BorrowedFd<'_>) -> Result<()> {
    let profile = record.spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    let state = serde_json::json!({
        "ociVersion": record.spec.version(),
        "fds": ["seccompFd"],
        "pid": record.pid,
        "metadata": profile.and_then(|profile| profile.listener_metadata().clone()),
        "state": {
            "ociVersion": record.spec.version(),
            "id": record.id,
            "status": "creating",
            "pid": record.pid,
            "bundle": record.bundle,
            "annotations": record.spec.annotations(),
        },
    });
    let socket = UnixStream::connect(path).map_err(Error::system("connecting to", path))?;
    sys::send_fds(&socket, state.to_string().as_bytes(), &[listener])
        .map_err(Error::system("sending the listener to", path))
}

fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid as i32).ok_or(io::ErrorKind::NotFound)?;
    Ok(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?)
}

fn send(pid: u32, signal: Signal) -> io::Result<()> {
    sys::pidfd_send_signal(pidfd(pid)?.as_fd(), signal.0)
}
