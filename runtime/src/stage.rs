//! The door between the program and its own fresh copy: what is passed, and how it is started.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use oci_spec::runtime::{Process, Spec};
use rustix::fs::{MemfdFlags, SealFlags};
use serde::{Deserialize, Serialize};

use crate::descriptors::ProgramDescriptors;
use crate::program::OtherRuntime;
use crate::{Error, Exec, ExitStatus, HealthCheck, LogLimits, Result, Signal, sys};

/// `argv[0]` of a stage. Not a secret: anyone who can start this program can do all that a stage
/// can.
pub(crate) const MARK: &str = "container-stage";

/// The variable that gives a stage the level of its log.
pub(crate) const LOG: &str = "STAGE_LOG";

/// A configuration is never larger than this.
const MAX_CONFIG: u64 = 16 << 20;

/// The input of a stage, in a sealed memory file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StageConfig {
    /// The container; without its seccomp profile, which travels compiled.
    pub(crate) spec: Spec,
    /// Names cgroup and keyring.
    pub(crate) id: String,
    /// Whether pid 1 is ours.
    pub(crate) init: bool,
    /// `SECCOMP_FILTER_FLAG_*` of the system call filter that follows.
    pub(crate) filter_flags: u32,
    /// Whether the filter asks the supervisor about the owners of files.
    pub(crate) owners: bool,
    /// Whether we are not in the initial user namespace.
    pub(crate) user_namespace: bool,
    /// Scopes of the Landlock domain the container gets; none if 0.
    pub(crate) scopes: u64,
    /// Rows and columns of the terminal.
    pub(crate) terminal: Option<(u16, u16)>,
    /// The numbers that the last of the descriptors have in the program.
    pub(crate) descriptors: Vec<u32>,
    /// Who makes the container, if not this runtime.
    pub(crate) other: Option<OtherRuntime>,
    /// What the stage is to become.
    pub(crate) role: Role,
}

/// What a stage is to become.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Role {
    /// The supervisor of a container that dies with its starter.
    Supervise,
    /// The monitor of a container that has a directory.
    Monitor {
        /// Whether standard input stays open.
        interactive: bool,
        /// Whether output waits for the first client.
        held: bool,
        /// How it watches over the container.
        watch: Box<MonitorOptions>,
    },
    /// One more program in a container that runs.
    Join {
        /// The program.
        exec: Box<Exec>,
        /// The container's cgroup.
        cgroups: Vec<std::path::PathBuf>,
    },
    /// The one that makes a container of an engine, whose program waits.
    Create(EngineDetails),
    /// The one that brings a further process into a container of an engine.
    Exec {
        /// The process.
        process: Box<Process>,
        /// The container's cgroups.
        cgroups: Vec<std::path::PathBuf>,
        /// How many descriptors from 3 on it keeps.
        preserve_fds: u32,
    },
}

/// What the monitor of a container does for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorOptions {
    /// How it finds out whether the program works.
    pub health: Option<HealthCheck>,
    /// What it keeps of what the program prints.
    pub log: LogLimits,
    /// Seconds after which it kills the container; 0 is never.
    pub timeout: u32,
    /// How it stops an unhealthy container: TERM if not given.
    pub stop_signal: Option<Signal>,
    /// Seconds it then waits before it kills; 10 if not given.
    pub stop_timeout: Option<u32>,
}

/// What only a container of an engine has.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct EngineDetails {
    /// The directory it is made from.
    pub(crate) bundle: String,
    /// Where its root file system is on the machine.
    pub(crate) rootfs: std::path::PathBuf,
    /// How many descriptors from 3 on it keeps.
    pub(crate) preserve_fds: u32,
    /// Whether it shares the caller's session keyring.
    pub(crate) keep_keyring: bool,
}

/// What a stage answers: one JSON document per line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Answer {
    /// The program runs. The terminal's descriptor comes along, if there is one.
    Started(StartReport),
    /// It could not be started.
    Failed(Failure),
    /// It ended.
    Exited(ExitStatus),
}

/// A container that the stage has started.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct StartReport {
    /// First process.
    pub(crate) pid: u32,
    /// Directories to remove after the end, should the stage not live to do it.
    pub(crate) cgroups: Vec<std::path::PathBuf>,
}

/// Which kind of failure, beyond its error number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Reason {
    /// Something of ours.
    #[default]
    Setup,
    /// The program is not there.
    NotFound,
    /// The program cannot be executed.
    NotExecutable,
    /// A limit cannot be set.
    Limit,
    /// The description makes no sense; the action holds the part, the subject the reason.
    Invalid,
    /// The user is not known; the action holds the user, the subject the reason.
    User,
    /// The process ended before its program ran; the subject says how.
    Lost,
    /// Another runtime failed; the action holds its program, the subject how.
    OtherRuntime,
}

/// One failed action on the way into the container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) action: String,
    pub(crate) subject: String,
    pub(crate) errno: i32,
    pub(crate) reason: Reason,
}

/// A step on the way into the container.
pub(crate) type Step<T = ()> = std::result::Result<T, Failure>;

impl Failure {
    pub(crate) fn invalid(what: &str, reason: impl Into<String>) -> Failure {
        Failure { action: what.into(), subject: reason.into(), errno: 0, reason: Reason::Invalid }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let Failure { action, subject, errno, reason } = failure;
        let source = io::Error::from_raw_os_error(errno);
        match reason {
            Reason::Setup => Error::Stage { action, subject, source },
            Reason::NotFound => Error::ProgramNotFound { program: subject },
            Reason::NotExecutable => Error::NotExecutable { program: subject, source },
            Reason::Limit => Error::Limit { limit: action, reason: subject },
            Reason::Invalid => Error::Invalid { what: action, reason: subject },
            Reason::User => Error::User { user: action, reason: subject },
            Reason::Lost => Error::Ended { how: subject },
            Reason::OtherRuntime => Error::OtherRuntime { program: action, how: subject },
        }
    }
}

/// Says what was being done when a system call failed.
pub(crate) trait ErrorContext<T> {
    fn doing(self, action: &str, subject: impl AsRef<std::path::Path>) -> Step<T>;
}

impl<T, E: Into<io::Error>> ErrorContext<T> for std::result::Result<T, E> {
    fn doing(self, action: &str, subject: impl AsRef<std::path::Path>) -> Step<T> {
        self.map_err(|error| Failure {
            action: action.to_owned(),
            subject: subject.as_ref().display().to_string(),
            errno: error.into().raw_os_error().unwrap_or(libc::EINVAL),
            reason: Reason::Setup,
        })
    }
}

/// A view of this program that cannot be written through (CVE-2019-5736): a detached, read-only
/// mount of the file, or, if that is not possible, a sealed copy.
fn own_program() -> Result<OwnedFd> {
    let open = Error::system("opening", "/proc/self/exe");
    let exe = File::open("/proc/self/exe").map_err(open)?;
    let read_only = rustix::fs::fstatvfs(&exe)
        .is_ok_and(|stat| stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    if read_only {
        return Ok(exe.into());
    }
    // After entering another mount namespace the program is still known by its old mount.
    let mounted = sys::open_tree(exe.as_fd(), c"", false)
        .or_else(|_| sys::open_tree(by_name(&exe)?.as_fd(), c"", false))
        .and_then(|mount| {
            sys::mount_setattr(mount.as_fd(), false, sys::MOUNT_ATTR_RDONLY, 0, 0)?;
            Ok(mount)
        });
    match mounted {
        Ok(mount) => Ok(mount),
        Err(_) => sealed_copy(exe),
    }
}

/// Opens this program's file by its name, if that is still the same file.
fn by_name(exe: &File) -> io::Result<File> {
    let named = File::open(std::fs::read_link("/proc/self/exe")?)?;
    let (one, other) = (rustix::fs::fstat(exe)?, rustix::fs::fstat(&named)?);
    if (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino) {
        Ok(named)
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

fn sealed_copy(mut exe: File) -> Result<OwnedFd> {
    let mut copy = || -> io::Result<OwnedFd> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut copy = File::from(rustix::fs::memfd_create("program", flags)?);
        io::copy(&mut exe, &mut copy)?;
        seal(&copy)?;
        Ok(copy.into())
    };
    copy().map_err(Error::system("copying", "/proc/self/exe"))
}

fn seal(file: &File) -> io::Result<()> {
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(file, seals).map_err(io::Error::from)
}

/// A stage that was started: the process, and the line to it.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) process: Child,
    pub(crate) line: UnixStream,
}

/// Starts a stage. `fds` go along in this order; `filter` is the compiled system call filter.
pub(crate) fn spawn(
    config: &StageConfig,
    filter: &[sys::Instruction],
    fds: &[BorrowedFd<'_>],
    stderr: Stdio,
) -> Result<Stage> {
    let program = own_program()?;
    let memory =
        memory_file(config, filter).map_err(Error::system("writing", "the configuration"))?;
    let (line, theirs) =
        UnixStream::pair().map_err(Error::system("making", "a socket to the container"))?;
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&program));
    let mut command = Command::new(path);
    command.arg0(MARK).env_clear();
    if tracing::enabled!(tracing::Level::DEBUG) {
        command.env(LOG, "debug");
    }
    let process = command
        .process_group(0)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(stderr)
        .spawn()
        .map_err(Error::system("starting", "the container's supervisor"))?;
    let mut all = vec![memory.as_fd()];
    all.extend_from_slice(fds);
    sys::send_fds(&line, b"c", &all).map_err(Error::system("talking to", "the supervisor"))?;
    Ok(Stage { process, line })
}

fn memory_file(config: &StageConfig, filter: &[sys::Instruction]) -> io::Result<File> {
    let json = serde_json::to_vec(config)?;
    let mut bytes = Vec::with_capacity(8 + json.len() + filter.len() * 8);
    bytes.extend_from_slice(&(json.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&json);
    for instruction in filter {
        bytes.extend_from_slice(&instruction.code.to_le_bytes());
        bytes.extend_from_slice(&[instruction.jt, instruction.jf]);
        bytes.extend_from_slice(&instruction.k.to_le_bytes());
    }
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(rustix::fs::memfd_create("configuration", flags)?);
    file.write_all(&bytes)?;
    seal(&file)?;
    Ok(file)
}

/// What a stage was given.
#[derive(Debug)]
pub(crate) struct StageInput {
    pub(crate) config: StageConfig,
    pub(crate) filter: Vec<sys::Instruction>,
    pub(crate) fds: std::collections::VecDeque<OwnedFd>,
    /// Those for the program alone.
    pub(crate) passed: ProgramDescriptors,
    /// The line to the starter.
    pub(crate) line: UnixStream,
}

impl StageInput {
    /// The next descriptor, in the order of [`spawn`].
    pub(crate) fn take(&mut self) -> Step<OwnedFd> {
        self.fds
            .pop_front()
            .ok_or_else(|| Failure::invalid("configuration", "descriptors are missing"))
    }
}

/// Reads what the starter gave, from standard input.
pub(crate) fn receive() -> io::Result<StageInput> {
    let line = UnixStream::from(rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?);
    let null = File::options().read(true).write(true).open("/dev/null")?;
    sys::dup_to(null.as_fd(), 0)?;
    let mut byte = [0];
    let (_, fds) = sys::receive_fds(&line, &mut byte)?;
    let mut fds: std::collections::VecDeque<_> = fds.into();
    let memory = File::from(fds.pop_front().ok_or(io::ErrorKind::UnexpectedEof)?);
    let (config, filter) = read_config(&memory)?;
    let passed = ProgramDescriptors::split(&config.descriptors, &mut fds)?;
    Ok(StageInput { config, filter, fds, passed, line })
}

fn read_config(memory: &File) -> io::Result<(StageConfig, Vec<sys::Instruction>)> {
    use std::os::unix::fs::FileExt;
    let mut head = [0; 8];
    memory.read_exact_at(&mut head, 0)?;
    let mut bytes = Vec::new();
    let mut reader = memory;
    io::Seek::rewind(&mut reader)?;
    reader.take(MAX_CONFIG).read_to_end(&mut bytes)?;
    let end = usize::try_from(u64::from_le_bytes(head))
        .ok()
        .and_then(|length| length.checked_add(8))
        .filter(|end| *end <= bytes.len())
        .ok_or(io::ErrorKind::InvalidData)?;
    let config = serde_json::from_slice(&bytes[8..end])?;
    let filter = bytes[end..].chunks_exact(8).map(|chunk| sys::Instruction {
        code: u16::from_le_bytes([chunk[0], chunk[1]]),
        jt: chunk[2],
        jf: chunk[3],
        k: u32::from_le_bytes([chunk[4], chunk[5], chunk[6], chunk[7]]),
    });
    Ok((config, filter.collect()))
}

/// Sends one answer, with a descriptor if there is one.
pub(crate) fn answer(
    line: impl AsFd,
    answer: &Answer,
    fd: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    answer_with(line, answer, fd.as_slice())
}

/// Sends one answer with descriptors.
pub(crate) fn answer_with(
    line: impl AsFd,
    answer: &Answer,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(answer)?;
    bytes.push(b'\n');
    sys::send_fds(line, &bytes, fds)
}

/// Reads answers from a line, one JSON document each.
#[derive(Debug)]
pub(crate) struct Answers {
    line: UnixStream,
    buffer: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Answers {
    pub(crate) fn new(line: UnixStream) -> Self {
        Answers { line, buffer: Vec::new(), fds: Vec::new() }
    }

    /// Whether a whole answer was read already.
    pub(crate) fn has_next(&self) -> bool {
        self.buffer.contains(&b'\n')
    }

    /// The next answer and the last descriptor that came; `None` when the other side is gone.
    pub(crate) fn next(&mut self) -> Option<(Answer, Option<OwnedFd>)> {
        self.next_with_all().map(|(answer, mut fds)| (answer, fds.pop()))
    }

    /// The next answer and all descriptors that came.
    pub(crate) fn next_with_all(&mut self) -> Option<(Answer, Vec<OwnedFd>)> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let fds = std::mem::take(&mut self.fds);
                return Some((serde_json::from_slice(&line).ok()?, fds));
            }
            let mut bytes = [0; 4096];
            let (count, fds) = sys::receive_fds(&self.line, &mut bytes).ok()?;
            self.fds.extend(fds);
            if count == 0 || self.buffer.len() > 1 << 20 {
                return None;
            }
            self.buffer.extend_from_slice(&bytes[..count]);
        }
    }

    /// The line itself.
    pub(crate) fn line(&self) -> &UnixStream {
        &self.line
    }
}
