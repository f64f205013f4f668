//! The stage that brings one more program into a running container.

use std::convert::Infallible;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use oci_spec::runtime::Process;
use rustix::fs::{Mode, OFlags};

use crate::init::{self, Program, RunningContainer, ended, wait_ready};
use crate::spec::{environment, users};
use crate::stage::{
    self, Answer, ErrorContext, Failure, Reason, Role, StageInput, StartReport, Step,
};
use crate::sys::{self, Side};
use crate::{Error, Exec};

/// The user databases of a container are never larger than this.
const MAX_USERS: u64 = 1 << 20;

/// Joins the container, runs the program in it, and tells the client of it.
pub(crate) fn join(mut given: StageInput) -> Step {
    let pidfd = given.take()?;
    let client = UnixStream::from(given.take()?);
    let result = join_for(&mut given, &pidfd, &client);
    if let Err(failure) = result {
        // A client that is gone does not want to know.
        let _ = stage::answer(&client, &Answer::Failed(failure), None);
    }
    Ok(())
}

fn join_for(given: &mut StageInput, container: &OwnedFd, client: &UnixStream) -> Step {
    // Nothing inside may look at this process, which still has descriptors of the outside.
    sys::prctl(libc::PR_SET_DUMPABLE, 0, 0).doing("hiding", "the joining process")?;
    init::die_with_parent()?;
    let mut stdio = [None, None, None];
    if given.config.terminal.is_none() {
        for stream in &mut stdio {
            *stream = Some(given.take()?);
        }
    }
    let config = &given.config;
    let Role::Join { cgroups, .. } = &config.role else {
        return Err(Failure::invalid("configuration", "it is not for joining"));
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = rustix::fs::open("/proc", flags, Mode::empty()).doing("opening", "/proc")?;
    crate::cgroup::enter(cgroups)?;
    init::give_streams(&config.spec, &stdio);
    sys::setns(container.as_fd(), init::listed_namespaces(&config.spec))
        .doing("joining", "the container")?;
    let (ours, mut theirs) = UnixStream::pair().doing("making", "a socket")?;
    // SAFETY: a stage has one thread.
    match unsafe { sys::fork(&sys::Clone::default()) }.doing("starting", "the program")? {
        Side::Child => {
            drop(ours);
            let made = given.passed.make_way(&mut theirs);
            let became = made.and_then(|()| become_program(given, stdio, proc.as_fd(), &theirs));
            let failure = match became {
                Ok(never) => match never {},
                Err(failure) => failure,
            };
            init::fail(&theirs, &failure);
            sys::exit(125)
        }
        Side::Parent { pid, pidfd } => {
            drop((theirs, stdio, std::mem::take(&mut given.passed)));
            let running = RunningContainer::joined(pid, pidfd);
            let terminal = match wait_ready(&ours) {
                Ok(mut fds) => fds.pop(),
                Err(failure) => {
                    running.kill();
                    let status = ended(&running);
                    let lost = failure.reason == Reason::Lost;
                    return Err(if lost { init::lost(status) } else { failure });
                }
            };
            let started = Answer::Started(StartReport { pid, cgroups: Vec::new() });
            let _ = stage::answer(client, &started, terminal.as_ref().map(AsFd::as_fd));
            drop(terminal);
            init::follow(&running, client, false);
            let _ = stage::answer(client, &Answer::Exited(ended(&running)), None);
            Ok(())
        }
    }
}

fn become_program(
    given: &StageInput,
    mut stdio: [Option<OwnedFd>; 3],
    proc: BorrowedFd<'_>,
    report: &UnixStream,
) -> Step<Infallible> {
    let config = &given.config;
    let Role::Join { exec, .. } = &config.role else {
        return Err(Failure::invalid("configuration", "it is not for joining"));
    };
    init::die_with_parent()?;
    rustix::process::setsid().doing("starting", "a session")?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty()).doing("opening", "/")?;
    let process = config.spec.process().as_ref();
    let process = process.ok_or_else(|| Failure::invalid("spec", "it has no process"))?;
    let process = describe(process, exec, root.as_fd())?;
    let mut terminal = None;
    if let Some(size) = config.terminal {
        let (ours, theirs) = init::terminal(root.as_fd(), size, process.user().uid())?;
        init::take_terminal(&theirs, &mut stdio)?;
        terminal = Some(ours);
    }
    init::join_keyring(&config.id)?;
    init::streams(&stdio, process.user().uid())?;
    let filter: &[sys::Instruction] = if exec.privileged { &[] } else { &given.filter };
    init::run_program(Program {
        waits: None,
        bound: true,
        preserve_fds: 0,
        passed: &given.passed,
        process: &process,
        filter: (filter, config.filter_flags),
        init: false,
        proc,
        report,
        terminal,
    })
}

/// The container's own process, changed as the user asks.
fn describe(base: &Process, exec: &Exec, root: BorrowedFd<'_>) -> Step<Process> {
    let mut process = base.clone();
    process.set_args(Some(exec.args.clone()));
    let mut lines = exec.env.clone().or_else(|| base.env().clone()).unwrap_or_default();
    if let Some(wanted) = &exec.user {
        let read = |path: &str| read_users(root, path).doing("reading", path);
        let identity =
            users::resolve_user(wanted, &[], &read("/etc/passwd")?, &read("/etc/group")?)
                .map_err(wrong)?;
        let user = process.user_mut();
        user.set_uid(identity.uid);
        user.set_gid(identity.gid);
        user.set_additional_gids(Some(identity.groups.clone()));
        let home = identity.home.as_deref().unwrap_or("/");
        environment::set(&mut lines, &format!("HOME={home}")).map_err(wrong)?;
    }
    if exec.terminal.is_some() && !lines.iter().any(|line| line.starts_with("TERM=")) {
        lines.push("TERM=xterm".to_owned());
    }
    for line in &exec.extra_env {
        environment::set(&mut lines, line).map_err(wrong)?;
    }
    process.set_env(Some(lines));
    if let Some(directory) = &exec.working_dir {
        if !directory.starts_with('/') {
            return Err(Failure::invalid(
                "working directory",
                format!("{directory:?} is not absolute"),
            ));
        }
        process.set_cwd(directory.into());
    }
    if exec.privileged {
        let all = crate::spec::capabilities::all().map_err(wrong)?;
        process.set_capabilities(Some(all));
    }
    Ok(process)
}

fn wrong(error: Error) -> Failure {
    match error {
        Error::User { user, reason } => {
            Failure { action: user, subject: reason, errno: 0, reason: Reason::User }
        }
        Error::Invalid { what, reason } => Failure::invalid(&what, reason),
        other => Failure::invalid("exec", other.to_string()),
    }
}

/// Reads a user database of the container: a plain file, bounded; nothing if there is none.
fn read_users(root: BorrowedFd<'_>, path: &str) -> std::io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match sys::open_in(root, Path::new(path), flags) {
        Ok(file) => std::fs::File::from(file),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    let mut text = Vec::new();
    if file.take(MAX_USERS + 1).read_to_end(&mut text)? as u64 > MAX_USERS {
        return Err(std::io::ErrorKind::FileTooLarge.into());
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}
