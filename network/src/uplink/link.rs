//! The device between a container and the uplink: IP packets in, IP packets out.
//!
//! A tun device where there is one; where `/dev/net/tun` is closed, a packet socket on the other end
//! of a veth pair. Nothing passes a wire, so no transport checksum is ever computed: the kernel
//! tells us not to look, and we tell it the same.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use netlink_packet_route::link::{LinkAttribute, LinkFlags};
use smoltcp::wire::IpProtocol;

use super::packet;
use crate::netlink::Netlink;
use crate::sys::{self, OFFLOAD_HEADER};
use crate::{Error, Result};

/// What the container calls the device.
const NAME: &str = "eth0";
/// Our end of a veth pair.
const PEER: &str = "uplink0";
/// Bytes of a packet; so large that a segment holds what a socket buffer gives at once.
pub(super) const MTU: usize = 65_520;
/// Room for any packet; the kernel joins segments up to this.
pub(super) const LARGEST: usize = 65_535;

const ETHERNET_HEADER: usize = 14;

/// The interface of a container that is configured in the network namespace of this thread.
#[derive(Debug)]
pub(super) struct Link {
    fd: OwnedFd,
    /// What stands between offload header and packet: nothing, or an Ethernet header.
    frame: Vec<u8>,
}

impl Link {
    /// Makes and configures the device in the network namespace of this thread.
    pub(super) fn make(addresses: &[(IpAddr, u8)]) -> Result<Link> {
        let open = Error::system("opening", "the network configuration");
        let mut netlink = Netlink::open().map_err(open)?;
        let configure = Error::system("configuring", "the uplink's device");
        let loopback = sys::interface_index("lo")
            .and_then(|lo| netlink.up(lo, LinkFlags::empty(), Vec::new()));
        loopback.map_err(Error::system("starting", "the loopback device"))?;
        let (fd, frame) = match sys::tun(NAME) {
            Ok(fd) => (fd, Vec::new()),
            Err(_) => veth(&mut netlink).map_err(|source| Error::NoDevice { source })?,
        };
        let set_up = |netlink: &mut Netlink| -> io::Result<()> {
            let index = sys::interface_index(NAME)?;
            netlink.up(index, LinkFlags::Noarp, vec![LinkAttribute::Mtu(MTU as u32)])?;
            addresses.iter().try_for_each(|(address, prefix)| {
                netlink.add_address(index, *address, *prefix)?;
                netlink.add_default_route(index, *address)
            })
        };
        set_up(&mut netlink).map_err(configure)?;
        Ok(Link { fd, frame })
    }

    /// A link over any socket that keeps packets apart.
    #[cfg(test)]
    pub(super) fn over(fd: OwnedFd) -> Link {
        Link { fd, frame: Vec::new() }
    }

    /// Where packets begin in a buffer.
    fn head(&self) -> usize {
        OFFLOAD_HEADER + self.frame.len()
    }

    /// A buffer for any packet.
    pub(super) fn buffer(&self) -> Vec<u8> {
        vec![0; self.head() + LARGEST]
    }

    /// The next packet, in `buffer`; `None` when there is none now.
    pub(super) fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        match rustix::io::read(&self.fd, &mut *buffer) {
            Ok(count) => Ok(buffer.get(self.head()..count)),
            Err(rustix::io::Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends a packet of `length` bytes that `fill` writes. A packet that does not go is lost, as
    /// on any network.
    pub(super) fn send<R>(
        &self,
        buffer: &mut [u8],
        length: usize,
        fill: impl FnOnce(&mut [u8]) -> R,
    ) -> R {
        let head = self.head();
        let (header, packet) = buffer[..head + length].split_at_mut(head);
        let result = fill(packet);
        header.fill(0);
        if let Some((start, field)) = packet::partial_checksum(packet) {
            const NEEDS_CHECKSUM: u8 = 1;
            header[0] = NEEDS_CHECKSUM;
            let start = (start + self.frame.len()) as u16;
            header[6..8].copy_from_slice(&start.to_ne_bytes());
            header[8..10].copy_from_slice(&(field as u16).to_ne_bytes());
        }
        if let Some(kind) = self.frame.len().checked_sub(2) {
            let frame = &mut header[OFFLOAD_HEADER..];
            frame.copy_from_slice(&self.frame);
            let protocol = if packet[0] >> 4 == 4 { libc::ETH_P_IP } else { libc::ETH_P_IPV6 };
            frame[kind..].copy_from_slice(&(protocol as u16).to_be_bytes());
        }
        if let Err(error) = rustix::io::write(&self.fd, &buffer[..head + length]) {
            tracing::trace!(%error, length, "a packet is lost");
        }
        result
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A veth pair whose one end is a packet socket; gives the Ethernet header of what we send too.
fn veth(netlink: &mut Netlink) -> io::Result<(OwnedFd, Vec<u8>)> {
    netlink.add_veth(NAME, PEER)?;
    let (inside, peer) = (sys::interface_index(NAME)?, sys::interface_index(PEER)?);
    let fd = sys::packet_socket(peer)?;
    let mtu = vec![LinkAttribute::Mtu(MTU as u32)];
    netlink.up(peer, LinkFlags::Noarp, mtu)?;
    let address = sys::hardware_address(fd.as_fd(), NAME)?;
    tracing::trace!(inside, peer, "a veth pair");
    let mut frame = vec![0; ETHERNET_HEADER];
    frame[..6].copy_from_slice(&address);
    frame[6..12].copy_from_slice(&address);
    // Ours, not a copy of the container's: locally administered.
    frame[6] = 2;
    Ok((fd, frame))
}

/// Whether a packet of this protocol carries a checksum that is left to the reader, and where.
pub(super) fn checksum_field(protocol: IpProtocol) -> Option<usize> {
    match protocol {
        IpProtocol::Tcp => Some(16),
        IpProtocol::Udp => Some(6),
        _ => None,
    }
}
