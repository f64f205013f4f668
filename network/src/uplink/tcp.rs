//! One TCP connection of a container: our own end of it on one side, a socket of the machine on the
//! other. Each has a stack of its own, so that a packet costs the same whatever else is open.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType};
use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{HardwareAddress, IpCidr, IpEndpoint};

use super::packet::{PacketContent, PacketSender, Segment, UnreachableReason, checksums, parse};

/// Bytes buffered in each direction of a connection.
const BUFFER: usize = 256 << 10;
/// The same where there are many.
const SMALL_BUFFER: usize = 64 << 10;
/// How often an idle container is probed, and when it counts as gone.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
const GONE: Duration = Duration::from_secs(300);
/// The shortest time between two checks of a connection without an event.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

/// One connection.
pub(super) struct Connection {
    pub(super) container: SocketAddr,
    pub(super) remote: SocketAddr,
    machine: Machine,
    side: Side,
}

/// The container's side.
enum Side {
    /// The machine's side is not there yet: the first segment waits.
    Waiting(Vec<u8>),
    /// Both sides talk.
    Open(Box<Stack>),
}

/// What is to be done about a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It lives; look after it at this time even if nothing happens.
    Lives(Option<Instant>),
    /// It is over.
    Over,
    /// It never came to be.
    Failed(UnreachableReason),
}

impl Connection {
    /// Begins to connect with `target`; `first` is the container's first segment.
    pub(super) fn begin(
        (container, remote): (SocketAddr, SocketAddr),
        target: SocketAddr,
        first: &[u8],
    ) -> io::Result<Connection> {
        let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        // The container's own stack has already decided what to send together.
        rustix::net::sockopt::set_tcp_nodelay(&socket, true)?;
        match rustix::net::connect(&socket, &target) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let side = Side::Waiting(first.to_vec());
        Ok(Connection { container, remote, machine: Machine::new(socket), side })
    }

    /// Connects with the container for a client of a published port; `socket` leads to him.
    pub(super) fn inward(
        (container, remote): (SocketAddr, SocketAddr),
        socket: OwnedFd,
        many: bool,
        now: Instant,
        out: &mut PacketSender,
    ) -> Option<Connection> {
        let _ = rustix::net::sockopt::set_tcp_nodelay(&socket, true);
        let mut stack = Stack::new(remote, many, now, out)?;
        let Stack { interface, sockets, handle } = &mut stack;
        let socket_inside = sockets.get_mut::<Socket<'_>>(*handle);
        let (to, from) = (IpEndpoint::from(container), IpEndpoint::from(remote));
        socket_inside.connect(interface.context(), to, from).ok()?;
        let side = Side::Open(Box::new(stack));
        Some(Connection { container, remote, machine: Machine::new(socket), side })
    }

    /// The machine's socket can be read or written again.
    pub(super) fn woken(
        &mut self,
        (readable, writable): (bool, bool),
        many: bool,
        now: Instant,
        out: &mut PacketSender,
    ) -> Verdict {
        self.machine.readable |= readable;
        self.machine.writable |= writable;
        let Side::Waiting(first) = &mut self.side else { return self.exchange(None, now, out) };
        match rustix::net::sockopt::socket_error(&self.machine.socket) {
            Ok(Ok(())) if writable => {}
            Ok(Ok(())) => return Verdict::Lives(None),
            Ok(Err(error)) | Err(error) => return Verdict::Failed(why(error)),
        }
        let first = first.clone();
        let stack = Stack::new(self.remote, many, now, out);
        let listening = stack.and_then(|mut stack| {
            stack.socket().listen(IpEndpoint::from(self.remote)).ok()?;
            Some(stack)
        });
        let Some(stack) = listening else { return Verdict::Failed(UnreachableReason::Host) };
        self.side = Side::Open(Box::new(stack));
        self.exchange(Some(&first), now, out)
    }

    /// Takes a packet of the container, if there is one, and moves what can be moved.
    pub(super) fn exchange(
        &mut self,
        packet: Option<&[u8]>,
        now: Instant,
        out: &mut PacketSender,
    ) -> Verdict {
        let Side::Open(stack) = &mut self.side else { return Verdict::Lives(None) };
        let moved = stack.exchange(packet, &mut self.machine, now, out);
        let over = match stack.socket().state() {
            // In the first case the first segment made no sense.
            State::Listen | State::Closed | State::TimeWait => true,
            _ => false,
        };
        if !over {
            return Verdict::Lives(stack.next(now));
        }
        if moved.is_err() || !self.machine.ended() {
            self.machine.reset_on_close();
        }
        Verdict::Over
    }
}

impl Connection {
    /// The first segment, where the machine's side never came to be.
    pub(super) fn first_segment(&self) -> Option<Segment> {
        let Side::Waiting(first) = &self.side else { return None };
        match parse(first)?.content {
            PacketContent::Tcp(segment) => Some(segment),
            _ => None,
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.machine.socket.as_fd()
    }
}

/// Why a connection could not be made.
pub(super) fn why(error: Errno) -> UnreachableReason {
    match error {
        Errno::CONNREFUSED | Errno::CONNRESET => UnreachableReason::Port,
        _ => UnreachableReason::Host,
    }
}

/// The machine's side.
struct Machine {
    socket: OwnedFd,
    /// There may be something to read, or room to write.
    readable: bool,
    writable: bool,
    /// The end of either direction has come by.
    read_end: bool,
    write_end: bool,
}

impl Machine {
    fn new(socket: OwnedFd) -> Machine {
        Machine { socket, readable: false, writable: false, read_end: false, write_end: false }
    }

    /// Whether both directions have ended in order.
    fn ended(&self) -> bool {
        self.read_end && self.write_end
    }

    /// The other end learns that this was no orderly end.
    fn reset_on_close(&self) {
        let _ =
            rustix::net::sockopt::set_socket_linger(&self.socket, Some(std::time::Duration::ZERO));
    }

    /// From the container to the machine, as much as goes.
    fn write(&mut self, socket: &mut Socket<'_>) -> Result<(), Errno> {
        while self.writable && socket.can_recv() {
            let result = socket.recv(|bytes| {
                match rustix::net::send(&self.socket, bytes, SendFlags::NOSIGNAL) {
                    Ok(count) => (count, Ok(())),
                    Err(error) => (0, Err(error)),
                }
            });
            match result {
                Ok(Ok(())) => {}
                Ok(Err(Errno::AGAIN)) => self.writable = false,
                Ok(Err(Errno::INTR)) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => break,
            }
        }
        let last = matches!(
            socket.state(),
            State::CloseWait | State::LastAck | State::Closing | State::TimeWait
        );
        if last && !socket.can_recv() && !self.write_end {
            self.write_end = true;
            match rustix::net::shutdown(&self.socket, Shutdown::Write) {
                Ok(()) | Err(Errno::NOTCONN) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// From the machine to the container, as much as there is room for.
    fn read(&mut self, socket: &mut Socket<'_>) -> Result<(), Errno> {
        while self.readable && !self.read_end && socket.can_send() {
            let result = socket.send(|room| {
                match rustix::net::recv(&self.socket, &mut *room, RecvFlags::empty()) {
                    Ok((_, count)) => (count.min(room.len()), Ok(count)),
                    Err(error) => (0, Err(error)),
                }
            });
            match result {
                Ok(Ok(0)) => {
                    self.read_end = true;
                    socket.close();
                }
                Ok(Ok(_)) | Ok(Err(Errno::INTR)) => {}
                Ok(Err(Errno::AGAIN)) => self.readable = false,
                Ok(Err(error)) => return Err(error),
                Err(_) => break,
            }
        }
        Ok(())
    }
}

/// Our end of the container's connection.
struct Stack {
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
}

impl Stack {
    /// A stack with one address only, which is that of the remote side.
    fn new(remote: SocketAddr, many: bool, now: Instant, out: &mut PacketSender) -> Option<Stack> {
        let mut config = Config::new(HardwareAddress::Ip);
        let mut seed = [0; 8];
        rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty()).ok()?;
        config.random_seed = u64::from_ne_bytes(seed);
        let mut interface = Interface::new(config, &mut Port { packet: None, out }, now);
        // A prefix of no bits: every address is a neighbour.
        interface.update_ip_addrs(|list| {
            let _ = list.push(IpCidr::new(remote.ip().into(), 0));
        });
        let size = if many { SMALL_BUFFER } else { BUFFER };
        let buffer = || SocketBuffer::new(vec![0; size]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        socket.set_keep_alive(Some(KEEP_ALIVE));
        socket.set_timeout(Some(GONE));
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        Some(Stack { interface, sockets, handle })
    }

    fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    /// Takes a packet, moves bytes between the sides, and sends what there is to be sent.
    fn exchange(
        &mut self,
        packet: Option<&[u8]>,
        machine: &mut Machine,
        now: Instant,
        out: &mut PacketSender,
    ) -> Result<(), Errno> {
        if packet.is_some() {
            let mut port = Port { packet, out };
            self.interface.poll_ingress_single(now, &mut port, &mut self.sockets);
        }
        let socket = self.socket();
        let moved = machine.write(socket).and_then(|()| machine.read(socket));
        if moved.is_err() {
            socket.abort();
        }
        let mut port = Port { packet: None, out };
        while self.interface.poll_egress(now, &mut port, &mut self.sockets) != PollResult::None {}
        moved
    }

    /// When it needs the next check.
    fn next(&mut self, now: Instant) -> Option<Instant> {
        let wanted = self.interface.poll_at(now, &self.sockets)?;
        Some(wanted.max(now + SHORTEST_PAUSE))
    }
}

/// The device of a stack: at most one packet in, the link out.
struct Port<'a> {
    packet: Option<&'a [u8]>,
    out: &'a mut PacketSender,
}

struct ReceiveToken<'a>(&'a [u8]);

struct TransmitToken<'a>(&'a mut PacketSender);

impl Device for Port<'_> {
    type RxToken<'b>
        = ReceiveToken<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = TransmitToken<'b>
    where
        Self: 'b;

    fn receive(&mut self, _: Instant) -> Option<(ReceiveToken<'_>, TransmitToken<'_>)> {
        let packet = self.packet.take()?;
        Some((ReceiveToken(packet), TransmitToken(self.out)))
    }

    fn transmit(&mut self, _: Instant) -> Option<TransmitToken<'_>> {
        Some(TransmitToken(self.out))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.out.mtu;
        capabilities.checksum = checksums();
        capabilities
    }
}

impl RxToken for ReceiveToken<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl TxToken for TransmitToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        self.0.send(length, f)
    }
}
