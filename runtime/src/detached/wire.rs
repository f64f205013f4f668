//! What a monitor and its clients say to each other: one request as a line of JSON, then frames.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use serde::{Deserialize, Serialize};

use crate::Exec;

/// No frame and no request is longer.
pub(super) const MAX_FRAME: usize = 64 << 10;
const MAX_REQUEST: usize = 1 << 20;

/// What a client wants. Descriptors of its streams come with an exec.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Request {
    /// To see the output, and perhaps to be the input.
    Attach { replay: bool },
    /// Asks for the end of the container.
    Wait,
    /// To signal the first process.
    Signal(i32),
    /// To have the health checked now, and be told how that ended.
    Check,
    /// To run one more program; the connection then belongs to it.
    Exec(Box<Exec>),
}

/// Kinds of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum FrameKind {
    /// To the client: output.
    Stdout = 1,
    /// To the client: errors.
    Stderr = 2,
    /// To the client: an [`crate::ExitStatus`], the last frame.
    Exit = 3,
    /// To the client: done.
    Ok = 4,
    /// To the monitor: input; empty is its end.
    Input = 5,
    /// To the monitor: rows and columns.
    Resize = 6,
    /// To the monitor: a signal number.
    Signal = 7,
}

impl FrameKind {
    fn new(byte: u8) -> Option<FrameKind> {
        [
            FrameKind::Stdout,
            FrameKind::Stderr,
            FrameKind::Exit,
            FrameKind::Ok,
            FrameKind::Input,
            FrameKind::Resize,
            FrameKind::Signal,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

/// One frame's bytes; `payload` is at most [`MAX_FRAME`].
pub(super) fn frame(kind: FrameKind, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind as u8];
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Takes whole frames off the front of what was received.
#[derive(Debug, Default)]
pub(super) struct Frames(Vec<u8>);

impl Frames {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next complete frame; an error for anything else.
    pub(super) fn next(&mut self) -> io::Result<Option<(FrameKind, Vec<u8>)>> {
        let Some(head) = self.0.first_chunk::<5>() else { return Ok(None) };
        let kind = FrameKind::new(head[0]).ok_or(io::ErrorKind::InvalidData)?;
        let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if length > MAX_FRAME {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if self.0.len() < 5 + length {
            return Ok(None);
        }
        let payload = self.0[5..5 + length].to_vec();
        self.0.drain(..5 + length);
        Ok(Some((kind, payload)))
    }
}

/// Reads one frame, waiting for it.
pub(super) fn read_frame(mut from: impl Read) -> io::Result<(FrameKind, Vec<u8>)> {
    let mut head = [0; 5];
    from.read_exact(&mut head)?;
    let mut frames = Frames::default();
    frames.push(&head);
    let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
    let mut payload = vec![0; length.min(MAX_FRAME)];
    from.read_exact(&mut payload)?;
    frames.push(&payload);
    frames.next()?.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Sends the request.
pub(super) fn ask(mut socket: &UnixStream, request: &Request) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(request)?;
    bytes.push(b'\n');
    socket.write_all(&bytes)
}

/// A request that arrives in pieces.
#[derive(Debug, Default)]
pub(super) struct RequestBuffer(Vec<u8>);

impl RequestBuffer {
    /// Adds a piece; gives the request once it is whole, and what came after it.
    pub(super) fn push(&mut self, bytes: &[u8]) -> io::Result<Option<(Request, Vec<u8>)>> {
        self.0.extend_from_slice(bytes);
        let Some(end) = self.0.iter().position(|byte| *byte == b'\n') else {
            return if self.0.len() > MAX_REQUEST {
                Err(io::ErrorKind::InvalidData.into())
            } else {
                Ok(None)
            };
        };
        let rest = self.0.split_off(end + 1);
        Ok(Some((serde_json::from_slice(&self.0)?, rest)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_and_requests_survive_pieces() {
        let mut bytes = frame(FrameKind::Stdout, b"hello");
        bytes.extend(frame(FrameKind::Input, b""));
        let mut frames = Frames::default();
        let mut got = Vec::new();
        for byte in &bytes {
            frames.push(std::slice::from_ref(byte));
            got.extend(frames.next().unwrap());
        }
        assert_eq!(got, [(FrameKind::Stdout, b"hello".to_vec()), (FrameKind::Input, Vec::new())]);
        let mut incoming = RequestBuffer::default();
        assert!(incoming.push(b"{\"sig").unwrap().is_none());
        let (request, rest) = incoming.push(b"nal\":9}\nrest").unwrap().unwrap();
        assert!(matches!(request, Request::Signal(9)));
        assert_eq!(rest, b"rest");
    }

    #[test]
    fn junk_is_refused() {
        let mut frames = Frames::default();
        frames.push(&[9, 0, 0, 0, 0]);
        assert!(frames.next().is_err());
        let mut frames = Frames::default();
        frames.push(&[1, 255, 255, 255, 255]);
        assert!(frames.next().is_err());
        assert!(RequestBuffer::default().push(b"junk\n").is_err());
        assert!(RequestBuffer::default().push(&vec![b'x'; MAX_REQUEST + 1]).is_err());
    }
}
