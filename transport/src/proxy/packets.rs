//! Packets on a socket, and descriptors that go with them.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use rustix::net::{
    RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketType, sockopt,
};
use serde::Deserialize;
use serde_json::{Value, json};
use task::Cause;

/// The largest packet.
const PACKET: usize = 32 << 10;

/// A call.
#[derive(Debug, Deserialize)]
pub(super) struct ProxyRequest {
    pub(super) method: String,
    /// Clients in Go say `null` where there are none.
    #[serde(default)]
    pub(super) args: Option<Vec<Value>>,
}

/// What a call gives back.
pub(super) struct ProxyAnswer {
    pub(super) value: Value,
    /// What `FinishPipe` is asked about; 0 where there is nothing to ask.
    pub(super) pipe: u64,
    /// The ends of pipes that the client reads from.
    pub(super) ends: Vec<OwnedFd>,
}

impl ProxyAnswer {
    pub(super) fn value(value: Value) -> ProxyAnswer {
        ProxyAnswer { value, pipe: 0, ends: Vec::new() }
    }
}

impl ProxyRequest {
    pub(super) fn read(packet: &[u8]) -> serde_json::Result<ProxyRequest> {
        serde_json::from_slice(packet)
    }
}

/// The word of the protocol for an error.
pub(super) fn code(cause: &Cause) -> &'static str {
    let of_pipe = cause.downcast_ref::<crate::Error>().is_some_and(|error| {
        matches!(error, crate::Error::Stream(error) if error.kind() == io::ErrorKind::BrokenPipe)
    });
    match (of_pipe, cause.again()) {
        (true, _) => "EPIPE",
        (false, true) => "retryable",
        (false, false) => "other",
    }
}

/// A socket that keeps the borders of packets.
#[derive(Clone)]
pub(super) struct Packets(Arc<OwnedFd>);

impl Packets {
    pub(super) fn new(socket: OwnedFd) -> io::Result<Packets> {
        let kind = sockopt::socket_type(&socket)?;
        if kind != SocketType::SEQPACKET {
            let reason = "it is not a socket of sequenced packets";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        Ok(Packets(Arc::new(socket)))
    }

    /// The next packet; nothing when the other side is gone.
    pub(super) fn receive(&self) -> io::Result<Option<Vec<u8>>> {
        let mut packet = vec![0; PACKET];
        loop {
            match rustix::net::recv(&*self.0, &mut packet[..], RecvFlags::empty()) {
                Ok((0, _)) | Err(rustix::io::Errno::CONNRESET) => return Ok(None),
                Ok((length, _)) => {
                    packet.truncate(length);
                    return Ok(Some(packet));
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    pub(super) fn send(&self, answer: Result<ProxyAnswer, Cause>) -> io::Result<()> {
        let (packet, ends) = match answer {
            Ok(ProxyAnswer { value, pipe, ends }) => {
                let success = json!({"success": true, "value": value, "pipeid": pipe, "error_code": "", "error": ""});
                (success, ends)
            }
            Err(cause) => {
                let (code, error) = (code(&cause), task::chain(&cause).join(": "));
                let failure = json!({"success": false, "value": null, "pipeid": 0, "error_code": code, "error": error});
                (failure, Vec::new())
            }
        };
        let packet = packet.to_string();
        let ends: Vec<_> = ends.iter().map(OwnedFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut along = SendAncillaryBuffer::new(&mut space);
        if !ends.is_empty() {
            along.push(SendAncillaryMessage::ScmRights(&ends));
        }
        let packet = [IoSlice::new(packet.as_bytes())];
        rustix::net::sendmsg(&*self.0, &packet, &mut along, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}
