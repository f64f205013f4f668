//! Who is connected to a monitor, and what they can be shown.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use super::wire::{Frames, RequestBuffer};

/// How much of the latest output a new client can be shown.
const MAX_REPLAY: usize = 256 << 10;

/// How much of it is one piece at most; a piece makes one frame.
const MAX_PIECE: usize = 32 << 10;

/// One connection.
pub(super) struct Client {
    pub(super) socket: UnixStream,
    pub(super) state: ClientState,
    /// Bytes on their way to it.
    pub(super) backlog: VecDeque<u8>,
    pub(super) fds: Vec<OwnedFd>,
    pub(super) gone: bool,
}

pub(super) enum ClientState {
    Asking(RequestBuffer),
    Waiting,
    /// It waits for the check of health that runs.
    Checking,
    Attached(Frames),
}

impl Client {
    pub(super) fn new(socket: UnixStream) -> Client {
        let state = ClientState::Asking(RequestBuffer::default());
        Client { socket, state, backlog: VecDeque::new(), fds: Vec::new(), gone: false }
    }

    /// Sends as much as goes now; keeps the rest.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.backlog.extend(bytes);
        while !self.backlog.is_empty() {
            match self.socket.write(self.backlog.as_slices().0) {
                Ok(count) => drop(self.backlog.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.gone = true,
            }
        }
    }
}

/// The latest output. A program that writes byte by byte costs no more than one that does not.
#[derive(Default)]
pub(super) struct Replay {
    /// Stream and bytes; no piece is longer than [`MAX_PIECE`].
    pub(super) pieces: VecDeque<(usize, Vec<u8>)>,
    total: usize,
}

impl Replay {
    pub(super) fn push(&mut self, stream: usize, bytes: &[u8]) {
        self.total += bytes.len();
        match self.pieces.back_mut() {
            Some((last, piece)) if *last == stream && piece.len() + bytes.len() <= MAX_PIECE => {
                piece.extend_from_slice(bytes);
            }
            _ => self.pieces.push_back((stream, bytes.to_vec())),
        }
        while self.total > MAX_REPLAY {
            let Some((_, oldest)) = self.pieces.pop_front() else { return };
            self.total -= oldest.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_bytes_make_few_pieces_and_the_latest_stay() {
        let mut replay = Replay::default();
        for byte in 0..MAX_REPLAY * 2 {
            replay.push(0, &[b'a' + (byte % 26) as u8]);
        }
        assert!(replay.pieces.len() <= MAX_REPLAY / MAX_PIECE);
        assert_eq!(replay.total, replay.pieces.iter().map(|(_, piece)| piece.len()).sum::<usize>());
        assert!(replay.total > MAX_REPLAY - MAX_PIECE && replay.total <= MAX_REPLAY);
        let last = replay.pieces.back().and_then(|(_, piece)| piece.last());
        assert_eq!(last, Some(&(b'a' + ((MAX_REPLAY * 2 - 1) % 26) as u8)));
        replay.push(1, b"e");
        replay.push(0, b"o");
        let streams: Vec<_> =
            replay.pieces.iter().rev().take(2).map(|(stream, _)| *stream).collect();
        assert_eq!(streams, [0, 1]);
    }
}
