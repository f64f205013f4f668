//! The process that holds the network of a container which outlives the command that started it.
//!
//! It is this very program, executed afresh. It makes an [`Uplink`], tells where it is, learns the
//! container's first process, and ends when that has ended; everything it made ends with it.

use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::{Error, Published, Result, Uplink, UplinkOptions};

/// `argv[0]` of a holder.
const MARK: &str = "container-network";

/// What a holder answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Ready { namespace: PathBuf, published: Vec<Published> },
    Failed { error: Failed },
}

/// An error on its way to the process that asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Failed {
    Taken { port: String, errno: i32 },
    NoDevice { errno: i32 },
    Other { action: String, errno: i32 },
}

/// A network that is held for a container. It ends unless [`Held::follow`] is called.
#[derive(Debug)]
pub struct Held {
    _process: Child,
    line: UnixStream,
    namespace: PathBuf,
    published: Vec<Published>,
}

impl Held {
    /// Makes the network in a process of its own.
    ///
    /// # Errors
    /// As [`Uplink::start`].
    pub fn start(options: &UplinkOptions) -> Result<Held> {
        let pair = UnixStream::pair();
        let (line, theirs) = pair.map_err(Error::system("making", "a socket"))?;
        let process = Command::new("/proc/self/exe")
            .arg0(MARK)
            .env_clear()
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(Error::system("starting", "the holder of the network"))?;
        let talk = || -> io::Result<Answer> {
            let mut text = serde_json::to_vec(options)?;
            text.push(b'\n');
            (&line).write_all(&text)?;
            let mut answer = String::new();
            BufReader::new(&line).read_line(&mut answer)?;
            Ok(serde_json::from_str(&answer)?)
        };
        match talk().map_err(Error::system("waiting for", "the holder of the network"))? {
            Answer::Ready { namespace, published } => {
                Ok(Held { _process: process, line, namespace, published })
            }
            Answer::Failed { error } => Err(error.into()),
        }
    }

    /// The namespace as a path, for the container to join.
    pub fn path(&self) -> PathBuf {
        self.namespace.clone()
    }

    /// Where on this machine the container's ports are.
    pub fn published(&self) -> &[Published] {
        &self.published
    }

    /// Lets the network live as long as this process.
    ///
    /// # Errors
    /// [`Error::System`]: the holder is gone.
    pub fn follow(mut self, pid: u32) -> Result<()> {
        let mut answer = String::new();
        let told = writeln!(self.line, "{pid}")
            .and_then(|()| BufReader::new(&self.line).read_line(&mut answer));
        told.map_err(Error::system("talking to", "the holder of the network"))?;
        Ok(())
    }
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        let error = io::Error::from_raw_os_error;
        match failed {
            Failed::Taken { port, errno } => Error::Taken { port, source: error(errno) },
            Failed::NoDevice { errno } => Error::NoDevice { source: error(errno) },
            Failed::Other { action, errno } => {
                Error::System { action: "connecting", subject: action, source: error(errno) }
            }
        }
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        let number = |source: &io::Error| source.raw_os_error().unwrap_or(libc::EIO);
        match error {
            Error::Taken { port, source } => Failed::Taken { port, errno: number(&source) },
            Error::NoDevice { source } => Failed::NoDevice { errno: number(&source) },
            Error::System { action, subject, source } => {
                Failed::Other { action: format!("{action} {subject}"), errno: number(&source) }
            }
            Error::Port { port, reason } => {
                Failed::Other { action: format!("{port}: {reason}"), errno: libc::EINVAL }
            }
        }
    }
}

/// Becomes a holder, if this process was started as one; never returns then. Must be among the
/// first lines of `main`.
pub fn init() {
    if std::env::args_os().next().is_some_and(|name| name == MARK) {
        std::process::exit(i32::from(hold().is_none()));
    }
}

fn hold() -> Option<()> {
    let line = UnixStream::from(rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3).ok()?);
    let mut lines = BufReader::new(line.try_clone().ok()?).lines();
    let options: UplinkOptions = serde_json::from_str(&lines.next()?.ok()?).ok()?;
    // A terminal that goes away is no reason to end.
    let _ = rustix::process::setsid();
    let uplink = match Uplink::start(&options) {
        Ok(uplink) => uplink,
        Err(error) => {
            answer(&line, &Answer::Failed { error: error.into() });
            return None;
        }
    };
    let ready = Answer::Ready { namespace: uplink.path(), published: uplink.published().to_vec() };
    answer(&line, &ready);
    let pid = lines.next()?.ok()?.parse().ok().and_then(Pid::from_raw)?;
    let container = pidfd_open(pid, PidfdFlags::empty());
    let _ = (&line).write_all(b"\n");
    drop((lines, line));
    if let Ok(container) = container {
        wait(&container);
    }
    drop(uplink);
    Some(())
}

fn answer(mut line: &UnixStream, answer: &Answer) {
    if let Ok(mut text) = serde_json::to_vec(answer) {
        text.push(b'\n');
        let _ = line.write_all(&text);
    }
}

/// Waits for the end of a process.
fn wait(process: &OwnedFd) {
    loop {
        match poll(&mut [PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)], None) {
            Err(rustix::io::Errno::INTR) => {}
            _ => return,
        }
    }
}
