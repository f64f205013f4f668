//! The loop of an uplink: packets of the container on one side, sockets of the machine on the other.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use rustix::event::epoll::{self, EventData, EventFlags};
use smoltcp::time::Instant;

use super::link::{HEAD, LARGEST, Link};
use super::listeners::PortListener;
use super::packet::{PacketSender, ends};
use super::policy::{INSIDE_4, INSIDE_6, Policy, is_group};
use super::tcp::{Connection, Verdict};
use super::udp::Flow;
use crate::ports::Taker;
use crate::sys;

/// A command waits.
const WAKE: u64 = 0;
const FIRST: u64 = 1;
/// Beside the number of an endpoint: it has sent something.
const LINK: u64 = 1 << 63;
/// At most this many packets are taken at once, so that the machine's sockets get their turn.
pub(super) const BATCH: usize = 64;
/// With more connections than this a new one gets smaller buffers.
pub(super) const MANY: usize = 64;

/// How much one container may have open; the rest of the process needs descriptors too.
#[derive(Debug, Clone, Copy)]
pub(super) struct UplinkLimits {
    pub(super) connections: usize,
    pub(super) flows: usize,
}

impl UplinkLimits {
    fn of(descriptors: usize) -> UplinkLimits {
        let share = |most: usize| (descriptors / 4).clamp(16, most);
        UplinkLimits { connections: share(2048), flows: share(512) }
    }
}

/// What a flow is found by: kind, container's end, remote end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FlowKey(pub(super) FlowKind, pub(super) SocketAddr, pub(super) SocketAddr);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum FlowKind {
    Tcp,
    Udp,
    Echo,
}

pub(super) enum Entry {
    Tcp(Connection),
    Udp(Flow),
}

/// What a container reaches beside others.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reach {
    /// Whether the loopback services of the machine.
    pub(crate) loopback: bool,
    /// Name servers, in place of the machine's.
    pub(crate) servers: Vec<IpAddr>,
}

/// A container on the network.
pub(super) struct Endpoint {
    /// Its addresses; none where it is the only one, and all packets are its.
    pub(super) addresses: Vec<IpAddr>,
    /// What it reaches.
    pub(super) reach: Reach,
    /// Whether it has an address of IPv6.
    pub(super) ipv6: bool,
    /// The address that what is published leads to.
    pub(super) own: [IpAddr; 2],
}

impl Endpoint {
    /// The only one of its network.
    pub(super) fn alone(loopback: bool, ipv6: bool) -> Endpoint {
        let own = [INSIDE_4.0, INSIDE_6.0];
        let reach = Reach { loopback, servers: Vec::new() };
        Endpoint { addresses: Vec::new(), reach, ipv6, own }
    }
}

/// Answers a question about names of the container with an address, where the answer is ours.
pub(crate) type NameService = Box<dyn FnMut(IpAddr, &[u8]) -> Option<Vec<u8>> + Send>;

/// What the loop is asked to do.
pub(super) enum Command {
    /// A container comes, with its published ports.
    Attach(u64, Link, Endpoint, Vec<(Taker, u16)>),
    /// It goes.
    Detach(u64),
    /// The end.
    Stop,
}

/// The state of the loop.
pub(super) struct Engine {
    pub(super) epoll: OwnedFd,
    pub(super) out: PacketSender,
    pub(super) policy: Policy,
    pub(super) limits: UplinkLimits,
    pub(super) names: Option<NameService>,
    commands: Receiver<Command>,
    wake: Arc<OwnedFd>,
    began: std::time::Instant,
    pub(super) next: u64,
    pub(super) endpoints: HashMap<u64, Endpoint>,
    pub(super) keys: HashMap<FlowKey, u64>,
    pub(super) entries: HashMap<u64, (Entry, Option<Instant>)>,
    deadlines: BTreeSet<(Instant, u64)>,
    pub(super) connections: usize,
    pub(super) doors: HashMap<u64, PortListener>,
    pub(super) datagram: Vec<u8>,
}

impl Engine {
    /// Connects what will be attached with this machine. `wake` is written to after a command.
    pub(super) fn new(
        (policy, mtu): (Policy, usize),
        names: Option<NameService>,
        (commands, wake): (Receiver<Command>, Arc<OwnedFd>),
    ) -> io::Result<Engine> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &wake, EventData::new_u64(WAKE), EventFlags::IN)?;
        Ok(Engine {
            epoll,
            out: PacketSender::new(mtu),
            policy,
            limits: UplinkLimits::of(sys::descriptor_limit()),
            names,
            commands,
            wake,
            began: std::time::Instant::now(),
            next: FIRST,
            endpoints: HashMap::new(),
            keys: HashMap::new(),
            entries: HashMap::new(),
            deadlines: BTreeSet::new(),
            connections: 0,
            doors: HashMap::new(),
            datagram: vec![0; LARGEST],
        })
    }

    /// Does what it is asked to do; `false` at the end.
    fn obey(&mut self) -> bool {
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Attach(id, link, endpoint, doors) => {
                    if let Err(error) = self.attach(id, link, endpoint, doors) {
                        tracing::warn!(%error, "a container is not connected");
                    }
                }
                Command::Detach(id) => self.detach(id),
                Command::Stop => return false,
            }
        }
        true
    }

    pub(super) fn attach(
        &mut self,
        id: u64,
        link: Link,
        endpoint: Endpoint,
        doors: Vec<(Taker, u16)>,
    ) -> io::Result<()> {
        epoll::add(&self.epoll, &link, EventData::new_u64(id | LINK), EventFlags::IN)?;
        self.out.add(id, link, &endpoint.addresses);
        self.endpoints.insert(id, endpoint);
        self.publish(id, doors)
    }

    /// Takes a container off the network, and ends what it has open.
    fn detach(&mut self, id: u64) {
        if let Some(link) = self.out.remove(id) {
            let _ = epoll::delete(&self.epoll, &link);
        }
        let Some(endpoint) = self.endpoints.remove(&id) else { return };
        self.doors.retain(|_, door| door.endpoint != id);
        let its = |key: &FlowKey| {
            endpoint.addresses.is_empty() || endpoint.addresses.contains(&key.1.ip())
        };
        let over: Vec<u64> =
            self.keys.iter().filter(|(key, _)| its(key)).map(|(_, entry)| *entry).collect();
        over.into_iter().for_each(|entry| self.remove(entry));
    }

    pub(super) fn now(&self) -> Instant {
        let micros = self.began.elapsed().as_micros();
        Instant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
    }

    /// Works until told to stop, or the link is gone.
    pub(super) fn run(mut self) {
        let mut packet = Link::buffer();
        let mut events = Vec::with_capacity(128);
        loop {
            events.clear();
            let pause = self.pause();
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                pause.as_ref(),
            ) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return tracing::warn!(%error, "the uplink ends"),
            }
            for event in &events {
                match event.data.u64() {
                    WAKE => {
                        if !self.obey() {
                            return;
                        }
                    }
                    id if id & LINK != 0 => {
                        if let Err(error) = self.take_packets(id & !LINK, &mut packet) {
                            tracing::debug!(%error, "a container's device is gone");
                            self.detach(id & !LINK);
                        }
                    }
                    id => self.woken(id, event.flags),
                }
            }
            self.look_after();
        }
    }

    /// How long there is nothing to do of our own.
    fn pause(&self) -> Option<rustix::event::Timespec> {
        let (first, _) = self.deadlines.first()?;
        let micros = (first.total_micros() - self.now().total_micros()).max(0);
        Some(rustix::event::Timespec {
            tv_sec: micros / 1_000_000,
            tv_nsec: (micros % 1_000_000) * 1000,
        })
    }

    fn take_packets(&mut self, id: u64, buffer: &mut [u8]) -> io::Result<()> {
        for _ in 0..BATCH {
            let Some(link) = self.out.link(id) else { return Ok(()) };
            match link.receive(buffer) {
                Ok(Some(length)) => self.switch(id, buffer, length),
                Ok(None) => return Ok(()),
                Err(error) => match error.raw_os_error() {
                    // The container may have taken its end down, and may bring it up again.
                    Some(libc::ENETDOWN | libc::EIO | libc::EINTR | libc::ENOBUFS) => return Ok(()),
                    _ => return Err(error),
                },
            }
        }
        Ok(())
    }

    /// Passes a frame on to the container it is for, or takes its packet out of the network. No
    /// container speaks for another one.
    fn switch(&mut self, id: u64, frame: &mut [u8], length: usize) {
        let Some((from, to)) = ends(&frame[HEAD..HEAD + length]) else { return };
        if !self.out.may_send(id, from) {
            return;
        }
        match self.out.place(to) {
            Some(other) if other != id => self.out.pass(other, frame, length),
            _ if is_group(to, &self.policy.subnets) => self.out.flood(id, frame, length),
            _ => self.take(id, &frame[HEAD..HEAD + length]),
        }
    }

    pub(super) fn drop_oldest_flow(&mut self) {
        let flows = self.entries.iter().filter_map(|(id, (entry, _))| match entry {
            Entry::Udp(flow) => Some((flow.used(), *id)),
            Entry::Tcp(_) => None,
        });
        if let Some((_, id)) = flows.min() {
            self.remove(id);
        }
    }

    pub(super) fn add(
        &mut self,
        kind: FlowKind,
        ends: (SocketAddr, SocketAddr),
        entry: Entry,
        deadline: Option<Instant>,
    ) -> bool {
        let id = self.next;
        self.next += 1;
        let wait = |fd, flags| epoll::add(&self.epoll, fd, EventData::new_u64(id), flags);
        let added = match &entry {
            Entry::Tcp(connection) => {
                let both = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP;
                wait(connection.as_fd(), both | EventFlags::ET)
            }
            Entry::Udp(flow) if flow.owns_socket() => wait(flow.as_fd(), EventFlags::IN),
            Entry::Udp(_) => Ok(()),
        };
        if let Err(error) = added {
            tracing::debug!(%error, "a socket cannot be waited for");
            self.connections -= usize::from(kind == FlowKind::Tcp);
            return false;
        }
        self.keys.insert(FlowKey(kind, ends.0, ends.1), id);
        self.entries.insert(id, (entry, deadline));
        self.deadlines.extend(deadline.map(|deadline| (deadline, id)));
        true
    }

    /// A socket of the machine has something for us.
    fn woken(&mut self, id: u64, flags: EventFlags) {
        let now = self.now();
        let ended = flags.intersects(EventFlags::ERR | EventFlags::HUP);
        match self.entries.get_mut(&id) {
            Some((Entry::Tcp(connection), _)) => {
                let readable = ended || flags.intersects(EventFlags::IN | EventFlags::RDHUP);
                let writable = ended || flags.contains(EventFlags::OUT);
                let many = self.connections > MANY;
                let verdict = connection.woken((readable, writable), many, now, &mut self.out);
                self.judge(id, verdict);
            }
            Some((Entry::Udp(flow), _)) => flow.receive(&mut self.datagram, now, &mut self.out),
            None => self.knocked(id, now),
        }
    }

    pub(super) fn judge(&mut self, id: u64, verdict: Verdict) {
        match verdict {
            Verdict::Lives(deadline) => self.schedule(id, deadline),
            Verdict::Over => self.remove(id),
            Verdict::Failed(why) => {
                if let Some((Entry::Tcp(connection), _)) = self.entries.get(&id) {
                    let ends = (connection.container, connection.remote);
                    let first = connection.first_segment();
                    self.not_connected(ends, first, why);
                }
                self.remove(id);
            }
        }
    }

    fn schedule(&mut self, id: u64, new: Option<Instant>) {
        let Some((_, deadline)) = self.entries.get_mut(&id) else { return };
        if *deadline == new {
            return;
        }
        if let Some(old) = std::mem::replace(deadline, new) {
            self.deadlines.remove(&(old, id));
        }
        self.deadlines.extend(new.map(|new| (new, id)));
    }

    /// Does what is due: segments to send again, flows to end.
    fn look_after(&mut self) {
        let now = self.now();
        while let Some((due, id)) = self.deadlines.first().copied() {
            if due > now {
                return;
            }
            match self.entries.get_mut(&id) {
                Some((Entry::Tcp(connection), _)) => {
                    let verdict = connection.exchange(None, now, &mut self.out);
                    self.judge(id, verdict);
                }
                Some((Entry::Udp(flow), _)) if flow.ends() > now => {
                    let ends = flow.ends();
                    self.schedule(id, Some(ends));
                }
                Some(_) => self.remove(id),
                None => drop(self.deadlines.pop_first()),
            }
        }
    }

    pub(super) fn remove(&mut self, id: u64) {
        let Some((entry, deadline)) = self.entries.remove(&id) else { return };
        let key = match &entry {
            Entry::Tcp(connection) => {
                self.connections -= 1;
                FlowKey(FlowKind::Tcp, connection.container, connection.remote)
            }
            Entry::Udp(flow) => {
                let kind = if flow.echo { FlowKind::Echo } else { FlowKind::Udp };
                FlowKey(kind, flow.container, flow.remote)
            }
        };
        self.keys.remove(&key);
        if let Some(deadline) = deadline {
            self.deadlines.remove(&(deadline, id));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use proptest::prelude::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType};

    use super::*;
    use crate::sys::OFFLOAD_HEADER;

    /// An engine in a network namespace of its own, and the container's end of its link.
    fn engine() -> (Engine, UnixDatagram) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let pair = rustix::net::socketpair(AddressFamily::UNIX, SocketType::DGRAM, flags, None);
        let (ours, theirs) = pair.unwrap();
        let flags = rustix::event::EventfdFlags::CLOEXEC;
        let wake = Arc::new(rustix::event::eventfd(0, flags).unwrap());
        let policy = Policy::private(crate::resolvers(b"nameserver 127.0.0.1\n"));
        let (_, commands) = std::sync::mpsc::channel();
        let mut engine = Engine::new((policy, 65_520), None, (commands, wake)).unwrap();
        engine.attach(1, Link::over(ours), Endpoint::alone(false, false), Vec::new()).unwrap();
        (engine, theirs.into())
    }

    /// What the container got.
    fn answers(container: &UnixDatagram) -> Vec<Vec<u8>> {
        let mut buffer = vec![0; 70_000];
        let next =
            || container.recv(&mut buffer).ok().map(|count| buffer[OFFLOAD_HEADER..count].to_vec());
        std::iter::from_fn(next).collect()
    }

    /// A TCP segment or UDP datagram in IPv4, without checksums.
    fn packet(to: [u8; 4], port: u16, protocol: u8, flags: u8, rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 192, 0, 0, 2];
        packet.extend(to);
        packet.extend([0x30, 0x39]);
        packet.extend(port.to_be_bytes());
        match protocol {
            6 => packet.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]),
            _ => packet.extend(((8 + rest.len()) as u16).to_be_bytes().into_iter().chain([0, 0])),
        }
        packet.extend(rest);
        let length = packet.len() as u16;
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        packet
    }

    const SYN: u8 = 2;
    const RST: u8 = 4;

    #[test]
    fn what_may_not_pass_is_refused_and_opens_no_socket() {
        let (mut engine, container) = engine();
        engine.take(1, &packet([127, 0, 0, 1], 80, 6, SYN, &[]));
        engine.take(1, &packet([192, 0, 0, 1], 80, 6, SYN, &[]));
        engine.take(1, &packet([192, 0, 0, 1], 80, 17, 0, b"hello"));
        let answers = answers(&container);
        assert!(answers[..2].iter().all(|answer| answer[9] == 6 && answer[33] & RST != 0));
        // Administratively prohibited.
        assert_eq!((answers[2][9], answers[2][20], answers[2][21]), (1, 3, 13));
        assert_eq!(answers.len(), 3);
        assert!(engine.entries.is_empty());
    }

    #[test]
    fn a_segment_of_no_connection_is_answered_with_a_reset_and_a_reset_with_nothing() {
        let (mut engine, container) = engine();
        engine.take(1, &packet([10, 0, 0, 1], 80, 6, 0x10, b"data"));
        engine.take(1, &packet([10, 0, 0, 1], 80, 6, RST, &[]));
        let answers = answers(&container);
        assert_eq!(answers.len(), 1);
        assert_eq!(answers[0][33] & RST, RST);
    }

    #[test]
    fn the_machine_as_seen_through_the_uplink_answers_a_ping() {
        let (mut engine, container) = engine();
        let mut ping = packet([192, 0, 0, 1], 0, 1, 0, &[]);
        ping.truncate(20);
        ping.extend([8, 0, 0, 0, 0, 7, 0, 9, 1, 2, 3]);
        ping[3] = ping.len() as u8;
        engine.take(1, &ping);
        let answers = answers(&container);
        assert_eq!(answers[0][20..22], [0, 0]);
        assert_eq!(answers[0][24..], [0, 7, 0, 9, 1, 2, 3]);
    }

    #[test]
    fn what_is_open_is_bounded_and_the_flow_used_longest_ago_goes_first() {
        let (mut engine, _container) = engine();
        engine.limits = UplinkLimits { connections: 2, flows: 3 };
        for port in 1..=9 {
            engine.take(1, &packet([198, 18, 0, 1], port, 17, 0, b"x"));
            engine.take(1, &packet([198, 18, 0, 1], port, 6, SYN, &[]));
        }
        assert!(engine.connections <= 2);
        assert!(engine.entries.len() - engine.connections <= 3);
        assert_eq!(engine.keys.len(), engine.entries.len());
        let ids: Vec<u64> = engine.entries.keys().copied().collect();
        ids.into_iter().for_each(|id| engine.remove(id));
        assert!(engine.keys.is_empty() && engine.deadlines.is_empty());
        assert_eq!(engine.connections, 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn no_bytes_of_a_container_make_the_uplink_panic(
            packets in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 0..120), 1..8,
            ),
            version in 0u8..8,
        ) {
            let (mut engine, _container) = engine();
            for mut bytes in packets {
                engine.take(1, &bytes);
                if let Some(first) = bytes.first_mut() {
                    *first = if version < 4 { 0x45 } else { 0x60 };
                }
                // Lengths that fit lead further in.
                if bytes.len() >= 40 {
                    let (total, payload) = (bytes.len() as u16, bytes.len() as u16 - 40);
                    let (at, length) = if version < 4 { (2, total) } else { (4, payload) };
                    bytes[at..at + 2].copy_from_slice(&length.to_be_bytes());
                    let protocols = [6, 17, 1, 58];
                    bytes[if version < 4 { 9 } else { 6 }] = protocols[usize::from(version % 4)];
                    bytes[6] &= if version < 4 { 0x40 } else { 0xff };
                }
                engine.take(1, &bytes);
            }
            prop_assert!(engine.keys.len() == engine.entries.len());
        }
    }
}
