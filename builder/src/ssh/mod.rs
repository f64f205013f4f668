//! What `RUN --mount=type=ssh` is connected to: an agent of the user's, or keys that are answered
//! for here. Either way commands reach a socket of our own that lets them list keys and sign, and
//! nothing else: they can neither add keys to the user's agent nor lock it.

mod keys;

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

pub use keys::{KeyError, Keys};
use serde::{Deserialize, Serialize};

/// No message of the protocol is longer.
const LONGEST: usize = 256 << 10;
const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;

/// Who signs for the commands of a build.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Agent {
    /// The agent at this socket; an absolute path.
    Socket(PathBuf),
    /// These keys; never written down.
    #[serde(skip)]
    Keys(Arc<Keys>),
}

/// An agent as one command sees it, until it is dropped.
pub(crate) struct AgentSocket {
    path: PathBuf,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl AgentSocket {
    /// Listens at `path`, which must not be there yet.
    pub(crate) fn start(agent: &Agent, path: &Path) -> io::Result<AgentSocket> {
        // The path of a socket may not be long; that of an open directory is short.
        let directory = fs::File::open(path.parent().unwrap_or(Path::new("/")))?;
        let name = path.file_name().unwrap_or_default();
        let short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
        let listener = UnixListener::bind(short)?;
        let over = Arc::new(AtomicBool::new(false));
        let (agent, ended) = (agent.clone(), Arc::clone(&over));
        let thread = std::thread::Builder::new().name("ssh agent".to_owned()).spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::Acquire) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let agent = agent.clone();
                // It ends with the command, whose end of the stream is closed then.
                let _ = std::thread::Builder::new()
                    .name("ssh agent".to_owned())
                    .spawn(move || serve(&agent, stream));
            }
        })?;
        Ok(AgentSocket { path: path.to_owned(), over, thread: Some(thread) })
    }
}

impl Drop for AgentSocket {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        let woken = (|| {
            let directory = fs::File::open(self.path.parent().unwrap_or(Path::new("/")))?;
            let name = self.path.file_name().unwrap_or_default();
            let fd = directory.as_raw_fd();
            UnixStream::connect(PathBuf::from(format!("/proc/self/fd/{fd}")).join(name))
        })();
        if let (Ok(_), Some(thread)) = (woken, self.thread.take()) {
            let _ = thread.join();
        }
        let _ = fs::remove_file(&self.path);
    }
}

fn serve(agent: &Agent, mut stream: UnixStream) {
    let mut upstream: Option<UnixStream> = None;
    while let Ok(message) = receive(&mut stream) {
        let answer = match (message.first(), agent) {
            (Some(&(REQUEST_IDENTITIES | SIGN_REQUEST)), Agent::Socket(socket)) => {
                relay(&message, socket, &mut upstream).ok()
            }
            (_, Agent::Socket(_)) => None,
            (_, Agent::Keys(keys)) => answer(&message, keys),
        };
        if send(&mut stream, &answer.unwrap_or_else(|| vec![FAILURE])).is_err() {
            return;
        }
    }
}

fn relay(message: &[u8], socket: &Path, upstream: &mut Option<UnixStream>) -> io::Result<Vec<u8>> {
    let stream = match upstream {
        Some(stream) => stream,
        None => upstream.insert(UnixStream::connect(socket)?),
    };
    let answer = send(stream, message).and_then(|()| receive(stream));
    if answer.is_err() {
        *upstream = None;
    }
    answer
}

/// What keys answer to a message; `None` for what they refuse.
fn answer(message: &[u8], keys: &Keys) -> Option<Vec<u8>> {
    let (kind, mut rest) = message.split_first()?;
    match *kind {
        REQUEST_IDENTITIES => {
            let mut answer = vec![IDENTITIES_ANSWER];
            let all = keys.public();
            answer.extend(u32::try_from(all.len()).ok()?.to_be_bytes());
            for (blob, comment) in all {
                keys::put(&mut answer, blob);
                keys::put(&mut answer, comment.as_bytes());
            }
            Some(answer)
        }
        SIGN_REQUEST => {
            let key = keys::take(&mut rest)?;
            let data = keys::take(&mut rest)?;
            let flags = u32::from_be_bytes(*rest.first_chunk::<4>()?);
            let mut answer = vec![SIGN_RESPONSE];
            keys::put(&mut answer, &keys.sign(key, data, flags)?);
            Some(answer)
        }
        _ => None,
    }
}

fn receive(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length == 0 || length > LONGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message)?;
    Ok(message)
}

fn send(stream: &mut UnixStream, message: &[u8]) -> io::Result<()> {
    let length = u32::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    stream.write_all(&length.to_be_bytes())?;
    stream.write_all(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_may_list_and_sign_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (theirs, ours) = (dir.path().join("theirs"), dir.path().join("ours"));
        let listener = UnixListener::bind(&theirs).unwrap();
        // An agent that answers everything with the kind of the message.
        let agent = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut seen = Vec::new();
            while let Ok(message) = receive(&mut stream) {
                seen.push(message[0]);
                send(&mut stream, &[99, message[0]]).unwrap();
            }
            seen
        });
        let served = AgentSocket::start(&Agent::Socket(theirs), &ours).unwrap();
        let mut stream = UnixStream::connect(&ours).unwrap();
        let mut ask = |message: &[u8]| {
            send(&mut stream, message).unwrap();
            receive(&mut stream).unwrap()
        };
        assert_eq!(ask(&[REQUEST_IDENTITIES]), [99, 11]);
        // Adding a key, removing all, locking, extensions.
        for kind in [17, 19, 22, 25, 27] {
            assert_eq!(ask(&[kind, 0]), [FAILURE]);
        }
        assert_eq!(ask(&[SIGN_REQUEST, 1]), [99, 13]);
        drop(stream);
        drop(served);
        assert!(!ours.exists());
        assert_eq!(agent.join().unwrap(), [11, 13]);
    }

    #[test]
    fn programs_of_openssh_sign_with_a_key_they_cannot_read() {
        let Some(_) = requires::program("ssh-keygen") else { return };
        let dir = tempfile::tempdir().unwrap();
        let (key, socket) = (dir.path().join("key"), dir.path().join("socket"));
        let keygen = |line: &[&str]| {
            let mut command = std::process::Command::new("ssh-keygen");
            command.current_dir(dir.path()).env("SSH_AUTH_SOCK", &socket).args(line);
            command.stdin(std::process::Stdio::null()).output()
        };
        let made = keygen(&["-q", "-N", "", "-t", "ed25519", "-f", "key"]).unwrap();
        assert!(made.status.success(), "{made:?}");
        let keys = Keys::read(std::slice::from_ref(&key)).unwrap();
        fs::remove_file(&key).unwrap();
        fs::write(dir.path().join("data"), "text").unwrap();
        let sign = ["-Y", "sign", "-n", "file", "-f", "key.pub", "data"];
        assert!(!keygen(&sign).unwrap().status.success(), "nobody answers yet");
        let served = AgentSocket::start(&Agent::Keys(Arc::new(keys)), &socket).unwrap();
        let signed = keygen(&sign).unwrap();
        assert!(signed.status.success(), "{signed:?}");
        drop(served);
        let check = ["-Y", "check-novalidate", "-n", "file", "-s", "data.sig"];
        let mut command = std::process::Command::new("ssh-keygen");
        command.current_dir(dir.path()).args(check);
        let checked = command.stdin(fs::File::open(dir.path().join("data")).unwrap()).output();
        assert!(checked.as_ref().unwrap().status.success(), "{checked:?}");
    }
}
