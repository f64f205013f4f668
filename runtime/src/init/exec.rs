//! The container's first process, from its birth to the user's program.

use std::convert::Infallible;
use std::ffi::CString;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use oci_spec::runtime::Process;

use super::filesystem::{self, Sources};
use super::namespaces::Namespaces;
use super::{credentials, devices, memory, reaper, tree};
use crate::cgroup::Cgroup;
use crate::descriptors::ProgramDescriptors;
use crate::engine::{self, hooks::Moment};
use crate::stage::{ErrorContext, Failure, Reason, Role, StageConfig, StageInput, Step};
use crate::sys;

/// What the child takes over from the supervisor.
pub(crate) struct Launch<'a> {
    pub(crate) given: &'a mut StageInput,
    pub(crate) stdio: [Option<OwnedFd>; 3],
    pub(crate) sources: Sources,
    pub(crate) cgroup: Option<Cgroup>,
    pub(crate) namespaces: Namespaces,
    /// Where the program of an engine's container waits.
    pub(crate) gate: Option<OwnedFd>,
    pub(crate) report: UnixStream,
}

/// Becomes the user's program, or says why not.
pub(crate) fn child(mut launch: Launch<'_>) -> ! {
    if let Err(failure) = launch.given.passed.make_way(&mut launch.report) {
        fail(&launch.report, &failure);
        sys::exit(125)
    }
    let report = launch.given.passed.copy(&launch.report);
    let waited = launch.gate.is_some();
    let failure = match set_up(launch) {
        Ok(never) => match never {},
        Err(failure) => failure,
    };
    if let Ok(report) = report {
        fail(&report, &failure);
    }
    if waited {
        // The listener may be gone; the container's own output remains.
        let text = format!("{}\n", task::chain(&crate::Error::from(failure)).join(": "));
        let _ = rustix::io::write(rustix::stdio::stderr(), text.as_bytes());
    }
    sys::exit(125)
}

/// Reports to the supervisor why there is no program.
pub(crate) fn fail(mut report: &UnixStream, failure: &Failure) {
    let mut bytes = b"F".to_vec();
    // A failure cannot be reported; the supervisor sees the end of the line.
    let _ = serde_json::to_writer(&mut bytes, failure);
    let _ = report.write_all(&bytes);
}

fn set_up(launch: Launch<'_>) -> Step<Infallible> {
    let Launch { given, mut stdio, sources, cgroup, namespaces, gate, report } = launch;
    let config = &given.config;
    // Monitors and engines leave a container alone when they are killed; a monitor that is killed
    // before the program starts has not written down yet that there is a container.
    let bound = matches!(config.role, Role::Supervise);
    namespaces.await_ids(&report)?;
    if bound || matches!(config.role, Role::Monitor { .. }) {
        die_with_parent()?;
    }
    if let Some(cgroup) = cgroup.as_ref().filter(|_| !namespaces.new_user()) {
        cgroup.join(0)?;
    }
    namespaces.enter_others()?;
    if namespaces.cgroup {
        sys::unshare(libc::CLONE_NEWCGROUP).doing("making", "a cgroup namespace")?;
    }
    rustix::process::setsid().doing("starting", "a session")?;
    rustix::process::umask(rustix::fs::Mode::empty());
    if namespaces.new_network() {
        sys::loopback_up().doing("starting", "the loopback device")?;
    }
    if let Some(name) = config.spec.hostname() {
        rustix::system::sethostname(name.as_bytes()).doing("setting host name", name)?;
    }
    if let Some(name) = config.spec.domainname() {
        rustix::system::setdomainname(name.as_bytes()).doing("setting domain name", name)?;
    }
    let process = config.spec.process().as_ref();
    let process = process.ok_or_else(|| Failure::invalid("spec", "it has no process"))?;
    let pid = engine::attend(config, &report)?;
    let entered = filesystem::enter(config, sources, pid, namespaces.new_mount())?;
    filesystem::sysctls(config, entered.proc.as_fd())?;
    let mut ready = None;
    if let Some(size) = config.terminal {
        let (ours, theirs) = devices::terminal(entered.root.as_fd(), size, process.user().uid())?;
        devices::console(entered.root.as_fd(), theirs.as_fd())?;
        take_terminal(&theirs, &mut stdio)?;
        ready = Some(ours);
    }
    tree::ensure(entered.root.as_fd(), process.cwd(), tree::Make::Directory)
        .doing("making working directory", process.cwd())?;
    filesystem::protect(config, entered.root.as_fd())?;
    config.spec.linux().iter().try_for_each(credentials::personality)?;
    config.spec.linux().iter().try_for_each(memory::policy)?;
    let engine = match &config.role {
        Role::Create(waits) => Some(waits),
        _ => None,
    };
    if !engine.is_some_and(|waits| waits.keep_keyring) {
        join_keyring(&config.id)?;
    }
    streams(&stdio, process.user().uid())?;
    let program = Program {
        process,
        filter: (&given.filter, config.filter_flags),
        init: config.init,
        proc: entered.proc.as_fd(),
        report: &report,
        terminal: ready,
        waits: gate.as_ref().map(|gate| Wait { gate: gate.as_fd(), config, pid }),
        bound,
        preserve_fds: engine.map_or(0, |waits| waits.preserve_fds),
        passed: &given.passed,
    };
    run_program(program)
}

/// Makes the terminal the session's own, and all three streams.
pub(crate) fn take_terminal(theirs: &OwnedFd, stdio: &mut [Option<OwnedFd>; 3]) -> Step {
    sys::control_terminal(theirs.as_fd()).doing("taking", "the terminal")?;
    for stream in stdio {
        *stream = Some(theirs.try_clone().doing("copying", "the terminal")?);
    }
    Ok(())
}

/// Gives this process a session keyring of its own.
pub(crate) fn join_keyring(id: &str) -> Step {
    let name = sys::c_string(format!("_ses.{id}")).doing("naming", "the keyring")?;
    match sys::join_keyring(&name) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        other => other.doing("joining", "a session keyring"),
    }
}

/// Asks the kernel to kill this process when its parent dies.
pub(crate) fn die_with_parent() -> Step {
    sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0)
        .doing("binding to", "the supervisor")
}

/// Lets this process live on when its parent dies.
fn live_on() -> Step {
    sys::prctl(libc::PR_SET_PDEATHSIG, 0, 0).doing("parting from", "the supervisor")
}

/// Makes these the standard streams. Pipes become those of the user, who may then open them by
/// name (`/dev/stdout`); one that cannot be given is still good by its descriptor.
pub(crate) fn streams(stdio: &[Option<OwnedFd>; 3], user: u32) -> Step {
    for (number, stream) in (0..).zip(stdio) {
        let Some(stream) = stream else { continue };
        sys::dup_to(stream.as_fd(), number).doing("setting", "the standard streams")?;
    }
    give_pipes(stdio, user, u32::MAX);
    Ok(())
}

/// Gives the pipes among the streams to a user and a group, as far as that is possible.
pub(crate) fn give_pipes(stdio: &[Option<OwnedFd>; 3], uid: u32, gid: u32) {
    use rustix::fs::{FileType, Gid, Uid, fchown, fstat};
    for stream in stdio.iter().flatten() {
        let Ok(stat) = fstat(stream) else { continue };
        if FileType::from_raw_mode(stat.st_mode).is_fifo() && stat.st_uid != uid {
            let gid = (gid != u32::MAX).then(|| Gid::from_raw(gid));
            let _ = fchown(stream, Some(Uid::from_raw(uid)), gid);
        }
    }
}

/// A system call filter and its flags.
pub(crate) type Filter<'a> = (&'a [sys::Instruction], u32);

/// A program about to run in this process.
pub(crate) struct Program<'a> {
    pub(crate) process: &'a Process,
    pub(crate) filter: Filter<'a>,
    /// Whether this process stays as pid 1 and the program becomes its child.
    pub(crate) init: bool,
    pub(crate) proc: BorrowedFd<'a>,
    pub(crate) report: &'a UnixStream,
    /// Our end of its terminal, to send away.
    pub(crate) terminal: Option<OwnedFd>,
    /// Where it waits until it is started.
    pub(crate) waits: Option<Wait<'a>>,
    /// Whether it ends with our parent.
    pub(crate) bound: bool,
    /// How many descriptors from 3 on it keeps.
    pub(crate) preserve_fds: u32,
    /// Descriptors that it gets beside these.
    pub(crate) passed: &'a ProgramDescriptors,
}

/// What an engine's container waits for, and what it then runs first.
pub(crate) struct Wait<'a> {
    gate: BorrowedFd<'a>,
    config: &'a StageConfig,
    /// As the machine sees it.
    pid: u32,
}

impl Wait<'_> {
    fn has_hooks(&self) -> bool {
        !engine::hooks::at(&self.config.spec, Moment::StartContainer).is_empty()
    }

    /// Returns when the engine says so.
    fn pass(&self) -> Step {
        loop {
            match rustix::io::read(self.gate, &mut [0]) {
                Err(rustix::io::Errno::INTR) => {}
                read => return read.map(drop).doing("waiting for", "the start"),
            }
        }
    }
}

/// Gives up everything the program must not have, and becomes it.
pub(crate) fn run_program(program: Program<'_>) -> Step<Infallible> {
    let Program { process, filter, init, proc, report, terminal, waits, bound, .. } = program;
    let (preserve_fds, passed) = (program.preserve_fds, program.passed);
    labels(process, proc)?;
    credentials::limits(process, proc)?;
    let arguments = c_strings(process.args().as_deref().unwrap_or_default())?;
    let environment = c_strings(process.env().as_deref().unwrap_or_default())?;
    let candidates = candidates(process)?;
    sys::cloexec_from(3 + preserve_fds).doing("closing", "descriptors")?;
    enter_directory(process.cwd())?;
    let single_group = setgroups_denied(proc);
    let ready = |listener: Option<&OwnedFd>| {
        let fds: Vec<_> = terminal.iter().chain(listener).map(AsFd::as_fd).collect();
        sys::send_fds(report, b"R", &fds).doing("reporting to", "the supervisor")?;
        match &waits {
            None => Ok(()),
            // Else the exec closes it.
            Some(_) => report.shutdown(Shutdown::Write).doing("reporting to", "the supervisor"),
        }
    };
    if waits.is_some() {
        look(process, &candidates)?;
    }
    let hooked = waits.as_ref().filter(|waits| waits.has_hooks());
    if let Some(waits) = hooked {
        ready(None)?;
        waits.pass()?;
        engine::hooks_inside(waits.config, Moment::StartContainer, waits.pid)?;
    }
    if !bound {
        // Before the filter, which may forbid it. If the monitor is gone, `ready` fails.
        live_on()?;
    }
    let listener = credentials::become_user(process, filter, single_group)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(
        process.user().umask().unwrap_or(0o022),
    ));
    if bound {
        die_with_parent()?;
    }
    if hooked.is_none() {
        ready(listener.as_ref())?;
        waits.as_ref().map_or(Ok(()), Wait::pass)?;
    }
    drop(listener);
    passed.place()?;
    reaper::default_signals();
    if init {
        reaper::split()?;
    }
    let name = process.args().iter().flatten().next().cloned().unwrap_or_default();
    Err(execute(&name, &candidates, &arguments, &environment))
}

/// Looks whether the program is there: who only makes a container wants to know now.
fn look(process: &Process, candidates: &[CString]) -> Step {
    let access = |path: &CString| {
        rustix::fs::access(path.as_c_str(), rustix::fs::Access::EXEC_OK)
            .map_err(rustix::io::Errno::raw_os_error)
    };
    let errors: Vec<i32> = candidates.iter().filter_map(|path| access(path).err()).collect();
    if errors.len() < candidates.len() {
        return Ok(());
    }
    let denied = errors.contains(&libc::EACCES);
    let (reason, errno) = match denied {
        true => (Reason::NotExecutable, libc::EACCES),
        false => (Reason::NotFound, libc::ENOENT),
    };
    let name = process.args().iter().flatten().next().cloned().unwrap_or_default();
    Err(Failure { action: "running".into(), subject: name, errno, reason })
}

/// Whether this user namespace forbids setgroups.
fn setgroups_denied(proc: BorrowedFd<'_>) -> bool {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    let mut text = [0; 5];
    rustix::fs::openat(proc, "self/setgroups", flags, rustix::fs::Mode::empty())
        .and_then(|file| rustix::io::read(file, &mut text))
        .is_ok_and(|count| text[..count].starts_with(b"deny"))
}

fn labels(process: &Process, proc: BorrowedFd<'_>) -> Step {
    if let Some(profile) = process.apparmor_profile().as_deref().filter(|name| !name.is_empty()) {
        let text = format!("exec {profile}");
        filesystem::write_proc(proc, Path::new("self/attr/apparmor/exec"), &text)
            .or_else(|_| filesystem::write_proc(proc, Path::new("self/attr/exec"), &text))
            .doing("setting apparmor profile", profile)?;
    }
    if let Some(label) = process.selinux_label().as_deref().filter(|label| !label.is_empty()) {
        filesystem::write_proc(proc, Path::new("self/attr/exec"), label)
            .doing("setting label", label)?;
    }
    Ok(())
}

/// Enters the working directory and makes sure that it is inside the root (CVE-2024-21626).
fn enter_directory(path: &Path) -> Step {
    rustix::process::chdir(path).doing("entering working directory", path)?;
    let real = rustix::process::getcwd(Vec::new()).doing("entering working directory", path)?;
    if real.as_bytes().first() == Some(&b'/') {
        return Ok(());
    }
    Err(io::Error::from_raw_os_error(libc::EXDEV)).doing("entering working directory", path)
}

fn c_strings(texts: &[String]) -> Step<Vec<CString>> {
    texts.iter().map(|text| sys::c_string(text).doing("passing", text)).collect()
}

/// The paths at which the program may be.
fn candidates(process: &Process) -> Step<Vec<CString>> {
    let name = match process.args().iter().flatten().next() {
        Some(name) if !name.is_empty() => name,
        // As other engines: a program that is not there.
        Some(_) => {
            return Err(Failure {
                action: "running".into(),
                subject: "\"\"".into(),
                errno: libc::ENOENT,
                reason: Reason::NotFound,
            });
        }
        None => return Err(Failure::invalid("command", "there is no program to run")),
    };
    if name.contains('/') {
        return c_strings(std::slice::from_ref(name));
    }
    let environment = process.env().as_deref().unwrap_or_default();
    let path = environment.iter().rev().find_map(|line| line.strip_prefix("PATH="));
    let path = path.unwrap_or(crate::spec::DEFAULT_PATH);
    path.split(':')
        .map(|directory| {
            let directory = if directory.is_empty() { "." } else { directory };
            sys::c_string(format!("{directory}/{name}")).doing("looking for", name)
        })
        .collect()
}

fn execute(
    name: &str,
    candidates: &[CString],
    arguments: &[CString],
    environment: &[CString],
) -> Failure {
    let mut worst = libc::ENOENT;
    for path in candidates {
        let error = sys::execve(path, arguments, environment).raw_os_error().unwrap_or(libc::EIO);
        match error {
            libc::ENOENT | libc::ENOTDIR => {}
            libc::EACCES => worst = error,
            _ => {
                worst = error;
                break;
            }
        }
    }
    let reason = if worst == libc::ENOENT { Reason::NotFound } else { Reason::NotExecutable };
    Failure { action: "running".into(), subject: name.to_owned(), errno: worst, reason }
}
