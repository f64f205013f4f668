//! What containers send: packets become connections and flows, or answers that refuse them.

use std::io;
use std::net::SocketAddr;

use smoltcp::time::Instant;

use super::engine::{Engine, Entry, FlowKey, FlowKind};
use super::packet::{PacketContent, Segment, UndeliveredPacket, UnreachableReason, parse};
use super::tcp::{Connection, why};
use super::udp::Flow;

impl Engine {
    /// Takes one packet of a container.
    pub(super) fn take(&mut self, id: u64, bytes: &[u8]) {
        let Some(packet) = parse(bytes) else { return };
        let loopback = self.endpoints.get(&id).is_some_and(|endpoint| endpoint.reach.loopback);
        let (from, to) = (packet.source, packet.destination);
        match packet.content {
            PacketContent::Tcp(segment) => {
                let ends = ((from, segment.source).into(), (to, segment.destination).into());
                self.segment(ends, segment, bytes, loopback);
            }
            PacketContent::Udp { source, destination, .. } => {
                let ends = ((from, source).into(), (to, destination).into());
                if self.answer_name(ends, &packet.content) {
                    return;
                }
                self.datagram(FlowKind::Udp, ends, &packet.content, loopback);
            }
            PacketContent::Echo { ident, sequence, payload } => {
                if self.policy.is_machine(to) {
                    return self.out.echo(to, from, (ident, sequence, payload));
                }
                let ends = ((from, ident).into(), (to, 0).into());
                self.datagram(FlowKind::Echo, ends, &packet.content, loopback);
            }
        }
    }

    /// Answers a question about a name of this network.
    fn answer_name(&mut self, ends: (SocketAddr, SocketAddr), content: &PacketContent<'_>) -> bool {
        let (Some(names), PacketContent::Udp { payload, .. }) = (&mut self.names, content) else {
            return false;
        };
        if !self.policy.takes_names(ends.1) {
            return false;
        }
        let Some(answer) = names(ends.0.ip(), payload) else { return false };
        self.out.udp(ends.1, ends.0, &answer);
        true
    }

    /// Where what a container sends to an address goes.
    fn target(&self, from: SocketAddr, to: SocketAddr, loopback: bool) -> Option<SocketAddr> {
        let mut all = self.endpoints.values();
        let own = all.find(|endpoint| endpoint.addresses.contains(&from.ip()));
        match own.map(|endpoint| &endpoint.reach.servers[..]) {
            Some(servers @ [_, ..]) if self.policy.takes_names(to) => {
                self.policy.name_server(servers, to)
            }
            _ => self.policy.target(to, loopback),
        }
    }

    fn segment(
        &mut self,
        ends: (SocketAddr, SocketAddr),
        segment: Segment,
        bytes: &[u8],
        loopback: bool,
    ) {
        if let Some(id) = self.keys.get(&FlowKey(FlowKind::Tcp, ends.0, ends.1)).copied() {
            let now = self.now();
            let Some((Entry::Tcp(connection), _)) = self.entries.get_mut(&id) else { return };
            let verdict = connection.exchange(Some(bytes), now, &mut self.out);
            return self.judge(id, verdict);
        }
        if segment.rst {
            return;
        }
        if !segment.syn || segment.ack {
            return self.out.reset(ends.1, ends.0, segment);
        }
        let Some(target) = self.target(ends.0, ends.1, loopback) else {
            return match self.policy.refusal(ends.1.ip()) {
                UnreachableReason::Host => {
                    self.not_connected(ends, Some(segment), UnreachableReason::Host);
                }
                _ => self.out.reset(ends.1, ends.0, segment),
            };
        };
        if self.connections >= self.limits.connections {
            // It comes again when there may be room.
            return;
        }
        match Connection::begin(ends, target, bytes) {
            Ok(connection) => {
                self.connections += 1;
                self.add(FlowKind::Tcp, ends, Entry::Tcp(connection), None);
            }
            Err(error) => self.not_connected(ends, Some(segment), error_why(&error)),
        }
    }

    /// Tells the container that a connection does not come to be.
    pub(super) fn not_connected(
        &mut self,
        ends: (SocketAddr, SocketAddr),
        first: Option<Segment>,
        reason: UnreachableReason,
    ) {
        match first {
            Some(segment) if reason == UnreachableReason::Port => {
                self.out.reset(ends.1, ends.0, segment);
            }
            first => {
                self.out.unreachable(ends.1, ends.0, UndeliveredPacket { segment: first, reason });
            }
        }
    }

    fn datagram(
        &mut self,
        kind: FlowKind,
        ends: (SocketAddr, SocketAddr),
        content: &PacketContent<'_>,
        loopback: bool,
    ) {
        let now = self.now();
        let key = FlowKey(kind, ends.0, ends.1);
        if !self.keys.contains_key(&key) && !self.begin_flow(key, loopback, now) {
            return;
        }
        let Some(id) = self.keys.get(&key) else { return };
        if let Some((Entry::Udp(flow), _)) = self.entries.get_mut(id) {
            flow.send(content, now, &mut self.out);
        }
    }

    fn begin_flow(&mut self, key: FlowKey, loopback: bool, now: Instant) -> bool {
        let FlowKey(kind, container, remote) = key;
        let target = match kind {
            // An echo request has no port; any will do for the question where it may go.
            FlowKind::Echo => self.policy.target((remote.ip(), 1).into(), false).map(|_| remote),
            _ => self.target(container, remote, loopback),
        };
        let Some(target) = target else {
            let group = remote.ip().is_multicast() || remote.ip() == std::net::Ipv4Addr::BROADCAST;
            if kind == FlowKind::Udp && !group {
                let lost =
                    UndeliveredPacket { segment: None, reason: self.policy.refusal(remote.ip()) };
                self.out.unreachable(remote, container, lost);
            }
            return false;
        };
        if self.entries.len() - self.connections >= self.limits.flows {
            self.drop_oldest_flow();
        }
        match Flow::begin((container, remote), target, kind == FlowKind::Echo, now) {
            Ok(flow) => {
                let ends = flow.ends();
                self.add(kind, (container, remote), Entry::Udp(flow), Some(ends))
            }
            Err(error) => {
                let lost = UndeliveredPacket { segment: None, reason: error_why(&error) };
                self.out.unreachable(remote, container, lost);
                false
            }
        }
    }
}

fn error_why(error: &io::Error) -> UnreachableReason {
    rustix::io::Errno::from_io_error(error).map_or(UnreachableReason::Host, why)
}
