//! The kernel's network configuration, over rtnetlink: one request, one answer.

use std::io;
use std::net::IpAddr;
use std::os::fd::RawFd;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// A cable between a bridge and a container.
#[derive(Debug)]
pub(crate) struct Veth<'a> {
    /// This machine's end.
    pub(crate) name: &'a str,
    /// The index of the bridge.
    pub(crate) bridge: u32,
    /// Bytes of a packet.
    pub(crate) mtu: u32,
    /// The container's network namespace.
    pub(crate) namespace: RawFd,
    /// What the container calls its end.
    pub(crate) inside: &'a str,
    /// The Ethernet address of that.
    pub(crate) mac: [u8; 6],
}

/// A device on top of another one.
#[derive(Debug)]
pub(crate) struct OnTop<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// The index of the other.
    pub(crate) parent: u32,
    /// Where it is put; here if not given.
    pub(crate) namespace: Option<RawFd>,
    /// Its Ethernet address; one that the kernel chooses if not given.
    pub(crate) mac: Option<[u8; 6]>,
    /// Bytes of a packet; those of the other if not given.
    pub(crate) mtu: Option<u32>,
}

/// A line to the network configuration of the namespace it was made in.
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Connects with the network namespace of this thread.
    pub(crate) fn open() -> io::Result<Netlink> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Netlink { socket, sequence: 0 })
    }

    /// Sends one request and waits for its acknowledgement.
    fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&bytes)
                .map_err(io::Error::other)?;
            if answer.header.sequence_number != self.sequence {
                continue;
            }
            if let NetlinkPayload::Error(error) = answer.payload {
                return match error.code {
                    None => Ok(()),
                    Some(code) => Err(io::Error::from_raw_os_error(-code.get())),
                };
            }
        }
    }

    /// Brings an interface up, and changes more about it.
    pub(crate) fn up(
        &mut self,
        index: u32,
        flags: LinkFlags,
        attributes: Vec<LinkAttribute>,
    ) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up | flags;
        message.header.change_mask = message.header.flags;
        message.attributes = attributes;
        self.request(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Makes a pair of devices; what goes into one comes out of the other.
    pub(crate) fn add_veth(&mut self, name: &str, peer: &str) -> io::Result<()> {
        let mut other = LinkMessage::default();
        other.attributes.push(LinkAttribute::IfName(peer.to_owned()));
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other))),
            ]),
        ];
        self.request(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Makes a bridge with an Ethernet address that does not change.
    pub(crate) fn add_bridge(&mut self, name: &str, mac: [u8; 6], mtu: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Address(mac.to_vec()),
            LinkAttribute::Mtu(mtu),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
        ];
        self.request(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Plugs a device into a bridge, and brings it up.
    pub(crate) fn enslave(&mut self, index: u32, bridge: u32) -> io::Result<()> {
        self.up(index, LinkFlags::empty(), vec![LinkAttribute::Controller(bridge)])
    }

    /// Has a bridge give back to a port what came from there: a container may send to its own
    /// published port.
    pub(crate) fn hairpin(&mut self, index: u32) -> io::Result<()> {
        let port = InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(true)]);
        let info = vec![LinkInfo::PortKind(InfoPortKind::Bridge), LinkInfo::PortData(port)];
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes = vec![LinkAttribute::LinkInfo(info)];
        self.request(RouteNetlinkMessage::NewLink(message), 0)
    }

    /// Makes a pair of devices: one on a bridge, the other in a network namespace.
    pub(crate) fn add_veth_into(&mut self, veth: &Veth<'_>) -> io::Result<()> {
        let mut other = LinkMessage::default();
        other.attributes = vec![
            LinkAttribute::IfName(veth.inside.to_owned()),
            LinkAttribute::NetNsFd(veth.namespace),
            LinkAttribute::Address(veth.mac.to_vec()),
            LinkAttribute::Mtu(veth.mtu),
        ];
        let mut message = LinkMessage::default();
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        message.attributes = vec![
            LinkAttribute::IfName(veth.name.to_owned()),
            LinkAttribute::Mtu(veth.mtu),
            LinkAttribute::Controller(veth.bridge),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other))),
            ]),
        ];
        self.request(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Makes a device on top of another one, in a network namespace.
    pub(crate) fn add_on_top(&mut self, device: &OnTop<'_>, info: Vec<LinkInfo>) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(device.name.to_owned()),
            LinkAttribute::Link(device.parent),
            LinkAttribute::LinkInfo(info),
        ];
        message.attributes.extend(device.mtu.map(LinkAttribute::Mtu));
        message.attributes.extend(device.namespace.map(LinkAttribute::NetNsFd));
        message.attributes.extend(device.mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
        self.request(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Gives an interface an address.
    pub(crate) fn add_address(
        &mut self,
        index: u32,
        address: IpAddr,
        prefix: u8,
    ) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = family(address);
        message.header.prefix_len = prefix;
        message.header.index = index;
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes =
            vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
        self.request(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// The addresses of an interface.
    pub(crate) fn addresses(&mut self, index: u32) -> io::Result<Vec<AddressMessage>> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        header.sequence_number = self.sequence;
        let question = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(question));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let mut found = Vec::new();
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(io::Error::other)?;
                // Each part of an answer begins at a multiple of four.
                let length = (answer.header.length as usize).next_multiple_of(4).max(4);
                rest = rest.get(length..).unwrap_or_default();
                match answer.payload {
                    NetlinkPayload::Done(_) => return Ok(found),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(address))
                        if address.header.index == index =>
                    {
                        found.push(address);
                    }
                    _ => {}
                }
            }
        }
    }

    /// Gives an interface an address that another one had.
    pub(crate) fn give_address(&mut self, index: u32, like: &AddressMessage) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = like.header.family;
        message.header.prefix_len = like.header.prefix_len;
        message.header.index = index;
        let kept = like.attributes.iter().filter(|one| crate::devices::portable(one));
        message.attributes = kept.cloned().collect();
        self.request(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Moves an interface into a network namespace, where it has this name.
    pub(crate) fn move_link(&mut self, index: u32, to: RawFd, name: &str) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes =
            vec![LinkAttribute::NetNsFd(to), LinkAttribute::IfName(name.to_owned())];
        self.request(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Removes a device.
    pub(crate) fn delete(&mut self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.request(RouteNetlinkMessage::DelLink(message), 0)
    }

    /// Sends whatever has no other way through an interface, to a gateway if there is one. Of two
    /// such routes the one with the smaller metric holds.
    pub(crate) fn add_default_route(
        &mut self,
        index: u32,
        like: IpAddr,
        gateway: Option<IpAddr>,
        metric: u32,
    ) -> io::Result<()> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(like);
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        message.attributes = vec![RouteAttribute::Oif(index), RouteAttribute::Priority(metric)];
        message.attributes.extend(gateway.map(|gateway| {
            RouteAttribute::Gateway(match gateway {
                IpAddr::V4(address) => RouteAddress::Inet(address),
                IpAddr::V6(address) => RouteAddress::Inet6(address),
            })
        }));
        self.request(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL)
    }
}

/// It may be there from before.
pub(crate) fn unless_there(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        done => done,
    }
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}
