//! Datagrams and echo requests of a container: a socket of the machine for each pair of ends.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto};
use smoltcp::time::{Duration, Instant};

use super::packet::{PacketContent, PacketSender, UndeliveredPacket, UnreachableReason};

/// How long a flow without an answer, and one with, is kept after its last datagram.
const UNANSWERED: Duration = Duration::from_secs(30);
const ANSWERED: Duration = Duration::from_secs(120);
/// A name is resolved once.
const NAME: Duration = Duration::from_secs(10);
/// At most this many datagrams are taken at once, so that one flow does not hold up the others.
const BATCH: usize = 64;
const ECHO_HEADER: usize = 8;

/// Datagrams between two ends; of echo requests the port is the identifier.
pub(super) struct Flow {
    pub(super) container: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) echo: bool,
    machine: Arc<OwnedFd>,
    /// The receiver of answers, if the socket is that of a published port.
    client: Option<SocketAddr>,
    used: Instant,
    answered: bool,
}

impl Flow {
    /// A flow to `target`, which the container calls `remote`.
    pub(super) fn begin(
        (container, remote): (SocketAddr, SocketAddr),
        target: SocketAddr,
        echo: bool,
        now: Instant,
    ) -> io::Result<Flow> {
        let (family, icmp) = match target {
            SocketAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
            SocketAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let protocol = echo.then_some(icmp);
        let machine = rustix::net::socket_with(family, SocketType::DGRAM, flags, protocol)?;
        rustix::net::connect(&machine, &target)?;
        let (machine, used) = (Arc::new(machine), now);
        Ok(Flow { container, remote, echo, machine, client: None, used, answered: false })
    }

    /// A flow that `client` of a published port began; the container knows him as `remote`.
    pub(super) fn inward(
        (container, remote): (SocketAddr, SocketAddr),
        machine: Arc<OwnedFd>,
        client: SocketAddr,
        now: Instant,
    ) -> Flow {
        let client = Some(client);
        Flow { container, remote, echo: false, machine, client, used: now, answered: false }
    }

    /// The client has sent something again.
    pub(super) fn touch(&mut self, now: Instant) {
        self.used = now;
    }

    /// Whether the socket is this flow's alone.
    pub(super) fn owns_socket(&self) -> bool {
        self.client.is_none()
    }

    /// Sends on what the container sent.
    pub(super) fn send(
        &mut self,
        content: &PacketContent<'_>,
        now: Instant,
        out: &mut PacketSender,
    ) {
        self.used = now;
        self.answered |= self.client.is_some();
        let sent = match content {
            PacketContent::Udp { payload, .. } => self.send_bytes(payload),
            PacketContent::Echo { sequence, payload, .. } => {
                let kind = if self.remote.is_ipv4() { 8 } else { 128 };
                let mut request = vec![kind, 0, 0, 0, 0, 0];
                request.extend_from_slice(&sequence.to_be_bytes());
                request.extend_from_slice(payload);
                self.send_bytes(&request)
            }
            PacketContent::Tcp(_) => Ok(()),
        };
        self.refused(sent.err(), out);
    }

    fn send_bytes(&self, bytes: &[u8]) -> Result<(), Errno> {
        if let Some(client) = self.client {
            let sent = rustix::net::sendto(&self.machine, bytes, SendFlags::NOSIGNAL, &client);
            return sent.map(drop);
        }
        match rustix::net::send(&self.machine, bytes, SendFlags::NOSIGNAL) {
            // The error of the last datagram comes first.
            Err(Errno::CONNREFUSED) => {
                rustix::net::send(&self.machine, bytes, SendFlags::NOSIGNAL).map(drop)
            }
            sent => sent.map(drop),
        }
    }

    /// Passes on what has come, and what has come back.
    pub(super) fn receive(&mut self, buffer: &mut [u8], now: Instant, out: &mut PacketSender) {
        for _ in 0..BATCH {
            match rustix::net::recv(&self.machine, &mut *buffer, RecvFlags::empty()) {
                Ok((_, count)) => {
                    (self.used, self.answered) = (now, true);
                    self.answer(&buffer[..count.min(buffer.len())], out);
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Err(error) => self.refused(Some(error), out),
            }
        }
    }

    fn answer(&self, bytes: &[u8], out: &mut PacketSender) {
        if !self.echo {
            return out.udp(self.remote, self.container, bytes);
        }
        if let Some((head, payload)) = bytes.split_at_checked(ECHO_HEADER) {
            let sequence = u16::from_be_bytes([head[6], head[7]]);
            let reply = (self.container.port(), sequence, payload);
            out.echo(self.remote.ip(), self.container.ip(), reply);
        }
    }

    /// Tells the container that the port or host is unreachable.
    fn refused(&self, error: Option<Errno>, out: &mut PacketSender) {
        let why = match error {
            Some(Errno::CONNREFUSED) => UnreachableReason::Port,
            Some(Errno::HOSTUNREACH | Errno::NETUNREACH) => UnreachableReason::Host,
            _ => return,
        };
        if !self.echo {
            out.unreachable(
                self.remote,
                self.container,
                UndeliveredPacket { segment: None, reason: why },
            );
        }
    }

    /// When it ends unless it is used.
    pub(super) fn ends(&self) -> Instant {
        let names = !self.echo && self.remote.port() == 53;
        self.used
            + if names {
                NAME
            } else if self.answered {
                ANSWERED
            } else {
                UNANSWERED
            }
    }

    /// When it was used last.
    pub(super) fn used(&self) -> Instant {
        self.used
    }
}

impl AsFd for Flow {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.machine.as_fd()
    }
}
