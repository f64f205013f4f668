//! IP packets as they come from a container, which may be hostile, and as they go to it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smoltcp::phy::{Checksum, ChecksumCapabilities};
use smoltcp::wire::{
    Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, Icmpv6DstUnreachable, Icmpv6Packet, Icmpv6Repr,
    IpAddress, IpProtocol, IpRepr, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, TcpControl,
    TcpPacket, TcpRepr, TcpSeqNumber, UdpPacket, UdpRepr,
};

use super::link::{HEAD, Link, checksum_field};

const HOPS: u8 = 64;

/// What one packet of a container is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Packet<'a> {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) content: PacketContent<'a>,
}

/// What a packet carries.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PacketContent<'a> {
    Tcp(Segment),
    Udp { source: u16, destination: u16, payload: &'a [u8] },
    Echo { ident: u16, sequence: u16, payload: &'a [u8] },
}

/// What we must know of a TCP segment before a connection is found for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) source: u16,
    pub(super) destination: u16,
    pub(super) syn: bool,
    pub(super) ack: bool,
    pub(super) rst: bool,
    sequence: TcpSeqNumber,
    acknowledged: TcpSeqNumber,
    length: usize,
}

/// Which checksums are made and looked at: those of IP and ICMP, which are small, are made.
pub(super) fn checksums() -> ChecksumCapabilities {
    let mut checksums = ChecksumCapabilities::ignored();
    checksums.ipv4 = Checksum::Tx;
    checksums.icmpv4 = Checksum::Tx;
    checksums.icmpv6 = Checksum::Tx;
    checksums
}

/// Source and destination of a packet; `None` if it is none of IP.
pub(super) fn ends(bytes: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let four = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(Ipv4Addr::from(octets).into())
    };
    let six = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
        Some(Ipv6Addr::from(octets).into())
    };
    match bytes.first()? >> 4 {
        4 => Some((four(12)?, four(16)?)),
        6 => Some((six(8)?, six(24)?)),
        _ => None,
    }
}

/// Reads a packet. `None` for what is broken, a fragment, or of a protocol that we do not carry.
pub(super) fn parse(bytes: &[u8]) -> Option<Packet<'_>> {
    let (source, destination, protocol, payload) = match bytes.first()? >> 4 {
        4 => {
            let packet = Ipv4Packet::new_checked(bytes).ok()?;
            let fragment = packet.more_frags() || packet.frag_offset() != 0;
            if fragment || usize::from(packet.header_len()) < 20 {
                return None;
            }
            let (from, to) = (packet.src_addr(), packet.dst_addr());
            (IpAddr::V4(from), IpAddr::V4(to), packet.next_header(), packet.payload())
        }
        6 => {
            let packet = Ipv6Packet::new_checked(bytes).ok()?;
            let (from, to) = (packet.src_addr(), packet.dst_addr());
            (IpAddr::V6(from), IpAddr::V6(to), packet.next_header(), packet.payload())
        }
        _ => return None,
    };
    let content = content(protocol, payload)?;
    Some(Packet { source, destination, content })
}

fn content(protocol: IpProtocol, payload: &[u8]) -> Option<PacketContent<'_>> {
    match protocol {
        IpProtocol::Tcp => {
            let segment = TcpPacket::new_checked(payload).ok()?;
            if segment.header_len() < 20 {
                return None;
            }
            Some(PacketContent::Tcp(Segment {
                source: segment.src_port(),
                destination: segment.dst_port(),
                syn: segment.syn(),
                ack: segment.ack(),
                rst: segment.rst(),
                sequence: segment.seq_number(),
                acknowledged: segment.ack_number(),
                length: segment.segment_len(),
            }))
        }
        IpProtocol::Udp => {
            let datagram = UdpPacket::new_checked(payload).ok()?;
            Some(PacketContent::Udp {
                source: datagram.src_port(),
                destination: datagram.dst_port(),
                payload: datagram.payload(),
            })
        }
        IpProtocol::Icmp => {
            let packet = Icmpv4Packet::new_checked(payload).ok()?;
            match Icmpv4Repr::parse(&packet, &ChecksumCapabilities::ignored()).ok()? {
                Icmpv4Repr::EchoRequest { ident, seq_no: sequence, data: payload } => {
                    Some(PacketContent::Echo { ident, sequence, payload })
                }
                _ => None,
            }
        }
        IpProtocol::Icmpv6 => {
            let packet = Icmpv6Packet::new_checked(payload).ok()?;
            if packet.msg_type() != smoltcp::wire::Icmpv6Message::EchoRequest {
                return None;
            }
            let (ident, sequence) = (packet.echo_ident(), packet.echo_seq_no());
            Some(PacketContent::Echo { ident, sequence, payload: packet.payload() })
        }
        _ => None,
    }
}

/// Puts the checksum of the pseudo header where the receiver expects the rest to be added; gives
/// where the transport header starts and where in it the field is. `None` if there is no such field.
pub(super) fn partial_checksum(packet: &mut [u8]) -> Option<(usize, usize)> {
    let (start, protocol, addresses) = match packet.first()? >> 4 {
        4 => (usize::from(packet[0] & 15) * 4, packet[9], 12..20),
        _ => (40, packet[6], 8..40),
    };
    let field = checksum_field(IpProtocol::from(protocol))?;
    let length = packet.len().checked_sub(start)?;
    let words = packet[addresses].chunks_exact(2);
    let mut sum: u32 = words.map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    sum += u32::from(protocol) + length as u32;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let place = packet.get_mut(start + field..start + field + 2)?;
    place.copy_from_slice(&(sum as u16).to_be_bytes());
    Some((start, field))
}

/// Sends packets to containers: their links, and a buffer to make packets in.
#[derive(Debug)]
pub(super) struct PacketSender {
    links: HashMap<u64, Link>,
    places: HashMap<IpAddr, u64>,
    /// The link of whatever has no place.
    only: Option<u64>,
    buffer: Vec<u8>,
    /// Bytes of the largest packet.
    pub(super) mtu: usize,
}

impl PacketSender {
    pub(super) fn new(mtu: usize) -> PacketSender {
        let buffer = Link::buffer();
        PacketSender { links: HashMap::new(), places: HashMap::new(), only: None, buffer, mtu }
    }

    /// Adds a link to a container with these addresses; without any, all packets go there.
    pub(super) fn add(&mut self, id: u64, link: Link, addresses: &[IpAddr]) {
        self.places.extend(addresses.iter().map(|address| (*address, id)));
        if addresses.is_empty() {
            self.only = Some(id);
        }
        self.links.insert(id, link);
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<Link> {
        self.places.retain(|_, place| *place != id);
        self.only = self.only.filter(|only| *only != id);
        self.links.remove(&id)
    }

    pub(super) fn link(&self, id: u64) -> Option<&Link> {
        self.links.get(&id)
    }

    /// Whether a link has what leaves it by one of its own addresses alone.
    pub(super) fn may_send(&self, id: u64, from: IpAddr) -> bool {
        self.only == Some(id) || self.places.get(&from) == Some(&id)
    }

    /// The link that an address is behind.
    pub(super) fn place(&self, address: IpAddr) -> Option<u64> {
        self.places.get(&address).copied()
    }

    /// Passes a frame of one container on to another one.
    pub(super) fn pass(&self, to: u64, frame: &mut [u8], length: usize) {
        if let Some(link) = self.links.get(&to) {
            link.pass(frame, length);
        }
    }

    /// Passes a frame of one container on to all others.
    pub(super) fn flood(&self, from: u64, frame: &mut [u8], length: usize) {
        for (_, link) in self.links.iter().filter(|(id, _)| **id != from) {
            link.pass(frame, length);
        }
    }

    /// Sends what `fill` writes to where its destination is.
    pub(super) fn send<R>(&mut self, length: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        let result = fill(&mut self.buffer[HEAD..HEAD + length]);
        let to = ends(&self.buffer[HEAD..HEAD + length]).map(|(_, to)| to);
        let place = to.and_then(|to| self.place(to)).or(self.only);
        if let Some(link) = place.and_then(|place| self.links.get(&place)) {
            link.send(&mut self.buffer, length);
        }
        result
    }

    /// Sends an IP packet whose payload `fill` writes.
    fn ip(
        &mut self,
        from: IpAddr,
        to: IpAddr,
        protocol: IpProtocol,
        length: usize,
        fill: impl FnOnce(&mut [u8]),
    ) {
        let header = match (from, to) {
            (IpAddr::V4(_), IpAddr::V4(_)) => 20,
            (IpAddr::V6(_), IpAddr::V6(_)) => 40,
            _ => return,
        };
        if header + length > self.mtu {
            return;
        }
        let repr = IpRepr::new(from.into(), to.into(), protocol, length, HOPS);
        self.send(header + length, |packet| {
            repr.emit(&mut *packet, &checksums());
            fill(&mut packet[header..]);
        });
    }

    /// Sends a datagram.
    pub(super) fn udp(&mut self, from: SocketAddr, to: SocketAddr, payload: &[u8]) {
        let repr = UdpRepr { src_port: from.port(), dst_port: to.port() };
        let (source, target) = (IpAddress::from(from.ip()), IpAddress::from(to.ip()));
        self.ip(from.ip(), to.ip(), IpProtocol::Udp, 8 + payload.len(), |bytes| {
            let mut packet = UdpPacket::new_unchecked(bytes);
            let copy = |place: &mut [u8]| place.copy_from_slice(payload);
            repr.emit(&mut packet, &source, &target, payload.len(), copy, &checksums());
        });
    }

    /// Refuses a segment for which there is no connection (RFC 9293, section 3.10.7.1).
    pub(super) fn reset(&mut self, from: SocketAddr, to: SocketAddr, answered: Segment) {
        let (sequence, acknowledged) = if answered.ack {
            (answered.acknowledged, None)
        } else {
            (TcpSeqNumber(0), Some(answered.sequence + answered.length))
        };
        let repr = TcpRepr {
            src_port: from.port(),
            dst_port: to.port(),
            control: TcpControl::Rst,
            seq_number: sequence,
            ack_number: acknowledged,
            window_len: 0,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: &[],
        };
        let (source, target) = (IpAddress::from(from.ip()), IpAddress::from(to.ip()));
        self.ip(from.ip(), to.ip(), IpProtocol::Tcp, repr.buffer_len(), |bytes| {
            repr.emit(&mut TcpPacket::new_unchecked(bytes), &source, &target, &checksums());
        });
    }

    /// Answers an echo request.
    pub(super) fn echo(&mut self, from: IpAddr, to: IpAddr, reply: (u16, u16, &[u8])) {
        let (ident, seq_no, data) = reply;
        match (from, to) {
            (IpAddr::V4(_), IpAddr::V4(_)) => {
                let repr = Icmpv4Repr::EchoReply { ident, seq_no, data };
                self.ip(from, to, IpProtocol::Icmp, repr.buffer_len(), |bytes| {
                    repr.emit(&mut Icmpv4Packet::new_unchecked(bytes), &checksums());
                });
            }
            (IpAddr::V6(source), IpAddr::V6(target)) => {
                let repr = Icmpv6Repr::EchoReply { ident, seq_no, data };
                self.ip(from, to, IpProtocol::Icmpv6, repr.buffer_len(), |bytes| {
                    let mut packet = Icmpv6Packet::new_unchecked(bytes);
                    repr.emit(&source, &target, &mut packet, &checksums());
                });
            }
            _ => {}
        }
    }

    /// Says that what the container sent from `to` to `from` does not get there.
    pub(super) fn unreachable(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        undelivered: UndeliveredPacket,
    ) {
        let mut ports = [0; 8];
        ports[..2].copy_from_slice(&to.port().to_be_bytes());
        ports[2..4].copy_from_slice(&from.port().to_be_bytes());
        let next_header = match undelivered.segment {
            Some(segment) => {
                // The kernel believes this only of a segment that it did send.
                ports[4..].copy_from_slice(&segment.sequence.0.to_be_bytes());
                IpProtocol::Tcp
            }
            None => IpProtocol::Udp,
        };
        match (from.ip(), to.ip()) {
            (IpAddr::V4(source), IpAddr::V4(target)) => {
                let header = Ipv4Repr {
                    src_addr: target,
                    dst_addr: source,
                    next_header,
                    payload_len: ports.len(),
                    hop_limit: HOPS,
                };
                let reason = undelivered.reason.v4();
                let repr = Icmpv4Repr::DstUnreachable { reason, header, data: &ports };
                self.ip(from.ip(), to.ip(), IpProtocol::Icmp, repr.buffer_len(), |bytes| {
                    repr.emit(&mut Icmpv4Packet::new_unchecked(bytes), &checksums());
                });
            }
            (IpAddr::V6(source), IpAddr::V6(target)) => {
                let header = Ipv6Repr {
                    src_addr: target,
                    dst_addr: source,
                    next_header,
                    payload_len: ports.len(),
                    hop_limit: HOPS,
                };
                let reason = undelivered.reason.v6();
                let repr = Icmpv6Repr::DstUnreachable { reason, header, data: &ports };
                self.ip(from.ip(), to.ip(), IpProtocol::Icmpv6, repr.buffer_len(), |bytes| {
                    let mut packet = Icmpv6Packet::new_unchecked(bytes);
                    repr.emit(&source, &target, &mut packet, &checksums());
                });
            }
            _ => {}
        }
    }
}

/// A packet that could not be delivered, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UndeliveredPacket {
    /// The segment; `None` if it was a datagram.
    pub(super) segment: Option<Segment>,
    pub(super) reason: UnreachableReason,
}

/// Why something does not get there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UnreachableReason {
    /// No program listens.
    Port,
    /// There is no way, or no answer.
    Host,
    /// We do not let it pass.
    Prohibited,
}

impl UnreachableReason {
    fn v4(self) -> Icmpv4DstUnreachable {
        match self {
            UnreachableReason::Port => Icmpv4DstUnreachable::PortUnreachable,
            UnreachableReason::Host => Icmpv4DstUnreachable::HostUnreachable,
            UnreachableReason::Prohibited => Icmpv4DstUnreachable::CommProhibited,
        }
    }

    fn v6(self) -> Icmpv6DstUnreachable {
        match self {
            UnreachableReason::Port => Icmpv6DstUnreachable::PortUnreachable,
            UnreachableReason::Host => Icmpv6DstUnreachable::AddrUnreachable,
            UnreachableReason::Prohibited => Icmpv6DstUnreachable::AdminProhibit,
        }
    }
}
