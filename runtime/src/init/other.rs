//! A container that another OCI runtime makes of a bundle, and removes when it has ended.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use oci_spec::runtime::BoxBuilder;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, move_mount};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::borders;
use super::supervisor::RunningContainer;
use crate::program::OtherRuntime;
use crate::stage::{ErrorContext, Failure, Reason, StageInput, Step};
use crate::sys;

/// A container of another runtime.
#[derive(Debug)]
pub(super) struct ForeignContainer {
    runtime: OtherRuntime,
    id: String,
}

/// Has the runtime make the container and start its program.
pub(super) fn begin(given: &mut StageInput, runtime: OtherRuntime) -> Step<RunningContainer> {
    let rootfs = given.take()?;
    let terminal = given.config.terminal;
    let streams = match terminal {
        Some(_) => None,
        None => Some([given.take()?, given.take()?, given.take()?]),
    };
    borders::adopt()?;
    lay(given, rootfs, &runtime.bundle)?;
    let other = ForeignContainer { runtime, id: given.config.id.clone() };
    let socket = other.runtime.bundle.join("console");
    let listener = terminal
        .map(|_| {
            let _ = std::fs::remove_file(&socket);
            UnixListener::bind(&socket).doing("making", &socket)
        })
        .transpose()?;
    let pid_file = other.runtime.bundle.join("pid");
    let mut create = other.command("create");
    create.arg("--bundle").arg(&other.runtime.bundle).arg("--pid-file").arg(&pid_file);
    if listener.is_some() {
        create.arg("--console-socket").arg(&socket);
    }
    if let Some([input, output, error]) = streams {
        create.stdin(input).stdout(output).stderr(error);
    }
    other.run(create.arg(&other.id), "create")?;
    let terminal = match listener.map(|listener| take_terminal(&listener)) {
        None => None,
        Some(taken) => Some(taken.doing("taking", &socket).inspect_err(|_| other.remove())?),
    };
    let begun = pid(&pid_file).and_then(|pid| {
        let opened = Pid::from_raw(pid).ok_or(Errno::INVAL);
        let pidfd = opened.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
        let pidfd = pidfd.doing("opening", &pid_file)?;
        other.run(other.command("start").arg(&other.id), "start")?;
        Ok((pid, pidfd))
    });
    match begun {
        Ok((pid, pidfd)) => {
            let pid = u32::try_from(pid).unwrap_or_default();
            let mut running = RunningContainer::joined(pid, pidfd);
            (running.terminal, running.other) = (terminal, Some(other));
            Ok(running)
        }
        Err(failure) => {
            other.remove();
            Err(failure)
        }
    }
}

/// Makes the bundle: the document, and the root file system where it is looked for. Nobody else sees
/// what is mounted there.
fn lay(given: &mut StageInput, rootfs: OwnedFd, bundle: &Path) -> Step {
    let root = bundle.join("rootfs");
    std::fs::create_dir_all(&root).doing("making", &root)?;
    sys::unshare(libc::CLONE_NEWNS).doing("making", "a mount namespace")?;
    let slave = rustix::mount::MountPropagationFlags::DOWNSTREAM
        | rustix::mount::MountPropagationFlags::REC;
    rustix::mount::mount_change("/", slave).doing("leaving", "the mounts of the machine")?;
    let tree = sys::open_tree(rootfs.as_fd(), c"", true).unwrap_or(rootfs);
    let place = rustix::fs::open(&root, OFlags::PATH | OFlags::DIRECTORY, 0.into())
        .doing("opening", &root)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&tree, c"", &place, c"", flags).doing("mounting", &root)?;
    let spec = &mut given.config.spec;
    // Older runtimes know no later version; they pass over what is new in it.
    spec.set_version("1.0.2".to_owned());
    let mut own = spec.root().clone().unwrap_or_default();
    own.set_path(root);
    spec.set_root(Some(own));
    if let Some(process) = spec.process_mut() {
        process.set_terminal(Some(given.config.terminal.is_some()));
        if let Some((rows, columns)) = given.config.terminal {
            let size = BoxBuilder::default().height(rows).width(columns).build();
            process.set_console_size(size.ok());
        }
    }
    let path = bundle.join("config.json");
    let document = File::create(&path).doing("making", &path)?;
    serde_json::to_writer(document, spec).map_err(io::Error::from).doing("writing", &path)
}

/// The terminal that the runtime sends.
fn take_terminal(listener: &UnixListener) -> io::Result<OwnedFd> {
    let (socket, _) = listener.accept()?;
    let (_, mut fds) = sys::receive_fds(&socket, &mut [0; 4096])?;
    fds.pop().ok_or(io::ErrorKind::UnexpectedEof.into())
}

/// The number that the runtime has written.
fn pid(path: &Path) -> Step<i32> {
    let text = std::fs::read_to_string(path).doing("reading", path)?;
    text.trim()
        .parse()
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
        .doing("reading", path)
}

impl ForeignContainer {
    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.runtime.program);
        command
            .env_clear()
            .envs(self.runtime.environment.iter().map(|(name, value)| (name, value)));
        command.args(&self.runtime.flags).arg(verb);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    fn run(&self, command: &mut Command, verb: &str) -> Step {
        let program = self.runtime.program.display().to_string();
        let status = command.status().doing("starting the runtime", &program)?;
        if status.success() {
            return Ok(());
        }
        let how = format!("{verb} ended with {status}");
        Err(Failure { action: program, subject: how, errno: 0, reason: Reason::OtherRuntime })
    }

    /// Has the runtime remove the container, and what is left of it.
    pub(super) fn remove(&self) {
        let mut delete = self.command("delete");
        let ended = delete.args(["--force", &self.id]).stderr(Stdio::null()).status();
        if let Err(error) = ended {
            tracing::debug!(%error, "the runtime does not remove the container");
        }
    }
}
