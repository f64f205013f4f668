//! The stages of an engine's containers: they start a process and end, so that it becomes a child
//! of the process that adopts orphans.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use oci_spec::runtime::{ContainerState, LinuxNamespaceType, Spec};
use rustix::fs::{Mode, OFlags};

use super::hooks::{self, Moment};
use crate::Error;
use crate::cgroup::Cgroup;
use crate::init::{self, Program};
use crate::stage::{
    self, Answer, ErrorContext, Failure, Reason, Role, StageConfig, StageInput, StartReport, Step,
};
use crate::sys::{self, Side};

/// An error of this process, on its way to the starter.
pub(crate) fn failed(error: Error) -> Failure {
    match error {
        Error::Invalid { what, reason } => Failure::invalid(&what, reason),
        Error::System { action, subject, source } => Failure {
            action: action.to_owned(),
            subject,
            errno: source.raw_os_error().unwrap_or(libc::EIO),
            reason: Reason::Setup,
        },
        other => Failure::invalid("hooks", other.to_string()),
    }
}

/// Makes a container whose program waits.
pub(crate) fn create(mut given: StageInput, device: init::MoveDevice) -> Step {
    let line = given.line.try_clone().doing("copying", "a socket")?;
    let running = init::begin_for_engine(&mut given, device)?;
    let cgroups = running.cgroup.as_ref().map(Cgroup::directories).unwrap_or_default();
    let started = Answer::Started(StartReport { pid: running.pid, cgroups });
    let fds: Vec<BorrowedFd<'_>> = running.descriptors.iter().map(AsFd::as_fd).collect();
    stage::answer_with(&line, &started, &fds).doing("answering", "the engine")
}

/// Whether something is done between the namespaces and the files of a container.
fn is_attended(config: &StageConfig) -> bool {
    matches!(config.role, Role::Create(_))
        && (config.spec.hooks().is_some() || devices(&config.spec).next().is_some())
}

/// The devices that a container gets, each with its name inside.
fn devices(spec: &Spec) -> impl Iterator<Item = (&String, Option<&str>)> {
    let linux = spec.linux().as_ref();
    let listed = linux.and_then(|linux| linux.net_devices().as_ref()).into_iter().flatten();
    listed.map(|(name, device)| (name, device.name().as_deref()))
}

/// Moves the devices of this machine that a container gets into its network namespace.
fn give_devices(spec: &Spec, pid: u32, device: init::MoveDevice) -> Step {
    let linux = spec.linux().as_ref();
    let spaces = linux.and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    let network = spaces.iter().find(|one| one.typ() == LinuxNamespaceType::Network);
    let joined = network.and_then(|network| network.path().clone());
    let namespace = joined.unwrap_or_else(|| format!("/proc/{pid}/ns/net").into());
    let mut all: Vec<_> = devices(spec).collect();
    all.sort_unstable();
    all.into_iter().try_for_each(|(name, inside)| {
        let moved = device(name, inside, &namespace);
        moved.map_err(|why| Failure::invalid("linux.netDevices", why))
    })
}

/// Supervisor's side of [`attend`]: moves devices, and runs the hooks that belong between the namespaces
/// and the files of a container.
pub(crate) fn accompany(
    config: &StageConfig,
    pid: u32,
    mut report: &UnixStream,
    device: Option<init::MoveDevice>,
) -> Step {
    let (Role::Create(waits), Some(device)) = (&config.role, device) else { return Ok(()) };
    if !is_attended(config) || peek(report)? != Some(b'N') {
        return Ok(());
    }
    report.read_exact(&mut [0]).doing("waiting for", "the container")?;
    give_devices(&config.spec, pid, device)?;
    for moment in [Moment::Prestart, Moment::CreateRuntime] {
        let creating = ContainerState::Creating;
        hooks::run(&config.spec, moment, &config.id, &waits.bundle, pid, creating)
            .map_err(failed)?;
    }
    report.write_all(&pid.to_le_bytes()).doing("starting", "the container")
}

/// The next byte, which stays to be read.
fn peek(report: &UnixStream) -> Step<Option<u8>> {
    use rustix::net::{RecvFlags, recv};
    let mut byte = [0];
    loop {
        match recv(report, &mut byte, RecvFlags::PEEK) {
            Err(rustix::io::Errno::INTR) => {}
            Ok((_, count)) => return Ok((count == 1).then_some(byte[0])),
            Err(errno) => return Err(errno).doing("waiting for", "the container"),
        }
    }
}

/// Container's side: its namespaces are there; gives its process id as the machine sees it.
pub(crate) fn attend(config: &StageConfig, mut report: &UnixStream) -> Step<u32> {
    if !is_attended(config) {
        return Ok(0);
    }
    report.write_all(b"N").doing("reporting to", "the supervisor")?;
    let mut pid = [0; 4];
    report.read_exact(&mut pid).doing("waiting for", "hooks")?;
    Ok(u32::from_le_bytes(pid))
}

/// Runs hooks inside of the container.
pub(crate) fn hooks_inside(config: &StageConfig, moment: Moment, pid: u32) -> Step {
    let Role::Create(waits) = &config.role else { return Ok(()) };
    let status = match moment {
        Moment::StartContainer => ContainerState::Created,
        _ => ContainerState::Creating,
    };
    hooks::run(&config.spec, moment, &config.id, &waits.bundle, pid, status).map_err(failed)
}

/// Brings one more process into a container.
pub(crate) fn exec(mut given: StageInput) -> Step {
    let container = given.take()?;
    // Nothing inside may look at this process, which still has descriptors of the outside.
    sys::prctl(libc::PR_SET_DUMPABLE, 0, 0).doing("hiding", "the joining process")?;
    let mut stdio = [None, None, None];
    if given.config.terminal.is_none() {
        for stream in &mut stdio {
            *stream = Some(given.take()?);
        }
    }
    let config = &given.config;
    let Role::Exec { process, cgroups, .. } = &config.role else {
        return Err(Failure::invalid("configuration", "it is not for a further process"));
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = rustix::fs::open("/proc", flags, Mode::empty()).doing("opening", "/proc")?;
    let affinity = process.exec_cpu_affinity().as_ref();
    pin(affinity.and_then(|affinity| affinity.initial().as_deref()))?;
    crate::cgroup::enter(cgroups)?;
    pin(affinity.and_then(|affinity| affinity.cpu_affinity_final().as_deref()))?;
    init::give_streams(&config.spec, &stdio);
    let spaces = init::listed_namespaces(&config.spec);
    sys::setns(container.as_fd(), spaces).doing("joining", "the container")?;
    let (ours, theirs) = UnixStream::pair().doing("making", "a socket")?;
    // SAFETY: a stage has one thread.
    match unsafe { sys::fork(&sys::Clone::default()) }.doing("starting", "the program")? {
        Side::Child => {
            drop(ours);
            let failure = match become_program(&given, stdio, proc.as_fd(), &theirs) {
                Ok(never) => match never {},
                Err(failure) => failure,
            };
            init::fail(&theirs, &failure);
            sys::exit(125)
        }
        Side::Parent { pid, .. } => {
            drop((theirs, stdio));
            let descriptors = init::wait_ready(&ours)?;
            let started = Answer::Started(StartReport { pid, cgroups: Vec::new() });
            let fds: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
            stage::answer_with(&given.line, &started, &fds).doing("answering", "the engine")
        }
    }
}

/// Lets this process, and what it starts, run on these CPUs only.
fn pin(list: Option<&str>) -> Step {
    let Some(list) = list.filter(|list| !list.is_empty()) else { return Ok(()) };
    let wrong = || Failure::invalid("process.execCPUAffinity", format!("{list:?} is no CPU list"));
    let cpus = cpus(list).ok_or_else(wrong)?;
    rustix::thread::sched_setaffinity(None, &cpus).doing("choosing CPUs", list)
}

/// The CPUs of a list such as `0-3,7`.
fn cpus(list: &str) -> Option<rustix::thread::CpuSet> {
    let mut set = rustix::thread::CpuSet::new();
    for part in list.split(',') {
        let (first, last) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if last >= rustix::thread::CpuSet::MAX_CPU {
            return None;
        }
        (first..=last).for_each(|cpu| set.set(cpu));
    }
    Some(set)
}

fn become_program(
    given: &StageInput,
    mut stdio: [Option<OwnedFd>; 3],
    proc: BorrowedFd<'_>,
    report: &UnixStream,
) -> Step<Infallible> {
    let config = &given.config;
    let Role::Exec { process, preserve_fds, .. } = &config.role else {
        return Err(Failure::invalid("configuration", "it is not for a further process"));
    };
    rustix::process::setsid().doing("starting", "a session")?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty()).doing("opening", "/")?;
    let mut terminal = None;
    if let Some(size) = config.terminal {
        let (ours, theirs) = init::terminal(root.as_fd(), size, process.user().uid())?;
        init::take_terminal(&theirs, &mut stdio)?;
        terminal = Some(ours);
    }
    init::streams(&stdio, process.user().uid())?;
    config.spec.linux().iter().try_for_each(init::memory_policy)?;
    init::run_program(Program {
        process,
        filter: (&given.filter, config.filter_flags),
        init: false,
        proc,
        report,
        terminal,
        waits: None,
        bound: false,
        preserve_fds: *preserve_fds,
        passed: &given.passed,
    })
}
