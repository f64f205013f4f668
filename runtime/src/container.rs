//! A container that lives no longer than the process that started it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Child;

use oci_spec::runtime::Spec;
use task::{Cancelled, Task};

use crate::descriptors::LentDescriptors;
use crate::program::OtherRuntime;
use crate::stage::{self, Answer, Answers, Reason, Role, StageConfig, StartReport};
use crate::streams::{Carrier, ProgramPipes, SharedInput};
use crate::terminal::Signals;
use crate::{Error, ExitStatus, Result, Signal, cgroup, seccomp, sys, userns};

/// What to run: a runtime-spec document and the root file system it runs in.
#[derive(Debug)]
pub struct Bundle {
    /// `root.path` is not looked at; `root.readonly` is.
    pub spec: Spec,
    /// A detached mount, or a plain directory.
    pub rootfs: OwnedFd,
}

/// Where the bytes of a container's standard streams come from and go to. The container itself has
/// pipes or a terminal of its own, never the files named here.
#[derive(Debug, Default)]
pub enum Stdio {
    /// The streams of this process.
    #[default]
    Inherit,
    /// Nothing to read; the outputs of this process.
    Outputs,
    /// Nothing to read, output is dropped.
    Null,
    /// Nothing to read; both outputs go to the task's output.
    Capture,
    /// Nothing to read; both outputs are captured, input comes from this file.
    CaptureFrom(File),
    /// As [`Stdio::CaptureFrom`]; what the program does not read is left for another container.
    CaptureShared(SharedInput),
    /// A new terminal of this size; [`Container::take_terminal`] gives our end of it.
    Terminal {
        /// Rows.
        rows: u16,
        /// Columns.
        columns: u16,
    },
}

/// How to start a container.
#[derive(Debug, Clone, Default)]
pub struct StartOptions {
    /// Names the container's cgroup and session keyring: letters, digits, `_`, `.` and `-`.
    pub id: String,
    /// Whether a small process of ours is pid 1 (`--init`).
    pub init: bool,
    /// Whether programs may give files to users that do not exist here: the call succeeds, and an
    /// attribute of the file records the owner, from which [`layers`] restores it. For
    /// [`crate::single_id`], and a container that lives no longer than its starter.
    ///
    /// [`layers`]: ../layers/index.html
    pub owners: bool,
    /// Numbers of descriptors of this process that the program gets under the same numbers. They are closed
    /// here; see [`crate::check_inherited`].
    pub descriptors: Vec<u32>,
    /// Another runtime to make the container, for one that lives no longer than its starter.
    pub other: Option<OtherRuntime>,
}

/// A running container whose life ends with this value or this process.
#[derive(Debug)]
pub struct Container {
    process: Child,
    answers: Answers,
    started: StartReport,
    terminal: Option<OwnedFd>,
    carrier: Carrier,
    /// The end was seen; nothing is left to be killed.
    ended: bool,
}

impl Container {
    /// Starts the container; returns when its program runs.
    ///
    /// # Errors
    /// [`Error::ProgramNotFound`], [`Error::NotExecutable`], [`Error::Stage`] with what failed.
    pub fn start(bundle: Bundle, stdio: Stdio, options: &StartOptions) -> Result<Container> {
        let terminal = match stdio {
            Stdio::Terminal { rows, columns } => Some((rows, columns)),
            _ => None,
        };
        let opened = stdio.open().map_err(Error::system("opening", "the standard streams"))?;
        let (streams, carrier) =
            opened.map_or_else(Default::default, |(theirs, carrier)| (Vec::from(theirs), carrier));
        let rootfs = bundle.rootfs;
        let (config, filter) = configure(bundle.spec, options, terminal, Role::Supervise)?;
        let mut fds: Vec<BorrowedFd<'_>> = vec![rootfs.as_fd()];
        fds.extend(streams.iter().map(AsFd::as_fd));
        let lent = LentDescriptors::new(&options.descriptors)?;
        fds.extend(lent.as_fds());
        let stage = stage::spawn(&config, &filter, &fds, std::process::Stdio::inherit())?;
        drop((streams, lent));
        let (process, mut answers) = (stage.process, Answers::new(stage.line));
        let answer = answers.next();
        let mut container = Container {
            process,
            answers,
            started: StartReport::default(),
            terminal: None,
            carrier,
            ended: false,
        };
        match answer {
            Some((Answer::Started(started), terminal)) => {
                tracing::debug!(container = options.id, pid = started.pid, "container started");
                (container.started, container.terminal) = (started, terminal);
                Ok(container)
            }
            Some((Answer::Failed(mut failure), _)) => {
                container.finish();
                if failure.reason == Reason::OtherRuntime {
                    let said = container.carrier.said();
                    failure.subject.extend((!said.is_empty()).then(|| format!(": {said}")));
                }
                Err(failure.into())
            }
            Some((Answer::Exited(_), _)) | None => Err(Error::Lost { process: "supervisor" }),
        }
    }

    /// Our end of the terminal asked for by [`Stdio::Terminal`], once.
    pub fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }

    /// Connects these streams with the container's terminal until it ends; detaching is not
    /// possible, as the container ends with this process. For [`Stdio::Terminal`].
    ///
    /// # Errors
    /// [`Error::Cancelled`], [`Error::Lost`].
    pub fn interact(mut self, streams: crate::Streams3<'_>, task: &Task) -> Result<ExitStatus> {
        let options = crate::AttachOptions {
            input: true,
            detach_keys: Vec::new(),
            forward_signals: true,
            replay: false,
        };
        let line = self.answers.line().try_clone();
        let line = line.map_err(Error::system("copying", "a socket"))?;
        let _hook = task.on_cancel(move || drop(line.shutdown(std::net::Shutdown::Both)));
        let terminal = self.terminal.take();
        match crate::detached::converse(
            &mut self.answers,
            terminal.as_ref(),
            &options,
            streams,
            task,
        )? {
            crate::AttachOutcome::Exited(status) => {
                self.finish();
                Ok(status)
            }
            crate::AttachOutcome::Detached => Err(Error::Lost { process: "supervisor" }),
        }
    }

    /// Passes the output on to the task and waits for the end; kills the container when the task
    /// is cancelled.
    ///
    /// # Errors
    /// [`Error::Cancelled`], [`Error::Lost`].
    pub fn wait(self, task: &Task) -> Result<ExitStatus> {
        self.wait_for_end(None, task)
    }

    /// As [`Container::wait`]; INT, TERM, HUP, QUIT, USR1 and USR2 to this process are passed on to the
    /// container's first one.
    ///
    /// # Errors
    /// As [`Container::wait`].
    pub fn wait_passing_signals(self, task: &Task) -> Result<ExitStatus> {
        let signals = Signals::watch(true, false).map_err(Error::system("making", "a pipe"))?;
        self.wait_for_end(Some(&signals), task)
    }

    fn wait_for_end(mut self, signals: Option<&Signals>, task: &Task) -> Result<ExitStatus> {
        let line = self.answers.line().try_clone();
        let line = line.map_err(Error::system("copying", "a socket"))?;
        let hooked = line.try_clone().map_err(Error::system("copying", "a socket"))?;
        let _hook = task.on_cancel(move || {
            let _ = send(&hooked, Signal::KILL);
        });
        let carrier = std::mem::take(&mut self.carrier);
        let pass = |signal| drop(send(&line, Signal(signal)));
        let signals = signals.map(|signals| (signals, &pass as &dyn Fn(libc::c_int)));
        let answer = match self.answers.has_next() {
            true => carrier.carry(task, || self.answers.next()),
            false => carrier.carry_until(task, line.as_fd(), signals, || self.answers.next()),
        };
        let answer = answer.map_err(Error::system("making", "a pipe"))?;
        match answer {
            Some((Answer::Exited(status), _)) => {
                tracing::debug!(pid = self.started.pid, ?status, "container ended");
                self.finish();
                task.check().map_err(|Cancelled| Error::Cancelled(Cancelled))?;
                Ok(status)
            }
            _ => {
                task.check()?;
                Err(Error::Lost { process: "supervisor" })
            }
        }
    }

    /// Sends a signal to the container's first process; SIGKILL ends all of them.
    ///
    /// # Errors
    /// [`Error::Lost`].
    pub fn kill(&self, signal: Signal) -> Result<()> {
        send(self.answers.line(), signal).map_err(|_| Error::Lost { process: "supervisor" })
    }

    /// The first process, as this process's pid namespace numbers it.
    pub fn pid(&self) -> u32 {
        self.started.pid
    }

    /// Reaps the supervisor, which is ending.
    fn finish(&mut self) {
        let _ = self.process.wait();
        self.ended = true;
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // The supervisor kills the container when the line to it closes; it gets a message, so that this
        // also holds while something else keeps the line open.
        let _ = send(self.answers.line(), Signal::KILL);
        let _ = self.answers.line().shutdown(std::net::Shutdown::Write);
        let _ = self.process.wait();
        cgroup::remove(&self.started.cgroups);
    }
}

fn send(mut line: &UnixStream, signal: Signal) -> io::Result<()> {
    let number = u8::try_from(signal.0).map_err(|_| io::ErrorKind::InvalidInput)?;
    line.write_all(&[number])
}

/// An id names directories and keyrings.
pub(crate) fn check_id(id: &str) -> Result<()> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-+".contains(&byte);
    if !id.is_empty() && id.len() <= 128 && !id.starts_with('.') && id.bytes().all(valid) {
        return Ok(());
    }
    Err(Error::invalid("id", format!("{id:?} must be of letters, digits, _, ., + and -")))
}

/// The input of a stage, and the system call filter.
pub(crate) fn configure(
    mut spec: Spec,
    options: &StartOptions,
    terminal: Option<(u16, u16)>,
    role: Role,
) -> Result<(StageConfig, std::sync::Arc<[sys::Instruction]>)> {
    check_id(&options.id)?;
    if spec.hooks().is_some() {
        return Err(Error::invalid("hooks", "hooks are not supported"));
    }
    userns::check_user(&spec)?;
    crate::ids::join(&mut spec)?;
    let other = options.other.clone().filter(|_| matches!(role, Role::Supervise));
    if other.is_some() && options.init {
        return Err(Error::invalid("init", "another runtime has none; leave it out"));
    }
    let profile = spec.linux_mut().as_mut().filter(|_| other.is_none()).and_then(|linux| {
        let profile = linux.seccomp().clone();
        linux.set_seccomp(None);
        profile
    });
    let owners = options.owners && matches!(role, Role::Supervise);
    let filter = match &profile {
        _ if owners => seccomp::compiled_with_owners(profile.as_ref())?,
        Some(profile) => seccomp::compiled(profile)?,
        None => [].into(),
    };
    let listening = if owners { seccomp::NEW_LISTENER } else { 0 };
    let own = crate::init::makes_user_namespace(&spec);
    let user_namespace = own || crate::in_user_namespace();
    let config = StageConfig {
        scopes: crate::init::scopes(&spec, user_namespace),
        spec,
        id: options.id.clone(),
        init: options.init,
        filter_flags: profile.as_ref().map_or(0, seccomp::flags) | listening,
        owners,
        user_namespace,
        terminal,
        descriptors: options.descriptors.clone(),
        other,
        role,
    };
    Ok((config, filter))
}

impl Stdio {
    /// The three streams for the container, and what carries their bytes; nothing for a terminal.
    fn open(self) -> io::Result<Option<(ProgramPipes, Carrier)>> {
        let input = || io::stdin().as_fd().try_clone_to_owned();
        let files = |input: Option<OwnedFd>| {
            let output = io::stdout().as_fd().try_clone_to_owned()?;
            let error = io::stderr().as_fd().try_clone_to_owned()?;
            Carrier::to_files(input, output, error)
        };
        match self {
            Stdio::Terminal { .. } => return Ok(None),
            Stdio::Inherit => files(Some(input()?)),
            Stdio::Outputs => files(None),
            Stdio::Null => Carrier::null(),
            Stdio::Capture => Carrier::to_task(None),
            Stdio::CaptureFrom(input) => Carrier::to_task(Some(input.into())),
            Stdio::CaptureShared(input) => Carrier::shared(input),
        }
        .map(Some)
    }
}
