//! Talk between our own processes: one line of JSON each way, a descriptor beside it.

use std::io::{self, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// No line is longer: all ports of a machine fit.
const LONGEST: usize = 32 << 20;

/// Sends a value, with a descriptor if there is one.
pub(crate) fn send(
    mut line: &UnixStream,
    value: &impl Serialize,
    fd: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut text = serde_json::to_vec(value)?;
    text.push(b'\n');
    let mut sent = 0;
    if let Some(fd) = fd {
        let fds = [fd];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        let bytes = [IoSlice::new(&text)];
        sent = rustix::net::sendmsg(line, &bytes, &mut ancillary, SendFlags::NOSIGNAL)?;
    }
    line.write_all(&text[sent..])
}

/// Waits for a value, and a descriptor if one comes along; `None` at the end.
pub(crate) fn receive<T: DeserializeOwned>(
    line: &UnixStream,
) -> io::Result<Option<(T, Option<OwnedFd>)>> {
    let (mut text, mut given) = (Vec::new(), None);
    let mut buffer = vec![0; 64 << 10];
    while !text.ends_with(b"\n") {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut room = [IoSliceMut::new(&mut buffer)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let count = match rustix::net::recvmsg(line, &mut room, &mut ancillary, flags) {
            Ok(received) => received.bytes,
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(mut fds) = message {
                given = fds.next().or(given);
            }
        }
        if count == 0 {
            return if text.is_empty() {
                Ok(None)
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            };
        }
        text.extend_from_slice(&buffer[..count]);
        if text.len() > LONGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok(Some((serde_json::from_slice(&text)?, given)))
}

/// As [`receive`]; the end is an error.
pub(crate) fn expect<T: DeserializeOwned>(line: &UnixStream) -> io::Result<T> {
    let received = receive(line)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(received.0)
}

/// A socket in a directory, however long its path is.
fn at(directory: &impl AsFd, name: &str) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}/{name}", directory.as_fd().as_raw_fd())
}

fn open(directory: &Path) -> io::Result<OwnedFd> {
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    Ok(rustix::fs::open(directory, flags, rustix::fs::Mode::empty())?)
}

/// Connects with the socket `name` in a directory.
pub(crate) fn connect(directory: &Path, name: &str) -> io::Result<UnixStream> {
    let directory = open(directory)?;
    UnixStream::connect(at(&directory, name))
}

/// Listens at the socket `name` in a directory, in place of an earlier listener.
pub(crate) fn listen(directory: &Path, name: &str) -> io::Result<UnixListener> {
    let directory = open(directory)?;
    let path = at(&directory, name);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_and_a_descriptor_arrive_together_through_a_socket_with_a_long_path() {
        let place = tempfile::tempdir().unwrap();
        let deep = place.path().join("d".repeat(200));
        std::fs::create_dir(&deep).unwrap();
        let listener = listen(&deep, "socket").unwrap();
        drop(listener);
        let listener = listen(&deep, "socket").unwrap();
        let there = connect(&deep, "socket").unwrap();
        let (here, _) = listener.accept().unwrap();
        let (read, mut write) = io::pipe().unwrap();
        send(&there, &vec!["x"; 20], Some(read.as_fd())).unwrap();
        drop((there, read));
        let (value, fd): (Vec<String>, _) = receive(&here).unwrap().unwrap();
        assert_eq!(value.len(), 20);
        write.write_all(b"hello").unwrap();
        let mut text = [0; 5];
        rustix::io::read(fd.unwrap(), &mut text).unwrap();
        assert_eq!(&text, b"hello");
        assert!(receive::<Vec<String>>(&here).unwrap().is_none());
    }
}
